"""A session that connects again gets what was collected for it behind the answer to its CONNECT.

On a websocket the backend's side is read frame by frame until that answer; on a poll the answer's payload
is taken apart. Either way the collected packets come before everything that the backend says from then on.
"""

import zlib
from typing import Protocol

from proxy.affinity.directory import Session
from proxy.dataplane import response_rewrites
from proxy.dataplane.ends import AppEnd, Stream
from proxy.dataplane.leg import Leg
from proxy.dataplane.linger import Lingering
from proxy.errors import BadResponse
from proxy.wire.body import ChunkedBody
from proxy.wire.engineio import SEPARATOR
from proxy.wire.head import ResponseHead
from proxy.wire.websocket import TEXT, FrameError, FrameReader

_CONNECTED = b"40"  # the answer to CONNECT: a Socket.IO packet of that type (socket.io-protocol 5)
_LARGEST_POLL = 1 << 22  # bytes: Engine.IO's own limit for a payload is a quarter of that


class ResumedEnd(AppEnd):
    """The backend's side of a websocket until the collected packets have been said."""

    __slots__ = ("_acknowledged", "_held", "_lingering", "_reader")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg, session: Session, lingering: Lingering) -> None:
        super().__init__(stream, leg, peer, session)
        self._lingering = lingering
        self._reader = FrameReader()
        self._held = bytearray()  # what came behind the answer
        self._acknowledged = False

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self._acknowledged:
            self._held += data
            return
        if self._lingering.ended:  # they were said on a poll, or it was too late
            self._become_plain(bytes(self._reader.rest) + data)
            return
        self._stream.active = True
        self._reader.push(data)
        try:
            while not self._acknowledged and (frame := self._reader.next()) is not None:
                self.received += len(frame.raw)
                self.reads += 1
                self._write(frame.raw)
                self._acknowledged = frame.opcode == TEXT and frame.payload.startswith(_CONNECTED)
        except FrameError:
            self._lingering.end()
            self._become_plain(bytes(self._reader.rest))
            return
        if self._acknowledged:
            self._held += self._reader.rest
            self._lingering.finish(self._say)

    def eof_received(self) -> bool:
        """As asyncio.Protocol: what is held is said now, for nothing can be said behind a half-close."""
        if self._acknowledged:
            self._lingering.end()
        return super().eof_received()

    def _say(self) -> None:
        if self._stream.is_closed:
            return
        for frame in self._lingering.frames:
            self._write(frame.raw)
        self._become_plain(bytes(self._held))

    def _become_plain(self, data: bytes) -> None:
        """Nobody looks at frames any more, from `data` on."""
        end = AppEnd(self._stream, self._leg, self.peer, self._session)
        self._stream.read_backend_with(end)
        if data:
            end.data_received(data)


class Sink(response_rewrites.Sink, Protocol):
    """What the rewrite of a poll needs of its exchange."""

    ended: bool

    def close_up(self) -> None:
        """The response is said."""
        ...


class ResumedPoll:
    """Takes the body of a poll of such a session; as Rewriter."""

    __slots__ = ("_content", "_decoder", "_head", "_lingering", "_sink", "_size")

    def __init__(self, sink: Sink, head: ResponseHead, lingering: Lingering) -> None:
        self._sink = sink
        self._head = head
        self._lingering = lingering
        self._decoder = ChunkedBody() if head.fields.chunked else None
        self._content: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> None:
        """As Rewriter."""
        self._size += len(data)
        if self._size > _LARGEST_POLL:
            raise BadResponse("poll answer too long")
        if self._decoder is None:
            self._content.append(data)
        else:
            self._decoder.feed(data, self._content)

    def finish(self) -> bool:
        """As Rewriter: with the answer to CONNECT in it, it waits until all that was said before has come."""
        packets = self._plain().split(SEPARATOR)
        at = next((at for at, packet in enumerate(packets) if packet.startswith(_CONNECTED)), None)
        if at is None or self._lingering.ended:
            self._write(packets)
            return True
        self._lingering.finish(lambda: self._say(packets[: at + 1], packets[at + 1 :]))
        return False

    def _say(self, before: list[bytes], after: list[bytes]) -> None:
        if not self._sink.ended:
            self._write([*before, *self._lingering.payload(), *after])
            self._sink.close_up()

    def _plain(self) -> bytes:
        content = b"".join(self._content)
        if self._head.fields.get(b"content-encoding") is None:
            return content
        try:  # gzip or zlib, as the client offered
            return zlib.decompressobj(wbits=47).decompress(content, _LARGEST_POLL)
        except zlib.error:
            raise BadResponse("a poll's answer that cannot be unpacked") from None

    def _write(self, packets: list[bytes]) -> None:
        content = SEPARATOR.join(packets)
        self._sink.pass_head(self._head, content, length=len(content), unpacked=True)
