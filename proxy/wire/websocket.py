"""WebSocket frames, as far as affinity must read them (RFC 6455 section 5): the first few of a connection.

The reader splits a byte stream into frames and hands out each with the bytes that made it, so that it can
be passed on, held or said again as it came. After the first Socket.IO packet nobody reads frames until the
proxy itself has one to send, for which the stream must be between two. Compression is not offered to the
backend on this path, and that of the client is taken off before (`deflate`): a set RSV bit ends the reading.
"""

from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GOING_AWAY = 1001  # RFC 6455 section 7.4.1: a server that goes down
POLICY_VIOLATION = 1008  # RFC 6455 section 7.4.1
TRY_AGAIN_LATER = 1013  # its registry (IANA, WebSocket Close Code Number Registry)
SERVICE_RESTART = 1012  # the close code that asks to connect anew
NO_CODE = 1005  # RFC 6455 section 7.4.1: a close frame without a code; never sent
NO_CLOSE = 1006  # the same: the connection ended without a close frame; never sent
LONGEST_READ = 1 << 18  # a CONNECT packet holds a few ids and the user's env; longer is not for us to read

LONGEST_CLOSE = 131  # bytes: 125 of payload behind two of head and four of mask
_FINAL_CLOSE = bytes((0x80 | CLOSE,))  # the first byte of a close frame


class FrameError(Exception):
    """The stream is not what we can read; it may still be passed on."""


class Frame(NamedTuple):
    """One frame: `raw` is every byte of it, `payload` is unmasked."""

    opcode: int
    final: bool
    payload: bytes
    raw: bytes


class FrameReader:
    """Splits the bytes of one direction into frames. `rest` is what has come of the next."""

    __slots__ = ("_longest", "rest")

    def __init__(self, longest: int = LONGEST_READ) -> None:
        self._longest = longest  # bytes of a frame
        self.rest = bytearray()

    def push(self, data: bytes) -> None:
        """Take bytes."""
        self.rest += data

    def next(self) -> Frame | None:
        """The next whole frame, or None until more bytes come; raises FrameError."""
        buffer = self.rest
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70:
            raise FrameError("reserved bit set")
        length, at = second & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            if len(buffer) < at:
                return None
            length = int.from_bytes(buffer[2:at], "big")
        if length > self._longest:
            raise FrameError("frame too long to read")
        mask = b""
        if second & 0x80:
            mask = bytes(buffer[at : at + 4])
            at += 4
        end = at + length
        if len(buffer) < end:
            return None
        raw = bytes(buffer[:end])
        del buffer[:end]
        payload = apply_mask(raw[at:], mask) if mask else raw[at:]
        return Frame(first & 0x0F, bool(first & 0x80), payload, raw)


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload (RFC 6455 section 5.3), as one long XOR."""
    size = len(payload)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """A server's close frame, unmasked."""
    payload = code.to_bytes(2, "big") + reason[:123]
    return bytes((0x80 | CLOSE, len(payload))) + payload


def close_code(last: bytes) -> int:
    """The code of the close frame that the last bytes of a side end with, 0 if they end with none.

    `last` may begin in the middle of a frame, so it is the end that is looked at: a close frame is the last
    of all (RFC 6455 section 5.5.1) and no longer than any control frame.
    """
    at = max(0, len(last) - LONGEST_CLOSE) - 1
    while (at := last.find(_FINAL_CLOSE, at + 1, len(last) - 1)) >= 0:
        second = last[at + 1]
        start = at + (6 if second & 0x80 else 2)
        if start + (second & 0x7F) != len(last):
            continue
        payload = last[start : start + 2]
        code = int.from_bytes(payload, "big") if payload else NO_CODE
        if payload and second & 0x80:
            code ^= int.from_bytes(last[at + 2 : at + 2 + len(payload)], "big")
        if 1000 <= code < 5000:  # section 7.4.2
            return code
    return 0


def client_frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A client's frame. The mask of zeros is one as any other; there is no script to guess it."""
    return _frame_head(opcode | 0x80 * final, len(payload), 0x80) + bytes(4) + payload


def server_frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame, unmasked."""
    return _frame_head(0x80 | opcode, len(payload), 0) + payload


def _frame_head(first: int, length: int, masked: int) -> bytes:
    """RFC 6455 section 5.2: a short length stands in seven bits, a longer one behind them."""
    if length < 126:
        return bytes((first, masked | length))
    if length < 1 << 16:
        return bytes((first, masked | 126)) + length.to_bytes(2, "big")
    return bytes((first, masked | 127)) + length.to_bytes(8, "big")
