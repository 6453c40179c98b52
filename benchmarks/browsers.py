"""Browsers that differ as real ones do: the fields of several families and versions, cookies, addresses.

A browser is made from its number, so every proxy is asked by the same ones. Families have their own
order of fields, and their own for a GET, a POST and a websocket, as they send them over HTTP/1.1. Cookies are
those of Chainlit's login, whose length depends on what the identity provider tells, and whatever the site
sets besides. Each browser has an address of its own in 127.0.0.0/8.
"""

import random
import uuid
from base64 import b64encode
from typing import NamedTuple

# In what shares they come; each is a family, its platform, and whether it is a phone.
_SHARES = (
    ("chrome", "Windows NT 10.0; Win64; x64", "Windows", 30),
    ("chrome", "Macintosh; Intel Mac OS X 10_15_7", "macOS", 12),
    ("chrome", "X11; Linux x86_64", "Linux", 4),
    ("mobile", "Linux; Android 10; K", "Android", 14),
    ("edge", "Windows NT 10.0; Win64; x64", "Windows", 12),
    ("firefox", "Windows NT 10.0; Win64; x64", "", 7),
    ("firefox", "X11; Linux x86_64", "", 4),
    ("safari", "Macintosh; Intel Mac OS X 10_15_7", "", 8),
    ("iphone", "iPhone; CPU iPhone OS 18_5 like Mac OS X", "", 9),
)
_LANGUAGES = (
    "en-US,en;q=0.9",
    "en-GB,en-US;q=0.9,en;q=0.8",
    "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
    "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7",
    "es-ES,es;q=0.9,en;q=0.8",
    "pt-BR,pt;q=0.9,en-US;q=0.8,en;q=0.7",
    "ja,en-US;q=0.9,en;q=0.8",
    "nl-NL,nl;q=0.9,en-US;q=0.8,en;q=0.7,de;q=0.6",
    "zh-CN,zh;q=0.9,en;q=0.8",
    "pl",
)
_AGENT = "User-Agent: Mozilla/5.0 ({system})"
_WEBKIT = " AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.0.0"
_CHROMIUM_BRANDS = '"Chromium";v="{version}", "{brand}";v="{version}", "Not=A?Brand";v="{grease}"'

# Where a request has lines of its own: {body} those of a body, {origin} and {key} as the browser says them.
_CHROMIUM = {
    "GET": (
        "Host: {host}\r\nConnection: keep-alive\r\nsec-ch-ua-platform: {platform}\r\n{agent}\r\n"
        "Accept: */*\r\nsec-ch-ua: {brands}\r\nsec-ch-ua-mobile: {mobile}\r\n{wishes}"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
        "Referer: http://{host}/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: {languages}\r\n{cookie}\r\n"
    ),
    "POST": (
        "Host: {host}\r\nConnection: keep-alive\r\nContent-Length: {size}\r\n"
        "sec-ch-ua-platform: {platform}\r\n{agent}\r\nsec-ch-ua: {brands}\r\nContent-type: {kind}\r\n"
        "sec-ch-ua-mobile: {mobile}\r\n{wishes}Accept: */*\r\nOrigin: http://{host}\r\n"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
        "Referer: http://{host}/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        "Accept-Language: {languages}\r\n{cookie}\r\n"
    ),
    "WEBSOCKET": (
        "Host: {host}\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n{agent}\r\n"
        "Upgrade: websocket\r\nOrigin: http://{host}\r\nSec-WebSocket-Version: 13\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: {languages}\r\n{cookie}"
        "Sec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    ),
}
_FIREFOX = {
    "GET": (
        "Host: {host}\r\n{agent}\r\nAccept: */*\r\nAccept-Language: {languages}\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n{wishes}Connection: keep-alive\r\n"
        "Referer: http://{host}/\r\n{cookie}Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\n"
        "Sec-Fetch-Site: same-origin\r\nPriority: u=4\r\n\r\n"
    ),
    "POST": (
        "Host: {host}\r\n{agent}\r\nAccept: */*\r\nAccept-Language: {languages}\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\nContent-type: {kind}\r\nContent-Length: {size}\r\n"
        "Origin: http://{host}\r\n{wishes}Connection: keep-alive\r\nReferer: http://{host}/\r\n{cookie}"
        "Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n"
        "Priority: u=0\r\n\r\n"
    ),
    "WEBSOCKET": (
        "Host: {host}\r\n{agent}\r\nAccept: */*\r\nAccept-Language: {languages}\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\nOrigin: http://{host}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: {key}\r\n{wishes}"
        "Connection: keep-alive, Upgrade\r\n{cookie}Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\n"
        "Sec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
        "Upgrade: websocket\r\n\r\n"
    ),
}
_SAFARI = {
    "GET": (
        "Host: {host}\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n{cookie}Sec-Fetch-Dest: empty\r\n"
        "Accept-Language: {languages}\r\nSec-Fetch-Mode: cors\r\n{agent}\r\nReferer: http://{host}/\r\n"
        "Accept-Encoding: gzip, deflate\r\nPriority: u=3, i\r\nConnection: keep-alive\r\n\r\n"
    ),
    "POST": (
        "Host: {host}\r\nContent-Type: {kind}\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n"
        "Accept-Language: {languages}\r\nAccept-Encoding: gzip, deflate\r\nSec-Fetch-Mode: cors\r\n"
        "Origin: http://{host}\r\n{agent}\r\nContent-Length: {size}\r\nReferer: http://{host}/\r\n"
        "Sec-Fetch-Dest: empty\r\n{cookie}Priority: u=3, i\r\nConnection: keep-alive\r\n\r\n"
    ),
    "WEBSOCKET": (
        "Host: {host}\r\nSec-Fetch-Dest: websocket\r\n{agent}\r\nUpgrade: websocket\r\n"
        "Origin: http://{host}\r\nSec-Fetch-Mode: websocket\r\nCache-Control: no-cache\r\n{cookie}"
        "Sec-WebSocket-Version: 13\r\nAccept-Language: {languages}\r\nPragma: no-cache\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-Fetch-Site: same-origin\r\n"
        "Accept-Encoding: gzip, deflate\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    ),
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TEXT = "text/plain;charset=UTF-8"


class Traits(NamedTuple):
    """What makes one browser different from another."""

    templates: dict[str, str]
    values: dict[str, str]  # of the fields
    cookies: dict[str, str]  # that it has before it comes
    address: str
    key: str  # of its websocket


def traits(number: int) -> Traits:
    """The browser with this number; the same one each time."""
    rng = random.Random(number)
    family, system, platform, _ = rng.choices(_SHARES, [share[-1] for share in _SHARES])[0]
    templates, values = _family(family, system, platform, rng)
    values["languages"] = rng.choice(_LANGUAGES)
    values["wishes"] = "DNT: 1\r\n" if rng.random() < 0.1 else ""
    return Traits(
        templates,
        values,
        _cookies(rng),
        f"127.{1 + number // 50_000 % 250}.{number // 250 % 200}.{1 + number % 250}",
        b64encode(rng.randbytes(16)).decode(),
    )


def _family(
    family: str, system: str, platform: str, rng: random.Random
) -> tuple[dict[str, str], dict[str, str]]:
    agent = _AGENT.format(system=system)
    if family == "firefox":
        version = rng.choice(("128", "140", "143", "144", "145"))
        agent = agent.replace(")", f"; rv:{version}.0)") + f" Gecko/20100101 Firefox/{version}.0"
        return _FIREFOX, {"agent": agent}
    if family in ("safari", "iphone"):
        version = f"{rng.choice((17, 18, 26))}.{rng.randrange(7)}"
        phone = " Mobile/15E148" if family == "iphone" else ""
        agent += f" AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{version}{phone} Safari/"
        return _SAFARI, {"agent": agent + ("604.1" if phone else "605.1.15")}
    version = str(rng.randrange(136, 143))
    agent += _WEBKIT.format(version=version) + (" Mobile" if family == "mobile" else "") + " Safari/537.36"
    if family == "edge":
        agent += f" Edg/{version}.0.0.0"
    brand = "Microsoft Edge" if family == "edge" else "Google Chrome"
    brands = _CHROMIUM_BRANDS.format(version=version, brand=brand, grease=rng.choice((8, 24, 99)))
    mobile = "?1" if family == "mobile" else "?0"
    return _CHROMIUM, {"agent": agent, "brands": brands, "mobile": mobile, "platform": f'"{platform}"'}


def _cookies(rng: random.Random) -> dict[str, str]:
    """A login's token among what the site sets; one in five sites has no login, one in four sets nothing."""
    cookies = {}
    if rng.random() < 0.75:
        cookies["_ga"] = f"GA1.1.{rng.randrange(10**9)}.{rng.randrange(17 * 10**8, 18 * 10**8)}"
        cookies[f"_ga_{_word(rng, 10).upper()}"] = (
            f"GS2.1.s{rng.randrange(17 * 10**8, 18 * 10**8)}$o{rng.randrange(30)}$g1$t{rng.randrange(10**9)}"
        )
    if rng.random() < 0.4:
        cookies["csrftoken"] = _word(rng, 32)
    if rng.random() < 0.3:
        cookies["consent"] = f"v2.{_word(rng, rng.randrange(20, 120))}"
    if rng.random() < 0.8:
        cookies["access_token"] = (
            f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{_word(rng, rng.randrange(180, 1200))}.{_word(rng, 43)}"
        )
    if rng.random() < 0.3:
        cookies["theme"] = rng.choice(("dark", "light"))
    return cookies


def _word(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(_LETTERS, k=length))


class Browser:
    """One tab of a browser, which keeps the cookies that it is given; each work makes some."""

    def __init__(self, number: int, host: str) -> None:
        self._traits = own = traits(number)
        self.address = own.address
        self.session = str(uuid.uuid4())  # of its tab: a new one each time
        self.cookies = dict(own.cookies)
        self._values = own.values | {"host": host}
        self._cookie()

    def _cookie(self) -> None:
        line = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._values["cookie"] = f"Cookie: {line}\r\n" if line else ""

    def keep(self, cookies: list[tuple[str, str]]) -> None:
        """Keeps what an answer sets, and says from now on whatever `cookies` has."""
        self.cookies.update(cookies)
        self._cookie()

    def get(self, target: bytes) -> bytes:
        """A GET request."""
        return self._say("GET", target, {})

    def post(self, target: bytes, body: bytes, kind: str = _TEXT) -> bytes:
        """A POST request."""
        return self.post_head(target, len(body), kind) + body

    def post_head(self, target: bytes, size: int, kind: str = "application/octet-stream") -> bytes:
        """A POST request up to its body."""
        return self._say("POST", target, {"size": size, "kind": kind})

    def upgrade(self, target: bytes) -> bytes:
        """The request for a websocket."""
        return self._say("WEBSOCKET", target, {"key": self._traits.key})

    def _say(self, what: str, target: bytes, more: dict[str, str | int]) -> bytes:
        block = self._traits.templates[what].format(**self._values, **more)
        return (b"POST " if what == "POST" else b"GET ") + target + b" HTTP/1.1\r\n" + block.encode()
