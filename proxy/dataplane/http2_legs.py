"""The legs of HTTP/2: of a connection, and of each of its streams."""

import asyncio
from collections.abc import Callable

from proxy.dataplane.leg import BEHIND, Leg

_MOST_UNSENT = 65536  # bytes that wait for the client's windows before the backend is read no more
_FEW_UNSENT = 16384  # bytes at which it is read again


class SharedLeg(Leg):
    """As Leg, of a connection whose client always has more to say.

    What the kernel holds counts as unsent: it is lost when a socket is closed of which not all was read (RFC
    9112 section 9.6), and a client that takes an answer says of each part that it has it.
    """

    __slots__ = ()

    @property
    def has_unsent(self) -> bool:
        """As Leg."""
        return self.unsent > 0


class StreamLeg(Leg):
    """As Leg, with the windows of one stream in place of the kernel's buffers."""

    __slots__ = ("_break_off", "buffer")

    def __init__(self, transport: asyncio.Transport, break_off: Callable[[], None]) -> None:
        """`transport` is that of the connection, which is left alone."""
        super().__init__(transport)
        self.buffer = bytearray()  # what waits for the client's windows
        self._break_off = break_off

    def pause(self, who: int = BEHIND) -> None:
        """As Leg: the stream's window is not opened again for now."""
        self.holds |= who

    def resume(self, who: int = BEHIND) -> None:
        """As Leg."""
        self.holds &= ~who

    def reset(self) -> None:
        """As Leg."""
        self._break_off()

    @property
    def has_unsent(self) -> bool:
        """As Leg."""
        return bool(self.buffer)

    @property
    def unsent(self) -> int:
        """As Leg."""
        return len(self.buffer)

    def add(self, data: bytes) -> None:
        """Have this wait too."""
        self.buffer += data
        if self.writable and len(self.buffer) > _MOST_UNSENT:
            self.fell_behind()

    def take(self, most: int) -> bytes:
        """What the client's windows have room for."""
        data = bytes(self.buffer[:most])
        del self.buffer[:most]
        self._since = 0.0
        self.look_again()
        return data

    def look_again(self) -> None:
        """The client, or the connection, takes more: whether the backend may be read."""
        if not self.writable and len(self.buffer) <= _FEW_UNSENT:
            self.caught_up()
