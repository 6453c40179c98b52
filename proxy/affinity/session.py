"""One Chainlit session: where it lives, why, and whether its app is answering it.

A turn is known from what the app was heard to say (see `wire.turns`), over all connections of the session. A
client may be lost in the middle of one and come back: then it goes on, if somebody has listened meanwhile or
it was no long while, until its own end is heard.
"""

from dataclasses import dataclass
from enum import StrEnum

from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Evidence

_UNHEARD = 30.0  # seconds that a turn is taken to go on of which nobody hears: few answers take longer
UNCONNECTED = 120.0  # seconds: from a page's announcement to its CONNECT, on a phone in a tunnel


class MoveReason(StrEnum):
    """Why a session left its backend."""

    DOWN = "down"
    GONE = "gone"  # its backend left the fleet
    MAINTENANCE = "maintenance"
    SENT_AWAY = "sent_away"  # by a drain, a rollout or a rebalance
    AVOIDED = "avoided"  # its backend did not accept in time
    ALONE = "alone"  # a poll connected elsewhere, and other proxies could not be told to follow


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a session."""

    at: float
    origin: str  # names of backends
    target: str
    reason: MoveReason


class Session:
    """One Chainlit session; owned by the Directory, read by everyone."""

    __slots__ = (
        "_answers",
        "_greets",
        "_says",
        "_unheard",
        "announced",
        "arrived",
        "backend",
        "began",
        "connected",
        "counted",
        "ended_at",
        "evidence",
        "expires",
        "has_ended_alone",
        "id",
        "is_awaited",
        "left",
        "located",
        "moves",
        "only_named",
        "open",
        "published",
        "sent_away",
        "since",
        "version",
    )

    def __init__(self, session_id: str, now: float) -> None:
        self.id = session_id
        self.backend: Backend | None = None  # where it lives, None while only announced
        self.left: tuple[str, ...] = ()  # names of the backends that it moved away from
        self.announced = False  # the page told of it before its first connect: no backend knows it yet
        self.only_named = False  # it never connected, and nobody holds it: it is no load, and may be made up
        self.connected = False  # a CONNECT was seen
        self.arrived = False  # whether one was taken where it lives now, or that backend said it holds it
        self.open = 0  # its connections: websockets, and polling transports that are in use
        self.began = now  # when it was first heard of here
        self.since = now  # when it came to its backend
        self.evidence: Evidence | None = None  # what named it when it came there
        self.located = False  # whether it came there because that backend said it holds the session
        self.moves: tuple[Move, ...] = ()  # the newest few, oldest first
        self.expires = now + UNCONNECTED
        self.counted: Backend | None = None  # whose `sessions` it is part of
        self.is_awaited = False  # whether its client was lost and its backend is still heard; see `linger`
        self._answers = False  # whether a turn has begun and was not heard to end
        self._greets = False  # whether Chainlit still has to say that nothing goes on, as after every CONNECT
        self._says = False  # whether its client has said anything since the turn began
        self.ended_at = 0.0  # when a turn ended last
        self.has_ended_alone = False  # whether its client had added nothing to that
        self._unheard: float | None = None  # since when nobody has heard its app, None while somebody does
        self.sent_away = False  # set when its backend is to be empty: it moves when it is next heard of
        self.version = 0  # of what other proxies know of it, 0 for nothing; see `telling`
        self.published: tuple[Backend, bool] | None = None  # what that is: `backend` and `sent_away`

    @property
    def in_turn(self) -> bool:
        """Whether its app is answering it: who has gone for good is in no turn."""
        return self._answers and (self.open > 0 or self.is_awaited)

    def hear(self, now: float, *, begins: bool) -> None:
        """Chainlit has said that a turn begins, or that it ends: the first end after a CONNECT is none."""
        if begins:
            self._says = self._says and self._answers  # one in another, as by a change of settings
        elif self._answers and not self._greets:
            self.ended_at, self.has_ended_alone = now, not self._says
        if begins or not self._greets:
            self._answers = begins
        self._greets = False

    def says(self) -> None:
        """Its client has said something."""
        self._says = True

    def set_turn(self, *, goes_on: bool) -> None:
        """Whether a turn goes on is known for certain."""
        self._answers, self._greets = goes_on, False

    def came(self, now: float) -> None:
        """It has connected: a turn that was under way goes on, unless nobody has listened for long."""
        if self._unheard is not None and not self.is_awaited and now - self._unheard > _UNHEARD:
            self._answers = False
        self._greets, self._unheard = True, None
        self.arrived = True

    def set_out(self) -> None:
        """It has left its backend, and is on its way to another."""
        self.arrived = False

    def lose_sight(self, now: float) -> None:
        """Nobody hears what its app says from now on."""
        self._unheard = now

    def is_coming(self, now: float, patience: float) -> bool:
        """Whether it has lost its backend, and connects somewhere else in a moment."""
        if not self.connected or (self.stays and self.arrived):
            return False
        return self._unheard is None or now - self._unheard < patience

    @property
    def stays(self) -> bool:
        """Whether it goes on where it lives."""
        return self.backend is not None and self.backend.holds_pins and not self.sent_away

    @property
    def is_unsure(self) -> bool:
        """Whether only a request that opens no connection has named it: a backend may hold it after all."""
        return self.only_named and self.evidence is Evidence.SESSION

    def has_left(self, backend: Backend) -> bool:
        """Whether a connection of it that leads to `backend` has to end."""
        return self.sent_away or self.backend is not backend

    def __repr__(self) -> str:
        where = self.backend.name if self.backend else "nowhere"
        return f"<Session at {where} open={self.open} left={self.left}>"
