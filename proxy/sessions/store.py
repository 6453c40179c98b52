"""What a store of sessions does, whatever it is made of.

One record a session: its owner, the fence and the token of who claimed it last, the state and the turns under
way as text, the token of who wrote them, with a mark for each who took the record over since, and the number
of that write. A record is read only by `claim`, which in the same step gives another claimer a higher fence;
from then on whoever holds a lower one cannot write.
What is asked twice because an answer was lost is done once: a claim by who has the record changes nothing, a
write that comes behind one with a higher number is passed over. Fences are milliseconds of the clock, or the
last fence plus one if that is higher, so that they rise also when a store has lost its memory. Times to live
are seconds.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

OPERATION = 1.0  # seconds that one operation may take; a store that takes longer counts as down
SLOWEST = 128 * 1024  # bytes a second of a link that is slow and not dead: a large value has more time
TAKEN = "+"  # behind the token of who wrote last, for each who has taken the record over and not written
_SESSION = re.compile("[A-Za-z0-9_-]{8,64}")


class StoreDown(Exception):  # noqa: N818 - as in "the store is down"
    """The store did not do what it was asked for; the text says why."""


def is_session_id(text: object) -> bool:
    """Whether it is a session id, which a page makes; the same as in the proxy's `wire.engineio`.

    Chainlit makes, and removes, a folder of that name, so nothing else is one.
    """
    return isinstance(text, str) and _SESSION.fullmatch(text) is not None


def why(error: Exception) -> str:
    """The reason of a failure, which is never empty."""
    return str(error) or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claimer gets."""

    fence: int  # its own from now on; 0: the session belongs to somebody else, nothing was changed
    again: bool = False  # it is yours already, and so is the fence
    writer: str = ""  # the token of who wrote last; "": nobody did
    state: str | None = None  # what was written last; None: nothing yet, or nothing that could be restored
    turns: str | None = None  # those that had begun and not ended
    taken: int = 0  # how often it was taken over since somebody wrote, this time included


def writer_of(text: str) -> tuple[str, int]:
    """The token of who wrote last, and how often the record was taken over since."""
    writer = text.rstrip(TAKEN)
    return writer, len(text) - len(writer)


@dataclass(frozen=True, slots=True)
class Write:
    """What is written; made by `machine`."""

    fence: int
    number: int  # higher than that of the write before
    state: str | None  # None leaves the one that is there, "" removes it
    turns: str | None


class Outcome(Enum):
    """What became of a write."""

    REFUSED = 0  # the record has a higher fence, or another owner
    WRITTEN = 1
    ANEW = 2  # written, and there was no record any more: the store has lost its memory


class Store(Protocol):
    """Owned by `Sharing`. Every method raises StoreDown, within about `OPERATION` seconds."""

    async def claim(
        self, session: str, owner: str, token: str, now: int, ttl: float, after: int = 0
    ) -> Claim:
        """Takes a session over for `owner` and the claimer with this token, at `now` in milliseconds.

        Its own writes with a lower number than `after` are late from then on.
        """

    async def write(self, session: str, owner: str, token: str, write: Write, ttl: float) -> Outcome:
        """Writes unless somebody else has the session; a large state has the time that it needs."""

    async def touch(self, sessions: dict[str, int], token: str, ttl: float) -> list[str]:
        """Lets records of this token with these writes, or later ones, live on; returns the others."""

    async def ping(self) -> None:
        """Writes what means nothing; raises StoreDown if the store is down, full or read-only."""

    async def rest(self) -> None:
        """Lets go of what is open, so that nothing is left beside the store; the next call opens it again."""

    async def close(self) -> None:
        """Ends; nothing may be called after it."""
