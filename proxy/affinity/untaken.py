"""The messages of a client of which nobody knows whether they were taken, and answered.

Chainlit says `task_start` when it takes one, and `task_end` when it has answered (chainlit/emitter.py). Until
the first is heard a message may be on its way to an instance that is about to be lost, until the second its
answer may be: an instance that ends goes on for a moment when its connections are closed. So it is said again
to the next one, which knows what was taken, and sends what was answered. Pure.
"""

_MOST = 16  # a page says one at a time
_MOST_BYTES = 1 << 18


class Untaken:
    """Those of one connection, oldest first; beyond a bound the oldest are let go of."""

    __slots__ = ("_begun", "_size", "packets")

    def __init__(self) -> None:
        self.packets: list[bytes] = []  # as the client has said them; an empty deque has 760 bytes
        self._size = 0  # bytes of them
        self._begun = 0  # how many of them, from the oldest on, are being answered

    def said(self, packet: bytes) -> None:
        """The client has said a message."""
        self.packets.append(packet)
        self._size += len(packet)
        while self.packets and (len(self.packets) > _MOST or self._size > _MOST_BYTES):
            self._let_go()

    def hear(self, *, begins: bool) -> None:
        """A turn has begun, with the oldest that has none, or the oldest has ended."""
        if begins:
            self._begun = min(self._begun + 1, len(self.packets))
        elif self._begun:
            self._let_go()

    def _let_go(self) -> None:
        self._size -= len(self.packets.pop(0))
        self._begun = max(0, self._begun - 1)

    def clear(self) -> None:
        """All of them were."""
        self.packets.clear()
        self._size = self._begun = 0

    def __len__(self) -> int:
        return len(self.packets)

    def __repr__(self) -> str:
        return f"<Untaken {len(self.packets)} messages>"  # not what they say


class _Nothing(Untaken):
    """Of connections that are not handed over: nobody asks for what they said."""

    def said(self, packet: bytes) -> None:
        """As Untaken: not kept."""


NOTHING = _Nothing()
