"""The two sides of a tunnel: what each transport's protocol does with the bytes that come.

On the websocket of a Chainlit session whole packets only are passed on (`wire.packets`), so that another
instance can take over whenever this one is lost. Of the backend the two events that bracket a turn are looked
for; of the client its CONNECT packets, since none that names an odd session may reach the backend, and the
messages that begin a turn. Any other tunnel passes unread; each side keeps the end of what was said, which
may be a close frame and tells why it ended.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken
from proxy.dataplane.leg import Leg
from proxy.dataplane.stats import Stats
from proxy.dataplane.unacknowledged import MANY
from proxy.errors import OddId
from proxy.wire.engineio import PING
from proxy.wire.guard import ClientPackets, is_plain
from proxy.wire.packets import EVENT_HEADS, LONGEST_EVENT, BackendPackets, are_events
from proxy.wire.turns import STREAM, TASK, TASK_END, turns_in
from proxy.wire.websocket import (
    GOING_AWAY,
    LONGEST_CLOSE,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TEXT,
    FrameError,
    close_code,
    server_frame,
)

_HEARTBEAT = 10  # bytes of a frame of Engine.IO's or of the websocket's own: no event is as short
_PING_FRAME = server_frame(TEXT, PING)
_ENDS = (GOING_AWAY, SERVICE_RESTART)  # what an instance says that ends (uvicorn: 1012)


class Stream(Protocol):
    """What a side needs of its tunnel."""

    active: bool  # whether bytes came since the ticker last looked
    talks: bool  # whether the backend has said more than heartbeats in a session since then
    asks: bool  # whether the client has
    pinged_at: float  # when its client last got Engine.IO's ping

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        ...

    def settle(self) -> float:
        """A turn begins or ends: what was said until now is of it, or was before it. Return the time."""
        ...

    def close(self) -> None:
        """End both sides after what is written."""
        ...

    def half_closed(self, end: "End") -> bool:
        """One side has said all; return whether its transport stays open."""
        ...

    def backend_gone(self, *, ends: bool = False) -> bool:
        """A session's backend is gone, or says that it `ends`; return whether another goes on with it."""
        ...

    def client_lost(self) -> bool:
        """The client's connection is gone without a farewell; return whether the backend's side is kept."""
        ...

    def say_goodbye(self, code: int = SERVICE_RESTART, reason: bytes = b"") -> None:
        """Tell the client by a close frame why it ends."""
        ...

    def read_backend_with(self, end: "End") -> None:
        """From now on `end` takes what the backend says."""
        ...


class _Over:
    """The stream of a side whose tunnel has ended: it is told in vain."""

    active = True
    talks = True
    asks = True
    is_closed = True
    pinged_at = 0.0

    def settle(self) -> float:
        return 0.0

    def close(self) -> None:
        pass

    def half_closed(self, end: "End") -> bool:
        return False

    def backend_gone(self, *, ends: bool = False) -> bool:
        return False

    def client_lost(self) -> bool:
        return False

    def say_goodbye(self, code: int = SERVICE_RESTART, reason: bytes = b"") -> None:
        pass

    def read_backend_with(self, end: "End") -> None:
        pass


_OVER = _Over()


class End(asyncio.Protocol):
    """One transport of a tunnel, once it is plain."""

    __slots__ = ("_leg", "_stream", "_write", "ended", "last", "peer", "reads", "received")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg) -> None:
        """What is read on `leg` is written to `peer`."""
        self._stream = stream
        self._leg = leg
        self._write = peer.transport.write
        self.peer = peer
        self.received = 0  # bytes
        self.reads = 0  # pieces that came: a frame each, unless several came at once or one in parts
        self.last = b""  # the last piece: how it ends tells why
        self.ended = False  # whether this side has said all

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol. The hot path of every websocket frame."""
        self.received += len(data)
        self.reads += 1
        self.last = data
        self._stream.active = True
        self._write(data)

    def follow(self, before: "End | None") -> None:
        """Go on with what the one before it has counted."""
        if before is not None:
            self.received, self.reads, self.ended = before.received, before.reads, before.ended

    def leave(self) -> None:
        """The tunnel has ended, and keeps it for what it has counted: it keeps the tunnel no longer."""
        self._stream = _OVER

    @property
    def words(self) -> bytes:
        """The end of what it said last, where that may be a close frame."""
        return self.last[-LONGEST_CLOSE:]

    def eof_received(self) -> bool:
        """As asyncio.Protocol: pass the half-close on, keep the other half."""
        self.ended = True
        return self._stream.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._stream.close()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.caught_up()


class AppEnd(End):
    """The backend's side of a Chainlit session."""

    __slots__ = ("_noted", "_packets", "_session", "_untaken", "streamed")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg, session: Session, untaken: Untaken) -> None:
        """`untaken` are the client's messages, until it is heard that they were answered."""
        super().__init__(stream, leg, peer)
        self._session = session
        self._untaken = untaken
        self._packets: BackendPackets | None = None  # set while a packet is not whole
        self._noted = None if peer.sent is None else peer.sent.pieces  # where it notes what it tells
        self.streamed = b""  # the last piece that was seen to have tokens of an answer in it

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol. The hot path of everything that Chainlit streams."""
        size = len(data)
        self.received += size
        self.reads += 1
        stream = self._stream
        stream.active = True
        if self._packets is not None:
            self._pass_packets(data)
        elif size < LONGEST_EVENT and data.startswith(EVENT_HEADS[size]):  # one event, of which kind ever
            stream.talks = True
            if STREAM in data:
                self.streamed = data
            elif TASK in data:
                self._find_turns(data)
            if (noted := self._noted) is None:
                self._write(data)
            elif len(noted) < MANY:  # as `say` does
                noted.append(data)
                self._write(data)
            else:
                self.peer.say(data)
        elif are_events(data):
            stream.talks = True
            if STREAM in data:
                self.streamed = data
            if TASK in data:
                self._find_turns(data)
            self.peer.say(data)
        elif data == _PING_FRAME:
            stream.pinged_at = monotonic()
            self.peer.say(data)
        else:
            self._pass_packets(data)

    def _pass_packets(self, data: bytes) -> None:
        if len(data) > _HEARTBEAT:
            self._stream.talks = True
        packets = self._packets = self._packets or BackendPackets()
        try:
            passed, whole = packets.feed_whole(data)
        except FrameError:
            self._write(packets.rest)
            self._stream.close()
            return
        if packets.has_pinged:
            packets.has_pinged, self._stream.pinged_at = False, monotonic()
        if passed:
            self._find_turns(passed)
            if STREAM in passed:
                self.streamed = passed
        goodbye = packets.goodbye
        if passed and not (
            goodbye and close_code(goodbye) in _ENDS and self._moves(passed, goodbye, whole=whole)
        ):
            self.peer.say(passed, whole=whole)
        if packets.is_empty and not (goodbye or packets.is_over):
            self._packets = None

    def _moves(self, passed: bytes, goodbye: bytes, *, whole: bool) -> bool:
        """The backend says that it ends: whether another goes on; then its client is not told."""
        if not passed.endswith(goodbye) or not self._stream.backend_gone(ends=True):
            return False
        self.peer.say(passed.removesuffix(goodbye), whole=whole)
        return True

    def _find_turns(self, data: bytes) -> None:
        if not (events := turns_in(data)):
            return
        now = self._stream.settle()
        for begins in events:
            self._session.hear(now, begins=begins)
            self._untaken.hear(begins=begins)
        self._stream.talks = not data.endswith(TASK_END)  # it has said more behind that

    @property
    def is_between(self) -> bool:
        """Whether the client is between two packets, and the backend has not ended the session itself.

        It ends that by a close frame too, unless this says that the backend ends: for what its client has
        said, perhaps, who would be handed over again and again.
        """
        packets = self._packets
        if packets is None:
            return True
        is_over = packets.is_over or (packets.goodbye and close_code(packets.goodbye) not in _ENDS)
        return packets.is_between and not is_over

    @property
    def words(self) -> bytes:
        """As End: the close frame that it said."""
        return self._packets.goodbye if self._packets is not None else b""

    @property
    def rest(self) -> bytes:
        """What has come of the next packet."""
        return self._packets.rest if self._packets is not None else b""

    def eof_received(self) -> bool:
        """As asyncio.Protocol: it may be lost, and the session go on elsewhere."""
        return self._stream.backend_gone() or super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        if not self._stream.backend_gone():
            super().connection_lost(exc)


class ClientEnd(End):
    """The client's side of a Socket.IO websocket; its last words tell whether it has left or was lost."""

    __slots__ = ("_stats", "packets")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg, stats: Stats, untaken: Untaken) -> None:
        """`stats` count odd sessions; `untaken` gets the messages of the user."""
        super().__init__(stream, leg, peer)
        self.packets = ClientPackets(untaken.said, untaken.said_too_long)
        self._stats = stats

    @property
    def may_move(self) -> bool:
        """Whether another backend may be told what it says from now on."""
        packets = self.packets
        stays = packets.is_between and packets.upgraded and not packets.has_parted
        return stays and not (packets.is_elsewhere or self.ended)

    def lead_to(self, peer: Leg) -> None:
        """What it says goes to another backend from now on."""
        self.peer = peer
        self._write = peer.transport.write

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.received += len(data)
        self.reads += 1
        self.last = data
        self._stream.active = True
        if len(data) > _HEARTBEAT:
            self._stream.asks = True
        packets = self.packets
        if is_plain(data) and packets.is_empty and not packets.owed_pongs:
            packets.has_parted = False
            self._write(data)
        else:
            self._pass_packets(data)

    def _pass_packets(self, data: bytes) -> None:
        self._pass(lambda: self.packets.feed(data))

    def let_pass(self) -> None:
        """What has come of a packet waits no longer for the rest of it."""
        self._pass(self.packets.let_pass)

    def _pass(self, take: Callable[[], bytes]) -> None:
        try:
            passed = take()
        except OddId as error:
            self._stats.refused(error)
            refuse(self._stream, error)
        except FrameError:
            self._stream.close()
        else:
            if passed:
                self._write(passed)

    def eof_received(self) -> bool:
        """As asyncio.Protocol: a page says goodbye before it closes."""
        self.ended = True
        return not self._is_waited_for() and self._stream.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol; when it ended its half, its backend was told."""
        if self.ended or not self._is_waited_for():
            self._stream.close()

    def _is_waited_for(self) -> bool:
        """Whether it was lost and has not left, and its backend is kept."""
        return not self.packets.has_parted and self._stream.client_lost()


def refuse(stream: Stream, error: OddId) -> None:
    """Tell the client why its websocket ends; the backend hears nothing of it."""
    stream.say_goodbye(POLICY_VIOLATION, error.reason.encode())
