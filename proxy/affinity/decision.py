"""A decision: where a request goes, told by what evidence, with what outcome.

The polls of one Engine.IO session are all decided alike, so the session holds their decision.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.claims import Claim
from proxy.affinity.evidence import Evidence
from proxy.affinity.lingering import Backlog
from proxy.affinity.pins import join_pin
from proxy.affinity.rehome import Said
from proxy.affinity.session import Session
from proxy.affinity.untaken import NOTHING, Untaken
from proxy.wire.turns import mark_of

_NO_MARK = mark_of("")


class Void(Enum):
    """A sid that leads nowhere: it is answered as Engine.IO answers an unknown session."""

    VOID = "void"


class Outcome(StrEnum):
    """What became of the evidence."""

    __hash__ = str.__hash__  # that of Enum is a call of Python

    PINNED = "pinned"  # the backend that it names
    LOCATED = "located"  # a backend said that it holds the session
    PLACED = "placed"  # a new session, or one without evidence: hashing chose
    MOVED = "moved"  # its backend is gone or sent it away, another was chosen
    REHOMED = "rehomed"  # CONNECT named a session of another backend than the handshake's guess
    VOID = "void"  # a sid of a backend that is gone, or of a session that was sent away


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why."""

    backend: Backend
    evidence: Evidence
    outcome: Outcome
    session: Session | None = None
    engine: "EngineSession | None" = None  # of a request that names one
    claim: Claim | None = None  # of a CONNECT, until its backend has answered it


class Waiting(Protocol):
    """A poll or a websocket of an undecided transport."""

    def redirect(self) -> None:
        """The transport has moved: ask again at its new backend."""
        ...

    def decided(self) -> None:
        """The transport stays where it is."""
        ...


class Heads(Protocol):
    """What is kept of a client's request, to speak in its name."""

    @property
    def size(self) -> int:
        """Bytes of it."""
        ...


class EngineSession:
    """One Engine.IO session; owned by EngineSessions."""

    __slots__ = (
        "_streamed",
        "backend",
        "backlog",
        "claim",
        "connect",
        "connects_more",
        "decided",
        "decision",
        "hand_over",
        "heard_of",
        "kept",
        "owed_pongs",
        "pinned",
        "polls",
        "said",
        "said_at",
        "seen",
        "session",
        "sid",
        "speaks",
        "streamed_mark",
        "tunnels",
        "untaken",
        "upstream_sid",
        "waiting",
        "weight",
    )

    def __init__(self, sid: bytes, backend: Backend, now: float) -> None:
        self.sid = sid  # as the client knows it, without the pin
        self.pinned = join_pin(backend.token, sid)  # as the client says it
        self.backend = backend
        self.upstream_sid = sid  # as the backend knows it; another one after a re-home
        self.decided = False  # whether the CONNECT was seen, or given up
        self.session: Session | None = None  # set when CONNECT named one
        self.seen = now  # when its last request began, or ended
        self.heard_of = 0.0  # when another proxy has told that it polls there
        self.said_at = 0.0  # when its client last said anything but that it is there
        self.polls = 0  # its requests under way
        self.tunnels = 0  # its open websockets
        # What its next request is told.
        self.decision: Decision | Void = Decision(backend, Evidence.SID, Outcome.PINNED, None, self)
        self.connects_more = False  # whether it has said CONNECT again: which of them is taken is not known
        self.connect = b""  # the CONNECT packet of its session, if another instance may have to be told
        self.kept: Heads | None = None  # what else is needed for that; see `dataplane.hand_overs`
        self.hand_over: object | None = None  # while it is handed over
        self.untaken: Untaken = NOTHING  # the client's messages that its backend may not have taken
        self.speaks: Heads | None = None  # whose these are, where several proxies may have to say them again
        self._streamed, self.streamed_mark = "", _NO_MARK
        self.owed_pongs = 0  # answers to pings that no backend has said
        self.waiting: set[Waiting] = set()  # while undecided
        self.claim: Claim | None = None  # of the CONNECT that a POST brought, until it is answered
        self.said: Said | None = None  # set while it is undecided and has namespaces of the app's own
        self.weight = 0  # of that, as EngineSessions has counted it
        self.backlog: Backlog | None = None  # what its next polls get before its backend is asked

    @property
    def is_plain(self) -> bool:
        """Whether its requests and their answers are passed on as they are."""
        return self.decided and self.said is None and self.backlog is None and self.hand_over is None

    def keep(self, connect: bytes, heads: Heads) -> None:
        """What another instance has to be told if this one is lost."""
        self.connect, self.kept, self.untaken = connect, heads, Untaken()

    def says(self, now: float) -> None:
        """Its client says something but that it is there."""
        self.said_at = now
        if self.session is not None:
            self.session.says()

    def forget(self) -> None:
        """No other instance can be told of it from now on, unless that is under way."""
        if self.hand_over is None:
            self.kept = None

    @property
    def streamed(self) -> str:
        """The id of the message of which the last token was seen, "" if none was."""
        return self._streamed

    def streams(self, message_id: str) -> None:
        """The last token that was seen is one of this message; "": of none that is still told of."""
        self._streamed, self.streamed_mark = message_id, mark_of(message_id)

    def is_idle(self, since: float) -> bool:
        """Whether no request of it was heard of after `since`."""
        return self.seen < since and self.heard_of < since

    def hears(self) -> Untaken:
        """The client's messages, which are kept from now on."""
        if self.untaken is NOTHING:
            self.untaken = Untaken()
        return self.untaken

    def __repr__(self) -> str:
        state = "decided" if self.decided else f"undecided waiting={len(self.waiting)}"
        return f"<EngineSession at {self.backend.name} {state}>"
