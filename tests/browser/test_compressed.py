"""Chromium accepts a compressed websocket, and goes on with it when an instance is killed."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.chat_server import ChatServer
from tests.browser.tab import Tab

pytestmark = pytest.mark.browser


@pytest.fixture
def compressing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """A server that compresses websockets."""
    server = ChatServer(tmp_path_factory.mktemp("chat"), replicas=2, config="websocket:\n  compress: true\n")
    try:
        server.launch()
        server.wait_healthy()
        yield server
    finally:
        server.shut_down()


def test_a_compressed_conversation(context: BrowserContext, compressing: ChatServer) -> None:
    """The page has the extension, what is streamed is whole, and its instance may die unnoticed."""
    answers: list[dict[str, str]] = []

    def watch(tab: Tab) -> None:
        devtools = context.new_cdp_session(tab.page)
        devtools.send("Network.enable")
        devtools.on(
            "Network.webSocketHandshakeResponseReceived",
            lambda event: answers.append(event["response"]["headers"]),
        )

    tab = Tab(context, compressing.url)
    watch(tab)
    tab.page.reload()
    tab.messages.first.wait_for()
    assert "Nice to meet you, Ada." in tab.say("my name is Ada")
    assert [headers["Sec-WebSocket-Extensions"] for headers in answers] == [
        "permessage-deflate; client_no_context_takeover"
    ]
    home, killed = tab.home, time.time()
    os.kill(home, signal.SIGKILL)
    tab.wait_connected(killed)
    assert "You are Ada." in tab.say("who am I?")
    assert tab.home != home
    assert tab.noted(killed) == ["connected"]
    assert tab.errors == []
