"""What the opening of a websocket wants done; its adapter does it, in order."""

from dataclasses import dataclass

from proxy.errors import Limit, OddId


@dataclass(frozen=True, slots=True)
class ToClient:
    """Write to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ToBackend:
    """Write to the backend."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Find out where a session lives; then `stays` or `moves`."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Open:
    """Open a websocket at the backend where it goes, then `opened`."""

    fresh: bool  # as a new Engine.IO session, else with the sid that polls have there


@dataclass(frozen=True, slots=True)
class Hold:
    """Read no more of the client, or read on."""

    on: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """The backend has taken the CONNECT to `/`: the session that it names is open."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The backend has refused it: the session that it names is none."""


@dataclass(frozen=True, slots=True)
class Settle:
    """It is a plain tunnel from now on, which begins with these bytes."""

    to_backend: bytes
    to_client: bytes
    answered: bool  # whether the answer to CONNECT came over this websocket


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the client why it ends."""

    why: Limit | OddId


@dataclass(frozen=True, slots=True)
class Close:
    """End it."""


Action = ToClient | ToBackend | Ask | Open | Hold | Connected | Refused | Settle | Refuse | Close
