"""The report and the command: what is shown, what is not, and how it ends."""

import asyncio
import contextlib
import json
import socket

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from yarl import URL

from proxy.cli import main
from proxy.cli.doctor import read
from proxy.doctor import report as shown
from proxy.doctor.browser import SOCKET, Browser, Settings, Site
from proxy.doctor.examination import STEPS, examine
from proxy.doctor.findings import Finding, Report, Severity, Verdict, failed, passed
from proxy.doctor.sessions import upgrade
from proxy.doctor.topics import TOPICS
from proxy.doctor.waits import lumps
from tests.docs.pages import ROOT, anchors, table
from tests.doctor.site import Handler, deployment

SECRET = "token-that-nobody-may-see"


def call(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["doctor", *words])


def closed_port() -> int:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chat.example.com"], "URL: must be"),
        (["ftp://chat.example.com"], "URL: must be"),
        (["http://a/?x=1"], "no query"),
        (["http://a/", "--cookie", "justtext"], "--cookie"),
        (["http://a/", "--header", "justtext"], "--header"),
        (["http://a/", "--header", "Cookie: a=b"], "--cookie"),
        (["http://a/", "--header", f"X: {SECRET}\nY: 1"], "--header"),
        (["http://a/", "--idle", "-1"], "--idle"),
    ],
)
def test_wrong_use_exits_2(words: list[str], told: str) -> None:
    """What cannot be used is told by its option, and not repeated."""
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert SECRET not in result.stderr


def test_where_nobody_is_it_exits_1() -> None:
    """One finding, the page; all else needs it. The report has causes, advice and a page to read."""
    result = call(f"http://127.0.0.1:{closed_port()}", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert {found["name"] for found in report["findings"] if found["severity"] == "failed"} == {"page"}
    (page,) = [found for found in report["findings"] if found["name"] == "page"]
    assert all(page[key] for key in ("what", "evidence", "cause", "advice", "page"))
    assert report["counts"]["passed"] == 0
    assert report["sent"] == {"GET /": 1}


def test_the_report_is_text_where_there_is_no_terminal() -> None:
    """To a file goes plain text: what failed in full, then a line for each check, then what was sent."""
    result = call(f"http://127.0.0.1:{closed_port()}")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout
    assert "failed page: The page of the app" in result.stdout
    assert "Read: docs/troubleshooting.md#503-or-the-page-one-moment" in result.stdout
    assert "sent: 1 requests" in result.stdout
    assert all(name in result.stdout for name in STEPS)


def test_what_was_given_is_masked() -> None:
    """No cookie, header or password of the address is in a report, whole or cut, though the site says it."""

    async def mirror(request: web.Request) -> web.StreamResponse:
        said = [request.headers["X-Token"], request.headers["Authorization"], "." * 75 + request.cookies["a"]]
        return web.Response(status=500, text=" ".join(said))

    async def run() -> Report:
        async with deployment({"/": mirror}) as site:
            address = site.settings.url.with_user("ada").with_password(SECRET)
            cookies, headers = (f"a={SECRET}1; b={SECRET}2",), (f"X-Token: {SECRET}3",)
            settings = read(str(address), cookies, headers, say="", idle=0, large=False)
            assert settings.headers["Authorization"].startswith("Basic ")
            return await examine(settings)

    report = asyncio.run(run())
    text = json.dumps(report.as_json()) + "\n".join(line.text for line in shown.lines(report))
    assert "***" in text
    assert SECRET[:8] not in text
    assert "Basic YWRh" not in text


def test_a_site_cannot_speak_to_the_terminal() -> None:
    """Control characters of an answer are not passed on."""

    async def odd(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="\x1b]0;title\x07\x1b[2J")

    async def names(_: web.Request) -> web.StreamResponse:
        return web.json_response({"requireLogin": True, "oauthProviders": ["\x1b[2J", *map(str, range(999))]})

    async def run(answers: dict[str, Handler]) -> Report:
        async with deployment(answers) as site:
            return await examine(site.settings)

    text = "".join(line.text for line in shown.lines(asyncio.run(run({"/": odd}))))
    assert "?]0;title?" in text
    assert text.isprintable()
    report = asyncio.run(run({"/auth/config": names}))
    text = "".join(line.text for line in shown.lines(report))
    assert "GET /auth/oauth/?[2J" in text
    assert text.isprintable()
    assert sum(asked.startswith("GET /auth/oauth/") for asked in report.sent) <= 20


def test_a_site_gets_nothing_for_another() -> None:
    """A redirect is an answer, that of a websocket too: what was given goes to the site alone."""
    told: list[str] = []

    async def run() -> Verdict:
        async def taken(request: web.Request) -> web.StreamResponse:
            told.append(request.headers.get("X-Token", ""))
            return web.Response(text="taken")

        async with deployment({SOCKET: taken}) as other:

            async def away(_: web.Request) -> web.StreamResponse:
                raise web.HTTPTemporaryRedirect(str(other.settings.url.origin().with_path(SOCKET)))

            async with deployment({SOCKET: away}, headers={"X-Token": SECRET}) as site:
                return await upgrade(site)

    verdict = asyncio.run(run())
    assert not told
    assert verdict.severity is Severity.FAILED
    assert ": 307 in" in verdict.evidence[0]


def test_a_long_answer_is_read_in_part() -> None:
    """An answer that never ends, or grows when it is decompressed, does not fill this machine."""

    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await response.write(bytes(1 << 20))
        return response

    async def run() -> int:
        async with deployment({"/": long}) as site, Browser(site) as browser:
            return len((await browser.ask("GET", "/")).body)

    assert 8 << 20 <= asyncio.run(run()) < 12 << 20


def test_a_check_that_stumbles_is_one_finding() -> None:
    """Whatever stands there may answer anything: the others go on."""

    async def odd(_: web.Request) -> web.StreamResponse:
        return web.json_response({"requireLogin": True, "oauthProviders": 7})

    async def run() -> Report:
        async with deployment({"/auth/config": odd}) as site:
            return await examine(site.settings)

    found = {finding.name: finding for finding in asyncio.run(run()).findings}
    assert found["oauth_redirect"].severity is Severity.FAILED
    assert "does not understand" in found["oauth_redirect"].what
    assert found["origin"].severity is Severity.PASSED


def test_names_are_the_same_everywhere() -> None:
    """Each check has its topic and its row on the page, and needs those that come before it only."""
    rows = [row[0].strip("`") for row in table(ROOT / "docs/doctor.md", "The checks")]
    assert list(STEPS) == list(TOPICS) == rows
    for at, step in enumerate(STEPS.values()):
        assert set(step.needs) <= set(list(STEPS)[:at])


@pytest.mark.parametrize("name", TOPICS)
def test_the_page_to_read_is_there(name: str) -> None:
    """What a finding leads to exists, with the section."""
    page, _, fragment = TOPICS[name].page.partition("#")
    path = ROOT / "docs" / page
    assert path.is_file()
    assert not fragment or fragment in anchors(path)


def test_only_what_is_bad_has_a_cause() -> None:
    """A check that passed has nothing to put right."""
    assert Finding.of("page", passed("there"), 0).cause == ""
    assert Finding.of("page", failed("gone"), 0).cause == TOPICS["page"].cause


def test_lumps() -> None:
    """What comes within two hundredths of a second has come as one."""
    assert lumps([0.0, 0.1, 0.2]) == 3
    assert lumps([0.0, 0.001, 0.002, 0.5]) == 2


def test_a_short_value_hides_nothing() -> None:
    """A value of some letters is no secret, and would make the report unreadable."""
    site = Site(Settings(URL("http://a/"), {"X-User": "a"}))
    assert site.mask("a page") == "a page"
