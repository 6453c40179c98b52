"""A session that connects again gets what was collected for it behind the answer to its CONNECT.

On a websocket what the backend says behind that answer is held; on a poll the answer's payload is taken
apart. Either way the collected packets come before everything that the backend says from then on. What
belongs to a poll is told by its transport when the answer is there: a client may ask for news before it
connects. Of more packets than a client takes at once the rest is kept for its next polls.
"""

import zlib
from functools import partial
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession
from proxy.affinity.lingering import Backlog, behind_connect
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken
from proxy.dataplane import response_rewrites
from proxy.dataplane.ends import AppEnd, Stream
from proxy.dataplane.leg import Leg
from proxy.dataplane.linger import Ask, LingeringEnd, Lingers
from proxy.dataplane.request import Request
from proxy.errors import BadResponse
from proxy.wire.body import ChunkedBody
from proxy.wire.engineio import (
    CONNECT,
    CONNECT_ERROR,
    EVENT,
    MAIN,
    MOST_PACKETS,
    NOOP,
    SEPARATOR,
    packet_head,
)
from proxy.wire.head import ResponseHead

_EVENT = b'42["'  # in no JSON text, whose quotes would be escaped
_READABLE = (None, b"gzip", b"deflate")  # what python-engineio may answer with; an app can add others
_LARGEST_POLL = 1 << 22  # bytes: Engine.IO's own limit for a payload is a quarter of that


class ResumedEnd(AppEnd):
    """The backend's side of a websocket until the collected packets have been said; as Resumer.

    Its client has just heard the answer to CONNECT. Where somebody has to be asked whether they are its, that
    is awaited first.
    """

    __slots__ = ("_held", "_lingering")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg, session: Session, untaken: Untaken) -> None:
        super().__init__(stream, leg, peer, session, untaken)
        self._lingering: LingeringEnd | None = None  # set while what it collects is awaited
        self._held = bytearray()  # what came meanwhile

    def resume(self, lingering: LingeringEnd) -> None:
        """What was collected is next."""
        self._lingering = lingering
        lingering.finish(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self._held += data

    def eof_received(self) -> bool:
        """As asyncio.Protocol: what is held is said now, for nothing can be said behind a half-close."""
        if self._lingering is not None:
            self._lingering.end()
        else:
            self.go_on()
        return super().eof_received()

    def all_has_come(self) -> None:
        """As Resumer."""
        if not self._stream.is_closed and self._lingering is not None:
            self.peer.say(self._lingering.what.frames())
            self.go_on()

    def give_up(self, leg: Leg | None) -> bytes:
        """As Resumer: its client was lost before it had them, or the session has connected once more."""
        if leg is self._leg:
            return bytes(self._held)
        if not self._stream.is_closed:
            self.go_on()
        return b""

    def go_on(self) -> None:
        """From what is held on the backend speaks to the client directly."""
        end = AppEnd(self._stream, self._leg, self.peer, self._session, self._untaken)
        self._stream.read_backend_with(end)
        if self._held:
            end.data_received(bytes(self._held))


class Place(Protocol):
    """What is needed of the site."""

    router: Router
    lingers: Lingers

    def answered(self, engine: EngineSession, *, taken: bool) -> Session | None:
        """An instance has answered a CONNECT; return the session that it has taken, if that is known."""
        ...

    def owner_of(self, session: Session | None, backend: Backend, request: Request) -> Ask | None:
        """Who asks its instance whether a session is this client's; None: nobody need ask."""
        ...


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
        "_packets",
        "_place",
        "_request",
        "_sink",
        "_size",
    )

    def __init__(
        self, sink: Sink, place: Place, request: Request, head: ResponseHead, engine: EngineSession
    ) -> None:
        self._sink = sink
        self._place = place
        self._request = request
        self._head = head
        self._engine = engine
        self._backend = engine.backend
        self._lingering: LingeringEnd | None = None  # set while what it collects is awaited
        self._packets: list[bytes] = []  # of the answer, once it is whole
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
        packets = self._packets = self._heard(self._plain().split(SEPARATOR))
        session = self._taken(packets)
        self._sink.note_turns(SEPARATOR.join(packets))
        if session is None or not self._place.lingers.may_know(session):
            self._say_as_it_is()
            return True
        ask = self._place.owner_of(session, self._backend, self._request)
        if ask is None:
            return self._resume(session)
        ask(partial(self._owned, session))
        return False

    def _taken(self, packets: list[bytes]) -> Session | None:
        """The session whose CONNECT the instance has taken, as one of these tells."""
        found, engine = None, self._engine
        for packet in packets:
            head = packet_head(packet)
            if head is None or head.namespace != MAIN:
                continue
            if head.kind in {CONNECT, CONNECT_ERROR}:
                found = self._place.answered(engine, taken=head.kind == CONNECT) or found
            elif head.kind == EVENT and not engine.decided:  # the answer came to another proxy
                self._place.answered(engine, taken=True)
                if not engine.decided:
                    self._place.router.engines.decide(engine, None)
        return found

    def _owned(self, session: Session, is_its: bool) -> None:
        """The instance has told whether the session is this client's."""
        if not is_its:
            self._say_as_it_is()
            self._close_up()
        elif self._resume(session):
            self._close_up()

    def _resume(self, session: Session) -> bool:
        """Say what was collected behind the answer to CONNECT; return whether all is said."""
        lingers = self._place.lingers
        lingers.connects_again(session, self._engine)
        lingering = self._lingering = lingers.at(session, self._backend)
        if lingering is None:
            self._say_as_it_is()
            return True
        lingering.finish(self)
        return False

    def all_has_come(self) -> None:
        """As Resumer."""
        assert self._lingering is not None
        self._say(behind_connect(self._packets, self._lingering.what.payload()))
        self._close_up()

    def give_up(self, leg: Leg | None) -> bytes:
        """As Resumer: the session has connected once more, or has lost a websocket meanwhile."""
        self._say_as_it_is()
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
            self._place.router.engines.forget(engine)
            self._place.router.engines.note_plain(engine)
        return packets

    def _say_as_it_is(self) -> None:
        """Nothing is added: its next poll may come to another proxy."""
        self._say(self._packets, len(self._packets))

    def _say(self, packets: list[bytes], most: int = MOST_PACKETS) -> None:
        """Give the client as many as it takes; all the others wait for its next polls."""
        if self._sink.ended:  # by the client, which may still ask again
            keep_for_polls(self._place.router, self._engine, self._head, packets)
            return
        keep_for_polls(self._place.router, self._engine, self._head, packets[most:])
        content = SEPARATOR.join(packets[:most])
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
    place: Place,
    request: Request,
    head: ResponseHead,
    data: bytes,
    engine: EngineSession | None,
) -> PollAnswer | None:
    """Who takes the body of a poll's answer, None: it passes as it is.

    An event of Chainlit's own namespace in `data`, the first of it, tells that the client has connected:
    through another proxy, or before this one started. What cannot be read tells nothing of its session.
    """
    engines = place.router.engines
    if engine is None:
        return None
    if head.fields.get(b"content-encoding") not in _READABLE:
        if not engine.decided:
            engines.decide(engine, None)
        return None
    named = engine.said is not None and engine.said.names_others
    if named or engine.claim is not None or (not engine.decided and place.router.shared):
        return PollAnswer(sink, place, request, head, engine)
    if not engine.decided and _EVENT in data:
        engines.decide(engine, None)
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


def take_backlog(engine: EngineSession, router: Router) -> bytes:
    """What a transport still has for its polls, for the websocket that takes over from them."""
    backlog, engine.backlog = engine.backlog, None
    if backlog is None:
        return b""
    router.engines.note_plain(engine)
    return backlog.frames()


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
