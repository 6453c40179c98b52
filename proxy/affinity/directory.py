"""The session directory: which backend each Chainlit session lives on, as far as this proxy has seen.

It is a cache, the truth is in the backends. An entry lives as long as a connection of its session is open
and then for Chainlit's session timeout. Entries that never had a connection (announced by the page, or
placed by a request) are kept apart and forgotten first, so that a client that makes up session ids cannot
push out sessions that live. An entry with an open connection is never given up for room. The others are
given up in the order in which they would expire, which is the order in which they were last in use.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Verdict
from proxy.affinity.past import Past
from proxy.affinity.session import UNCONNECTED, Move, MoveReason, Session

_MOVES = 5  # moves that a session remembers: more than any operator asks for, little beside its id
_NEWEST = 1000  # moves of all sessions that are remembered for those who watch, some 100 kB


class Directory:
    """All sessions that are known; `backend.sessions` counts those that are open or just placed."""

    __slots__ = (
        "_closed",
        "_fresh",
        "_open",
        "arrival",
        "evicted",
        "expired",
        "heard",
        "moved",
        "moves",
        "newest",
        "noted",
        "past",
        "session_timeout",
        "size",
    )

    def __init__(self, size: int, session_timeout: float) -> None:
        self.size = size  # entries that had a CONNECT; a quarter as many that had none
        self.session_timeout = session_timeout  # seconds an entry outlives its last connection
        self.evicted = 0  # connected ones given up for room
        self.expired = 0  # connected ones whose time was up
        self.past = Past(size, session_timeout)  # of the two
        self.moves: Counter[str] = Counter()  # connected ones that moved, by the backend they left
        self.moved = dict.fromkeys(MoveReason, 0)  # the same, by reason
        self.newest: deque[Move] = deque(maxlen=_NEWEST)  # the last of them
        self.noted = 0  # how many there ever were
        self.heard: Callable[[Session], None] | None = None  # tells other proxies of connected sessions
        self.arrival: Callable[[Session], None] | None = None  # told of those that have connected
        self._open: dict[str, Session] = {}  # with a connection
        self._closed: OrderedDict[str, Session] = OrderedDict()  # without one now; first to expire first
        self._fresh: OrderedDict[str, Session] = OrderedDict()  # never had one yet; in the same order

    def get(self, session_id: str, now: float) -> Session | None:
        """The entry of a session, if it has one that has not expired."""
        session = self._find(session_id)
        if session is not None and session.open == 0 and session.expires <= now:
            self._expire(session)
            return None
        return session

    def announce(self, session_id: str, now: float) -> None:
        """The page says that it will connect as this session for the first time."""
        session = self.get(session_id, now) or self._add(session_id, now)
        if not session.connected:
            session.announced = True

    def assign(
        self,
        session_id: str,
        backend: Backend,
        now: float,
        evidence: Evidence | None = None,
        *,
        located: bool = False,
        only_named: bool = False,
        reason: MoveReason | None = None,
    ) -> Session:
        """The session lives on `backend` from now on, wherever it lived before.

        `evidence` and `located` tell why, and are remembered if it is new there; `reason` tells why it had
        to leave, where that is not a matter of the backend that it leaves. It is `only_named` where a
        request has named it that is no CONNECT, and no backend holds it.
        """
        session = self.get(session_id, now) or self._add(session_id, now)
        session.only_named = only_named
        if session.backend is not backend:
            if session.backend is not None:
                session.left = (*session.left, session.backend.name)
                self._note(session, session.backend, backend, now, reason)
            session.left = tuple(name for name in session.left if name != backend.name)
            session.backend = backend
            session.since = now
            session.evidence, session.located = evidence, located
            session.set_turn(goes_on=False)
            session.arrived = located
        session.sent_away = False
        self._tell(session)
        if session.open == 0:
            table = self._closed if session.connected else self._fresh
            session.expires = now + (self.session_timeout if session.connected else UNCONNECTED)
            table.move_to_end(session_id)
        self._count(session)
        return session

    def opened(self, session: Session) -> None:
        """A connection of the session has named it in its CONNECT.

        If the session was forgotten since the caller got it, it is an entry again, unless another has taken
        its place and is open.
        """
        session.open += 1
        session.connected, session.only_named = True, False
        if session.id not in self._open:
            known = self._find(session.id)
            if known is not None:
                self._drop(known)
            self._open[session.id] = session
        self._count(session)
        self._make_room()
        self._tell(session)
        self._tell_arrival(session)

    def arrived(self, session: Session) -> None:
        """A backend goes on with an open session: requests may have waited for that."""
        self._tell_arrival(session)

    def learn(
        self, session_id: str, backend: Backend, left: tuple[str, ...], now: float, *, sent_away: bool
    ) -> Session:
        """Another proxy has seen the session connect at `backend`, or has sent it away from there."""
        session = self.get(session_id, now) or Session(session_id, now)
        if session.backend is not backend:
            session.backend, session.since = backend, now
            session.evidence, session.located = None, False
            session.set_turn(goes_on=False)
        session.left, session.connected, session.sent_away = left, True, sent_away
        session.arrived = True
        session.only_named = False
        if session.open == 0:
            session.expires = now + self.session_timeout
            self._fresh.pop(session_id, None)
            self._closed[session_id] = session
            self._closed.move_to_end(session_id)
        self._count(session)
        self._make_room()
        self._tell_arrival(session)
        return session

    def closed(self, session: Session, now: float) -> None:
        """A connection of the session has ended."""
        session.open -= 1
        if session.open > 0:
            return
        session.expires = now + self.session_timeout
        session.lose_sight(now)
        session.arrived = session.arrived and session.stays
        if self._open.get(session.id) is session:
            del self._open[session.id]
            self._closed[session.id] = session
        self._count(session)
        self._make_room()
        self._tell(session)

    def lost(self, backend: Backend) -> None:
        """A backend is down or gone: what it held is lost, but for sessions that go on there."""
        for session in self._closed.values():
            if session.backend is backend:
                session.arrived = False

    def resize(self, size: int, session_timeout: float) -> None:
        """Remember so many from now on; what is there already keeps its time."""
        self.size, self.session_timeout = size, session_timeout
        self.past.most, self.past.session_timeout = size, session_timeout
        self._make_room()

    def send_away(self, session: Session) -> None:
        """The session has to leave its backend: it moves when it is next heard of."""
        session.sent_away = True
        self._count(session)
        self._tell(session)

    def on(self, backend: Backend) -> list[Session]:
        """The sessions with an open connection that live on a backend and may stay there."""
        return [s for s in self._open.values() if s.backend is backend and not s.sent_away]

    def answering(self) -> list[Session]:
        """The open sessions whose app is answering."""
        return [session for session in self._open.values() if session.in_turn]

    def open(self) -> list[Session]:
        """The sessions with an open connection."""
        return list(self._open.values())

    def connected(self) -> list[Session]:
        """The sessions that have or had a connection."""
        return [*self._open.values(), *self._closed.values()]

    def placed_on(self, backend: Backend) -> list[Session]:
        """The sessions that were placed on a backend and have not been there yet."""
        return [s for s in self._fresh.values() if s.backend is backend]

    def sweep(self, now: float) -> None:
        """Forget what has expired; called every few seconds."""
        for table in (self._fresh, self._closed):
            while table and (session := next(iter(table.values()))).expires <= now:
                self._expire(session)

    def sessions(self) -> list[Session]:
        """All entries, for the admin API."""
        return [*self._open.values(), *self._closed.values(), *self._fresh.values()]

    def moves_after(self, seen: int) -> list[Move]:
        """The moves since there were `seen` of them, as far as they are remembered; oldest first."""
        fresh = min(max(self.noted - seen, 0), len(self.newest))
        return list(self.newest)[len(self.newest) - fresh :]

    def starting_with(self, start: str, most: int) -> list[Session]:
        """At most so many entries whose id begins so, for the admin API; looks at all of them."""
        found: list[Session] = []
        for table in (self._open, self._closed, self._fresh):
            for session_id, session in table.items():
                if session_id.startswith(start):
                    found.append(session)
                    if len(found) == most:
                        return found
        return found

    def _note(
        self, session: Session, origin: Backend, target: Backend, now: float, reason: MoveReason | None
    ) -> None:
        """Remember a move."""
        reason = reason or _reason(session, origin)
        self.moves[origin.name] += session.connected
        self.moved[reason] += session.connected
        move = Move(now, origin.name, target.name, reason)
        session.moves = (*session.moves[1 - _MOVES :], move)
        if session.connected:
            self.newest.append(move)
            self.noted += 1

    def _tell(self, session: Session) -> None:
        if self.heard is not None and session.connected:
            self.heard(session)

    def _tell_arrival(self, session: Session) -> None:
        if self.arrival is not None:
            self.arrival(session)

    def _find(self, session_id: str) -> Session | None:
        return self._open.get(session_id) or self._closed.get(session_id) or self._fresh.get(session_id)

    def _add(self, session_id: str, now: float) -> Session:
        session = self._fresh[session_id] = Session(session_id, now)
        if len(self._fresh) > max(1, self.size // 4):
            self._drop(next(iter(self._fresh.values())))
        return session

    def _make_room(self) -> None:
        while len(self._open) + len(self._closed) > self.size and self._closed:
            self._give_up(next(iter(self._closed.values())))
            self.evicted += 1

    def _expire(self, session: Session) -> None:
        self.expired += session.connected
        self._give_up(session)

    def _give_up(self, session: Session) -> None:
        if session.connected:
            self.past.forgot(session.id, session.expires)
        self._drop(session)

    def _drop(self, session: Session) -> None:
        for table in (self._open, self._closed, self._fresh):
            table.pop(session.id, None)
        self._count(session)

    def _count(self, session: Session) -> None:
        """An open session counts at its backend, a placed one until it connects or is forgotten."""
        is_placed = self._fresh.get(session.id) is session and not session.only_named
        counts = (session.open > 0 or is_placed) and not session.sent_away
        backend = session.backend if counts else None
        if session.counted is not backend:
            if session.counted is not None:
                session.counted.sessions -= 1
            if backend is not None:
                backend.sessions += 1
                backend.arrived += 1
            session.counted = backend

    def __len__(self) -> int:
        return len(self._open) + len(self._closed) + len(self._fresh)

    def __repr__(self) -> str:
        return (
            f"<Directory open={len(self._open)} closed={len(self._closed)}"
            f" fresh={len(self._fresh)} evicted={self.evicted}>"
        )


def _reason(session: Session, origin: Backend) -> MoveReason:
    """Why a session leaves its backend now; what is true of the backend comes before the operator's wish."""
    if origin.gone:
        return MoveReason.GONE
    if origin.health.verdict is Verdict.DOWN:
        return MoveReason.DOWN
    if origin.admin_state is AdminState.MAINTENANCE:
        return MoveReason.MAINTENANCE
    return MoveReason.SENT_AWAY if session.sent_away else MoveReason.AVOIDED
