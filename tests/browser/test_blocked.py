"""The real page while an app blocks the event loop of its instance."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.chat_server import ChatServer
from tests.browser.tab import Tab
from tests.support.size import IN_FULL, sized
from tests.support.waiting import wait_until

# Where pages give up after 4 s without a ping, 12 s stand for the 120 that it takes with Chainlit's 45.
LONG = sized(12, in_full=120)  # seconds
CONFIG = f"health: {{interval: 0.5, timeout: 0.5, fall: 2, rise: 2, evict_after: {LONG + 90}}}\n"
PINGS = (
    "" if IN_FULL else "from chainlit.server import sio\nsio.eio.ping_interval = sio.eio.ping_timeout = 2\n"
)
TRANSPORTS = [["polling", "websocket"], ["websocket"], ["polling"]]
FREE = "free"  # a file: while there is none the call goes on
BLOCKS = """
import time
from pathlib import Path
from chainlit.config import config
config.project.transports = {transports}

@cl.on_message
async def block_or_answer(message: cl.Message) -> None:
    if message.content.startswith("block"):
        time.sleep({seconds})
        while not Path({free!r}).exists():
            time.sleep(0.1)
    await answer(message)
"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(LONG + 180)]

NewTab = Callable[[], Tab]


@pytest.fixture(params=TRANSPORTS if IN_FULL else TRANSPORTS[:1], ids="-".join)
def blocking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ChatServer]:
    """The example, which makes a synchronous call where it is told to; its page has these transports."""
    free = tmp_path / FREE
    more = BLOCKS.format(transports=request.param, seconds=LONG, free=str(free)) + PINGS
    server = ChatServer(tmp_path, 2, CONFIG, more)
    try:
        server.launch()
        server.wait_healthy()
        yield server
    finally:
        free.touch()
        server.shut_down()
        print(server.tail(200))


@pytest.fixture
def new_tab(chromium: Browser, blocking: ChatServer) -> Iterator[NewTab]:
    """Opens a tab in a browser context of its own."""
    contexts = []

    def make() -> Tab:
        contexts.append(chromium.new_context(viewport={"width": 1000, "height": 900}))
        return Tab(contexts[-1], blocking.url)

    yield make
    for context in contexts:
        context.close()


def test_a_call_that_blocks_its_app_loses_nobody(
    blocking: ChatServer, new_tab: NewTab, tmp_path: Path
) -> None:
    """The caller gets its answer, a bystander notices nothing, a newcomer talks to another instance."""
    tabs = [new_tab() for _ in range(3)]
    home = next(tab.home for tab in tabs if sum(other.home == tab.home for other in tabs) > 1)
    caller, bystander, *_ = (tab for tab in tabs if tab.home == home)
    for tab in (caller, bystander):
        tab.say("my name is Ada")
    since, answers = time.time(), caller.answers.count()
    caller.send("block")
    wait_until(lambda: any(b["health"] == "degraded" for b in blocking.backends()), 10, "degraded")
    newcomer = new_tab()
    assert newcomer.home != home
    assert "You have not told me your name yet." in newcomer.say("who am i?")
    (tmp_path / FREE).touch()
    caller.page.wait_for_timeout(max(0.0, since + LONG - time.time()) * 1000)
    assert f"process {home}" in caller.answer(answers)
    for tab in (caller, bystander):
        assert "You are Ada." in tab.say("who am i?")
        assert tab.home == home
        assert tab.noted(since) == [], "its socket was closed, or connected anew"
        assert not tab.reloaded
    for tab in (*tabs, newcomer):
        assert tab.failures == []
        assert tab.errors == []
