"""What proxies tell each other of a session, as a line of text: where it lives, and since when.

A *version* orders what is told of one session: milliseconds since 1970 when it came there, and higher than
any version of it that the teller knew. So a move wins over what was known before it, whichever proxy made
it; of two that nobody could know of each other the later one wins, on all proxies alike.
"""

import json
from dataclasses import dataclass

from proxy.affinity.directory import Directory
from proxy.affinity.fleet import Fleet
from proxy.affinity.session import Session

_AWAY, _STAYS = "away", "stays"
_NO_SECRETS = {"sessionId", "clientType", "threadId", "chatProfile"}  # of what the page says in its CONNECT
_KEYS = "userEnv"  # holds the user's own, as JSON in a text
_LONGEST = 2000  # bytes of a CONNECT that is told


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a session lives."""

    version: int
    backend: str  # its name
    left: tuple[str, ...] = ()  # names of those that it must not go back to
    sent_away: bool = False  # whether it has to leave when it is next heard of

    def __str__(self) -> str:
        """Four words; a backend's name holds neither space nor comma."""
        state = _AWAY if self.sent_away else _STAYS
        return f"{self.version} {self.backend} {','.join(self.left) or ','} {state}"

    @classmethod
    def parse(cls, text: str) -> "Entry | None":
        """Read one; None for what another version of the proxy may have written."""
        words = text.split(" ")
        if len(words) != 4 or not words[0].isdecimal() or words[3] not in {_AWAY, _STAYS}:
            return None
        left = tuple(name for name in words[2].split(",") if name)
        return cls(int(words[0]), words[1], left, words[3] == _AWAY)


def entry_of(session: Session, unix: float) -> Entry | None:
    """What there is to tell of a session; what is new gets a version, from the present unix time."""
    backend = session.backend
    if backend is None:
        return None
    if session.published != (backend, session.sent_away):
        session.version = max(session.version + 1, int(unix * 1000))
        session.published = (backend, session.sent_away)
    return Entry(session.version, backend.name, session.left, session.sent_away)


def may_be_told(connect: bytes) -> bool:
    """Whether a CONNECT packet holds but ids and names: no keys of the user, nothing of an app's own."""
    try:
        told = json.loads(connect.removeprefix(b"40")) if len(connect) <= _LONGEST else None
    except ValueError:
        return False
    if not isinstance(told, dict) or told.pop(_KEYS, None) not in (None, "", "{}"):
        return False
    return told.keys() <= _NO_SECRETS and all(isinstance(value, str | None) for value in told.values())


def learn(directory: Directory, fleet: Fleet, session_id: str, entry: Entry, now: float) -> Session | None:
    """Take over what another proxy tells; None if it names a backend that is not known here."""
    backend = fleet.get(entry.backend)
    if backend is None:
        return None
    session = directory.get(session_id, now)
    if session is None or entry.version > session.version:
        session = directory.learn(session_id, backend, entry.left, now, sent_away=entry.sent_away)
        session.version = entry.version
        session.published = (backend, session.sent_away)
    return session
