"""The connection of one browser tab as the load generator plays it, and its first steps.

Every cookie that is set comes back, and the `sid` is kept exactly as it was given. Whatever is not the
expected answer is an error: a proxy that loses a session or answers 502 gets no figure.
"""

import asyncio
import json
import re
import socket

from benchmarks.browsers import Browser
from benchmarks.wire import GOODBYE, HEAD_END, SOCKETIO, TOKEN, cut_frame, cut_message, frame

COOKIE = re.compile(rb"\r\nset-cookie: *([^=]+)=([^;\r]*)", re.IGNORECASE)
SID = re.compile(rb'"sid":"([^"]+)"')
TOKEN_FRAME = len(frame(TOKEN))


class LoadError(Exception):
    """An answer that is not what was asked for."""


class Client(asyncio.Protocol):
    """One connection: one request at a time, then perhaps a websocket."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.data = b""
        self.websocket = False
        self.answer: asyncio.Future[bytes] | None = None  # set while somebody waits for what comes next
        self.head = b""  # of the answer that came last
        self.flood: int | None = None  # bytes of a stream that are still to come; they are then not read
        self.file: int | None = None  # bytes that come after the head that is awaited
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(LoadError(f"connection closed instead of an answer: {exc}"))

    def pause_writing(self) -> None:
        """The proxy is slower than the upload."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """The proxy has caught up."""
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of a stream or file, or hands over one answer or frame."""
        if self.file is not None:
            self.data += data
            if HEAD_END not in self.data:
                return
            self.head, _, data = self.data.partition(HEAD_END)
            self.flood, self.file, self.data = self.file, None, b""
        if self.flood is not None:
            self.flood -= len(data)
            if self.flood <= 0:
                self._hand_over(b"")
            return
        self.data += data
        if self.websocket:
            if cut := cut_frame(self.data):
                payload, self.data = cut
                self._hand_over(payload)
        elif message := cut_message(self.data):
            self.head, self.data = message.head, message.rest
            self._hand_over(message.body)

    def _hand_over(self, payload: bytes) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(payload)

    async def ask(self, data: bytes, status: bytes = b"200") -> bytes:
        """Sends a request and returns the body of its answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        body = await self.answer
        if self.head[9:12] != status:
            raise LoadError(f"{data.split(b' HTTP', 1)[0]!r} -> {self.head[:200]!r} {body[:200]!r}")
        self.websocket = status == b"101"
        return body

    async def upload(self, head: bytes, block: bytes, size: int) -> None:
        """Sends a request and `size` bytes of body, and waits for its answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(head)
        for sent in range(0, size, len(block)):
            await self.writable.wait()
            self.transport.write(block[: size - sent])
        await self.answer
        if self.head[9:12] != b"200":
            raise LoadError(f"upload -> {self.head[:200]!r}")

    async def download(self, request: bytes, size: int) -> None:
        """Sends a request and waits for the last of `size` bytes."""
        self.answer = asyncio.get_running_loop().create_future()
        self.file = size
        self.transport.write(request)
        await self.answer
        if self.head[9:12] != b"200" or self.flood != 0:
            raise LoadError(f"download -> {self.head[:200]!r}")
        self.flood = None

    async def exchange(self, payload: bytes) -> bytes:
        """Sends a frame and returns the next one."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(frame(payload, masked=True))
        return await self.answer

    async def receive(self) -> bytes:
        """The next frame, which may have come with the answer to the upgrade."""
        if cut := cut_frame(self.data):
            payload, self.data = cut
            return payload
        self.answer = asyncio.get_running_loop().create_future()
        return await self.answer

    async def stream(self, count: int, every: float, delay: float) -> None:
        """Asks for a stream and waits for its last byte."""
        self.flood = count * TOKEN_FRAME
        self.answer = asyncio.get_running_loop().create_future()
        order = json.dumps(["stream", {"count": count, "every": every, "delay": delay}])
        self.transport.write(frame(b"42" + order.encode(), masked=True))
        await self.answer
        if self.flood != 0:
            raise LoadError(f"{-self.flood} bytes more than the stream had")

    async def leave(self) -> None:
        """Leaves the page: says goodbye, and closes when that is answered."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(GOODBYE)
        await self.answer
        self.transport.close()


async def connect(port: int, address: str = "127.0.0.1") -> Client:
    """A new connection to the proxy, from an address of this machine."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    try:
        sock.bind((address, 0))
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, client = await loop.create_connection(Client, sock=sock)
    except BaseException:
        sock.close()
        raise
    return client


def learn(browser: Browser, head: bytes) -> None:
    """Keeps the cookies that an answer sets."""
    if found := COOKIE.findall(head):
        browser.keep([(name.decode(), value.decode()) for name, value in found])


async def announce(browser: Browser, client: Client) -> None:
    """What Chainlit's page does before it connects."""
    announced = json.dumps({"session_id": browser.session}).encode()
    await client.ask(browser.post(b"/set-session-cookie", announced, "application/json"))
    learn(browser, client.head)


def connect_packet(browser: Browser) -> bytes:
    """The Socket.IO CONNECT of Chainlit's page."""
    auth = {"clientType": "webapp", "sessionId": browser.session, "threadId": "", "userEnv": "{}"}
    return b"40" + json.dumps(auth, separators=(",", ":")).encode()


async def open_session(browser: Browser, client: Client) -> bytes:
    """What the page does first; the address of the session's polls, with the `sid` as it was given."""
    await announce(browser, client)
    opened = await client.ask(browser.get(SOCKETIO + b"polling&t=abc123"))
    learn(browser, client.head)
    match = SID.search(opened)
    if match is None:
        raise LoadError(f"no sid in {opened!r}")
    polls = SOCKETIO + b"polling&sid=" + match[1]
    await client.ask(browser.post(polls, connect_packet(browser)))
    if not (await client.ask(browser.get(polls))).startswith(b"40{"):
        raise LoadError("CONNECT was not answered")
    return polls


async def open_websocket(client: Client, upgrade: bytes) -> None:
    """The upgrade of a session that polls, as engine.io-client does it."""
    await client.ask(upgrade, b"101")
    if await client.exchange(b"2probe") != b"3probe":
        raise LoadError("the probe was not answered")
    client.transport.write(frame(b"5", masked=True))


async def open_alone(browser: Browser, client: Client, upgrade: bytes) -> None:
    """A websocket without polls before it: Engine.IO's OPEN, then CONNECT and its answer."""
    await client.ask(upgrade, b"101")
    if not (await client.receive()).startswith(b"0{"):
        raise LoadError("no OPEN packet")
    if not (answer := await client.exchange(connect_packet(browser))).startswith(b"40{"):
        raise LoadError(f"CONNECT was answered by {answer!r}")
