"""What a user does in the real Chainlit page, with three instances behind the address."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.chat_server import ChatServer
from tests.browser.tab import ANSWER, ARTEFACTS, SIGNED, Tab

pytestmark = pytest.mark.browser

OpenTab = Callable[[], Tab]
BUTTON = "What do you remember?"
COMEBACK = 3.0  # seconds from the end of an instance until its users can go on


def assert_undisturbed(*tabs: Tab) -> None:
    """Nothing went wrong that a user or the console could tell of."""
    for tab in tabs:
        assert tab.failures == []
        assert tab.errors == []


def test_an_answer_arrives_token_by_token(open_tab: OpenTab, server: ChatServer) -> None:
    """The page shows the beginning of an answer while the instance has not made its end."""
    tab = open_tab()
    home = tab.home
    partial = whole = ""
    for _ in range(5):  # the instance may be at the end of what is no longer a part
        growing = tab.frozen_in_an_answer(server)
        try:
            partial = growing.inner_text()
        finally:
            os.kill(home, signal.SIGCONT)
        expect(growing).to_contain_text(SIGNED, timeout=ANSWER)
        whole = growing.inner_text()
        if partial != whole:
            break
    assert whole.startswith(partial)
    assert len(partial) < len(whole)
    tab.photograph("conversation")
    assert_undisturbed(tab)


def test_a_conversation_is_remembered(open_tab: OpenTab) -> None:
    """All messages of a tab reach the instance that knows its name."""
    tab = open_tab()
    home = tab.home
    assert "Nice to meet you, Ada." in tab.say("my name is Ada")
    for _ in range(3):
        assert "You are Ada." in tab.say("who am I?")
        assert tab.home == home
    assert_undisturbed(tab)


def test_two_tabs_are_two_conversations(open_tab: OpenTab, tmp_path: Path) -> None:
    """Tabs that share their cookies keep their own memory, uploads and buttons, in turns."""
    tabs = {"Ada": open_tab(), "Grace": open_tab()}
    homes = {name: tab.home for name, tab in tabs.items()}
    for name, tab in tabs.items():
        tab.say(f"my name is {name}")
    for name, tab in tabs.items():
        file = tmp_path / f"notes of {name}.txt"
        file.write_text(f"{name} wrote this")
        tab.attach(file)
        assert file.name in tab.say("take this")
    for name, tab in tabs.items():
        remembered = tab.press(BUTTON)
        assert f"your name is {name}" in remembered
        assert f"you gave me notes of {name}.txt" in remembered
        assert tab.home == homes[name]
    assert_undisturbed(*tabs.values())


def test_an_upload_reaches_the_conversation(open_tab: OpenTab, tmp_path: Path) -> None:
    """A file goes by a request of its own, and must be where the message is read."""
    tab = open_tab()
    file = tmp_path / "notes.txt"
    file.write_bytes(b"x" * 100_000)
    tab.attach(file)
    assert "I got notes.txt (100,000 bytes)." in tab.say("take this")
    assert_undisturbed(tab)


def test_a_button_reaches_the_conversation(open_tab: OpenTab) -> None:
    """A button's click is a request of its own, and must be where the conversation is known."""
    tab = open_tab()
    tab.say("my name is Ada")
    remembered = tab.press(BUTTON)
    assert "your name is Ada; you sent 1 message" in remembered
    assert_undisturbed(tab)


def test_both_tabs_go_on_when_an_instance_is_killed(
    open_tab: OpenTab, server: ChatServer, tmp_path: Path
) -> None:
    """Who lived there is on another instance, by the same connection; the others see nothing."""
    tabs = [open_tab(), open_tab()]
    for tab in tabs:
        tab.say("my name is Ada")
    file = tmp_path / "notes.txt"
    file.write_text("some notes")
    tabs[0].attach(file)
    tabs[0].say("take this")
    tabs[1].press(BUTTON)
    assert_undisturbed(*tabs)
    told = []
    for number, victim in enumerate((tabs[0], tabs[1]), 1):
        told += kill_home(victim, tabs, server, f"kill-{number}")
    told += [failure for tab in tabs for failure in tab.failures]
    (ARTEFACTS / "kill.txt").write_text("\n".join(told) + "\n")
    for tab in tabs:
        assert not tab.reloaded
        assert tab.said.first.inner_text() == "my name is Ada"
        assert not [failure for failure in tab.failures if failure.startswith("5")]
        assert not [error for error in tab.errors if "Invalid session" in error]


def kill_home(victim: Tab, tabs: list[Tab], server: ChatServer, name: str) -> list[str]:
    """Kills the instance of one tab; checks that all work again in time, and tells how long it took."""
    homes = [tab.home for tab in tabs]
    pid = victim.home
    assert pid in {backend["pid"] for backend in server.backends()}
    counts = [tab.answers.count() for tab in tabs]
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    told = []
    for tab, home in zip(tabs, homes, strict=True):
        if home == pid:
            seconds = tab.wait_connected(killed)
            told.append(f"{name}: another instance after {seconds:.2f} s")
            assert seconds < COMEBACK
        tab.send("who am I?")
    for tab, home, count in zip(tabs, homes, counts, strict=True):
        answer = tab.answer(count)
        told.append(f"{name}: answered {time.time() - killed:.2f} s after the kill")
        assert "You are Ada." in answer
        assert (tab.home == home) is (home != pid)
        assert tab.noted(killed) == (["connected"] if home == pid else [])
    for number, tab in enumerate(tabs, 1):
        tab.photograph(f"{name}-tab-{number}")
    return told
