"""What a client says on a Socket.IO websocket, looked at for CONNECT packets that name an odd session.

A client may say CONNECT again: behind a DISCONNECT, behind a refusal, behind any other packet. So its frames
are followed for the websocket's whole life, at the cost of their heads: a message that does not begin as a
CONNECT may passes as it comes, of whatever size; one that does is held until it is whole. Nothing is
changed on the way, and what a session means is for others.
"""

from proxy.errors import Odd, OddId
from proxy.wire.engineio import connect_session
from proxy.wire.websocket import BINARY, CLOSE, LONGEST_READ, PONG, TEXT, FrameError, apply_mask

_CONTINUATION = 0
_TEXT_HEAD = 0x80 | TEXT
_ENGINE_PONG, _MESSAGE, _EVENT = b"342"
_NO_CONNECT = b"123456789"  # Socket.IO types other than CONNECT
_GOODBYES = (b"41", b"1")  # Socket.IO's and Engine.IO's (socket.io-parser, engine.io-parser)


def is_plain(data: bytes) -> bool:
    """Whether `data` is one whole frame with a pong or an event: what nearly all reads are."""
    if len(data) < 8 or data[0] != _TEXT_HEAD:
        return len(data) == 7 and data[:2] == b"\x81\x81" and data[2] ^ data[6] == _ENGINE_PONG
    return (
        0x80 + len(data) - 6 == data[1] < 0xFE  # masked, its length in one byte
        and data[2] ^ data[6] == _MESSAGE
        and data[3] ^ data[7] == _EVENT
    )


class Guard:
    """Owned by the client's side of one websocket."""

    __slots__ = ("_buffer", "_held", "_holds", "_left", "_passes", "_payload", "between", "has_parted")

    def __init__(self) -> None:
        self.between = True  # whether the next byte begins a message, and nothing is held
        self.has_parted = False  # whether the last message here was a farewell: a page is closed or left
        self._buffer = bytearray()  # of a frame that cannot be judged yet
        self._left = 0  # bytes still to come of a frame that passes
        self._passes = False  # whether more fragments are to come of a message that passes
        self._holds = False  # whether more fragments are to come of a message that is held
        self._held = bytearray()  # its frames, as they came
        self._payload = bytearray()  # what they say

    def feed(self, data: bytes) -> bytes:
        """What of it, and of what was held before, may go on. Raises OddId and FrameError."""
        out = bytearray(data[: self._left])
        self._buffer += data[self._left :]
        self._left -= len(out)
        while self._buffer and (frame := self._next()) is not None:
            out += frame
        self.between = not (self._left or self._buffer or self._passes or self._holds)
        return bytes(out)

    def _next(self) -> bytes | None:
        """What may go on of the frame at the start of the buffer; None until more bytes come."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        opcode, final, length, at = buffer[0] & 0x0F, bool(buffer[0] & 0x80), buffer[1] & 0x7F, 2
        self._check(buffer[0], opcode, masked=bool(buffer[1] & 0x80))
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:at], "big")
        at += 4
        begun = min(2, length)
        if len(buffer) < at + begun:
            return None
        if opcode == TEXT:
            start = apply_mask(bytes(buffer[at : at + begun]), bytes(buffer[at - 4 : at]))
            holds = _may_connect(start, final=final)
            self.has_parted = final and length == begun and start in _GOODBYES
        else:
            holds = opcode == _CONTINUATION and self._holds
            self.has_parted = opcode == CLOSE or (opcode > CLOSE and self.has_parted)
        if holds:
            return self._hold(at, length, final=final)
        if opcode < CLOSE:
            self._passes = not final
        self._left = max(0, at + length - len(buffer))
        frame = bytes(buffer[: at + length])
        del buffer[: at + length]
        return frame

    def _check(self, first: int, opcode: int, *, masked: bool) -> None:
        """RFC 6455 sections 5.1, 5.2 and 5.4: what a backend ends the websocket for as well."""
        within = self._passes or self._holds
        known = opcode <= BINARY or CLOSE <= opcode <= PONG
        if first & 0x70 or not masked or not known or (opcode < CLOSE and within is not (opcode == 0)):
            raise FrameError("no frame of a client")

    def _hold(self, at: int, length: int, *, final: bool) -> bytes | None:
        """Keep a frame of a message that may be a CONNECT; when it is the last, all of them."""
        buffer, end = self._buffer, at + length
        if len(self._held) + end > LONGEST_READ:
            raise OddId(Odd.SESSION, "CONNECT packet too long to find its session id")
        if len(buffer) < end:
            return None
        self._payload += apply_mask(bytes(buffer[at:end]), bytes(buffer[at - 4 : at]))
        self._held += buffer[:end]
        del buffer[:end]
        self._holds = not final
        if not final:
            return b""
        connect_session(bytes(self._payload))
        held = bytes(self._held)
        self._held.clear()
        self._payload.clear()
        return held

    def __repr__(self) -> str:
        return f"<Guard left={self._left} held={len(self._held)}>"


def _may_connect(start: bytes, *, final: bool) -> bool:
    """Whether a text message that begins so may be a CONNECT; digits need not be those of ASCII."""
    if len(start) < 2 and final:
        return False
    if not start or start[0] >= 0x80:
        return True
    return start[0] == _MESSAGE and (len(start) < 2 or start[1] not in _NO_CONNECT)
