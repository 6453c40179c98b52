"""The two ends of the wire, driven by the test word by word: raw clients and scripted backends.

A `Peer` is one end of a connection. It says exactly the bytes it is told to, reads only when asked (its
buffer is small, so a test that does not read makes a slow peer), and can close, half-close or reset. What
it reads is parsed by a reader of its own, not by the proxy's. Every wait ends after `WAIT` seconds.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

WAIT = 20.0  # seconds: generous, for a machine that does much else at once
SMALL = 1 << 16  # bytes that a peer reads ahead of its test (asyncio reads up to twice that)


class Cut(Exception):  # noqa: N818 - what happened
    """The connection ended before the message was whole; `message` is what came."""

    def __init__(self, message: bytes) -> None:
        super().__init__(message[:200])
        self.message = message


@dataclass
class Message:
    """A request or a response as it came."""

    start: bytes
    lines: list[bytes] = field(default_factory=list)
    body: bytes = b""
    raw_body: bytes = b""  # with its framing
    trailers: list[bytes] = field(default_factory=list)
    interim: list["Message"] = field(default_factory=list)  # the 1xx responses before it

    def all(self, name: bytes) -> list[bytes]:
        """The values of every field of this lower-case name."""
        pairs = (line.split(b":", 1) for line in self.lines)
        return [value.strip() for key, value in pairs if key.lower() == name]

    def get(self, name: bytes) -> bytes | None:
        """The value of the only field of this name, None if there is none."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.start.split(b" ")[1]


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> Self:
        """Send bytes, as fast as the other side takes them, without waiting."""
        self.writer.write(data)
        return self

    async def say_slowly(self, data: bytes) -> None:
        """Send bytes and wait until the other side has taken most of them."""
        self.writer.write(data)
        async with asyncio.timeout(WAIT):
            await self.writer.drain()

    async def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        async with asyncio.timeout(WAIT):
            try:
                return await self.reader.readexactly(count)
            except asyncio.IncompleteReadError as error:
                raise Cut(error.partial) from None
            except ConnectionError:
                raise Cut(b"") from None

    async def some(self) -> bytes:
        """What comes next; raises Cut at the end."""
        async with asyncio.timeout(WAIT):
            try:
                data = await self.reader.read(1 << 16)
            except ConnectionError:
                raise Cut(b"") from None
        if not data:
            raise Cut(b"")
        return data

    async def until(self, end: bytes) -> bytes:
        """All bytes up to and with `end`."""
        async with asyncio.timeout(WAIT):
            try:
                return await self.reader.readuntil(end)
            except asyncio.IncompleteReadError as error:
                raise Cut(error.partial) from None
            except ConnectionError:
                raise Cut(b"") from None

    async def rest(self) -> bytes:
        """All bytes until the other side has said all; raises Cut after a reset."""
        parts: list[bytes] = []
        async with asyncio.timeout(WAIT):
            try:
                while part := await self.reader.read(1 << 18):
                    parts.append(part)
            except ConnectionError:
                raise Cut(b"".join(parts)) from None
        return b"".join(parts)

    async def gone(self) -> None:
        """Wait until the other side has closed or reset; nothing else may come."""
        with contextlib.suppress(Cut):
            assert await self.rest() == b""

    async def head(self) -> Message:
        """The next head."""
        start, *lines = (await self.until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        return Message(start, lines)

    async def request(self) -> Message:
        """The next request with its body."""
        message = await self.head()
        await self._body(message, empty=message.get(b"content-length") is None)
        return message

    async def response(self, *, to_head: bool = False) -> Message:
        """The next response with its body, after its 1xx responses; raises Cut if it is not whole."""
        interim = []
        while 100 < (message := await self.head()).status < 200 or message.status == 100:
            if message.status == 101:
                break
            interim.append(message)
        message.interim = interim
        await self._body(message, empty=to_head or message.status in (101, 204, 304))
        return message

    async def _body(self, message: Message, *, empty: bool) -> None:
        length = message.get(b"content-length")
        if message.get(b"transfer-encoding") is not None and (not empty or length is None):
            if not (empty and message.start.startswith(b"HTTP/")):
                await self._chunks(message)
        elif not empty and length is not None:
            message.body = message.raw_body = await self.read(int(length))
        elif not empty:
            message.body = message.raw_body = await self.rest()

    async def _chunks(self, message: Message) -> None:
        raw, content = [], []
        while True:
            line = await self.until(b"\r\n")
            raw.append(line)
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            chunk = await self.read(size + 2)
            raw.append(chunk)
            content.append(chunk[:-2])
        while (line := await self.until(b"\r\n")) != b"\r\n":
            message.trailers.append(line[:-2])
        message.body = b"".join(content)
        message.raw_body = b"".join([*raw, *(t + b"\r\n" for t in message.trailers), b"\r\n"])

    def half_close(self) -> None:
        """Say no more, still read."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close after what is said."""
        self.writer.close()

    def reset(self) -> None:
        """Reset: what was not read by the other side is lost to it."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        if not self.writer.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def ok(body: bytes = b"ok", *lines: bytes) -> bytes:
    """A response with Content-Length."""
    extra = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (extra, len(body), body)


def get(path: bytes = b"/", *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """A request without a body."""
    extra = b"".join(line + b"\r\n" for line in lines)
    return b"%b %b HTTP/%b\r\nHost: chat.test\r\n%b\r\n" % (method, path, version, extra)


def post(path: bytes, body: bytes, *lines: bytes, method: bytes = b"POST") -> bytes:
    """A request with Content-Length."""
    return get(path, *lines, b"Content-Length: %d" % len(body), method=method) + body


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"
