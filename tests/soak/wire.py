"""What both ends of a soak read: whole HTTP messages and websocket frames from a stream."""

from asyncio import StreamReader
from typing import NamedTuple

from benchmarks.wire import cut_frame


class Message(NamedTuple):
    """A request or a response as it came."""

    start: list[bytes]
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def method(self) -> bytes:
        """Of a request."""
        return self.start[0]

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.start[1]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start[1])

    def get(self, name: bytes) -> bytes:
        """A field's value, empty if it is not there."""
        return self.fields.get(name, b"")


async def read_message(reader: StreamReader) -> Message:
    """The next message; IncompleteReadError if the connection ends before or in it."""
    start, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body = b""
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    return Message(start.split(b" ", 2), fields, body)


async def read_frame(reader: StreamReader) -> bytes | None:
    """The payload of the next frame, None for one that closes; IncompleteReadError as above."""
    raw = await reader.readexactly(2)
    size = raw[1] & 0x7F
    if size == 126:
        raw += await reader.readexactly(2)
        size = int.from_bytes(raw[2:4], "big")
    if raw[0] & 0x0F == 8:
        return None
    whole = cut_frame(raw + await reader.readexactly(size + (4 if raw[1] & 0x80 else 0)))
    assert whole is not None
    return whole[0]
