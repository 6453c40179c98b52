"""The page of the admin listener in real Chromium: what an operator sees there and does with it."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chat_server import ChatServer
from tests.browser.dashboard import LATER, READABLE, Dashboard, Picture, is_dark
from tests.browser.front import Front
from tests.browser.tab import Tab
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.browser

TOKEN = "a-token-for-the-page"


@pytest.fixture
def dashboard(context: BrowserContext, server: ChatServer) -> Dashboard:
    """The page of the running proxy."""
    return Dashboard(context, server.admin)


def api(server: ChatServer, path: str) -> Any:
    """What the API tells."""
    with urllib.request.urlopen(f"{server.admin}/api/{path}", timeout=5) as response:
        return json.load(response)


def test_a_session_is_seen_and_found(
    dashboard: Dashboard, server: ChatServer, open_tab: Callable[[], Tab]
) -> None:
    """Each backend has its card; a chat is counted where it lives, and the box tells where and why."""
    expect(dashboard.cards).to_have_count(3, timeout=LATER)
    tab = open_tab()
    (home,) = [backend for backend in server.backends() if backend["pid"] == tab.home]
    dashboard.page.bring_to_front()
    expect(dashboard.field(home["name"], "Process")).to_have_text(str(tab.home), timeout=LATER)
    expect(dashboard.field(home["name"], "Sessions")).not_to_have_text("0", timeout=LATER)
    expect(dashboard.field(home["name"], "Probe")).to_have_text(re.compile(r"\d+\.\d ms"), timeout=LATER)
    expect(dashboard.card(home["name"]).locator("polyline")).to_have_attribute("points", re.compile(r"\d,\d"))
    expect(dashboard.page.locator("#affinity .row").first).to_contain_text(":")
    session = next(one for one in api(server, f"sessions?backend={home['name']}")["sessions"] if one["open"])
    dashboard.page.get_by_label("Session id, sid or pin").fill(session["id"])
    dashboard.page.keyboard.press("Enter")
    found = dashboard.page.locator("#found")
    expect(found).to_contain_text(f"This session is at {home['name']} since")
    expect(found).to_contain_text("it was placed there when it began")
    expect(found).to_contain_text(re.compile(r"connected by \w+, \d connections?,"))
    dashboard.page.get_by_label("Session id, sid or pin").fill("nobody-knows-this")
    dashboard.page.get_by_role("button", name="Find").click()
    expect(found).to_contain_text("no session, sid or pin of that name is known")
    assert [error for error in dashboard.errors if "404" not in error] == []


def test_a_drain_by_keyboard(dashboard: Dashboard, server: ChatServer) -> None:
    """Buttons are reached and pressed by keys; the card and the events tell what became of it."""
    button = dashboard.page.get_by_role("button", name="Drain replica-2")
    expect(button).to_be_visible(timeout=LATER)
    button.focus()
    with dashboard.happens("replica-2 is set to drain"):
        dashboard.page.keyboard.press("Enter")
    expect(dashboard.state("replica-2")).to_have_text(
        re.compile(r"^(drained|drains, \d+ s left)"), timeout=LATER
    )
    expect(button).to_be_hidden()  # it could do no more
    dashboard.photograph("page-drain")
    ready = dashboard.page.get_by_role("button", name="Ready replica-2")
    expect(ready).to_be_focused()  # in place of the one that has gone
    expect(ready).to_have_accessible_description("It takes new sessions again, few at first.")
    with dashboard.happens("replica-2 is set to ready"):
        dashboard.page.keyboard.press("Enter")
    expect(dashboard.state("replica-2")).to_have_text("healthy", timeout=LATER)
    expect(button).to_be_visible(timeout=LATER)
    expect(ready).to_be_hidden()
    assert dashboard.errors == []


def test_frames_are_seen(dashboard: Dashboard, server: ChatServer, open_tab: Callable[[], Tab]) -> None:
    """While an answer is streamed its backend has frames a second, and the CPU time that it takes."""
    tab = open_tab()
    (home,) = [backend["name"] for backend in server.backends() if backend["pid"] == tab.home]
    tab.send("Tell me something long")
    dashboard.page.bring_to_front()
    expect(dashboard.field(home, "Frames/s")).to_have_text(re.compile(r"[1-9]\d*\.\d"), timeout=LATER)
    expect(dashboard.field(home, "CPU")).to_have_text(re.compile(r"\d+ %"), timeout=LATER)


def test_maintenance_asks_first(dashboard: Dashboard, server: ChatServer) -> None:
    """The button does nothing until the question is answered with yes; then the backend is out."""
    button = dashboard.page.get_by_role("button", name="Maintenance replica-2")
    expect(button).to_be_enabled(timeout=LATER)
    button.click()
    asked = dashboard.answer(yes=False)
    assert "Take replica-2 out now?" in asked
    assert "Out at once." in asked
    assert api(server, "backends/replica-2")["admin_state"] == "ready"
    button.click()
    dashboard.answer(yes=True)
    try:
        expect(dashboard.state("replica-2")).to_have_text("maintenance", timeout=LATER)
        expect(button).to_be_hidden(timeout=LATER)
        assert api(server, "backends/replica-2")["admin_state"] == "maintenance"
    finally:
        dashboard.page.get_by_role("button", name="Ready replica-2").click()
        expect(dashboard.state("replica-2")).to_have_text("healthy", timeout=LATER)
    assert dashboard.errors == []


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ChatServer]:
    """A server of its own, for a test after which its replicas have other names."""
    server = ChatServer(tmp_path, replicas=2)
    try:
        server.launch()
        server.wait_healthy()
        yield server
    finally:
        server.shut_down()


@pytest.mark.timeout(300)
def test_a_rollout_by_its_button(context: BrowserContext, other: ChatServer) -> None:
    """The page follows it: how far it is, the button off meanwhile, new cards in place of the old ones."""
    dashboard = Dashboard(context, other.admin)
    expect(dashboard.cards).to_have_count(2, timeout=LATER)
    before = {backend["name"] for backend in other.backends()}
    button = dashboard.page.get_by_role("button", name="Rollout")
    button.click()
    assert "an old one is drained and stopped" in dashboard.answer(yes=True)
    state = dashboard.page.locator("#rollout-state")
    expect(state).to_contain_text(re.compile(r"rollout running: \d of 2"), timeout=LATER)
    expect(button).to_be_disabled()
    dashboard.photograph("page-rollout")
    expect(state).to_contain_text("rollout done: 2 of 2", timeout=6 * LATER)
    expect(button).to_be_enabled(timeout=LATER)
    expect(dashboard.cards).to_have_count(2, timeout=LATER)
    assert before.isdisjoint(backend["name"] for backend in other.backends())
    assert dashboard.errors == []


def test_the_end_of_a_replica_is_seen(dashboard: Dashboard, server: ChatServer) -> None:
    """Its card is down, and the events tell of the end and of the new start."""
    (victim,) = [backend for backend in server.backends() if backend["name"] == "replica-3"]
    expect(dashboard.card("replica-3")).to_have_class("card healthy", timeout=LATER)
    with dashboard.happens("replica-3 is down"), dashboard.happens("replica-3 restarts in"):
        os.kill(victim["pid"], signal.SIGKILL)
    expect(dashboard.field("replica-3", "Process")).not_to_have_text(str(victim["pid"]), timeout=LATER)
    expect(dashboard.card("replica-3")).to_have_class("card healthy", timeout=LATER)


def test_a_proxy_that_does_not_answer(dashboard: Dashboard, server: ChatServer) -> None:
    """The page says so plainly, and goes on when it answers again."""
    expect(dashboard.cards).to_have_count(3, timeout=LATER)
    trouble = dashboard.page.get_by_role("alert")
    expect(trouble).to_be_hidden()
    server.pause()
    try:
        expect(trouble).to_contain_text("The proxy does not answer", timeout=LATER)
        dashboard.photograph("page-silent")
        box = trouble.bounding_box()
        assert box is not None
        picture = Picture(dashboard.page)
        (red, green, blue), *_ = picture.colours(box)
        assert red > 2 * max(green, blue)
        assert picture.contrast(box) >= READABLE
    finally:
        server.resume()
    expect(trouble).to_be_hidden(timeout=LATER)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "device"), [(1280, "desk"), (360, "phone")])
def test_it_fits(chromium: Browser, server: ChatServer, scheme: Any, width: int, device: str) -> None:
    """Light and dark, on a phone and on a desk: all cards are there and nothing stands out at the side."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        dashboard = Dashboard(context, server.admin)
        expect(dashboard.cards).to_have_count(3, timeout=LATER)
        for name in ("replica-1", "replica-2", "replica-3"):
            expect(dashboard.field(name, "Probe")).to_have_text(re.compile(r"\d+\.\d ms"), timeout=LATER)
        urllib.request.urlopen(server.url, timeout=5).close()  # for a bar
        bars = dashboard.page.locator("#affinity meter")
        expect(bars.first).to_be_visible(timeout=LATER)
        dashboard.hold_still()
        assert dashboard.over() <= 0
        assert bars.evaluate_all("bars => bars.every((bar) => bar.getBoundingClientRect().width > 40)")
        (red,) = re.findall(
            r"rgb\((\d+),",
            dashboard.page.evaluate("getComputedStyle(document.body).backgroundColor"),
        )
        assert (int(red) < 128) is (scheme == "dark")
        dashboard.photograph(f"page-{scheme}-{device}")
        assert dashboard.errors == []
        picture = Picture(dashboard.page)
        ground = picture.colours({"x": 0, "y": 0, "width": 8, "height": 8})
        assert len(ground) == 1
        assert is_dark(*ground[0]) is (scheme == "dark")
        for name in ("replica-1", "replica-2", "replica-3"):
            box = dashboard.card(name).bounding_box()
            assert box is not None
            edge = {"x": box["x"] + 1, "y": box["y"] + 30, "width": 1, "height": box["height"] - 60}
            ((red, green, blue),) = picture.colours(edge)  # the bar of a healthy one
            assert green > 1.2 * max(red, blue)
            buttons = dashboard.card(name).get_by_role("button")
            titles = [dashboard.card(name).get_by_role("heading"), *buttons.all()]
            for words in [*titles, *dashboard.card(name).locator("dt, dd, figcaption, strong").all()]:
                if words.is_enabled():
                    assert picture.contrast(words.bounding_box()) >= READABLE, words.inner_text()
    finally:
        context.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The admin listener of a proxy that asks for a token."""
    admin = f"127.0.0.1:{free_port()}"
    backend = {"name": "a", "url": f"http://127.0.0.1:{free_port()}"}
    config = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": admin, "token": TOKEN},
        "backends": [backend],
    }
    proxy = ProxyProcess(config, tmp_path)
    proxy.launch()
    try:
        yield proxy.admin
    finally:
        proxy.stop(signal.SIGTERM, 30)


def test_the_token_is_asked_for(context: BrowserContext, guarded: str) -> None:
    """Nothing is shown before; one that is wrong or none is told and asked for again; the right one stays."""
    page = context.new_page()
    for _ in range(100):
        try:
            page.goto(guarded)
            break
        except Exception:
            page.wait_for_timeout(100)
    field = page.get_by_label("Admin token")
    for token, said in (
        ("wrong", "The proxy does not accept this token."),
        (f"“{TOKEN}”", "A token has no spaces and no characters outside ASCII"),
    ):
        expect(field).to_be_visible(timeout=LATER)
        expect(page.locator("#backends article")).to_have_count(0)
        field.fill(token)
        field.press("Enter")
        expect(page.locator("#said")).to_contain_text(said, timeout=LATER)
    expect(field).to_be_visible()
    field.fill(TOKEN)
    field.press("Enter")
    expect(page.locator("#backends article")).to_have_count(1, timeout=LATER)
    expect(page.locator("#said")).to_be_hidden()
    expect(field).to_be_hidden()
    assert page.evaluate("sessionStorage.getItem('token')") == TOKEN
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_below_a_path_of_a_front(context: BrowserContext, guarded: str) -> None:
    """All that the page asks for is below the path at which it is served: the stream, questions, buttons."""
    with Front(int(guarded.rpartition(":")[2])).serving() as front:
        page = context.new_page()
        open_front(page, front)
        page.get_by_label("Admin token").fill(TOKEN)
        page.keyboard.press("Enter")
        card = page.locator("#backends article")
        why = re.compile(r"for \d+ s: nobody listens at 127\.0\.0\.1:\d+ \(connection refused\)")
        expect(card).to_contain_text(why, timeout=LATER)
        page.get_by_role("button", name="Drain a").click()
        expect(card).to_contain_text(re.compile("drained|drains"), timeout=LATER)
        expect(page.locator("#events")).to_contain_text("a is set to drain", timeout=LATER)
        page.get_by_label("Session id, sid or pin").fill("nobody-knows-this")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_contain_text("no session, sid or pin of that name is known")
        docs = page.request.get(
            f"{front.url}docs", headers={"Authorization": f"Bearer {TOKEN}"}, max_redirects=1
        )
        assert docs.url == f"{front.url}openapi.json"
        page.close()
        assert set(front.lost) <= {"/favicon.ico"}  # for the 502 before the proxy listens


def test_without_replicas(context: BrowserContext, guarded: str) -> None:
    """Nothing is shown that only replicas have; that nobody takes sessions is said."""
    with Front(int(guarded.rpartition(":")[2])).serving() as front:
        page = context.new_page()
        open_front(page, front)
        page.get_by_label("Admin token").fill(TOKEN)
        page.keyboard.press("Enter")
        card = page.locator("#backends article")
        expect(card.get_by_role("term").filter(has_text="Sessions")).to_be_visible(timeout=LATER)
        expect(card.get_by_text("Process", exact=True)).to_be_hidden()
        expect(page.get_by_role("button", name="Rollout")).to_be_hidden()
        expect(page.get_by_role("alert")).to_contain_text("No backend takes new sessions")
        expect(page.locator("#broken")).to_contain_text("a is down for")
        expect(page.get_by_role("link", name="Metrics")).to_have_attribute("href", "metrics")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.get_by_label("Session id, sid or pin").fill("   ")
        page.keyboard.press("Enter")
        page.evaluate("ask('api/config')")  # what was asked before it is known by then
        assert [url for url in asked if "/api/where" in url] == []


def open_front(page: Page, front: Front) -> None:
    """Open the page; the proxy may not listen yet."""
    for _ in range(100):
        answer = page.goto(front.url)
        if answer is not None and answer.ok:
            return
        page.wait_for_timeout(100)
