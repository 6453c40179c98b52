"""What is found of pages, versions, logins and addresses, before stand-ins that answer as faulty sites do."""

import asyncio
import datetime as dt
import itertools
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from proxy.doctor import pages
from proxy.doctor.browser import Settings, Site
from proxy.doctor.examination import examine
from proxy.doctor.findings import Finding, Severity, Verdict
from tests.doctor.site import Handler, deployment, page, says
from tests.support.certificates import Authority

SECRET = "token-that-nobody-may-see"
NO_LOGIN = {"requireLogin": False, "oauthProviders": []}


def verdict(
    check: Callable[[Site], Awaitable[Verdict]], answers: dict[str, Handler], **settings: Any
) -> Verdict:
    """What a check says of a site with these answers."""

    async def run() -> Verdict:
        async with deployment(answers, **settings) as site:
            return await check(site)

    return asyncio.run(run())


def in_turn(*answers: web.Response | str) -> Handler:
    """As instances of which each answers another way."""
    turn: Iterator[web.Response | str] = itertools.cycle(answers)

    async def answer(_: web.Request) -> web.StreamResponse:
        found = next(turn)
        return page(found) if isinstance(found, str) else web.Response(status=found.status, text=found.text)

    return answer


async def redirects(_: web.Request) -> web.StreamResponse:
    """Elsewhere, with something in the query that nobody is to see."""
    return web.Response(status=302, headers={"Location": f"https://login.example.com/?state={SECRET}"})


def test_another_page_is_not_chainlits() -> None:
    """A page without Chainlit's marks is a failure, and so is none, and one that leads elsewhere."""
    for handler in (says({"hello": 1}), says({}, status=503), redirects):
        found = verdict(pages.page, {"/": handler})
        assert found.severity is Severity.FAILED
        assert SECRET not in str(found)
    assert verdict(pages.page, {}).severity is Severity.PASSED


def test_different_builds_are_different_versions() -> None:
    """Pages that name different assets come from different versions."""
    assert verdict(pages.versions, {"/": in_turn("1", "2")}).severity is Severity.FAILED


def test_an_asset_that_one_instance_lacks_is_found() -> None:
    """So do assets that only some instances have, or in whose place there is the page."""
    good, bad = web.Response(text="js"), web.Response(status=404, text="no")
    found = verdict(pages.versions, {"/assets/index-1.js": in_turn(good, bad)})
    assert found.severity is Severity.FAILED
    assert "/assets/index-1.js: 404" in found.evidence[0]
    assert verdict(pages.versions, {}).severity is Severity.FAILED  # the page is what it answers there
    assert verdict(pages.versions, {"/assets/index-1.js": in_turn(good)}).severity is Severity.PASSED


@pytest.mark.parametrize(
    ("path", "root", "severity"),
    [
        ("/chat", "/chat", Severity.PASSED),
        ("/chat", "", Severity.FAILED),
        ("/", "/chat", Severity.FAILED),
    ],
)
def test_the_root_path_is_that_of_the_address(path: str, root: str, severity: Severity) -> None:
    """The app has to know the path that users have."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return page(root=root)

    answers = {"/": answer, "/chat/": answer, "/chat/auth/config": says(NO_LOGIN)}
    assert verdict(pages.root_path, answers, path=path).severity is severity


def test_a_login_at_some_instances_only_is_a_secret_that_differs() -> None:
    """A token that one takes and the other refuses: the secrets differ."""
    user = in_turn(web.Response(text="{}"), web.Response(status=401, text="{}"))
    answers = {"/auth/config": says({"requireLogin": True}), "/user": user}

    async def run() -> tuple[Verdict, Verdict]:
        async with deployment(answers, cookies={"access_token": SECRET}) as site:
            return await pages.login(site), await pages.secret(site)

    login, secret = asyncio.run(run())
    assert login.severity is Severity.PASSED
    assert secret.severity is Severity.FAILED
    assert secret.what.startswith("8 of 16")


@pytest.mark.parametrize(("address", "severity"), [("", Severity.PASSED), ("http://a/x", Severity.FAILED)])
def test_the_redirect_address_of_oauth(address: str, severity: Severity) -> None:
    """Providers have to be told the address that users have."""

    async def start(request: web.Request) -> web.StreamResponse:
        own = f"http://{request.host}/auth/oauth/github/callback"
        location = f"https://github.com/login?redirect_uri={address or own}&state={SECRET}"
        return web.Response(status=307, headers={"Location": location})

    answers = {"/auth/config": says({"oauthProviders": ["github"]}), "/auth/oauth/github": start}
    found = verdict(pages.oauth_redirect, answers)
    assert found.severity is severity
    assert SECRET not in str(found)


def test_an_origin_that_is_refused_is_found() -> None:
    """What refuses the page's own Origin is told with both answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=403 if "Origin" in request.headers else 200)

    assert verdict(pages.origin, {"/auth/config": answer}).severity is Severity.FAILED
    assert verdict(pages.origin, {}).severity is Severity.PASSED


def test_a_site_without_https_is_told() -> None:
    """On this machine http:// is as it should be, elsewhere it is a warning, without any request."""
    away = Site(Settings(URL("http://chat.example.com/")))
    assert asyncio.run(pages.tls(away)).severity is Severity.WARNING
    here = Site(Settings(URL("http://127.0.0.1:8000/")))
    assert asyncio.run(pages.tls(here)).severity is Severity.SKIPPED


async def over_tls(context: ssl.SSLContext, asked: list[str], **settings: Any) -> dict[str, Finding]:
    """What is found of a site with this certificate; `asked` gets the paths that were asked for."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return page()

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    try:
        report = await examine(Settings(URL(f"https://127.0.0.1:{port}/"), **settings))
    finally:
        await runner.cleanup()
    return {finding.name: finding for finding in report.findings}


def certified(authority: Authority, days: float = 300) -> ssl.SSLContext:
    """A server's side, with a certificate that lasts so long."""
    pair = authority.issue("127.0.0.1", expires=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair["cert"], pair["key"])
    return context


def test_nothing_given_goes_to_a_stranger(tmp_path: Path) -> None:
    """Where the certificate is not the site's, no request is sent that bears what was given."""
    context, asked = certified(Authority(tmp_path)), list[str]()
    found = asyncio.run(over_tls(context, asked, cookies={"access_token": SECRET}))
    assert found.pop("tls").severity is Severity.FAILED
    assert {finding.severity for finding in found.values()} == {Severity.SKIPPED}
    assert asked == []
    found = asyncio.run(over_tls(context, asked))
    assert found["tls"].severity is Severity.FAILED
    assert found["page"].severity is Severity.PASSED


@pytest.mark.parametrize(("days", "severity"), [(300, Severity.PASSED), (5, Severity.WARNING)])
def test_a_certificate_should_last(
    days: float, severity: Severity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends soon is told before it has; an authority of one's own is named by SSL_CERT_FILE."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    found = asyncio.run(over_tls(certified(authority, days), [], cookies={"access_token": SECRET}))
    assert found["tls"].severity is severity
    assert found["page"].severity is Severity.PASSED
