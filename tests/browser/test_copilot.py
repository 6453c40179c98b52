"""The Copilot widget on another site's page, in real Chromium: no cookie of ours comes with its requests."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.chat_server import ChatServer
from tests.browser.tab import Tab

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><title>Elsewhere</title><h1>Another site</h1>
<script src="{url}copilot/index.js"></script>
<script>window.mountChainlitWidget({{chainlitServer: "{url}"}});</script>
"""


@pytest.fixture
def elsewhere(server: ChatServer) -> Iterator[str]:
    """Another site that embeds the app: to a browser, each address is one."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.format(url=server.url).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.2", 0), Page) as site:
        serving = threading.Thread(target=site.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.2:{site.server_port}/"
        finally:
            site.shutdown()
            serving.join()


def test_widgets_on_another_site(
    context: BrowserContext, server: ChatServer, elsewhere: str, tmp_path: Path
) -> None:
    """Each of several widgets holds its own conversation and its uploads at one instance."""
    widgets = [Tab(context, server.url, embedded_in=elsewhere) for _ in range(3)]
    for number, widget in enumerate(widgets):
        assert f"Nice to meet you, Ada{number}." in widget.say(f"my name is Ada{number}")
    for number, widget in enumerate(widgets):
        home = widget.home
        file = tmp_path / f"{number}.txt"
        file.write_text(f"{number}" * 100)
        widget.attach(file)
        assert f"{number}.txt" in widget.say("what is it?")
        assert f"You are Ada{number}." in widget.say("who am I?")
        assert widget.home == home
        # The widget asks for a theme of its own, which the example has not.
        assert [failure for failure in widget.failures if "theme.json" not in failure] == []
    widgets[0].photograph("copilot")


def test_a_widget_does_not_notice_that_its_instance_is_killed(
    context: BrowserContext, server: ChatServer, elsewhere: str
) -> None:
    """It is handed over as a page is: nothing is closed, and the next answer remembers."""
    widget = Tab(context, server.url, embedded_in=elsewhere)
    widget.say("my name is Ada")
    home, said, failures = widget.home, widget.messages.count(), widget.failures[:]
    killed = time.time()
    os.kill(home, signal.SIGKILL)
    widget.wait_connected(killed)
    assert "You are Ada." in widget.say("who am I?")
    assert widget.home != home
    assert widget.messages.count() == said + 1
    assert widget.noted(killed) == ["connected"]
    assert widget.failures == failures
    assert not widget.reloaded


def test_a_widget_reads_the_proxys_own_refusals(
    context: BrowserContext, server: ChatServer, elsewhere: str
) -> None:
    """A script of the other site's page sees the status, and no network error; with cookies too."""
    widget = Tab(context, server.url, embedded_in=elsewhere)
    ask = """async (url) => {
        const body = "\\x1e".repeat(2000);
        const got = await fetch(url, {method: "POST", body, credentials: "include"});
        return [got.status, await got.text()];
    }"""
    status, text = widget.page.evaluate(ask, f"{server.url}ws/socket.io/?EIO=4&transport=polling&sid=x")
    assert (status, text[:3]) == (413, "413")
