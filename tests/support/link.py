"""The seam between a chat and the library that carries it.

A `Link` is one tab's connection: Socket.IO events in both directions and plain HTTP requests, by one
client library, over one choice of transports, with or without cookies. It knows nothing of Chainlit.
Every HTTP exchange that the library makes is recorded, so a test can say what a client must never see.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import product
from typing import Any

import aiohttp

SOCKET_PATH = "/ws/socket.io"
# The first retry of the real client waits 0.5 to 1.5 s: this value, give or take half of it.
RECONNECT_DELAY = 1.0
REQUEST_TIMEOUT = 60.0  # for a request of the test; longer than an instance is ever blocked here


class Driver(Enum):
    """The client library."""

    PYTHON = "python"
    JS = "js"


class Transports(Enum):
    """The transports of a client, in the order in which it uses them."""

    POLLING = ("polling",)
    BOTH = ("polling", "websocket")
    WEBSOCKET = ("websocket",)


class Identity(Enum):
    """What a client tells of itself before it connects."""

    COOKIES = "cookies"  # announces its session and keeps the cookie, as a page in a normal browser
    BLOCKED = "blocked"  # announces its session, but the browser drops the cookie
    BARE = "bare"  # neither: a script that only speaks Socket.IO


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of client."""

    driver: Driver
    transports: Transports
    identity: Identity = Identity.COOKIES

    def __str__(self) -> str:
        return f"{self.driver.value}-{self.transports.name.lower()}-{self.identity.value}"


KINDS = [Kind(*parts) for parts in product(Driver, Transports, Identity)]
COOKIE_KINDS = [kind for kind in KINDS if kind.identity is Identity.COOKIES]
JS_KINDS = [kind for kind in KINDS if kind.driver is Driver.JS]


@dataclass(slots=True)
class Browser:
    """What tabs share: a cookie jar. Each driver keeps its own sort of jar, found by the browser's name."""

    name: str
    cookies: bool
    jar: aiohttp.CookieJar | None = None  # set by the first tab of the Python driver


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the library reported: connect, disconnect, connect_error or a Socket.IO event."""

    t: float  # seconds since the epoch
    name: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP request as the client saw it; status 0 if no answer came. Bodies are kept from 400 on."""

    t: float
    method: str
    path: str
    status: int
    body: str = ""

    @property
    def is_handshake(self) -> bool:
        """Whether this opens a Socket.IO connection."""
        return SOCKET_PATH in self.path and "sid=" not in self.path


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request of the test."""

    status: int
    body: str


@dataclass(slots=True)
class Upload:
    """A file to be sent as a form."""

    name: str
    content: str


@dataclass(slots=True)
class Request:
    """A request of the test; `path` may carry a query."""

    method: str
    path: str
    json: Any = None
    upload: Upload | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Link(ABC):
    """One tab's connection; created by `Clients`, owned by a `Chat`."""

    def __init__(self, url: str, kind: Kind, browser: Browser, delay: float) -> None:
        self.url, self.kind, self.browser, self.delay = url, kind, browser, delay
        self.exchanges: list[Exchange] = []
        self.listener: Callable[[Event], None] = lambda event: None

    @abstractmethod
    async def open(self, auth: dict[str, Any]) -> None:
        """Starts to connect, and keeps the connection up from now on as the library does by itself."""

    @abstractmethod
    async def emit(self, event: str, data: Any = None) -> None:
        """Sends a Socket.IO event; while the connection is down the library keeps or loses it."""

    @abstractmethod
    async def request(self, request: Request) -> Answer:
        """Makes an HTTP request with this tab's cookies; status 0 if no answer came."""

    @abstractmethod
    async def cut(self) -> None:
        """Closes the tab's sockets under the library, as a network failure would."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the tab for good, also when nobody answers."""
