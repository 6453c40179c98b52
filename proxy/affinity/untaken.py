"""The messages of a client of which nobody knows whether their answer has reached it.

Chainlit says `task_start` when it takes one, and `task_end` when it has answered it (chainlit/emitter.py).
Until the first is heard a message may be on its way to an instance that is about to be lost, until the second
its answer may be lost with that. Then it is said again to the next one, which knows by what it was told
whether it was taken after all, and what the client may have missed of its answer. Where some of them are not
kept nobody can say them again. Pure.
"""

import json

_MOST = 16  # a page says one at a time
_MOST_BYTES = 1 << 18
_KNOWN = 30.0  # seconds: what was said again so long ago was taken, or was known


class Untaken:
    """Those of one connection, oldest first; beyond a bound the oldest are let go of, and only counted."""

    __slots__ = ("_again", "_again_at", "_begun", "missed", "packets", "size")

    def __init__(self) -> None:
        # As the client has said them, empty: through another proxy. An empty deque has 760 bytes.
        self.packets: list[bytes] = []
        self.size = 0  # bytes of them
        self.missed = 0  # how many before these are not here any more
        self._begun = 0  # how many of all are being answered, from the oldest on
        self._again, self._again_at = 0, 0.0  # how many of the oldest were said again, and when

    def said(self, packet: bytes) -> None:
        """The client has said a message."""
        self.packets.append(packet)
        self.size += len(packet)
        while self.packets and (len(self.packets) > _MOST or self.size > _MOST_BYTES):
            self._miss()

    def said_elsewhere(self) -> None:
        """It has said one through another proxy."""
        self.said(b"")

    def said_too_long(self) -> None:
        """The client says a message that is too long to be kept."""
        self.let_go()
        self.missed += 1

    def let_go(self) -> None:
        """There is no room for any of them."""
        while self.packets:
            self._miss()

    def _miss(self) -> None:
        self._drop()
        self.missed += 1

    def _drop(self) -> None:
        self.size -= len(self.packets.pop(0))
        self._again = max(0, self._again - 1)

    def hear(self, *, begins: bool) -> None:
        """A turn has begun: the next of them was taken. Or one has ended: the oldest of them is answered."""
        if begins:
            self._begun = min(self._begun + 1, self.missed + len(self.packets))
        elif self._begun:
            self._begun -= 1
            if self.missed:
                self.missed -= 1
            else:
                self._drop()

    @property
    def are_known(self) -> bool:
        """Whether all are here that may not have been taken: what was taken is known to the next instance."""
        return self.missed <= self._begun

    def again(self) -> list[bytes]:
        """Those that another instance can read; what is no JSON was taken by nobody, and never will be.

        Those that were taken have `true` as their last argument: they must not run again.
        """
        taken = self._begun - self.missed
        return [
            packet.rstrip()[:-1] + b",true]" if at < taken else packet
            for at, packet in enumerate(self.packets)
            if _is_event(packet)
        ]

    def again_later(self, now: float) -> list[bytes]:
        """Those that this proxy says again when others may, too: nobody tells it that they were taken.

        None is being answered any more.
        """
        if self._again and now > self._again_at + _KNOWN:
            for _ in range(self._again):
                self._drop()
        self._again, self._again_at = len(self.packets), now
        self._begun = self.missed = 0
        return [packet for packet in self.packets if _is_event(packet)]

    def went_on(self, being_answered: list[bytes]) -> None:
        """All were said again, and taken; of all but these the answers have come."""
        self.packets = being_answered
        self.size, self._begun = sum(map(len, being_answered)), len(being_answered)
        self.missed = self._again = 0

    @property
    def holds_any(self) -> bool:
        """Whether there are any, taken or not, whose answer has not come."""
        return bool(self.packets) or self.missed > 0

    def __len__(self) -> int:
        """How many may not have been taken."""
        return len(self.packets) + self.missed - self._begun

    def __repr__(self) -> str:
        told = f"{len(self.packets)} messages, {self.missed} missed, {self._begun} begun"
        return f"<Untaken {told}>"  # not what they say


def _is_event(packet: bytes) -> bool:
    try:
        return isinstance(json.loads(packet[packet.index(b"[") :]), list)
    except (ValueError, RecursionError):
        return False


class _Nothing(Untaken):
    """Of connections that are not handed over: nobody asks for what they said."""

    def said(self, packet: bytes) -> None:
        """As Untaken: not kept."""

    def said_too_long(self) -> None:
        """As Untaken: not counted."""


NOTHING = _Nothing()
