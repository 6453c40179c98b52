"""The page that waits for a place, and the line of a message that waits for its turn, in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tests.browser.tab import ANSWER, Tab
from tests.support.sharing import RunSharing, ending

pytestmark = pytest.mark.browser

LONG = 60_000  # milliseconds: a page asks every three seconds, and a busy machine takes its time
MakeRun = Callable[..., RunSharing]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Starts one replica; it ends with the test."""
    with ending() as made:

        def make(**balance: int) -> RunSharing:
            made.append(RunSharing(tmp_path, 1, balance=balance))
            made[-1].start()
            return made[-1]

        yield make


@pytest.fixture
def people(chromium: Browser) -> Iterator[list[BrowserContext]]:
    """Three, with cookies of their own."""
    contexts = [chromium.new_context() for _ in range(3)]
    yield contexts
    for context in contexts:
        context.close()


def test_the_waiting_page_becomes_the_chat(make_run: MakeRun, people: list[BrowserContext]) -> None:
    """By itself, when it is its turn; meanwhile it tells its place, and a reload takes nobody's."""
    run = make_run(most_sessions=1)
    tab = Tab(people[0], run.url)
    second, third = (context.new_page() for context in people[1:])
    for number, page in enumerate((second, third), 1):
        page.goto(run.url)
        told = f"You are number {number} of {number} in the queue."
        expect(page.locator("#told")).to_contain_text(told, timeout=LONG)
    expect(second.locator("#told")).to_contain_text("You are number 1 of 2", timeout=LONG)
    tab.page.reload()
    expect(tab.messages.first).to_be_visible(timeout=LONG)
    with second.expect_request(lambda request: "x-chainlit-queue" in request.headers, timeout=LONG) as asked:
        pass
    answer = asked.value.response()
    assert answer is not None
    assert "You are number 1 of 2" in answer.text()
    expect(second.locator("#told")).to_contain_text("You are number 1 of 2")
    people[0].close()
    expect(second.locator("[data-step-type=assistant_message]").first).to_be_visible(timeout=LONG)
    expect(third.locator("#told")).to_contain_text("You are number 1 of 1", timeout=LONG)


def test_the_chat_tells_that_a_message_waits(make_run: MakeRun, people: list[BrowserContext]) -> None:
    """While another one is answered; then the line is gone and the answer there."""
    run = make_run(most_answers=1)
    first, second = Tab(people[0], run.url), Tab(people[1], run.url)
    first.send("q1 stream 60 0.1")
    expect(first.page.get_by_text("t3 ")).to_be_visible(timeout=ANSWER)
    second.send("q2 say")
    line = second.page.get_by_text("You are number 1. Your message will be answered")
    expect(line).to_be_visible(timeout=ANSWER)
    expect(second.page.get_by_text("nonce=q2")).to_be_visible(timeout=LONG)
    expect(line).to_have_count(0)
