"""A client whose network drops misses nothing: its backend's side is kept, and what comes is collected.

Chainlit keeps the session of a lost connection, but whatever its app says meanwhile is lost: it has no
buffer. So the backend is not told at once. Its side of the websocket stays open for `affinity.linger`
seconds, its pings are answered, its packets are kept, up to a bound. When the session connects again, on
whatever transport, they are said behind the answer to its CONNECT and before anything new. What the
backend said first on the old side may still be on its way when that answer comes on the new one; a
websocket ping is sent on the old side, and its pong tells that all has come.

A client that says goodbye (a close frame: the page was closed or left) is not waited for.
"""

import asyncio
import base64
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.directory import Session
from proxy.borders import Border, Where
from proxy.dataplane.leg import Leg
from proxy.dataplane.pool import Pool
from proxy.wire.turns import TASK, turn_after
from proxy.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame, FrameError, FrameReader, client_frame

_ALL_HAS_COME = 1.0  # seconds in which the backend answers the ping
_GOODBYES = (b"41", b"1")  # Socket.IO's and Engine.IO's (socket.io-parser, engine.io-parser)
_BARRIER = b"linger"


class Dropped(Protocol):
    """A tunnel whose client has dropped."""

    session: Session | None
    pool: Pool
    up: Leg


class Lingering(asyncio.Protocol):
    """The backend's side of one websocket without a client; made by Lingers, ends itself."""

    def __init__(
        self,
        lingers: "Lingers",
        session: Session,
        pool: Pool,
        up: Leg,
        frames: list[Frame] | None = None,
    ) -> None:
        """`frames` were collected before, for a client that was lost again before it had them."""
        self.session = session
        self.pool = pool
        self.frames: list[Frame] = frames or []  # what was collected
        self.ended = False
        self._lingers = lingers
        self._up = up
        self._size = sum(len(frame.raw) for frame in self.frames)  # bytes collected
        self._reader = FrameReader(lingers.most)
        self._then: Callable[[], None] | None = None  # what waits until all has come
        loop = asyncio.get_running_loop()
        self._stood = lingers.stood(monotonic())
        self._timer = loop.call_later(lingers.seconds, self._time_is_up)
        self._barrier: asyncio.TimerHandle | None = None
        pool.board(self)
        up.read_with(self)
        up.draw_from(None)
        if up.is_closing():
            self.end()
        else:
            up.resume()

    def _time_is_up(self) -> None:
        before, self._stood = self._stood, self._lingers.stood(monotonic())
        if missed := self._stood - before:
            self._timer = asyncio.get_running_loop().call_later(missed, self._time_is_up)
        else:
            self.end()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if TASK in data:
            told = turn_after(data)
            self.session.in_turn = self.session.in_turn if told is None else told
        self._reader.push(data)
        try:
            while not self.ended and (frame := self._reader.next()) is not None:
                self._take(frame)
        except FrameError:
            self.end()  # too long, or the drop came in the middle of a frame

    def _take(self, frame: Frame) -> None:
        if frame.opcode == PING:
            self._up.write(client_frame(PONG, frame.payload))
        elif frame.opcode == PONG:
            self._all_has_come()
        elif frame.opcode == CLOSE:
            self.end()
        elif frame.opcode == TEXT and frame.payload[:1] == b"2":
            self._up.write(client_frame(TEXT, b"3" + frame.payload[1:]))
        elif frame.opcode != TEXT or frame.payload[:1] == b"4":
            self.frames.append(frame)
            self._size += len(frame.raw)
            if self._size > self._lingers.most:
                self.end()

    def finish(self, then: Callable[[], None]) -> None:
        """The session has connected again: call `then` when all that was said here has come."""
        self._timer.cancel()
        self._then = then
        self._up.write(client_frame(PING, _BARRIER))
        self._barrier = asyncio.get_running_loop().call_later(_ALL_HAS_COME, self._all_has_come)

    def _all_has_come(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._lingers.resumed += 1
            then()
            self.end()

    def give_up(self) -> list[Frame]:
        """Another takes what was collected: nobody is waited for here."""
        self._then = None
        self.end()
        return self.frames

    def payload(self) -> list[bytes]:
        """What was collected as packets of a poll (Engine.IO protocol 4: binary ones are base64)."""
        return [
            frame.payload if frame.opcode == TEXT else b"b" + base64.b64encode(frame.payload)
            for frame in self.frames
        ]

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.end()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._up.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._up.caught_up()

    def cut(self) -> None:
        """As Passenger: the backend is down."""
        self._up.abort()
        self.end()

    def end(self) -> None:
        """Let go of the backend's side, which then learns that its client has left."""
        if self.ended:
            return
        self.ended = True
        self._timer.cancel()
        if self._barrier is not None:
            self._barrier.cancel()
        self._lingers.left(self)
        self.pool.leave(self)
        self._up.close()
        self._all_has_come()  # whoever waits goes on with what there is

    def __repr__(self) -> str:
        return f"<Lingering at {self.pool.backend.name} {len(self.frames)} packets>"


class Lingers:
    """All of them, by session; owned by the Plane."""

    def __init__(self, seconds: float, most: int) -> None:
        self.seconds = seconds  # 0: nobody is waited for
        self.most = most  # bytes that are collected for one session
        self.stood: Callable[[float], float] = lambda _now: (
            0.0
        )  # seconds that this process stood still so far
        self.by_session: dict[Session, Lingering] = {}
        self.began = 0
        self.resumed = 0

    def take(self, tunnel: Dropped) -> bool:
        """Keep the backend's side of a tunnel whose client has dropped; return whether that is done."""
        session, backend = tunnel.session, tunnel.pool.backend
        if session is None or not self.seconds or session.sent_away or session.backend is not backend:
            return False
        if backend.admin_state is not AdminState.READY or not backend.holds_pins or tunnel.up.is_closing():
            return False
        before = self.by_session.pop(session, None)
        frames = before.give_up() if before is not None else None
        self.by_session[session] = Lingering(self, session, tunnel.pool, tunnel.up, frames)
        self.began += 1
        return True

    def at(self, session: Session | None, backend: Backend) -> Lingering | None:
        """What was collected for a session that has connected again; nothing if it has moved."""
        found = self.by_session.get(session) if session is not None else None
        if found is not None and found.pool.backend is not backend:
            found.end()
            return None
        return found

    def left(self, lingering: Lingering) -> None:
        """One has ended."""
        if self.by_session.get(lingering.session) is lingering:
            del self.by_session[lingering.session]

    def end_all(self) -> None:
        """The proxy ends."""
        for lingering in list(self.by_session.values()):
            with Border(Where.LEAVE):
                lingering.end()

    def __repr__(self) -> str:
        return f"<Lingers {len(self.by_session)}>"


def said_goodbye(last: bytes) -> bool:
    """Whether the last bytes of a client are a farewell: a close frame, or the packets that mean one."""
    reader = FrameReader()
    reader.push(last)
    try:
        while (frame := reader.next()) is not None:
            if frame.opcode == CLOSE or (frame.opcode != BINARY and frame.payload in _GOODBYES):
                return True
    except FrameError:
        pass
    return False
