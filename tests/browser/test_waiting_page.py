"""The script of the page that waits, with what a network and an app may answer it, in a real browser."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, expect

from proxy.wire.reply import ADMITTED, error, queue_page

pytestmark = pytest.mark.browser

WAITS = queue_page(2, 3, "ticket-1", 0, b"", as_text=False).http1(close=True)
TOLD = queue_page(1, 3, "ticket-1", 0, b"", as_text=True).http1(close=True)
LOGIN = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CHAT = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<p>the chat</p>"


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives these one after the other, the last one for ever; and which tickets it got."""
    left, tickets = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/favicon.ico":
                self.send_error(404)
                return
            tickets.append(self.headers["X-Chainlit-Queue"])
            answer = left.pop(0) if len(left) > 1 else left[0]
            self.wfile.write(answer)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", tickets
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _leading(login: str, answers: list[bytes]) -> list[bytes]:
    return [answer % login.encode() if answer is LOGIN else answer for answer in answers]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([ADMITTED.http1(close=True), CHAT], id="its turn"),
        pytest.param([LOGIN, LOGIN], id="a login on another site"),
        pytest.param([TOLD[:-9], ADMITTED.http1(close=True), CHAT], id="an answer is cut off"),
        pytest.param([b"", ADMITTED.http1(close=True), CHAT], id="no answer"),
        pytest.param(
            [error(429, "too many requests").http1(close=True), ADMITTED.http1(close=True), CHAT],
            id="too often",
        ),
    ],
)
def test_it_ends_in_the_chat(chromium: Browser, asked: list[bytes]) -> None:
    """Whatever happens on the way: nobody has to press a key."""
    context = chromium.new_context()
    try:
        with serving(CHAT) as (login, _), serving(WAITS, TOLD, *_leading(login, asked)) as (url, tickets):
            page = context.new_page()
            page.goto(url)
            expect(page.get_by_text("the chat", exact=True)).to_be_visible()
            assert tickets[:3] == [None, "ticket-1", "ticket-1"]
    finally:
        context.close()
