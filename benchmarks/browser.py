"""One browser tab as the load generator plays it: its heads and cookies, its connection, its first steps.

Heads and cookies have a browser's size, every cookie that is set comes back, and the `sid` is kept exactly
as it was given. Whatever is not the expected answer is an error: a proxy that loses a session or answers
502 gets no figure.
"""

import asyncio
import json
import re
import uuid

from benchmarks.wire import HEAD_END, SOCKETIO, TOKEN, cut_frame, cut_message, frame

COOKIE = re.compile(rb"\r\nset-cookie: *([^=]+)=([^;\r]*)", re.IGNORECASE)
SID = re.compile(rb'"sid":"([^"]+)"')
LOGIN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "x" * 420 + "." + "y" * 43  # as long as Chainlit's
CHROME = (
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
    b"sec-ch-ua-mobile: ?0",
    b'sec-ch-ua-platform: "Linux"',
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36",
    b"Accept: */*",
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Mode: cors",
    b"Sec-Fetch-Dest: empty",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
)
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TOKEN_FRAME = len(frame(TOKEN))


class LoadError(Exception):
    """An answer that is not what was asked for."""


class Browser:
    """One tab's cookies and headers; each work makes some."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.session = str(uuid.uuid4())
        self.cookies = {b"_ga": b"GA1.1.1234567890.1765432100", b"access_token": LOGIN.encode()}
        self._render()

    def _render(self) -> None:
        host = b"127.0.0.1:%d" % self.port
        cookies = b"; ".join(name + b"=" + value for name, value in self.cookies.items())
        self.headers = b"\r\n".join(
            (
                b" HTTP/1.1",
                b"Host: " + host,
                *CHROME,
                b"Origin: http://" + host,
                b"Referer: http://" + host + b"/",
                b"Cookie: " + cookies,
                b"",
            )
        )

    def get(self, target: bytes, extra: bytes = b"") -> bytes:
        """A GET request."""
        return b"GET " + target + self.headers + extra + b"\r\n"

    def post(self, target: bytes, body: bytes, kind: bytes = b"text/plain;charset=UTF-8") -> bytes:
        """A POST request."""
        return self.post_head(target, len(body), kind) + body

    def post_head(self, target: bytes, size: int, kind: bytes = b"application/octet-stream") -> bytes:
        """A POST request up to its body."""
        extra = b"Content-Type: " + kind + b"\r\nContent-Length: %d\r\n\r\n" % size
        return b"POST " + target + self.headers + extra

    def learn(self, head: bytes) -> None:
        """Keeps the cookies that an answer sets."""
        if found := COOKIE.findall(head):
            self.cookies.update(found)
            self._render()


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

    async def stream(self, count: int, every: float, delay: float) -> None:
        """Asks for a stream and waits for its last byte."""
        self.flood = count * TOKEN_FRAME
        self.answer = asyncio.get_running_loop().create_future()
        order = json.dumps(["stream", {"count": count, "every": every, "delay": delay}])
        self.transport.write(frame(b"42" + order.encode(), masked=True))
        await self.answer
        if self.flood != 0:
            raise LoadError(f"{-self.flood} bytes more than the stream had")


async def connect(port: int) -> Client:
    """A new connection to the proxy."""
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def open_session(browser: Browser, client: Client) -> bytes:
    """What the page does first; the address of the session's polls, with the `sid` as it was given."""
    announced = json.dumps({"session_id": browser.session}).encode()
    await client.ask(browser.post(b"/set-session-cookie", announced, b"application/json"))
    browser.learn(client.head)
    opened = await client.ask(browser.get(SOCKETIO + b"polling&t=abc123"))
    browser.learn(client.head)
    match = SID.search(opened)
    if match is None:
        raise LoadError(f"no sid in {opened!r}")
    polls = SOCKETIO + b"polling&sid=" + match[1]
    auth = {"clientType": "webapp", "sessionId": browser.session, "threadId": "", "userEnv": "{}"}
    await client.ask(browser.post(polls, b"40" + json.dumps(auth).encode()))
    if not (await client.ask(browser.get(polls))).startswith(b"40"):
        raise LoadError("CONNECT was not answered")
    return polls


async def open_websocket(browser: Browser, client: Client, polls: bytes) -> None:
    """The upgrade of a session that polls, as engine.io-client does it."""
    await client.ask(browser.get(polls.replace(b"polling", b"websocket"), UPGRADE), b"101")
    if await client.exchange(b"2probe") != b"3probe":
        raise LoadError("the probe was not answered")
    client.transport.write(frame(b"5", masked=True))
