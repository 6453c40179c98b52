"""What a client was told and may never get: the end of it, until its system has acknowledged it.

A connection that breaks takes with it whatever was on its way: what was written while nobody knew that the
network was gone, be it for a moment or for half a minute. Linux tells how many bytes of a connection the
other end has acknowledged, after its end too (tcp(7), `tcpi_bytes_acked` of TCP_INFO); all that was written
behind them may have reached nobody. So the last pieces are kept until they are acknowledged, and can be said
again when the session connects again: see `linger`. Linux also tells that nothing is acknowledged though it
was sent again, as on a network that is gone without a word. Where the system does not tell, nothing is known
to be lost.

Whoever writes a piece notes it here first; each is one or more whole messages. What is written unnoted makes
what is noted behind it count as acknowledged too early, never too late. Only what a client has heard in its
last moment may be said twice, if its acknowledgement, which may wait for 40 ms, was lost with it.
"""

import asyncio
import fcntl
import socket
import sys
import termios
from typing import Any

MANY = 64  # pieces until they are looked at
LONG = 1 << 14  # bytes of a piece before which they are
_MOST_BYTES = 1 << 18  # of one client: beyond them the oldest are let go of
_RECORD = 1 << 14  # bytes of a TLS record (RFC 8446 section 5.1)
# Where they are in Linux's struct tcp_info (linux/tcp.h).
_RETRANSMITS, _BYTES_ACKED, _INFO_SIZE = 2, 120, 128


class Unacknowledged:
    """Of one connection to a client; owned by its leg."""

    __slots__ = ("_overhead", "_socket", "_start", "_transport", "pieces")

    def __init__(self, transport: asyncio.Transport, *, plain: bool = True) -> None:
        """`plain` tells whether its pieces are what is sent, or sent encrypted: not compressed, say."""
        self.pieces: list[bytes] = []  # noted last
        self._transport = transport
        self._socket: Any = _tcp_socket(transport) if plain else None  # None: nothing is known of it
        self._overhead = 0  # bytes that TLS adds to a record
        self._start = 0  # where they begin in all that was ever sent on it, in bytes
        if self._socket is None:
            return
        tls = transport.get_extra_info("ssl_object")
        overhead = 0 if tls is None else _record_overhead(*tls.cipher()[:2])
        if overhead is None:
            self._socket = None
        else:
            self._overhead = overhead
            self.forget()

    def forget(self) -> None:
        """Let go of what was acknowledged; called between two pieces, while the connection is there."""
        acked, pieces = self._acked(), self.pieces
        if acked is None:
            pieces.clear()
            return
        at, number, size = acked + self._on_their_way(), len(pieces), 0
        while number and at > acked and size < _MOST_BYTES:
            number -= 1
            at -= self._size(pieces[number])
            size += len(pieces[number])
        del pieces[:number]
        self._start = at

    def lost(self) -> bytes:
        """What nobody has got of a connection that has broken."""
        acked, at = self._acked(), self._start
        if acked is None:
            return b""
        for number, piece in enumerate(self.pieces):
            at += self._size(piece)
            if at > acked:
                return b"".join(self.pieces[number:])
        return b""

    @property
    def is_cut_off(self) -> bool:
        """Whether the other end has acknowledged nothing for a while, though it was asked again.

        One that only reads slowly acknowledges what it has, and is asked for room, not again.
        """
        info = self._info() if self.pieces else None
        return info is not None and info[_RETRANSMITS] > 0

    def _size(self, piece: bytes) -> int:
        """Bytes of it on the wire."""
        return len(piece) + self._overhead * -(-len(piece) // _RECORD)

    def _acked(self) -> int | None:
        """Bytes that the other end has acknowledged, None where the system does not tell."""
        info = self._info()
        return None if info is None else int.from_bytes(info[_BYTES_ACKED:], sys.byteorder)

    def _info(self) -> bytes | None:
        """The beginning of Linux's struct tcp_info."""
        sock = self._socket
        if sock is None or sock.fileno() < 0:
            return None
        try:
            info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        except OSError:
            info = b""
        if len(info) < _INFO_SIZE:  # before Linux 4.1
            self._socket = None
            return None
        return info

    def _on_their_way(self) -> int:
        """Bytes that were written and are not acknowledged."""
        try:
            held = int.from_bytes(
                fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        except OSError:
            held = 0
        return held + self._transport.get_write_buffer_size()

    def __repr__(self) -> str:
        return f"<Unacknowledged {len(self.pieces)} pieces>"


def _tcp_socket(transport: asyncio.Transport) -> Any:
    """None if it has none that tells."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family == getattr(socket, "AF_UNIX", None) or sys.platform != "linux":
        return None
    return sock


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
