"""The byte stream after 101: two transports, each written with what the other one reads.

Either side may end its half first; when both have, or one is lost, both are closed. A side that reads slowly
stops the reading of the other. A Socket.IO websocket is watched for its first packets before it becomes a
plain tunnel: see `opening`. From then on only the two events that bracket a turn are looked for, and what
`guarded` must not let pass. When its session has to leave, the client is told by a close frame, between two
frames of the backend.
"""

import asyncio
from collections.abc import Callable

from proxy.affinity.directory import Session
from proxy.affinity.engine import EngineSession
from proxy.borders import Border, Where, fault
from proxy.dataplane.linger import said_goodbye
from proxy.dataplane.pool import Pool
from proxy.wire.turns import BRACKET, MARK_SIZE, TASK, turn_after
from proxy.wire.websocket import (
    LONGEST_CLOSE,
    NO_CLOSE,
    SERVICE_RESTART,
    FrameError,
    FrameReader,
    close_code,
    close_frame,
)

_LAST_WORDS = 60.0  # seconds in which a side has to take what was written before it was closed
_HALF_CLOSED = 10.0  # seconds that the other half may go on; a browser answers a close within one round trip
_GOODBYE = 2.0  # seconds in which a client answers a close frame
_WHOLE_FRAME = 1.0  # seconds in which the frame that is on its way ends
_TAIL = max(LONGEST_CLOSE, MARK_SIZE)  # bytes that are kept of a piece that ends with no event
_GONE = asyncio.Protocol()  # has the transports that are being closed
_REST = 1.0  # seconds in which an app that was asked says that it answers


class End(asyncio.Protocol):
    """One transport of a tunnel, once it is plain."""

    __slots__ = ("_tunnel", "_write", "ended", "last", "peer", "reads", "received")

    def __init__(self, tunnel: "Tunnel", peer: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._write = peer.write
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
        self._tunnel.active = True
        self._write(data)

    @property
    def words(self) -> bytes:
        """The end of what it said last, where that may be a close frame."""
        return self.last

    def eof_received(self) -> bool:
        """As asyncio.Protocol: pass the half-close on, keep the other half."""
        self.ended = True
        return self._tunnel.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._tunnel.close()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        if not self.peer.is_closing():
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        if not self.peer.is_closing():
            self.peer.resume_reading()


class AppEnd(End):
    """The backend's side of a Chainlit session."""

    __slots__ = ("_session", "_tail")

    def __init__(self, tunnel: "Tunnel", peer: asyncio.Transport, session: Session) -> None:
        super().__init__(tunnel, peer)
        self._session = session
        self._tail = b""  # the end of a piece that may have stopped in an event's name, or be a close frame

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol. The hot path of everything that Chainlit streams."""
        self.received += len(data)
        self.reads += 1
        self._tunnel.active = True
        if TASK in data or self._tail:
            self._look(data)
        elif data[-1] != BRACKET:
            self._tail = data[-_TAIL:]
        self._write(data)

    @property
    def words(self) -> bytes:
        """As End: no event is a close frame, and the end of anything else is kept."""
        return self._tail

    def _look(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
        told = turn_after(data)
        if told is not None:
            self._session.in_turn = told
        self._tail = b"" if data[-1] == BRACKET else data[-_TAIL:]


class LastFrame(End):
    """The backend's side while its present frame goes out; then the client is told to connect anew."""

    __slots__ = ("_reader",)

    def __init__(self, tunnel: "Tunnel", peer: asyncio.Transport) -> None:
        super().__init__(tunnel, peer)
        self._reader = FrameReader()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol: a piece that begins a frame is the rule, but nothing rests on it."""
        self.received += len(data)
        self.reads += 1
        self._write(data)
        self._reader.push(data)
        try:
            while self._reader.next() is not None:
                pass
        except FrameError:
            self._tunnel.close()
            return
        if not self._reader.rest:
            self._tunnel.say_goodbye()


class Parting(asyncio.Protocol):
    """The client's side after the close frame: what it still says goes nowhere."""

    __slots__ = ("_timer", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_GOODBYE, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._timer.cancel()


class Tunnel:
    """A client's transport and a backend's; created at 101, lives until both are closed.

    `on_closed(tunnel)` is called once.
    """

    __slots__ = (
        "_closed",
        "_down_end",
        "_idle_timeout",
        "_on_closed",
        "_said_all",
        "_told",
        "_up_end",
        "active",
        "app_end",
        "client",
        "client_end",
        "close_code",
        "deadline",
        "down",
        "dropped",
        "engine",
        "pool",
        "session",
        "silent_since",
        "up",
        "websocket",
        "work",
    )

    def __init__(
        self,
        down: asyncio.Transport,
        up: asyncio.Transport,
        pool: Pool,
        idle_timeout: float,
        on_closed: Callable[["Tunnel"], None],
    ) -> None:
        self.down = down
        self.up = up
        self.pool = pool
        self.session: Session | None = None  # set when its CONNECT was seen
        self.engine: EngineSession | None = None  # set when it is the upgrade of a polling transport
        self.work: asyncio.Task[None] | None = None  # of its opening: without an end there is no need of it
        self.client = ""  # who its connection is counted for
        self.close_code = 0  # that of the close frame which the proxy sent, 0 if it sent none
        self.websocket = False  # whether it can be told in its own words to connect anew
        self.active = True  # whether bytes came since the ticker last looked
        self.silent_since = 0.0  # set by the ticker when no more came
        self.deadline = 0.0  # set by the ticker
        self._idle_timeout = idle_timeout  # seconds
        self._on_closed = on_closed
        self._closed = False
        self._said_all = False  # whether the client was told that no more comes: then no frame can be said
        self._told = (0, 0)  # how many of its frames the pool has heard of
        self._down_end: End | None = None  # set when it is plain
        self._up_end: End | None = None
        self.dropped: Callable[[Tunnel], bool] = _not_kept  # takes the backend's side of a lost client
        self.app_end: Callable[[Tunnel, asyncio.Transport, Session], AppEnd] = AppEnd  # makes that side
        self.client_end: Callable[[Tunnel, asyncio.Transport], End] = End  # the same of the other
        pool.board(self)

    @property
    def received(self) -> tuple[int, int]:
        """Bytes from the client and from the backend, as far as it was plain."""
        down, up = self._down_end, self._up_end
        return (down.received if down else 0, up.received if up else 0)

    @property
    def frames(self) -> tuple[int, int]:
        """Frames from the client and from the backend, as far as it was plain; those of one read are one."""
        down, up = self._down_end, self._up_end
        return (down.reads if down else 0, up.reads if up else 0)

    @property
    def ended_with(self) -> int | None:
        """The close code of a websocket that has ended, whoever said it; None for another protocol."""
        if not self.websocket:
            return None
        said = (close_code(end.words) for end in (self._down_end, self._up_end) if end is not None)
        return self.close_code or next(filter(None, said), NO_CLOSE)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    def plain(self, said: bytes = b"") -> None:
        """From now on bytes pass unread but for CONNECT packets, first those that the client has `said`."""
        if self.session is None:
            self._up_end = End(self, self.down)
        else:
            self._up_end = self.app_end(self, self.down, self.session)
        self._down_end = self.client_end(self, self.up)
        self.down.set_protocol(self._down_end)
        self.up.set_protocol(self._up_end)
        if self.down.is_closing() or self.up.is_closing():
            self.close()
        elif said:
            self._down_end.data_received(said)

    def move(self, pool: Pool, up: asyncio.Transport) -> None:
        """Another backend holds the session: `up` is a connection to it."""
        self.pool.leave(self)
        pool.board(self)
        self.pool = pool
        self.up = up

    def tick(self, now: float) -> bool:
        """Close a tunnel that has been idle for too long, and say so; called by the ticker."""
        if self.active:
            self.active = False
            self._tell_frames()
            self.silent_since = now
            half = any(end is not None and end.ended for end in (self._down_end, self._up_end))
            self.deadline = now + (_HALF_CLOSED if half else self._idle_timeout)
        elif self.deadline <= now:
            self.close()
            return True
        return False

    def _tell_frames(self) -> None:
        """Count at the backend what came since this was called before."""
        told, self._told = self._told, self.frames
        self.pool.frames_in += self._told[0] - told[0]
        self.pool.frames_out += self._told[1] - told[1]

    def is_silent(self, now: float) -> bool:
        """Whether nothing is on its way: what the client said last has reached an app that would answer."""
        return not self.active and now >= self.silent_since + _REST

    def client_lost(self, last: bytes) -> bool:
        """The client's connection is gone; return whether the backend's side is kept for it."""
        if self._closed or self._said_all or said_goodbye(last) or not self.dropped(self):
            return False
        self._end((self.down,))
        return True

    def half_closed(self, end: End) -> bool:
        """One side has said all; return whether its transport stays open."""
        own, other = (self.down, self._up_end) if end is self._down_end else (self.up, self._down_end)
        # TLS has no half-close: its transports neither say that they have said all nor stay open after it.
        can_half_close = own.can_write_eof() and end.peer.can_write_eof()
        if (other is not None and other.ended) or end.peer.is_closing() or not can_half_close:
            self.close()
            return False
        end.peer.write_eof()
        self._said_all = self._said_all or end.peer is self.down
        self.active = True
        return True

    def read_backend_with(self, end: End) -> None:
        """From now on `end` takes what the backend says."""
        if self._up_end is not None:
            end.received, end.reads, end.ended = self._up_end.received, self._up_end.reads, self._up_end.ended
        self._up_end = end
        self.up.set_protocol(end)

    def send_away(self) -> None:
        """Have the client connect anew: by a close frame as soon as no other is on its way."""
        try:
            self._send_away()
        except Exception as error:
            fault(Where.MOVE, error)
            with Border(Where.MOVE):
                self.cut()

    def _send_away(self) -> None:
        if self._closed or isinstance(self._up_end, LastFrame):
            return
        if not self.websocket or self._up_end is None or not self._can_say or self.up.is_closing():
            self.close()
        elif self.active or self.down.get_write_buffer_size():
            self.read_backend_with(LastFrame(self, self.down))
            asyncio.get_running_loop().call_later(_WHOLE_FRAME, self.close)
        else:
            self.say_goodbye()

    def say_goodbye(self, code: int = SERVICE_RESTART, reason: bytes = b"") -> None:
        """Tell the client why it ends (RFC 6455 section 7.4, code 1012 of its registry: a restart)."""
        if self._closed:
            return
        if not self._can_say:
            self.close()
            return
        self.down.write(close_frame(code, reason))
        self.close_code = code
        self.down.set_protocol(Parting(self.down))
        self._end((self.up,))

    @property
    def _can_say(self) -> bool:
        return not self._said_all and not self.down.is_closing()

    def close(self) -> None:
        """End both sides after what is written."""
        self._end((self.down, self.up))

    def _end(self, transports: tuple[asyncio.Transport, ...]) -> None:
        if self._closed:
            return
        self._closed = True
        if self.work is not None:
            self.work.cancel()
        self._tell_frames()
        self.pool.leave(self)
        for transport in transports:
            transport.set_protocol(_GONE)  # TLS may have more to hand over: it goes nowhere
            transport.close()
            if transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(_LAST_WORDS, transport.abort)
        self._on_closed(self)

    def cut(self) -> None:
        """The backend is down: end at once."""
        self.up.abort()
        self.close()

    def __repr__(self) -> str:
        up, down = self.received
        return f"<Tunnel to {self.pool.backend.name} up={up} down={down} closed={self._closed}>"


def _not_kept(_: Tunnel) -> bool:
    return False
