"""The site that is examined, and browsers that visit it: each has a cookie jar of its own, or none.

Every request takes a connection of its own, so that what goes by connections is seen as well as what goes by
requests. Redirects are answers, not followed: what was given with `--cookie` and `--header` goes to the site
alone, and is masked in everything that is shown.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

import proxy

PATIENCE = 20.0  # seconds for an answer, as the page waits for a connection
SHOWN = 160  # characters of a body that are evidence
_LOOKED_AT = 1 << 16  # bytes of it
_MOST = 8 << 20  # bytes of a body that are read, once it is decompressed: pages and assets are smaller
SOCKET = "/ws/socket.io/"
_AGENT = f"Mozilla/5.0 (compatible; chainlit-proxy-doctor/{proxy.__version__}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command was told."""

    url: URL  # without a slash at its end, a user or a query
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    say: str = ""
    idle: float = 0.0  # seconds of silence; 0: not tried
    large: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; status 0 if nothing was, and `text` tells why."""

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    text: str = ""
    mask: Callable[[str], str] = str

    def __str__(self) -> str:
        # Masked before it is cut: half a secret would not be known for one.
        said = self.mask(self.body[:_LOOKED_AT].decode(errors="replace"))
        shown = self.text or " ".join(said.split())
        if len(shown) > SHOWN:
            shown = shown[:SHOWN] + "..."
        return f"{self.asked}: {self.status or 'no answer'} in {1000 * self.seconds:.0f} ms {shown}".rstrip()


class Site:
    """What is examined: the settings, what was learnt of the site, and what was sent to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cookies = dict(settings.cookies)  # and those of a login by header
        self.trust: ssl.SSLContext | bool = True  # False once its certificate is known to be bad
        self.login = False  # whether the app asks for one
        self.websockets = True  # whether upgrades get through
        self.user_env: list[str] = []  # names of variables that the app wants of its users
        self.root = settings.url.path.rstrip("/")
        self.sent: Counter[str] = Counter()
        self.sent_bytes = 0
        self._browsers = count(1)

    def __repr__(self) -> str:
        return f"<Site {self.settings.url} {self.sent.total()} requests>"

    @property
    def has_credentials(self) -> bool:
        """Whether something was given to log in with."""
        return bool(self.settings.cookies or self.settings.headers)

    def mask(self, text: str) -> str:
        """A text without what was given as a secret."""
        secrets = [*self.settings.headers.values(), *self.cookies.values()]
        for secret in sorted(secrets, key=len, reverse=True):
            parts = {secret, *secret.split(), secret.strip('"')}
            for part in sorted(parts, key=len, reverse=True):
                if len(part) > 3:
                    text = text.replace(part, "***")
        return text

    def number(self) -> int:
        """A new browser's number."""
        return next(self._browsers)


class Browser:
    """One visitor; `async with Browser(site)`. Without cookies it is one that keeps none."""

    def __init__(self, site: Site, *, cookies: bool = True) -> None:
        self.site = site
        jar = aiohttp.CookieJar(unsafe=True) if cookies else aiohttp.DummyCookieJar()
        if cookies:
            jar.update_cookies(site.cookies, site.settings.url)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, ssl=site.trust, limit=0),
            cookie_jar=jar,
            # Another one for each browser: where clients are told apart by it, they are.
            headers={"User-Agent": f"{_AGENT}; {site.number()})", **site.settings.headers},
            trace_configs=[_staying()],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    @property
    def origin(self) -> str:
        """What a page of this site names as its origin."""
        return str(self.site.settings.url.origin())

    async def ask(
        self,
        method: str,
        path: str,
        *,
        told: str = "",
        patience: float = PATIENCE,
        outside: bool = False,
        **options: Any,
    ) -> Answer:
        """One request below the root path, or to this very path of the host if `outside`. Never raises.

        `told` is how it is shown, where the path has an id in it.
        """
        url = self.site.settings.url.origin() / (path if outside else self.site.root + path).lstrip("/")
        asked = printable(self.site.mask(f"{method} {told or path}"))  # the site names some paths itself
        self._count(asked, options)
        begun = time.monotonic()
        if method != "GET":
            options["headers"] = {"Origin": self.origin, **options.get("headers", {})}
        try:
            async with (
                asyncio.timeout(patience),
                self._http.request(method, url, allow_redirects=False, **options) as response,
            ):
                body = b""
                while len(body) < _MOST and (chunk := await response.content.readany()):
                    body += chunk
                spent = time.monotonic() - begun
                return Answer(asked, response.status, response.headers, body, spent, mask=self.site.mask)
        except TimeoutError:
            return Answer(asked, 0, {}, b"", time.monotonic() - begun, f"nothing within {patience:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            return Answer(asked, 0, {}, b"", time.monotonic() - begun, text)

    async def websocket(
        self, query: Mapping[str, str], told: str
    ) -> aiohttp.ClientWebSocketResponse | Answer:
        """A websocket, or the answer that refused it."""
        url = self.site.settings.url.origin() / (self.site.root + SOCKET).lstrip("/")
        asked = f"GET {told}"
        self._count(asked, {})
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._http.ws_connect(
                    url % dict(query),
                    origin=self.origin,
                    max_msg_size=_MOST,
                    timeout=aiohttp.ClientWSTimeout(ws_close=0.05),
                )
        except aiohttp.WSServerHandshakeError as error:
            headers: Mapping[str, str] = error.headers or {}
            text = "in place of 101, no websocket"
            return Answer(asked, error.status, headers, b"", time.monotonic() - begun, text)
        except TimeoutError:
            return Answer(asked, 0, {}, b"", time.monotonic() - begun, f"nothing within {PATIENCE:g} s")
        except (aiohttp.ClientError, OSError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            return Answer(asked, 0, {}, b"", time.monotonic() - begun, text)

    def _count(self, asked: str, options: Mapping[str, Any]) -> None:
        self.site.sent[asked] += 1
        data = options.get("data")
        if isinstance(data, (str, bytes)):
            self.site.sent_bytes += len(data)


def printable(text: str) -> str:
    """Without what a site might have a terminal do."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _staying() -> aiohttp.TraceConfig:
    """Has a redirect end a websocket, which aiohttp would follow: for requests it is an answer."""

    async def redirected(_http: object, _context: object, met: aiohttp.TraceRequestRedirectParams) -> None:
        response = met.response
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info, (), status=response.status, headers=response.headers
        )

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(redirected)
    return tracing
