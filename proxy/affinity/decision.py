"""A decision: where a request goes, told by what evidence, with what outcome."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Session
from proxy.affinity.evidence import Evidence

if TYPE_CHECKING:
    from proxy.affinity.engine import EngineSession


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
    engine: "EngineSession | None" = None
