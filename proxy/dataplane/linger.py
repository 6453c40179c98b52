"""Clients whose network has dropped: their backends' sides are kept, and what comes is collected.

Chainlit keeps the session of a lost connection, but whatever its app says meanwhile is lost: it has no
buffer. So the backend is not told at once. Its side of the websocket stays open for `affinity.linger`
seconds and is heard (`affinity.lingering`). When the session connects again, on whatever transport, what was
collected is said there: see `resuming`. Of more than `affinity.linger_sessions` the oldest is given up.

A client that says goodbye (a close frame: the page was closed or left) is not waited for.
"""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.decision import EngineSession
from proxy.affinity.lingering import Lingering, Packet, State, messages_in
from proxy.affinity.session import Session
from proxy.borders import Border, Where
from proxy.config.models import AffinitySettings
from proxy.dataplane.leg import Leg
from proxy.dataplane.patience import Stood, Timer, never
from proxy.dataplane.pool import Pool
from proxy.dataplane.stats import Stats
from proxy.dataplane.unacknowledged import Unacknowledged
from proxy.errors import Limit
from proxy.wire.turns import turns_in

Ask = Callable[[Callable[[bool], None]], object]
"""Asks an instance whether a session is a client's, and tells; see `Site.owner_of`."""

_ALL_HAS_COME = 1.0  # seconds in which the backend answers the ping


class Dropped(Protocol):
    """A tunnel whose client has dropped."""

    session: Session | None
    pool: Pool
    down: Leg
    up: Leg


class Connected(Dropped, Protocol):
    """The websocket on which a session has connected last."""

    engine: EngineSession | None

    @property
    def is_cut_off(self) -> bool:
        """Whether its client acknowledges nothing any more."""
        ...

    def client_lost(self) -> bool:
        """Its client is gone; return whether its backend's side is kept."""
        ...


class Coming(Protocol):
    """A client that was lost before its CONNECT was answered: see `lost_connect`."""

    def end(self) -> None:
        """Let go of the backend's side."""
        ...


class Resumer(Protocol):
    """The new connection of a session, which is to say what was collected."""

    def all_has_come(self) -> None:
        """Nothing more is collected: say it, and go on."""
        ...

    def give_up(self, leg: Leg | None) -> bytes:
        """Somebody else says it: another connection of the session, or one that is still to come.

        Then `leg` leads to the backend from a websocket that was just lost; return what that has said behind
        the answer to CONNECT, if it is the one that waits here. Any other goes on without what was collected.
        """
        ...


class Clientless(asyncio.Protocol):
    """The backend's side of one websocket without a client."""

    __slots__ = ("pool", "up")

    pool: Pool
    up: Leg

    def end(self) -> None:
        """Let go of it."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.end()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self.up.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.up.caught_up()

    def backend_lost(self) -> None:
        """As Passenger."""
        self.up.abort()
        self.end()


class LingeringEnd(Clientless):
    """One of a session; made by Lingers, ends itself."""

    __slots__ = ("_lingers", "_resumer", "_timer", "ended", "session", "what")

    def __init__(
        self, lingers: "Lingers", session: Session, pool: Pool, leg: Leg, packets: Iterable[Packet]
    ) -> None:
        """`packets` were collected before, for a client that was lost again before it had them."""
        self.session = session
        session.is_awaited = True
        self.pool = pool
        self.what = Lingering(lingers.most, packets)
        self.ended = False
        self._lingers = lingers
        self.up = leg
        self._resumer: Resumer | None = None  # set when the session has connected again
        self._timer = Timer(lingers.stood, lingers.seconds, self.end)
        pool.board(self)
        leg.read_with(self)
        leg.draw_from(None)
        if leg.is_closing():
            self.end()
        else:
            leg.resume()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        known = len(self.what.packets)
        answer = self.what.hear(data)
        for _, packet in self.what.packets[known:]:  # whole, however the bytes were cut
            for begins in turns_in(packet):
                self.session.hear(monotonic(), begins=begins)
        if answer:
            self.up.write(answer)
        if self.what.state is State.OVER or self.what.state is State.WHOLE:
            self.end()

    def finish(self, resumer: Resumer) -> None:
        """The session has connected again: tell `resumer` when all that was said here has come.

        If it has connected twice meanwhile, the later one is where its app speaks to it.
        """
        self._timer.cancel()
        before, self._resumer = self._resumer, resumer
        if before is not None:
            before.give_up(None)
            return
        self.up.write(self.what.resume())
        self._timer = Timer(self._lingers.stood, _ALL_HAS_COME, self.end)

    def give_up(self, leg: Leg) -> tuple[list[Packet], bytes]:
        """Another takes what was collected, and what came behind it on `leg`: nobody is waited for here."""
        resumer, self._resumer = self._resumer, None
        behind = resumer.give_up(leg) if resumer is not None else b""
        self.end()
        return self.what.packets, behind

    def end(self) -> None:
        """Let go of the backend's side, which then learns that its client has left."""
        if self.ended:
            return
        self.ended = True
        self.session.is_awaited = False
        if not self.session.open:
            self.session.lose_sight(monotonic())
        self._timer.cancel()
        self._lingers.left(self)
        self.pool.leave(self)
        self.up.close()
        resumer, self._resumer = self._resumer, None
        if resumer is not None:  # it goes on with what there is
            self._lingers.resumed += 1
            resumer.all_has_come()

    def __repr__(self) -> str:
        return f"<LingeringEnd at {self.pool.backend.name} {self.what!r}>"


class Lingers:
    """All of them, by session; owned by the Site."""

    def __init__(self, settings: AffinitySettings, stats: Stats, stood: Stood = never) -> None:
        self.stood = stood
        self.by_session: dict[Session | None, LingeringEnd] = {}  # in the order in which they began
        self.connected: dict[Session | None, Connected] = {}  # the last websocket of each
        self.coming: set[Coming] = set()  # of whom nobody knows yet whether they are theirs
        self.began = 0
        self.resumed = 0
        self.unacknowledged = 0  # messages that were on their way to clients that were lost
        self._stats = stats
        self.configure(settings)

    def configure(self, settings: AffinitySettings) -> None:
        """Go by another configuration; who is waited for already keeps its time."""
        self.seconds = settings.linger  # 0: nobody is waited for
        self.most = settings.linger_bytes  # bytes that are collected for one session
        self.most_sessions = settings.linger_sessions

    def take(self, tunnel: Dropped, heard: bytes = b"") -> bool:
        """Keep the backend's side of a tunnel whose client has dropped; return whether that is done.

        `heard` is what came of it and did not go on.
        """
        session, backend = tunnel.session, tunnel.pool.backend
        if session is None or not self.seconds or session.sent_away or session.backend is not backend:
            return False
        if backend.admin_state is not AdminState.READY or not backend.holds_pins or tunnel.up.is_closing():
            return False
        before = self.by_session.pop(session, None)
        packets, behind = before.give_up(tunnel.up) if before is not None else ([], b"")
        while len(self.by_session) >= self.most_sessions:
            self._stats.limits[Limit.LINGER_SESSIONS] += 1
            next(iter(self.by_session.values())).end()
        if tunnel.down.sent is not None and self.connected.get(session) is tunnel:
            lost, had = tunnel.down.sent.lost()
            unacknowledged = messages_in(lost, self.most, had)
            self.unacknowledged += len(unacknowledged)
            packets = [*packets, *unacknowledged]
        one = self.by_session[session] = LingeringEnd(self, session, tunnel.pool, tunnel.up, packets)
        self.began += 1
        if behind or heard:
            one.data_received(behind + heard)
        return True

    def at(self, session: Session | None, backend: Backend) -> LingeringEnd | None:
        """What was collected for a session that has connected again; nothing if it has moved."""
        found = self.by_session.get(session) if session is not None else None
        if found is not None and found.pool.backend is not backend:
            found.end()
            return None
        return found

    def began_on(self, tunnel: Connected, *, plain: bool) -> LingeringEnd | None:
        """As `at`, for the websocket on which it has connected: that is its last one from now on.

        `plain` tells whether what its client is told is sent as it is, encrypted at most.
        """
        if (session := tunnel.session) is not None:
            self.connects_again(session)
            self.connected[session] = tunnel
            tunnel.down.sent = Unacknowledged.of(tunnel.down) if plain and self.seconds else None
        return self.at(session, tunnel.pool.backend)

    def ended(self, tunnel: Connected) -> None:
        """A websocket has ended."""
        if tunnel.session is not None and self.connected.get(tunnel.session) is tunnel:
            del self.connected[tunnel.session]

    def connects_again(self, session: Session, engine: EngineSession | None = None) -> None:
        """Its last client is lost if it is cut off: its network is gone, and nobody hears of its end.

        Else what is on its way there is out of date, whenever that client is lost. It connects by the polls
        of `engine`, if there are any: a websocket that takes over from them already is no other client.
        """
        before = self.connected.get(session)
        if before is not None and engine is not None and before.engine is engine:
            return
        if before is not None and before.is_cut_off:
            before.client_lost()
        self.connected.pop(session, None)

    def may_know(self, session: Session | None) -> bool:
        """Whether there may be something to say to a session when it connects again."""
        return session in self.by_session or session in self.connected

    @property
    def has_many_coming(self) -> bool:
        """Whether no more clients are kept that were lost before their CONNECT was answered."""
        return len(self.coming) >= self.most_sessions

    def left(self, lingering: LingeringEnd) -> None:
        """One has ended."""
        if self.by_session.get(lingering.session) is lingering:
            del self.by_session[lingering.session]

    def end_all(self) -> None:
        """The proxy ends."""
        for lingering in list(self.by_session.values()):
            with Border(Where.LEAVE):
                lingering.end()
        for lost in list(self.coming):
            with Border(Where.LEAVE):
                lost.end()

    def __repr__(self) -> str:
        return f"<Lingers {len(self.by_session)}>"
