"""The messages of a client of which nobody knows whether its instance has taken them.

Chainlit says `task_start` when it takes one (chainlit/emitter.py). Until that is heard a message may be on
its way to an instance that is about to be lost. Then it is said again to the next one, which knows by its id
whether it was taken after all. Pure.
"""

_MOST = 16  # a page says one at a time
_MOST_BYTES = 1 << 18


class Untaken:
    """Those of one connection, oldest first; beyond a bound the oldest are let go of."""

    __slots__ = ("_size", "packets")

    def __init__(self) -> None:
        self.packets: list[bytes] = []  # as the client has said them; an empty deque has 760 bytes
        self._size = 0  # bytes of them

    def said(self, packet: bytes) -> None:
        """The client has said a message."""
        self.packets.append(packet)
        self._size += len(packet)
        while self.packets and (len(self.packets) > _MOST or self._size > _MOST_BYTES):
            self.taken()

    def taken(self) -> None:
        """A turn has begun: the oldest of them was taken."""
        if self.packets:
            self._size -= len(self.packets.pop(0))

    def clear(self) -> None:
        """All of them were."""
        self.packets.clear()
        self._size = 0

    def __len__(self) -> int:
        return len(self.packets)

    def __repr__(self) -> str:
        return f"<Untaken {len(self.packets)} messages>"  # not what they say


class _Nothing(Untaken):
    """Of connections that are not handed over: nobody asks for what they said."""

    def said(self, packet: bytes) -> None:
        """As Untaken: not kept."""


NOTHING = _Nothing()
