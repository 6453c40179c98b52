"""One server and one Chromium for the run; each test has a browser context, with its own cookies."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser.chat_server import ChatServer
from tests.browser.chromium import FLAGS, MISSING, find
from tests.browser.tab import Tab


class Launch(Protocol):
    """Starts the system's Chromium, with a fresh profile."""

    def __call__(self, flags: Sequence[str] = FLAGS) -> Browser:
        """Whoever starts one closes it."""
        ...


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """For a Chromium of one's own."""
    path = find()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        yield lambda flags=FLAGS: playwright.chromium.launch(executable_path=path, args=list(flags))


@pytest.fixture(scope="session")
def chromium(launch: Launch) -> Iterator[Browser]:
    """The one that most tests share."""
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """Three replicas of the example behind the proxy."""
    server = ChatServer(tmp_path_factory.mktemp("chat"))
    try:
        server.launch()
        server.wait_healthy()
        yield server
    finally:
        server.shut_down()


@pytest.fixture
def server(running: ChatServer) -> Iterator[ChatServer]:
    """The server with all replicas healthy; its log is shown if the test fails."""
    running.wait_healthy()
    yield running
    print(running.tail(200))


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A cookie jar of its own."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900})
    yield context
    context.close()


@pytest.fixture
def open_tab(context: BrowserContext, server: ChatServer) -> Callable[[], Tab]:
    """Opens one more tab in the same cookie jar."""
    return lambda: Tab(context, server.url)
