"""A transport of the data plane, for its whole life and across every change of protocol.

Who speaks on a transport may change: a connection of HTTP becomes the side of a tunnel, or goes back to its
pool. What is true of the transport stays: whether it is read and who stopped that, whether its peer keeps up
with what is written, whether we have said all. So that is kept here, and nobody else calls `pause_reading`,
`resume_reading` or `write_eof`. Whoever has the transport as its protocol passes on `pause_writing` and
`resume_writing`.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Protocol

from proxy.dataplane.patience import Stood, Timer
from proxy.dataplane.unacknowledged import Unacknowledged

# Who wants no more to be read; each only takes back its own wish.
AHEAD = 1  # its protocol has enough to do for now
BEHIND = 2  # who is written what is read here does not keep up
OPENING = 4  # nobody is there yet to read it
MOVING = 8  # its session is handed over to another backend

# Seconds, seconds and tries (tcp(7)): a connection whose other end is gone breaks within four seconds.
_LIFE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_NO_LINGER = struct.pack("ii", 1, 0)  # socket(7): close resets


class Source(Protocol):
    """What is read so that it can be written to a leg."""

    def pause(self) -> None:
        """Read no more for now."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...


class Leg:
    """Made with its transport, by the protocol that the transport had first."""

    __slots__ = ("_since", "_unsent", "holds", "said_all", "sent", "source", "transport", "writable")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.writable = True  # whether the peer keeps up with what is written
        self.said_all = False  # whether we have closed our half
        self.holds = 0  # who wants no more to be read
        self.sent: Unacknowledged | None = None  # set for a session's client, if its system tells of it
        self.source: Source | None = None  # what is read only as fast as it can be written here
        self._unsent = 0  # bytes that waited when the peer was last seen to take some
        self._since = 0.0  # when that was, 0 if nobody has looked since it fell behind

    @property
    def paused(self) -> bool:
        """Whether it is not read for now."""
        return self.holds != 0

    @property
    def may_write(self) -> bool:
        """Whether what is written can still reach the peer."""
        return not self.said_all and not self.transport.is_closing()

    def pause(self, who: int = BEHIND) -> None:
        """As Source."""
        if not self.holds and not self.transport.is_closing():
            self.transport.pause_reading()
        self.holds |= who

    def resume(self, who: int = BEHIND) -> None:
        """As Source: read on, unless somebody else wants no more."""
        if not self.holds:
            return
        self.holds &= ~who
        if not self.holds and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def has_unsent(self) -> bool:
        """Whether some of what was written has not left this process: the kernel has the rest."""
        return self.transport.get_write_buffer_size() > 0

    def draw_from(self, source: Source | None) -> None:
        """What is written here is read there from now on: not while this leg is behind.

        None lets go: what was read for this leg is read on, however slow its peer is.
        """
        before, self.source = self.source, source
        if self.writable or before is source:
            return
        if before is not None:
            before.resume()
        if source is not None:
            source.pause()

    def fell_behind(self) -> None:
        """The transport's `pause_writing`."""
        self.writable = False
        self._since = 0.0
        if self.source is not None:
            self.source.pause()

    def caught_up(self) -> None:
        """The transport's `resume_writing`."""
        self.writable = True
        self._since = 0.0
        if self.source is not None:
            self.source.resume()

    def is_stuck(self, now: float, patience: float) -> bool:
        """Whether the peer has taken nothing of what was written for `patience` seconds.

        The ticker asks it: what has become less since it last did was taken.
        """
        return not self.writable and self._is_stuck(self.unsent, now, patience)

    def is_taking(self, now: float, patience: float) -> bool:
        """Whether the peer still has some of what was written to take, and takes it; asked as `is_stuck`."""
        unsent = self.unsent
        return unsent > 0 and not self._is_stuck(unsent, now, patience)

    def _is_stuck(self, unsent: int, now: float, patience: float) -> bool:
        if unsent < self._unsent or not self._since:
            self._since = now
        self._unsent = unsent
        return now - self._since >= patience

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes no peer late."""
        if self._since:
            self._since += gap

    @property
    def can_finish(self) -> bool:
        """Whether its half can be closed: TLS has none."""
        return self.transport.can_write_eof()

    def finish(self) -> bool:
        """Close our half after what is written; return whether that is done."""
        if not self.may_write or not self.transport.can_write_eof():
            return False
        self.said_all = True
        self.transport.write_eof()
        return True

    def write(self, data: bytes) -> None:
        """Send bytes to the peer."""
        self.transport.write(data)

    def say(self, data: bytes, *, whole: bool = True) -> None:
        """Tell a session's client what may have to be said again; not unless it is `whole` messages."""
        if self.sent is not None:
            if whole:
                self.sent.note(data)
            else:
                self.sent.drop()
        self.transport.write(data)

    def read_with(self, protocol: asyncio.BaseProtocol) -> None:
        """`protocol` takes what comes from now on."""
        self.transport.set_protocol(protocol)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self.transport.is_closing()

    def close(self) -> None:
        """Close after what is written."""
        self.transport.close()

    def give_up_after(self, seconds: float, stood: Stood) -> "GivingUp":
        """Abort it once its peer takes nothing of what is still to be sent for so long."""
        return GivingUp(self, seconds, stood)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def reset(self) -> None:
        """Close at once and with a reset, so that the peer takes nothing for a clean end."""
        sock = self._socket
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def ask_for_life(self) -> None:
        """Have the kernel find out soon whether the peer is still there; else the connection breaks.

        A host that knows nothing of the connection answers with a reset. Where the process stands still its
        kernel answers for it.
        """
        sock = self._socket
        if sock is None or sock.family == socket.AF_UNIX or sys.platform != "linux":
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _LIFE.items():
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the peer has not taken yet, those that the kernel holds too.

        The kernel holds megabytes and tells that there is room only when a third of it is free, so the
        transport's own buffer may stand still for long in front of a peer that is merely slow.
        """
        held, sock = 0, self._socket
        if sock is not None:
            with suppress(OSError):  # a system that cannot tell
                held = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return self.transport.get_write_buffer_size() + held

    @property
    def _socket(self) -> socket.socket | None:
        """None once it is closed."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        return sock if sock is not None and sock.fileno() >= 0 else None

    def __repr__(self) -> str:
        return f"<Leg holds={self.holds} writable={self.writable} said_all={self.said_all}>"


class GivingUp:
    """Aborts a leg whose peer takes nothing of what is still to be sent; who had it made may cancel it."""

    __slots__ = ("_leg", "_seconds", "_stood", "_timer", "_unsent")

    def __init__(self, leg: Leg, seconds: float, stood: Stood) -> None:
        self._leg = leg
        self._seconds = seconds
        self._stood = stood
        self._wait()

    def _wait(self) -> None:
        self._unsent = self._leg.unsent
        self._timer = Timer(self._stood, self._seconds, self._give_up_or_wait)

    def _give_up_or_wait(self) -> None:
        if 0 < self._leg.unsent < self._unsent:
            self._wait()
        else:
            self._leg.abort()

    def cancel(self) -> None:
        """The leg is gone."""
        self._timer.cancel()

    def __repr__(self) -> str:
        return f"<GivingUp {self._leg!r} at {self._unsent} bytes>"
