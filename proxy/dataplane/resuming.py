"""A session that connects again gets what was collected for it behind the answer to its CONNECT.

On a websocket the backend's side is read frame by frame until that answer; on a poll the answer's payload
is taken apart. Either way the collected packets come before everything that the backend says from then on.
What belongs to a poll is told by its transport when the answer is there: a client may ask for news before it
connects. Of more packets than a client takes at once the rest is kept for its next polls.
"""

import zlib
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession
from proxy.affinity.lingering import Backlog, behind_connect, is_connected
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken
from proxy.dataplane import response_rewrites
from proxy.dataplane.ends import AppEnd, Stream
from proxy.dataplane.leg import Leg
from proxy.dataplane.linger import LingeringEnd, Lingers
from proxy.errors import BadResponse
from proxy.wire.body import ChunkedBody
from proxy.wire.engineio import MOST_PACKETS, NOOP, SEPARATOR
from proxy.wire.head import ResponseHead
from proxy.wire.websocket import TEXT, FrameError, FrameReader

_EVENT = b'42["'  # in no JSON text, whose quotes would be escaped
_LARGEST_POLL = 1 << 22  # bytes: Engine.IO's own limit for a payload is a quarter of that


class ResumedEnd(AppEnd):
    """The backend's side of a websocket until the collected packets have been said; as Resumer."""

    __slots__ = ("_answered", "_held", "_lingering", "_reader")

    def __init__(
        self,
        stream: Stream,
        leg: Leg,
        peer: Leg,
        session: Session,
        untaken: Untaken,
        lingering: LingeringEnd,
    ) -> None:
        super().__init__(stream, leg, peer, session, untaken)
        self._lingering = lingering
        self._reader = FrameReader()
        self._held = bytearray()  # what came behind the answer to CONNECT
        self._answered = False  # whether that is out

    def resume(self) -> None:
        """The answer to CONNECT is out: what was collected is next."""
        self._answered = True
        self._held += self._reader.rest
        self._lingering.finish(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self._answered:
            self._held += data
            return
        if self._lingering.ended:  # they were said on a poll, or it was too late
            self._become_plain(bytes(self._reader.rest) + data)
            return
        self._stream.active = self._stream.talks = True
        self._reader.push(data)
        answered = False
        try:
            while not answered and (frame := self._reader.next()) is not None:
                self.received += len(frame.raw)
                self.reads += 1
                self._write(frame.raw)
                answered = frame.opcode == TEXT and is_connected(frame.payload)
        except FrameError:
            self._lingering.end()
            self._become_plain(bytes(self._reader.rest))
            return
        if answered and self._stream.connects_more:
            self._become_plain(bytes(self._reader.rest))
        elif answered:
            self.resume()

    def eof_received(self) -> bool:
        """As asyncio.Protocol: what is held is said now, for nothing can be said behind a half-close."""
        if self._answered:
            self._lingering.end()
        return super().eof_received()

    def all_has_come(self) -> None:
        """As Resumer."""
        if not self._stream.is_closed:
            self.peer.say(self._lingering.what.frames())
            self._become_plain(bytes(self._held))

    def give_up(self, leg: Leg | None) -> bytes:
        """As Resumer: its client was lost before it had them, or the session has connected once more."""
        if leg is self._leg:
            return bytes(self._held)
        if not self._stream.is_closed:
            self._become_plain(bytes(self._held))
        return b""

    def _become_plain(self, data: bytes) -> None:
        """Nobody looks at frames any more, from `data` on."""
        end = AppEnd(self._stream, self._leg, self.peer, self._session, self._untaken)
        self._stream.read_backend_with(end)
        if data:
            end.data_received(data)


class Sink(response_rewrites.Sink, Protocol):
    """What the rewrite of a poll needs of its exchange."""

    ended: bool

    def close_up(self) -> None:
        """The response is said."""
        ...

    def note_turns(self, data: bytes) -> None:
        """Note what is told of turns."""
        ...


class PollAnswer:
    """Takes the body of a poll of a transport that is not plain; as Rewriter and Resumer."""

    __slots__ = (
        "_backend",
        "_content",
        "_decoder",
        "_engine",
        "_head",
        "_lingering",
        "_lingers",
        "_packets",
        "_router",
        "_sink",
        "_size",
    )

    def __init__(
        self,
        sink: Sink,
        head: ResponseHead,
        engine: EngineSession,
        backend: Backend,
        router: Router,
        lingers: Lingers,
    ) -> None:
        self._sink = sink
        self._head = head
        self._engine = engine
        self._backend = backend
        self._router = router
        self._lingers = lingers
        self._lingering: LingeringEnd | None = None  # set while what it collects is awaited
        self._packets: list[bytes] = []  # of the answer, then
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
        engine = self._engine
        packets = self._heard(self._plain().split(SEPARATOR))
        connects = any(is_connected(packet) for packet in packets)
        if connects and engine.claim is not None:
            self._router.connected(engine, engine.claim, monotonic())
        self._sink.note_turns(SEPARATOR.join(packets))
        lingering: LingeringEnd | None = None
        if connects and engine.session is not None and not engine.connects_more:
            self._lingers.connects_again(engine.session)
            lingering = self._lingers.at(engine.session, self._backend)
        if lingering is not None:
            self._lingering, self._packets = lingering, packets
            lingering.finish(self)
            return False
        self._say(packets)
        return True

    def all_has_come(self) -> None:
        """As Resumer."""
        assert self._lingering is not None
        self._say(behind_connect(self._packets, self._lingering.what.payload()))
        self._close_up()

    def give_up(self, leg: Leg | None) -> bytes:
        """As Resumer: the session has connected once more, or has lost a websocket meanwhile."""
        self._say(self._packets)
        self._close_up()
        return b""

    def _close_up(self) -> None:
        if not self._sink.ended:
            self._sink.close_up()

    def _heard(self, packets: list[bytes]) -> list[bytes]:
        """Leave out what the client has had before its transport was moved."""
        said, engine = self._engine.said, self._engine
        if said is None:
            return packets
        packets = [p for p in packets if said.hear(p, binary=p.startswith(b"b"))] or [NOOP]
        if engine.decided and not said.owes:
            self._router.engines.forget(engine)
            self._router.engines.note_plain(engine)
        return packets

    def _say(self, packets: list[bytes]) -> None:
        """Give the client as many as it takes; all the others wait for its next polls."""
        if self._sink.ended:  # by the client, which may still ask again
            keep_for_polls(self._router, self._engine, self._head, packets)
            return
        keep_for_polls(self._router, self._engine, self._head, packets[MOST_PACKETS:])
        content = SEPARATOR.join(packets[:MOST_PACKETS])
        self._sink.pass_head(self._head, content, length=len(content), unpacked=True)

    def _plain(self) -> bytes:
        content = b"".join(self._content)
        if self._head.fields.get(b"content-encoding") is None:
            return content
        try:  # gzip or zlib, as the client offered
            return zlib.decompressobj(wbits=47).decompress(content, _LARGEST_POLL)
        except zlib.error:
            raise BadResponse("a poll's answer cannot be decompressed") from None


def poll_answer(
    sink: Sink,
    head: ResponseHead,
    data: bytes,
    engine: EngineSession | None,
    backend: Backend,
    router: Router,
    lingers: Lingers,
) -> PollAnswer | None:
    """Who takes the body of a poll's answer, None: it passes as it is.

    An event of Chainlit's own namespace in `data`, the first of it, tells that the client has connected:
    through another proxy, or before this one started.
    """
    if engine is None:
        return None
    if not engine.decided and engine.claim is None and _EVENT in data:
        router.engines.decide(engine, None)
    named = engine.said is not None and engine.said.names_others
    if named or engine.claim is not None or lingers.may_know(engine.session):
        return PollAnswer(sink, head, engine, backend, router, lingers)
    return None


def resumes(lingers: Lingers, engine: EngineSession) -> bool:
    """Whether a websocket that takes over from polls has something to say before anything new."""
    return engine.backlog is not None or lingers.may_know(engine.session)


def keep_for_polls(router: Router, engine: EngineSession, head: ResponseHead, packets: list[bytes]) -> None:
    """Say these with the next polls of a transport, if it goes on."""
    if not packets or router.engines.get(engine.sid) is not engine:
        return
    if engine.backlog is None:
        engine.backlog = Backlog(head, packets)
        router.engines.note_plain(engine)
    else:
        engine.backlog.add(packets)


def say_backlog(sink: Sink, engine: EngineSession, router: Router) -> None:
    """Answer a poll with what its transport still has, without asking the backend."""
    backlog = engine.backlog
    assert backlog is not None
    content = SEPARATOR.join(backlog.take())
    if not backlog:
        engine.backlog = None
        router.engines.note_plain(engine)
    sink.pass_head(backlog.head, content, length=len(content), unpacked=True)
    sink.close_up()
