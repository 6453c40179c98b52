"""The page of the admin listener where the network is slow: answers come late, and people press again."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.dashboard import LATER, Dashboard, Held
from tests.browser.test_page_questions import few
from tests.support.crowd import Crowd

pytestmark = pytest.mark.browser

__all__ = ["few"]

SESSION = {
    "id": "a-session",
    "transport": "websocket",
    "began": 0,
    "since": 0,
    "answering": False,
    "sent_away": False,
    "moves": [],
    "open": 1,
}
DRAINED = re.compile("^drain(s|ed), ")


@pytest.fixture
def dashboard(context: BrowserContext, few: Crowd) -> Iterator[Dashboard]:
    """The page, with its cards; all backends are ready again after the test."""
    dashboard = Dashboard(context, few.proxy.admin)
    expect(dashboard.cards).to_have_count(3, timeout=LATER)
    try:
        yield dashboard
    finally:
        for name in few.proxy.backends():
            few.proxy.post(f"/api/backends/{name}/ready")


def press(dashboard: Dashboard, what: str) -> None:
    """Press the button of that name."""
    dashboard.page.get_by_role("button", name=what, exact=True).click(timeout=LATER)


def drain_others(few: Crowd) -> None:
    """Have chat-0 be the only one that takes new sessions."""
    for name in ("chat-1", "chat-2"):
        few.proxy.post(f"/api/backends/{name}/drain")


def wish(few: Crowd, name: str) -> str:
    """What the proxy knows to be wished of a backend."""
    return str(few.proxy.backends()[name]["admin_state"])


def test_one_answer_is_for_one_question(dashboard: Dashboard, few: Crowd) -> None:
    """A refusal that comes while another question is open is asked about after that one is answered."""
    drain_others(few)
    drains = Held(dashboard.page, "chat-0/drain")
    press(dashboard, "Drain chat-0")
    drains.wait(1)
    press(dashboard, "Maintenance chat-1")
    title = dashboard.page.locator("#question-title")
    expect(title).to_have_text("Take chat-1 out now?")
    drains.let_go()
    assert title.inner_text() == "Take chat-1 out now?"
    dashboard.answer(yes=True)
    expect(title).to_have_text("Drain chat-0?", timeout=LATER)
    expect(dashboard.state("chat-1")).to_have_text("maintenance", timeout=LATER)
    dashboard.answer(yes=False)
    expect(dashboard.page.get_by_role("dialog")).to_be_hidden()
    assert wish(few, "chat-0") == "ready"


def test_a_request_that_hangs_is_given_up(dashboard: Dashboard, few: Crowd) -> None:
    """Nothing is heard of the first press: that is told, and the button works again."""
    drains = Held(dashboard.page, "chat-1/drain")
    press(dashboard, "Drain chat-1")
    drains.wait(1)
    expect(dashboard.page.locator("#said")).to_have_text("Not done: the proxy does not answer", timeout=LATER)
    press(dashboard, "Drain chat-1")
    drains.wait(2)
    drains.let_go(at=1)
    expect(dashboard.state("chat-1")).to_have_text(DRAINED, timeout=LATER)
    assert wish(few, "chat-1") == "drain"


def test_a_double_click_is_one_answer(dashboard: Dashboard, few: Crowd) -> None:
    """Its second click, where the next question has its yes, does not overrule a refusal."""
    drain_others(few)
    press(dashboard, "Maintenance chat-0")
    yes, title = dashboard.page.locator("#question-yes"), dashboard.page.locator("#question-title")
    expect(title).to_have_text("Take chat-0 out now?")
    yes.click()
    expect(title).to_have_text("Maintenance chat-0?", timeout=LATER)
    box = yes.bounding_box()
    assert box is not None
    dashboard.page.mouse.move(box["x"] + 5, box["y"] + 5)
    dashboard.page.mouse.down(click_count=2)
    dashboard.page.mouse.up(click_count=2)
    expect(title).to_be_visible()
    dashboard.page.mouse.click(box["x"] + 5, box["y"] + 5)
    expect(title).to_be_hidden()
    expect(dashboard.state("chat-0")).to_have_text("maintenance", timeout=LATER)


def test_a_button_is_pressed_again(dashboard: Dashboard, few: Crowd) -> None:
    """What is under way is not wished twice; once it is done, or another wish came, it can be."""
    drains = Held(dashboard.page, "chat-1/drain")
    press(dashboard, "Drain chat-1")
    press(dashboard, "Drain chat-1")
    press(dashboard, "Drain chat-2")  # what was asked before this one has been asked by then
    expect(dashboard.state("chat-2")).to_have_text(DRAINED, timeout=LATER)
    drains.wait(1)
    assert len(drains) == 1
    drains.let_go()
    expect(dashboard.state("chat-1")).to_have_text(DRAINED, timeout=LATER)
    press(dashboard, "Ready chat-1")
    expect(dashboard.state("chat-1")).to_have_text("healthy", timeout=LATER)
    press(dashboard, "Drain chat-1")
    drains.wait(1)
    few.proxy.post("/api/backends/chat-1/drain")
    press(dashboard, "Ready chat-1")
    expect(dashboard.state("chat-1")).to_have_text("healthy", timeout=LATER)
    press(dashboard, "Drain chat-1")
    drains.wait(2)
    drains.let_go(at=1)
    drains.let_go()
    expect(dashboard.state("chat-1")).to_have_text(DRAINED, timeout=LATER)
    assert dashboard.errors == []


def test_what_was_not_done_stays_told(dashboard: Dashboard, few: Crowd) -> None:
    """A wish that was made before, and is done after it, does not hide a refusal."""
    first, second = Held(dashboard.page, "chat-1/drain"), Held(dashboard.page, "chat-2/drain")
    said = dashboard.page.locator("#said")
    press(dashboard, "Drain chat-1")
    press(dashboard, "Drain chat-2")
    first.wait(1)
    second.wait(1)
    second.let_go({"detail": "there is no backend 'chat-2'"}, 404)
    expect(said).to_have_text("Not done: there is no backend 'chat-2'")
    first.let_go()
    expect(dashboard.state("chat-1")).to_have_text(DRAINED, timeout=LATER)
    expect(said).to_have_text("Not done: there is no backend 'chat-2'")
    press(dashboard, "Ready chat-1")
    expect(said).to_be_hidden()  # with the next wish


def test_the_newest_search_is_answered(dashboard: Dashboard) -> None:
    """What is shown is about what was searched last: nothing until it is known, and nothing older then."""
    searches, found = Held(dashboard.page, "api/where/[a-z]+"), dashboard.page.locator("#found")
    box = dashboard.page.get_by_label("Session id, sid or pin")
    for wanted, held in (("first", 1), ("second", 1), ("third", 2)):
        box.fill(wanted)
        box.press("Enter")
        searches.wait(held)
        if wanted == "first":
            searches.let_go({"detail": "first is nowhere"}, 404)
            expect(found).to_have_text("first is nowhere")
        else:
            expect(found).to_be_empty()
    searches.let_go({"detail": "third is nowhere"}, 404, at=1)
    expect(found).to_have_text("third is nowhere")
    searches.let_go({"detail": "second is nowhere"}, 404)
    assert found.inner_text() == "third is nowhere"


def test_the_newest_page_of_sessions_is_shown(dashboard: Dashboard) -> None:
    """What was asked before is not shown: not when its answer is late, nor when the list is opened again."""
    lists = Held(dashboard.page, r"api/sessions\?.*")
    press(dashboard, "Sessions of chat-1")
    lists.wait(1)
    dashboard.card("chat-1").get_by_label("also those without a connection").check()
    lists.wait(2)
    lists.let_go({"total": 1, "sessions": [SESSION]}, at=1)
    told = dashboard.card("chat-1").get_by_text("1 to 1 of 1 session")
    expect(told).to_be_visible()
    lists.let_go({"total": 0, "sessions": []})
    assert told.is_visible()
    press(dashboard, "Sessions of chat-1")
    press(dashboard, "Sessions of chat-1")
    lists.wait(1)
    expect(dashboard.card("chat-1").get_by_label("also those without a connection")).to_be_visible()
    expect(told).to_have_count(0)
    expect(dashboard.card("chat-1").get_by_text("a-session")).to_have_count(0)


def test_a_rollout_is_begun_once(dashboard: Dashboard) -> None:
    """Its button is off from the yes until the proxy has answered."""
    dashboard.hold_still()
    show = "() => look({...now, backends: now.backends.map((one) => ({...one, pid: 1}))})"
    dashboard.page.evaluate(show)
    rollouts, button = Held(dashboard.page, "api/rollout"), dashboard.page.locator("#rollout")
    button.click()
    dashboard.answer(yes=True)
    rollouts.wait(1)
    dashboard.page.evaluate(show)  # as it was before the proxy heard of it
    expect(button).to_be_disabled()
    rollouts.let_go({"detail": "a rollout is running"}, 409)
    expect(dashboard.page.locator("#said")).to_have_text("Not done: a rollout is running")
    dashboard.page.evaluate(show)
    expect(button).to_be_enabled()
