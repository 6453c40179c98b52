"""A conversation in the real page outlives its instance."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.chat_server import STOP, ChatServer
from tests.browser.tab import ANSWER, Tab

pytestmark = pytest.mark.browser

OpenTab = Callable[[], Tab]
NOTICE = "The answer was cut off"
BUTTON = "What do you remember?"


def kill_home(tab: Tab, server: ChatServer) -> None:
    """Kills the instance of a tab and waits until its page has heard of another, on the connection it has."""
    assert tab.home in {backend["pid"] for backend in server.backends()}
    killed = time.time()
    os.kill(tab.home, signal.SIGKILL)
    tab.wait_connected(killed)
    assert tab.noted(killed) == ["connected"]


def test_the_fourth_answer_remembers_the_first(open_tab: OpenTab, server: ChatServer, tmp_path: Path) -> None:
    """Three turns, a kill, and the fourth answer knows the first, with no reload and no second greeting."""
    tab = open_tab()
    file = tmp_path / "notes.txt"
    file.write_text("some notes")
    tab.say("my name is Ada")
    tab.attach(file)
    tab.say("take this")
    tab.say("tell me something")
    home, said = tab.home, tab.messages.count()
    kill_home(tab, server)
    assert "You are Ada." in tab.say("who am I?")
    assert tab.home != home
    assert tab.messages.count() == said + 1
    remembered = tab.press(BUTTON)
    assert "your name is Ada; you sent 4 messages" in remembered
    assert "you gave me notes.txt" in remembered
    assert tab.said.first.inner_text() == "my name is Ada"
    assert not tab.reloaded
    assert not [failure for failure in tab.failures if failure.startswith("5")]
    tab.photograph("session-restored")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_the_page_goes_on_when_run_is_started_again(
    open_tab: OpenTab, server: ChatServer, tmp_path: Path, number: signal.Signals
) -> None:
    """The whole command ends in the middle of a conversation, which the next one knows, with its uploads."""
    tab = open_tab()
    file = tmp_path / "notes.txt"
    file.write_text("some notes")
    tab.say("my name is Ada")
    uploaded = tab.attach(file)
    tab.say("take this")
    said, home = tab.messages.count(), tab.home
    stopped = time.time()
    server.stop(number, STOP)
    server.launch()
    server.wait_healthy()
    tab.wait_connected(stopped)
    assert "You are Ada." in tab.say("who am I?")
    assert tab.home != home
    assert tab.messages.count() == said + 1
    assert "your name is Ada; you sent 3 messages; you gave me notes.txt" in tab.press(BUTTON)
    assert tab.fetch(uploaded) == "200 some notes"
    assert not tab.reloaded
    tab.photograph(f"run-started-again-{number.name.lower()}")


def test_an_answer_that_was_cut_off_is_told_and_stays(open_tab: OpenTab, server: ChatServer) -> None:
    """What had been streamed stays on the page, the user reads why it ends, and the input is free."""
    tab = open_tab()
    tab.say("my name is Ada")
    home = tab.home
    growing = tab.frozen_in_an_answer(server)
    killed = time.time()
    os.kill(home, signal.SIGKILL)
    tab.wait_connected(killed)
    notice = tab.page.get_by_text(NOTICE)
    notice.wait_for(timeout=ANSWER)
    streamed = growing.inner_text()
    assert streamed
    assert not tab.was_closed(killed)
    tab.photograph("session-cut-off")
    assert "You are Ada." in tab.say("who am I?")
    assert growing.inner_text() == streamed
    assert notice.count() == 1
    assert not tab.reloaded
