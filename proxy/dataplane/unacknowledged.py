"""What a client was told and may never get: the end of it, until its system has acknowledged it.

A connection that breaks takes with it whatever was on its way: what was written while nobody knew that the
network was gone, be it for a moment or for half a minute. Linux tells how many bytes of a connection the
other end has acknowledged, after its end too (tcp(7), `tcpi_bytes_acked` of TCP_INFO); all that was written
behind them may have reached nobody. So the last pieces are kept until they are acknowledged, and can be said
again when the session connects again: see `linger`. Linux also tells that nothing is acknowledged though it
was sent again, as on a network that is gone without a word. Where the system does not tell, nothing is kept.

Whoever writes a piece notes it here first; each is one or more whole messages. Where they are in all that was
sent is counted forward from one to the next: what is written unnoted makes what is noted behind it count as
acknowledged too early, never too late, until all of it is. Only what a client has heard in its last moment
may be said twice, if its acknowledgement, which may wait for 40 ms, was lost with it.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, Self

MANY = 64  # pieces until they are looked at
LONG = 1 << 12  # bytes of a piece before which they are: so many shorter ones are no more than what is kept
_MOST_BYTES = 1 << 18  # of one client: beyond them the oldest are let go of, but for the last piece
_RECORD = 1 << 14  # bytes of a TLS record (RFC 8446 section 5.1)
# Where they are in Linux's struct tcp_info (linux/tcp.h).
_RETRANSMITS, _BYTES_ACKED, _INFO_SIZE = 2, 120, 128


class Written(Protocol):
    """The leg of a client."""

    transport: asyncio.Transport

    @property
    def unsent(self) -> int:
        """Bytes that were written and that are not acknowledged."""
        ...


class Unacknowledged:
    """Of one connection to a client; owned by its leg."""

    __slots__ = ("_kept", "_kept_bytes", "_overhead", "_socket", "_start", "pieces")

    def __init__(self, sock: Any, overhead: int, start: int) -> None:
        """See `of`."""
        self.pieces: list[bytes] = []  # noted since `forget` looked
        self._socket = sock
        self._overhead = overhead  # bytes that TLS adds to a record
        self._start = start  # where the first piece begins in all that was ever sent on it, in bytes
        self._kept: list[bytes] = []  # the pieces before those, which were not acknowledged when it did
        self._kept_bytes = 0

    @classmethod
    def of(cls, leg: Written) -> Self | None:
        """That of a connection on which what is written is sent as it is, or encrypted; not compressed, say.

        None if its system does not tell what is acknowledged.
        """
        transport = leg.transport
        sock = _tcp_socket(transport)
        info = None if sock is None else _tcp_info(sock)
        tls = transport.get_extra_info("ssl_object")
        overhead = 0 if tls is None else _record_overhead(*tls.cipher()[:2])
        if info is None or overhead is None:
            return None
        return cls(sock, overhead, _acked(info) + leg.unsent)  # in this order: too early, never too late

    def note(self, piece: bytes) -> None:
        """This is about to be written: whole messages."""
        if len(piece) >= LONG or len(self.pieces) >= MANY:
            self.forget()
        self.pieces.append(piece)

    def drop(self) -> None:
        """Nothing that was noted will be said again: only some of a message is about to be written, say."""
        self._kept.clear()
        self.pieces.clear()
        self._kept_bytes = 0

    def forget(self) -> None:
        """Let go of what was acknowledged, and of the oldest of too much."""
        kept, info = self._kept, _tcp_info(self._socket)
        if info is None:  # it is closed
            self.drop()
            return
        kept += self.pieces
        self._kept_bytes += sum(map(len, self.pieces))
        self.pieces.clear()
        on_wire = self._on_wire
        acked, at, size, gone = _acked(info), self._start, self._kept_bytes, 0
        if at + sum(map(on_wire, kept)) <= acked:  # all of it, as nearly always
            self.drop()
            self._start = acked
            return
        for piece in kept:
            end = at + on_wire(piece)
            if end > acked and (size <= _MOST_BYTES or gone == len(kept) - 1):
                break
            at, size, gone = end, size - len(piece), gone + 1
        del kept[:gone]
        self._kept_bytes, self._start = size, at

    def lost(self) -> tuple[bytes, int]:
        """The pieces that nobody has got whole of a connection that has broken; of how many bytes it has."""
        info, at = _tcp_info(self._socket), self._start
        if info is None:
            return b"", 0
        acked, pieces, on_wire = _acked(info), self._kept + self.pieces, self._on_wire
        for number, piece in enumerate(pieces):
            end = at + on_wire(piece)
            if end > acked:
                return b"".join(pieces[number:]), self._readable(acked - at)
            at = end
        return b"", 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to let go of."""
        return not (self.pieces or self._kept)

    @property
    def is_cut_off(self) -> bool:
        """Whether the other end has acknowledged nothing for a while, though it was asked again.

        One that only reads slowly acknowledges what it has, and is asked for room, not again.
        """
        info = None if self.is_empty else _tcp_info(self._socket)
        return info is not None and info[_RETRANSMITS] > 0

    @property
    def _on_wire(self) -> Callable[[bytes], int]:
        """What tells of a piece how many bytes it is there."""
        return self._in_records if self._overhead else len

    def _in_records(self, piece: bytes) -> int:
        return len(piece) + self._overhead * -(-len(piece) // _RECORD)

    def _readable(self, size: int) -> int:
        """Bytes that can be read of the first so many of a piece on the wire: TLS has whole records."""
        return max(0, size) if not self._overhead else max(0, size) // (_RECORD + self._overhead) * _RECORD

    def __repr__(self) -> str:
        return f"<Unacknowledged {len(self._kept) + len(self.pieces)} pieces>"


def _tcp_socket(transport: asyncio.Transport) -> Any:
    """None if it has none that tells."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == getattr(socket, "AF_UNIX", None) or sys.platform != "linux":
        return None
    return sock


def _tcp_info(sock: Any) -> bytes | None:
    """The beginning of Linux's struct tcp_info; None before Linux 4.1, or once it is closed.

    A transport's socket has the number of its descriptor until that is closed, and -1 from then on.
    """
    if sock.fileno() < 0:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    except OSError:
        return None
    return info if len(info) == _INFO_SIZE else None


def _acked(info: bytes) -> int:
    """Bytes that the other end has acknowledged."""
    return int.from_bytes(info[_BYTES_ACKED:], sys.byteorder)


def _record_overhead(cipher: str, version: str) -> int | None:
    """Bytes that a record of TLS has beyond its content, None if they are not always as many.

    RFC 8446 section 5.2: header 5, type 1, tag 16. RFC 5288 section 3 (GCM): header 5, nonce 8, tag 16; RFC
    7905 section 2 (ChaCha20): header 5, tag 16.
    """
    if version == "TLSv1.3":
        return 22
    if "GCM" in cipher:
        return 29
    return 21 if "CHACHA20" in cipher else None
