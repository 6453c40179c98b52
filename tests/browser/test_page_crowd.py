"""The page of the admin listener with 200 backends and 10,000 sessions, in real Chromium.

A real proxy before stand-ins. Most of its sessions were written into its directory; those that move are real.
"""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.dashboard import LATER, Dashboard
from tests.browser.front import Front
from tests.support.crowd import Crowd, RealSession, open_polling

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BACKENDS, SESSIONS, DOWN = 200, 10_000, 1
REFUSES = f"chat-{BACKENDS - 1}"  # nobody listens there
READY = "/api/backends/{}/ready"
MOST_BYTES = 60_000  # a second; all of them in full would be twice as much
MOST_RENDERING = 250  # milliseconds for a whole look, on a machine that does much else
RENDERED = """() => {
  const began = performance.now();
  look({...now, at: now.at + 2, backends: now.backends.map((one) => ({...one, requests: one.requests + 7}))});
  return performance.now() - began;
}"""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """The proxy with its crowd."""
    with Crowd(tmp_path_factory.mktemp("crowd"), BACKENDS, SESSIONS, down=DOWN) as crowd:
        yield crowd


@pytest.fixture
def dashboard(context: BrowserContext, crowd: Crowd) -> Iterator[Dashboard]:
    """The page, with all rows; nothing may go wrong in it."""
    context.set_default_timeout(LATER)
    dashboard = Dashboard(context, crowd.proxy.admin)
    expect(dashboard.rows).to_have_count(BACKENDS, timeout=LATER)
    yield dashboard
    assert dashboard.errors == []


def test_what_is_wrong_is_said_first(dashboard: Dashboard) -> None:
    """Of 200 the one that is down is named with its reason, and is the first row."""
    broken = dashboard.page.locator("#broken")
    expect(broken).to_contain_text(f"{REFUSES} is down for")
    expect(broken).to_contain_text("connection refused")
    expect(dashboard.rows.first).to_contain_text(REFUSES)
    expect(dashboard.page.locator("#totals")).to_contain_text(f"{BACKENDS - DOWN} of {BACKENDS}")
    # Another test takes a backend out, and with it those of its sessions that nobody has.
    expect(dashboard.page.locator("#totals")).to_contain_text(re.compile(r"Sessions(9|10),\d{3}"))
    expect(dashboard.page.locator("#nobody")).to_be_hidden()


def test_rows_are_sorted_and_filtered_by_keyboard(dashboard: Dashboard, crowd: Crowd) -> None:
    """A column's title is a button, which says how it sorts; the filter says how many are left."""
    page = dashboard.page
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(RealSession(crowd.proxy))
        page.get_by_role("button", name="Backend", exact=True).focus()
        page.keyboard.press("Enter")
        expect(dashboard.rows.nth(2)).to_contain_text("chat-2")
        page.keyboard.press("Enter")
        expect(dashboard.rows.first).to_contain_text(REFUSES)
        expect(page.get_by_role("columnheader", name="Backend")).to_have_attribute("aria-sort", "descending")
        page.get_by_role("button", name="Sessions", exact=True).focus()
        page.keyboard.press("Enter")
        expect(dashboard.rows.last).to_contain_text(REFUSES)  # which has none
        page.get_by_label("Filter backends by name, address or reason").fill("chat-19")
        expect(dashboard.rows).to_have_count(11)
        expect(page.locator("#filter-count")).to_have_text("11 of 200")
        page.get_by_label("Which backends").select_option("wrong")
        expect(dashboard.rows).to_have_count(1)


def test_sessions_are_asked_for_when_they_are_looked_at(dashboard: Dashboard, crowd: Crowd) -> None:
    """A row unfolds by keyboard; its sessions come a page at a time, and not before."""
    page, asked = dashboard.page, []
    page.on("request", lambda request: asked.append(request.url) if "/api/sessions" in request.url else None)
    polling = open_polling(crowd.proxy)
    with RealSession(crowd.proxy) as real:
        for session, transport in ((real.id, "websocket"), (polling, "polling")):
            home = json.loads(crowd.proxy.get(f"/api/where/{session}"))["backend"]
            opener = page.get_by_role("button", name=home, exact=True)
            if opener.get_attribute("aria-expanded") == "false":
                opener.focus()
                page.keyboard.press("Enter")
            sessions = page.get_by_role("button", name=f"Sessions of {home}", exact=True)
            if transport == "websocket":
                page.evaluate("ask('api/config')")  # what was asked before it is known by then
                assert asked == []
            sessions.focus()
            page.keyboard.press("Enter")
            detail = page.locator(".detail").filter(has=sessions)
            expect(detail).to_contain_text(re.compile(r"1 to \d+ of \d+ sessions"), timeout=LATER)
            told = detail.get_by_text(re.compile(r"\d+ to \d+ of \d+ sessions"))
            while not detail.get_by_text(session[:8]).count():
                these = told.inner_text()
                detail.get_by_role("button", name=f"Next sessions of {home}").click()
                expect(told).not_to_have_text(these, timeout=LATER)
            row = detail.locator("tbody tr").filter(has_text=session[:8])
            expect(row).to_contain_text(re.compile(rf"{transport}\d+ s\d+ sat restnever"))
            assert session not in page.content()
            sessions.click()
    assert len(asked) < 20


def test_a_move_is_seen_as_it_happens(dashboard: Dashboard, crowd: Crowd) -> None:
    """An arc with a moving dot leads from box to box, and a line tells how many moved where and why."""
    page = dashboard.page
    page.evaluate("""() => {
      window.met = {arcs: 0, dots: 0};
      new MutationObserver((changes) => changes.forEach(({addedNodes}) => addedNodes.forEach((node) => {
        if (!node.classList?.contains("move")) return;
        met.arcs += 1;
        met.dots += node.querySelectorAll(".dot").length;
      }))).observe(document.querySelector("#picture"), {childList: true, subtree: true});
    }""")
    with RealSession(crowd.proxy) as real:
        home = move(crowd, real)
        page.wait_for_function("() => met.arcs > 0")
        moved = page.locator("#moves li").first  # of an earlier test before that
        expect(moved).to_contain_text(f"{home} → ", timeout=LATER)
        expect(moved).to_contain_text(f"1 session, {home} was taken out")
        met = page.evaluate("met")
        assert min(met["arcs"], met["dots"]) > 0
        dashboard.photograph("page-crowd-move")
        expect(page.locator(".move")).to_have_count(0, timeout=LATER)  # it does not stay


def move(crowd: Crowd, real: RealSession) -> str:
    """Have a session move; where it was."""
    home = str(json.loads(crowd.proxy.get(f"/api/where/{real.id}"))["backend"])
    crowd.proxy.post(f"/api/backends/{home}/maintenance")
    try:
        real.come_back()
    finally:
        crowd.proxy.post(READY.format(home))
    assert json.loads(crowd.proxy.get(f"/api/where/{real.id}"))["backend"] != home
    return home


def test_nothing_moves_for_those_who_want_no_motion(chromium: Browser, crowd: Crowd) -> None:
    """With prefers-reduced-motion a move is an arc that stands still."""
    context = chromium.new_context(reduced_motion="reduce")
    try:
        dashboard = Dashboard(context, crowd.proxy.admin)
        expect(dashboard.rows).to_have_count(BACKENDS, timeout=LATER)
        with RealSession(crowd.proxy) as real:
            move(crowd, real)
            expect(dashboard.page.locator(".move .arc").first).to_be_visible(timeout=LATER)
            assert dashboard.page.locator(".move .dot").count() == 0
            assert dashboard.page.evaluate("document.getAnimations().length") == 0
    finally:
        context.close()


def test_it_stays_light(dashboard: Dashboard, crowd: Crowd) -> None:
    """What the stream says in a second tells of no session and is bounded, and so is the time to show it."""
    took = sorted(dashboard.page.evaluate(RENDERED) for _ in range(9))[4]
    request = urllib.request.Request(
        f"{crowd.proxy.admin}/api/stream?state=true&changes=true&after=100000000"
    )
    with urllib.request.urlopen(request, timeout=10) as stream:
        text, began, first = "", time.monotonic(), 0
        while time.monotonic() < began + 5:
            text += stream.read1(1 << 20).decode()
            first = first or (text.find("event: changes") if "event: changes" in text else 0)
    rate = (len(text) - first) / 5
    print(f"{first} bytes for the first overview, {rate:.0f} bytes a second then, {took:.1f} ms to show it")
    assert 0 < rate < MOST_BYTES
    assert took < MOST_RENDERING
    known = json.loads(crowd.proxy.get("/api/sessions?limit=500"))["sessions"]
    assert not [session["id"] for session in known if session["id"] in text]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "device"), [(1280, "desk"), (360, "phone")])
def test_it_fits_with_a_crowd(chromium: Browser, crowd: Crowd, scheme: Any, width: int, device: str) -> None:
    """All words are readable, nothing stands out at the side, and on a phone a finger hits every button."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        dashboard = Dashboard(context, crowd.proxy.admin)
        expect(dashboard.rows).to_have_count(BACKENDS, timeout=LATER)
        dashboard.page.get_by_role("button", name=REFUSES, exact=True).click()
        dashboard.page.get_by_role("button", name=f"Sessions of {REFUSES}").click()
        dashboard.page.get_by_text("Words on this page").click()
        expect(dashboard.page.locator(".detail")).to_contain_text("There are none.")
        dashboard.photograph(f"page-crowd-{scheme}-{device}")
        assert dashboard.over() <= 0
        assert dashboard.faint() == []
        if device == "phone":
            assert dashboard.small(40) == []
        assert dashboard.errors == []
    finally:
        context.close()


def test_below_a_path_with_a_crowd(context: BrowserContext, crowd: Crowd) -> None:
    """Stream, sessions and buttons are found below the path of a front."""
    with Front(int(crowd.proxy.admin.rpartition(":")[2])).serving() as front:
        dashboard = Dashboard(context, front.url)
        page = dashboard.page
        expect(dashboard.rows).to_have_count(BACKENDS, timeout=LATER)
        page.get_by_role("button", name="chat-7", exact=True).click()
        page.get_by_role("button", name="Sessions of chat-7", exact=True).click()
        expect(page.locator(".detail")).to_contain_text(
            re.compile(r"1 to \d+ of \d+ sessions"), timeout=LATER
        )
        page.get_by_role("button", name="Drain chat-7", exact=True).click()
        expect(dashboard.row("chat-7")).to_contain_text("drain", timeout=LATER)
        page.get_by_role("button", name="Ready chat-7", exact=True).click()
        expect(dashboard.row("chat-7")).not_to_contain_text("drain", timeout=LATER)
        page.close()
        assert set(front.lost) <= {"/favicon.ico"}


def test_words_stand_for_colours(dashboard: Dashboard) -> None:
    """The picture says in words what it shows, and each box what it is."""
    picture = dashboard.page.get_by_role(
        "img", name=re.compile(r"at 200 backends: \d+ healthy, 0 degraded, 1 down")
    )
    expect(picture).to_be_visible()
    (down,) = dashboard.page.locator("#picture .cell.bad").all()
    expect(down.locator("title")).to_have_text(f"{REFUSES}: down, 0 sessions")
    expect(down.locator("text").last).to_have_text(re.compile(r"\S"))  # a sign beside the colour
