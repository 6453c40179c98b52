"""Checks of what a page asks before it connects: certificate, page, assets, login, addresses, cookies."""

import asyncio
import re
import ssl
import time
from collections.abc import Iterable
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp

from proxy.doctor.browser import SOCKET, Answer, Browser, Site
from proxy.doctor.findings import Verdict, failed, passed, skipped, warning
from proxy.doctor.tab import body_of

LOADS = 8  # page loads, each by another browser: of two instances one would be missed once in 128 times
_ASSETS = 3  # of a page that are fetched
_PROVIDERS = 20  # that are asked for: Chainlit knows fewer (chainlit/oauth_providers.py)
SOON = 14.0  # days that a certificate should still last
_DAY = 86400.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ASSET = re.compile(r"""(?:src|href)="([^"]*/assets/[^"]+\.(?:js|css))\"""")
_ROOT = re.compile(r'og:root_path" content="([^"]*)"')


async def tls(site: Site) -> Verdict:
    """The certificate, and whether http:// leads to https://."""
    url = site.settings.url
    host = str(url.host)
    if url.scheme == "http":
        if host in _LOOPBACK:
            return skipped("http:// on this machine")
        return warning("the site is open without HTTPS", [f"{url}: what is said can be read on the way"])
    site.trust = ssl.create_default_context()
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(host, url.port, ssl=site.trust)
    except ssl.SSLError as error:
        site.trust = False
        return failed(
            "browsers refuse the certificate", [f"{host}:{url.port}: {error.reason or error}: {error}"]
        )
    except (TimeoutError, OSError) as error:
        return skipped(f"nobody answers at {host}:{url.port}: {error or 'nothing within 10 s'}")
    try:
        certificate = writer.get_extra_info("peercert") or {}
    finally:
        writer.close()
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / _DAY
    evidence = [f"{host}:{url.port}: its certificate lasts {days:.0f} more days"]
    if days < SOON:
        return warning("the certificate ends soon", evidence)
    if url.port == 443:
        evidence.append(line := await _without_https(host))
        if line.endswith("not redirected"):
            return warning("http:// is not redirected to https://", evidence)
    return passed("the certificate is right", evidence)


async def _without_https(host: str) -> str:
    """What port 80 says; without anything that was given as a secret."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http,
            http.get(f"http://{host}/", allow_redirects=False) as response,
        ):
            location = response.headers.get("Location", "")
            if location.startswith("https://"):
                return f"http://{host}/: {response.status} to {location}"
            return f"http://{host}/: {response.status}, not redirected"
    except (aiohttp.ClientError, TimeoutError, OSError):
        return f"http://{host}/: closed"


async def page(site: Site) -> Verdict:
    """Whether Chainlit's page is there."""
    async with Browser(site) as browser:
        answer = await browser.ask("GET", "/")
    if answer.status in {301, 302, 303, 307, 308}:
        location = answer.headers.get("Location", "").partition("?")[0]
        return failed(f"it redirects: examine {location}", [f"{answer} to {location}"])
    if answer.status != 200:
        return failed("there is no page", [str(answer)])
    if not _ROOT.search(text_of(answer)):
        return failed("the page is not Chainlit's", [str(answer)])
    return passed("it is Chainlit's", [f"{answer.asked}: 200 in {1000 * answer.seconds:.0f} ms"])


async def root_path(site: Site) -> Verdict:
    """Whether the app knows the path that it is below."""
    async with Browser(site) as browser:
        found = _ROOT.search(text_of(await browser.ask("GET", "/")))
        if found is None:
            return skipped("the page does not tell its root path")
        if (root := found[1].rstrip("/")) != site.root:
            what = f"the app says {root or '/'}, the address {site.root or '/'}"
            return failed(what, [f'GET /: og:root_path is "{found[1]}"'])
        # Any other path is answered with the page, so a prefix that is taken off shows at the API alone.
        answer = await browser.ask("GET", "/auth/config")
    if "requireLogin" not in body_of(answer):
        return failed("the API is not below it", [str(answer)])
    return passed(site.root or "there is none")


async def versions(site: Site) -> Verdict:
    """Whether all instances have the same page, and each the assets of it."""
    pages = await _by_different(site, "/", LOADS)
    sets = {tuple(sorted(set(_ASSET.findall(text_of(answer))))) for answer in pages if answer.status == 200}
    bad = [str(answer) for answer in pages if answer.status != 200]
    if bad:
        return failed(f"{len(bad)} of {LOADS} page loads failed", bad[:3])
    if len(sets) > 1:
        return failed(
            f"{len(sets)} different pages", [f"GET /: {', '.join(names)}" for names in sorted(sets)]
        )
    base = str(site.settings.url.origin())
    names = sets.pop()[:_ASSETS]
    for name in names:
        path = urlsplit(urljoin(f"{base}{site.root}/", name)).path
        answers = await _by_different(site, path, LOADS // 2, asset=True)
        bad = [str(answer) for answer in answers if answer.status not in {200, 206} or _is_html(answer)]
        if bad:
            return failed("assets of the page are missing", bad[:3])
    return passed(f"{LOADS} page loads name the same assets, and those are there")


async def login(site: Site) -> Verdict:
    """Whether the app asks for a login, and takes the one that was given."""
    async with Browser(site) as browser:
        config = body_of(await browser.ask("GET", "/auth/config"))
        site.login = bool(config.get("requireLogin"))
        if site.login and config.get("headerAuth") and site.settings.headers:
            entered = await browser.ask("POST", "/auth/header")
            for line in getattr(entered.headers, "getall", lambda *_: [])("Set-Cookie", []):
                site.cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
    if not site.login:
        await _learn_settings(site)
        return passed("the app asks for none")
    if not site.has_credentials:
        return warning("the app asks for one, and none was given: nothing behind it was tried")
    answers = await _by_different(site, "/user", LOADS)
    if not any(answer.status == 200 for answer in answers):
        return failed("it is not accepted", sorted({f"{one.asked}: {one.status}" for one in answers}))
    await _learn_settings(site)
    return passed("it is accepted")


async def _learn_settings(site: Site) -> None:
    """What the app wants of its users; of several answers one that is one."""
    for answer in await _by_different(site, "/project/settings", 2):
        if isinstance(names := body_of(answer).get("userEnv"), list):
            site.user_env = [str(name) for name in names]


async def secret(site: Site) -> Verdict:
    """Whether a login is one at every instance."""
    if not site.login:
        return skipped("the app asks for no login")
    answers = await _by_different(site, "/user", 2 * LOADS)
    bad = [answer for answer in answers if answer.status != 200]
    if not bad:
        return passed(f"{len(answers)} of {len(answers)} requests were taken for logged in")
    what = f"{len(answers) - len(bad)} of {len(answers)} requests with one login were taken for logged in"
    return failed(what, sorted({f"{one.asked}: {one.status}" for one in bad}))


async def oauth_redirect(site: Site) -> Verdict:
    """Whether the address to which providers send users back is this one."""
    async with Browser(site) as browser:
        providers = body_of(await browser.ask("GET", "/auth/config")).get("oauthProviders") or []
        if not providers:
            return skipped("the app has no OAuth")
        evidence, wrong = [], False
        for provider in providers[:_PROVIDERS]:
            answer = await browser.ask("GET", f"/auth/oauth/{provider}")
            query = parse_qs(urlsplit(answer.headers.get("Location", "")).query)
            address = query.get("redirect_uri", [""])[0]
            wanted = f"{browser.origin}{site.root}/auth/oauth/{provider}/callback"
            evidence.append(
                f"{answer.asked}: {answer.status}, redirect_uri={address or 'none'}, not {wanted}"
            )
            if address == wanted:
                evidence[-1] = f"{answer.asked}: {answer.status}, redirect_uri={address}"
            wrong = wrong or address != wanted
    if wrong:
        return failed("providers are told another address", evidence)
    return passed("providers are told this address", evidence)


async def origin(site: Site) -> Verdict:
    """Whether the Origin of this very page is refused anywhere."""
    evidence, wrong = [], False
    async with Browser(site) as browser:
        handshake = {"EIO": "4", "transport": "polling"}
        asked: tuple[tuple[str, str, dict[str, str]], ...] = (
            (f"{SOCKET}?transport=polling", SOCKET, handshake),
            ("/auth/config", "/auth/config", {}),
        )
        for told, path, query in asked:
            with_it = await browser.ask(
                "GET", path, told=told, headers={"Origin": browser.origin}, params=query
            )
            without = await browser.ask("GET", path, told=told, params=query)
            if with_it.status >= 400 and without.status < 400:
                wrong = True
                evidence += [f"with Origin {browser.origin}: {with_it}", f"without: {without.status}"]
    return failed("the page's own Origin is refused", evidence) if wrong else passed("it is accepted")


async def session_cookie(site: Site) -> Verdict:
    """Whether browsers keep Chainlit's own cookie, and Copilot on another site does."""
    async with Browser(site) as browser:
        answer = await browser.ask("POST", "/set-session-cookie", json={"session_id": "doctor-" + "0" * 8})
    line = answer.headers.get("Set-Cookie", "")
    morsel = next(iter(SimpleCookie(line).values()), None)
    if morsel is None:
        return warning("the app sets none", [str(answer)])
    flags = f"{'Secure' if morsel['secure'] else 'not Secure'}, SameSite={morsel['samesite'] or 'none given'}"
    evidence = [f"{answer.asked}: {answer.status}, {flags}"]
    secure = site.settings.url.scheme == "https"
    if morsel["secure"] and not secure and site.settings.url.host not in _LOOPBACK:
        return warning("browsers drop it: it is for HTTPS, and the page is not", evidence)
    if secure and not morsel["secure"]:
        return warning("the app takes its users for local ones; Copilot elsewhere does not get it", evidence)
    return passed("browsers keep it", evidence)


async def _by_different(site: Site, path: str, times: int, *, asset: bool = False) -> list[Answer]:
    """The same by so many browsers; of an asset the first byte, below the host."""
    headers = {"Range": "bytes=0-0"} if asset else {}

    async def one() -> Answer:
        async with Browser(site) as browser:
            return await browser.ask("GET", path, outside=asset, headers=headers)

    return await asyncio.gather(*(one() for _ in range(times)))


def text_of(answer: Answer) -> str:
    """The body as text."""
    return answer.body.decode(errors="replace")


def _is_html(answer: Answer) -> bool:
    return "html" in answer.headers.get("Content-Type", "")


def several(lines: Iterable[str], most: int = 3) -> list[str]:
    """Different lines, in their order, and no more than that."""
    return list(dict.fromkeys(lines))[:most]
