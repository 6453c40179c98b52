"""The page of the admin listener where something is refused, or is not there: what the operator reads then.

Answers that need a fleet in some state are given in place of the proxy's; all else is real.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from tests.browser.dashboard import LATER, Dashboard
from tests.support.crowd import Crowd

pytestmark = pytest.mark.browser

OTHER_KIND = """() => happened(
  {id: seen + 1, at: 0, kind: "reload", backend: "", text: "all are set to drain", lines: []})"""
ONLY = "chat-0 is the only backend that takes new sessions: without it nobody can begin a chat."


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """A proxy before three backends, with some sessions."""
    with Crowd(tmp_path_factory.mktemp("few"), 3, 12) as crowd:
        yield crowd


@pytest.fixture
def dashboard(context: BrowserContext, few: Crowd) -> Dashboard:
    """The page, with its cards."""
    dashboard = Dashboard(context, few.proxy.admin)
    expect(dashboard.cards).to_have_count(3, timeout=LATER)
    return dashboard


@pytest.mark.parametrize(
    ("press", "again", "now"),
    [
        ("Drain", "Drain it all the same", re.compile("^drain(s|ed), ")),
        ("Maintenance", "Take it out all the same", "maintenance"),
    ],
)
def test_a_refusal_may_be_overruled(
    dashboard: Dashboard, few: Crowd, press: str, again: str, now: re.Pattern[str] | str
) -> None:
    """Why the last one is kept is shown with a button that says what it does; only that one takes it."""
    names = list(few.proxy.backends())
    try:
        for name in names[1:]:
            few.proxy.post(f"/api/backends/{name}/drain")
        button = dashboard.page.get_by_role("button", name=f"{press} chat-0", exact=True)
        for yes in (False, True):
            button.click()
            if press == "Maintenance":
                dashboard.answer(yes=True)
            box = dashboard.page.get_by_role("dialog")
            expect(box.locator("#question-text")).to_have_text(ONLY)  # not how the command line is told
            expect(box.get_by_role("button").first).to_be_focused()  # the one that does nothing
            expect(box.get_by_role("button", name=again)).to_be_visible()
            assert few.proxy.backends()["chat-0"]["admin_state"] == "ready"
            if yes:
                with dashboard.page.expect_response(lambda response: press.lower() in response.url) as done:
                    dashboard.answer(yes=True)
                assert done.value.ok
            else:
                dashboard.page.keyboard.press("Escape")
            expect(box).to_be_hidden()
        expect(dashboard.state("chat-0")).to_have_text(now, timeout=LATER)
        assert few.proxy.backends()["chat-0"]["admin_state"] == press.lower()
        expect(dashboard.page.locator("#said")).to_be_hidden()
    finally:
        for name in names:
            few.proxy.post(f"/api/backends/{name}/ready")


def test_what_force_cannot_help_is_not_asked(dashboard: Dashboard) -> None:
    """A refusal that has another reason is told, and no button offers to do it all the same."""
    reason = "chat-0 is about to leave the fleet"
    bodies: list[object] = []

    def refuse(route: Route) -> None:
        bodies.append(json.loads(route.request.post_data or "{}"))
        route.fulfill(status=409, json={"detail": reason})

    dashboard.page.route(re.compile(r"/api/backends/chat-0/maintenance$"), refuse)
    dashboard.page.get_by_role("button", name="Maintenance chat-0", exact=True).click()
    dashboard.answer(yes=True)
    expect(dashboard.page.locator("#said")).to_have_text(f"Not done: {reason}")
    expect(dashboard.page.get_by_role("dialog")).to_be_hidden()
    assert bodies == [{}]


def test_what_cannot_be_done_is_said(dashboard: Dashboard) -> None:
    """Any other refusal is shown in its own words."""
    dashboard.page.route(
        re.compile("/api/backends/chat-0/drain$"),
        lambda route: route.fulfill(status=404, json={"detail": "there is no backend 'chat-0'"}),
    )
    dashboard.page.get_by_role("button", name="Drain chat-0", exact=True).click()
    expect(dashboard.page.locator("#said")).to_have_text("Not done: there is no backend 'chat-0'")


def test_a_front_that_answers_in_html(dashboard: Dashboard) -> None:
    """What is no answer of the API is told in words, and not in those of a JSON parser."""
    dashboard.page.route(
        re.compile(r"/ready$"), lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>")
    )
    dashboard.page.route(re.compile(r"/drain$"), lambda route: route.abort())
    dashboard.page.evaluate("wish({name: 'chat-0'}, 'ready')")
    expect(dashboard.page.locator("#said")).to_have_text("Not done: the answer was 502", timeout=LATER)
    dashboard.page.evaluate("wish({name: 'chat-0'}, 'drain')")
    expect(dashboard.page.locator("#said")).to_have_text("Not done: the proxy does not answer", timeout=LATER)


def test_a_button_says_what_happens_then(dashboard: Dashboard, few: Crowd) -> None:
    """With the number of sessions that it is about, and the time that it takes at most."""
    sessions = few.proxy.backends()["chat-1"]["sessions"]
    drain = dashboard.page.get_by_role("button", name="Drain chat-1", exact=True)
    expect(drain).to_have_accessible_description(
        f"No new sessions. {sessions} sessions here move elsewhere when at rest, at the latest after 5 min."
    )
    out = dashboard.page.get_by_role("button", name="Maintenance chat-1", exact=True)
    expect(out).to_have_accessible_description(
        f"Out at once. {sessions} sessions move now, in the middle of an answer too."
    )


def test_nobody_takes_new_sessions(dashboard: Dashboard, few: Crowd, tmp_path: Path) -> None:
    """A red strip says so while it is so, and which button helps."""
    strip = dashboard.page.locator("#nobody")
    names = list(few.proxy.backends())
    try:
        for name in names:
            few.proxy.post(f"/api/backends/{name}/drain", _forced(few, name))
        expect(strip).to_contain_text("No backend takes new sessions", timeout=LATER)
        expect(strip).to_contain_text("Press “Ready” of chat-0, chat-1, chat-2")
        dashboard.photograph("page-nobody")
        assert dashboard.faint() == []
    finally:
        for name in names:
            few.proxy.post(f"/api/backends/{name}/ready")
    expect(strip).to_be_hidden(timeout=LATER)


def _forced(few: Crowd, name: str) -> dict[str, bool]:
    """What drains even the last one, where the API asks for that."""
    schemas = json.loads(few.proxy.get("/openapi.json"))["components"]["schemas"]
    return {"force": True} if "force" in schemas["DrainRequest"]["properties"] else {}


def test_events_are_filtered(dashboard: Dashboard, few: Crowd) -> None:
    """By words and by kind; what happens later is filtered, too."""
    page = dashboard.page
    events = page.locator("#events li:not([hidden])")
    with dashboard.happens("chat-1 is set to ready"):
        few.proxy.post("/api/backends/chat-1/drain")
        few.proxy.post("/api/backends/chat-1/ready")
    page.get_by_label("Filter events by text").fill("set to drain")
    expect(events.filter(has_text="ready")).to_have_count(0)
    assert events.count() >= 1
    before = events.count()
    with dashboard.happens("chat-2 is set to ready"):
        few.proxy.post("/api/backends/chat-2/drain")
        few.proxy.post("/api/backends/chat-2/ready")
    assert events.count() == before + 1
    page.evaluate(OTHER_KIND)
    assert events.count() == before + 2
    page.get_by_label("Which events").select_option("backend")
    assert events.count() == before + 1


def test_the_last_minutes(dashboard: Dashboard, few: Crowd) -> None:
    """Percentiles of what was measured, and that nothing went wrong, with how far that looks back."""
    times = dashboard.page.locator("#times")
    expect(times).to_contain_text(re.compile(r"A probe.*\d+\.\d ms"), timeout=LATER)
    expect(dashboard.page.locator("#counts-span")).to_contain_text("Nothing went wrong", timeout=LATER)
    expect(dashboard.page.locator("#lately-span")).to_have_text(re.compile(r"In the last \d+ (s|min)\."))


def test_who_waits_is_shown_where_that_is_known(dashboard: Dashboard) -> None:
    """Where there is a queue it has a tile, and a backend says how many sessions it may have."""
    totals = dashboard.page.locator("#totals")
    show = "(more) => { look({...now, ...more, backends: now.backends.map((one) => ({...one, ...more}))}); }"
    dashboard.hold_still()
    dashboard.page.evaluate(show, {"queue": {"waiting": 7, "turned_away": 0}, "most_sessions": 50})
    expect(totals).to_contain_text("Wait for a place7")
    expect(totals).not_to_contain_text("Turned away")
    expect(dashboard.field("chat-0", "Sessions")).to_have_text(re.compile(r"^\d+ of 50$"))
    dashboard.page.evaluate(show, {"queue": {"waiting": 7, "turned_away": 3}})
    expect(totals).to_contain_text("Turned away since the start3")
    dashboard.page.evaluate(show, {"queue": None, "waiting": 8})
    expect(totals).to_contain_text("Wait for a place8")
    assert dashboard.errors == []


def test_cards_become_rows(context: BrowserContext, dashboard: Dashboard) -> None:
    """Five backends are cards, six are rows."""
    page = dashboard.page
    show = """(number) => look({...now, backends: Array.from({length: number}, (_, at) =>
      ({...now.backends[0], name: `b-${at}`}))})"""
    dashboard.hold_still()
    page.evaluate(show, 5)
    expect(dashboard.cards).to_have_count(5)
    expect(page.locator("#filter")).to_be_hidden()
    page.evaluate(show, 6)
    expect(dashboard.cards).to_have_count(0)
    expect(dashboard.rows).to_have_count(6)
    expect(page.locator("#filter")).to_be_visible()
    page.evaluate(show, 2)
    expect(dashboard.cards).to_have_count(2)
    assert dashboard.errors == []
