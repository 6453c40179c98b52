"""What a store of sessions does, whatever it is made of.

One record a session: the owner, a fence, the state as text, the turns under way as text. A record is read
only by `claim`, which in the same step gives the claimer a higher fence; from then on whoever holds a lower
one cannot write. Fences are milliseconds of the clock where that is higher than the last fence plus one, so
that they rise also when a store has lost its memory. Times to live are seconds.
"""

from dataclasses import dataclass
from typing import Protocol

OPERATION = 1.0  # seconds that one operation may take; a store that takes longer counts as down


class StoreDown(Exception):  # noqa: N818 - as in "the store is down"
    """The store did not do what it was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claimer gets."""

    fence: int  # its own from now on; 0: the session belongs to somebody else, nothing was changed
    previous: int = 0  # of the last claimer; 0: there was no record
    state: str | None = None  # what was written last; None: nothing yet
    turns: str | None = None  # those that had begun and not ended


class Store(Protocol):
    """Owned by `Sharing`. Every method raises StoreDown, within about `OPERATION` seconds."""

    async def claim(self, session: str, owner: str, now: int, ttl: float) -> Claim:
        """Takes a session over for `owner`, at `now` in milliseconds."""

    async def write(
        self, session: str, owner: str, fence: int, state: str | None, turns: str | None, ttl: float
    ) -> bool:
        """Writes unless the record has a higher fence or another owner; whether it was written.

        A state of None leaves the one that is there.
        """

    async def touch(self, sessions: list[str], ttl: float) -> list[str]:
        """Lets records live on; returns those that are not there."""

    async def delete(self, session: str, fence: int) -> None:
        """Forgets a session and its files, unless it has a higher fence."""

    async def purge(self) -> None:
        """Forgets what has expired, where the store does not do that by itself."""

    async def ping(self) -> None:
        """Does nothing, and raises StoreDown if the store is down."""

    async def close(self) -> None:
        """Ends; nothing may be called after it."""
