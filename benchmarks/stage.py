"""A real data plane between transports that only keep what they are given, for `benchmarks.share`.

A client's bytes are handed to the proxy's protocols, and what it says to a backend is answered in the
backend's place. Nothing is read from a socket or written to one. Connections to backends succeed at once: the
loop's `create_connection` and `create_server` are the seam, so a proxy that connects by other means has to be
met there.
"""

import asyncio
import json
import re
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.browsers import Browser
from benchmarks.wire import SOCKETIO, TOKEN
from proxy import net

HOST = "chat.example.com"
SID = re.compile(rb'"sid":"([^"]+)"')
COOKIE = re.compile(rb"\r\nset-cookie: *([^=]+)=([^;\r]*)", re.IGNORECASE)
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/plain; charset=UTF-8\r\ncontent-length: %d\r\n\r\n%b"
)
ANSWER = HEAD % (len(TOKEN), TOKEN)
DONE = HEAD % (2, b"OK")
CONNECTED = b'40{"sid":"ssssssssssssssssssss"}'
TAKEN = HEAD % (len(CONNECTED), CONNECTED)
NOT_HERE = (
    b"HTTP/1.1 401 Unauthorized\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b'content-type: application/json\r\ncontent-length: 25\r\n\r\n{"detail":"Unauthorized"}'
)
HERE = (
    b"HTTP/1.1 404 Not Found\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b'content-type: application/json\r\ncontent-length: 27\r\n\r\n{"detail":"File not found"}'
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
OPENED = (
    b'0{"sid":"%b","upgrades":["websocket"],"pingTimeout":20000,"pingInterval":25000,"maxPayload":1000000}'
)


class ShareError(Exception):
    """The proxy said something that was not expected."""


class Wire:
    """A transport that keeps what is written, and says it is closed in the loop's next turn."""

    __slots__ = ("_closing", "_info", "_sent", "loop", "port", "protocol", "said")

    def __init__(
        self,
        loop: "Loop",
        protocol: Any,
        peer: str,
        sent: "deque[tuple[Wire, bytes]] | None" = None,
        port: int = 0,
    ) -> None:
        """`sent` is where a backend hears it, `port` tells which."""
        self.loop = loop
        self.protocol = protocol
        self.said = b""  # what was written last
        self._closing = False
        self._sent = sent
        self.port = port
        self._info = {"peername": (peer, 40000), "socket": loop.socket}

    def write(self, data: bytes) -> None:
        """As Transport."""
        self.said = data
        if self._sent is not None:
            self._sent.append((self, data))

    def writelines(self, parts: list[bytes]) -> None:
        """As Transport."""
        self.write(b"".join(parts))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As Transport."""
        return self._info.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        """As Transport."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """As Transport."""
        return self.protocol

    def is_closing(self) -> bool:
        """As Transport."""
        return self._closing

    def close(self) -> None:
        """As Transport."""
        if not self._closing:
            self._closing = True
            self.loop.call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        protocol, self.protocol = self.protocol, None  # as uvloop lets go of it
        protocol.connection_lost(None)

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return 0

    def can_write_eof(self) -> bool:
        """As Transport."""
        return True

    def write_eof(self) -> None:
        """As Transport."""

    def pause_reading(self) -> None:
        """As Transport."""

    def resume_reading(self) -> None:
        """As Transport."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As Transport."""

    def is_reading(self) -> bool:
        """As Transport."""
        return True

    def hang_up(self) -> None:
        """The other side has closed."""
        if not self._closing and not self.protocol.eof_received():
            self.close()


class Server:
    """What `create_server` gave."""

    def close(self) -> None:
        """As Server."""


class Sock:
    """A socket that reaches every backend at once; the loop makes a wire of it."""

    port = 0

    def close(self) -> None:
        """As socket."""


def _reach(sock: Sock, _host: str, port: int) -> bool:
    sock.port = port
    return True


vars(net).update(begin=lambda _host: Sock(), reach=_reach)


class Loop(uvloop.Loop):
    """A loop on which every connection succeeds at once, to nobody."""

    def __init__(self) -> None:
        self.socket, self.other = socket.socketpair()
        self.sent: deque[tuple[Wire, bytes]] = deque()  # to backends
        self.client: Callable[[], asyncio.Protocol] | None = None  # set when the proxy listens
        self.listening = asyncio.Event()

    async def create_connection(self, *args: Any, sock: Any = None, **_: Any) -> Any:
        """As AbstractEventLoop: a factory, and a host and a port or a socket that is there."""
        protocol = args[0]()
        wire = Wire(self, protocol, "127.0.0.1", self.sent, args[2] if sock is None else sock.port)
        if sock is None:
            protocol.connection_made(wire)
        else:
            made = self.create_future()
            self.call_soon(protocol.connection_made, wire)
            self.call_soon(made.set_result, None)
            await made
        return wire, protocol

    async def create_server(self, *args: Any, **settings: Any) -> Any:
        """As AbstractEventLoop: a factory and a socket."""
        settings["sock"].close()
        self.client = args[0]
        self.listening.set()
        return Server()


class Stage:
    """The plane between its clients and what stands for its backends."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.minted = 0
        self.home: int | None = (
            0  # the port of the backend that has the session; None: whoever is asked first
        )

    def connect(self, address: str) -> Wire:
        """A client's new connection."""
        assert self.loop.client is not None
        protocol = self.loop.client()
        wire = Wire(self.loop, protocol, address)
        protocol.connection_made(wire)  # type: ignore[arg-type]
        return wire

    async def hear(self) -> tuple[Wire, bytes]:
        """What a backend is told next; questions of the proxy's own are answered."""
        sent = self.loop.sent
        while True:
            for _ in range(50):
                if sent:
                    break
                await asyncio.sleep(0)
            else:
                raise ShareError("no backend was asked")
            wire, data = sent.popleft()
            if not data.startswith(b"GET /project/file/"):
                return wire, data
            self.home = wire.port if self.home is None else self.home
            wire.protocol.data_received(HERE if wire.port == self.home else NOT_HERE)

    async def ask(self, wire: Wire, request: bytes, answer: bytes) -> bytes:
        """Sends a request, answers for the backend, and returns what the client is told."""
        wire.said = b""
        wire.protocol.data_received(request)
        sent = self.loop.sent
        up, _ = sent.popleft() if sent else await self.hear()
        up.protocol.data_received(answer)
        for _ in range(50):
            if wire.said:
                return wire.said
            await asyncio.sleep(0)
        raise ShareError(f"no answer to {request[:100]!r}")

    def mint(self) -> bytes:
        """A backend's sid."""
        self.minted += 1
        return b"%020d" % self.minted


async def open_session(stage: Stage, browser: Browser) -> tuple[Wire, bytes]:
    """As Chainlit's page does by polling: the connection, and where the session polls."""
    wire = stage.connect(browser.address)
    announced = json.dumps({"session_id": browser.session}).encode()
    said = await stage.ask(wire, browser.post(b"/set-session-cookie", announced, "application/json"), DONE)
    learn(browser, said)
    browser.keep([("X-Chainlit-Session-id", browser.session)])
    opened = OPENED % stage.mint()
    said = await stage.ask(wire, browser.get(SOCKETIO + b"polling&t=abc"), HEAD % (len(opened), opened))
    found = SID.search(said)
    if found is None:
        raise ShareError(f"no sid in {said!r}")
    learn(browser, said)
    polls = SOCKETIO + b"polling&sid=" + found[1]
    await stage.ask(wire, browser.post(polls, connect_packet(browser)), DONE)
    await stage.ask(wire, browser.get(polls), TAKEN)
    return wire, polls


def connect_packet(browser: Browser) -> bytes:
    """The Socket.IO CONNECT of a page."""
    auth = {"clientType": "webapp", "sessionId": browser.session, "threadId": "", "userEnv": "{}"}
    return b"40" + json.dumps(auth, separators=(",", ":")).encode()


def learn(browser: Browser, said: bytes) -> None:
    """Keeps the cookies that an answer sets."""
    if found := COOKIE.findall(said):
        browser.keep([(name.decode(), value.decode()) for name, value in found])
