"""What is found of pages, versions, logins and addresses, before stand-ins that answer as faulty sites do."""

import asyncio
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
from proxy.doctor.findings import Severity, Verdict
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


def test_nothing_given_goes_to_a_stranger(tmp_path: Path) -> None:
    """Where the certificate is not the site's, no request is sent that bears what was given."""
    pair = Authority(tmp_path).issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair["cert"], pair["key"])
    asked = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return page()

    async def run(**settings: Any) -> dict[str, Severity]:
        runner = web.ServerRunner(web.Server(serve))
        await runner.setup()
        listener = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await listener.start()
        port = runner.addresses[0][1]
        try:
            report = await examine(Settings(URL(f"https://127.0.0.1:{port}/"), **settings))
        finally:
            await runner.cleanup()
        return {finding.name: finding.severity for finding in report.findings}

    found = asyncio.run(run(cookies={"access_token": SECRET}))
    assert found.pop("tls") is Severity.FAILED
    assert set(found.values()) == {Severity.SKIPPED}
    assert asked == []
    found = asyncio.run(run())
    assert (found["tls"], found["page"]) == (Severity.FAILED, Severity.PASSED)
