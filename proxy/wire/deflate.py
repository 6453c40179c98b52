"""permessage-deflate between a client and the proxy (RFC 7692): what is agreed, and both directions.

The proxy offers no backend any compression, so on that side nothing changes, and another backend can go on
with a websocket whose client knows one stream of compressed messages. What is said to the client is whole
frames as they came; one of some length is compressed, anything else passes as it is. What the client says
becomes plain frames again before anybody reads it.

The client is told to begin each message anew (`client_no_context_takeover`), so nothing is kept between two
of them. What the proxy says refers to what it said before, unless the client asked otherwise: that is what
makes a token short. Such a context may be forgotten at any time, since nobody has to refer back.
"""

import re
import zlib
from collections import OrderedDict
from typing import NamedTuple

from proxy.wire.websocket import BINARY, CLOSE, TEXT, FrameError, apply_mask, client_frame, server_frame

# A token is some 130 bytes and like the last one: 2^12 bytes hold 30 of them, more hardly save anything.
WINDOW_BITS = 12
_MEMORY_LEVEL = 4  # of 1 to 9: a hash of 2^11 entries is enough for such a window
_LEVEL = 6  # of 1 to 9: 12 bytes of a token instead of 13, for a tenth more time
_SHORTEST = 32  # bytes of a message that is compressed: a ping would become longer
MOST_CONTEXTS = 1000  # that are kept; of the clients that were told something last
CHUNK = 1 << 16  # bytes that are inflated at once
_FREELY = 128  # bytes that one received byte may become, where many did before

_COMPRESSED = 0x40  # RSV1
_OTHER_BITS = 0x30
_TEXT_FRAME = 0x80 | TEXT  # the first byte of a whole text message
_FLUSHED = b"\x00\x00\xff\xff"  # what ends a flushed block and is not sent (RFC 7692 section 7.2.1)
_BEFORE_FLUSHED = -len(_FLUSHED)
_END = b"\x01\x00\x00\xff\xff"  # a last, empty block: behind what is whole it ends the stream
# RFC 7692 section 7.2.3.4: a message may have a last block of its own, and one byte behind it.
_BEHIND_LAST = (b"", _FLUSHED + _END, b"\x00" + _FLUSHED + _END)

PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009  # RFC 6455 section 7.4.1

_EXTENSION = b"permessage-deflate"
_PARAMETER = re.compile(rb'[ \t]*([a-z_]+)[ \t]*(?:=[ \t]*(?:([0-9]+)|"([0-9]+)")[ \t]*)?')
_BITS = {b"%d" % bits: bits for bits in range(8, 16)}  # section 7.1.2.1: decimal, without a leading zero
_FEWEST_BITS = 9  # zlib makes no raw stream with a window of 2^8


class Agreed(NamedTuple):
    """What client and proxy go by."""

    bits: int  # of the window for what the proxy says
    refers: bool  # whether it may refer to earlier messages
    field: bytes  # the line that tells the client


def agree(offers: list[bytes]) -> Agreed | None:
    """The first offer of a client that can be taken, from its Sec-WebSocket-Extensions; None: there is none.

    RFC 7692 section 5.1: what is unknown, invalid or said twice in an offer has it declined.
    """
    for offer in b",".join(offers).split(b","):
        name, *parameters = offer.split(b";")
        if name.strip(b" \t").lower() == _EXTENSION and (agreed := _take(parameters)) is not None:
            return agreed
    return None


def _take(parameters: list[bytes]) -> Agreed | None:
    asked: dict[bytes, bytes] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in asked:
            return None
        asked[match[1]] = match[2] or match[3] or b""
    bits, field = WINDOW_BITS, b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
    refers = True
    for name, value in asked.items():
        if name == b"server_no_context_takeover" and not value:
            refers = False
            field += b"; server_no_context_takeover"
        elif name == b"server_max_window_bits" and _BITS.get(value, 0) >= _FEWEST_BITS:
            bits = min(bits, _BITS[value])
            field += b"; server_max_window_bits=%d" % bits
        elif not (
            (name == b"client_max_window_bits" and (not value or value in _BITS))
            or (name == b"client_no_context_takeover" and not value)
        ):
            return None
    return Agreed(bits, refers, field + b"\r\n")


class Contexts:
    """What was said before to those clients that were told something last; owned by the Site."""

    __slots__ = ("_most", "_used", "packed", "plain")

    def __init__(self, most: int = MOST_CONTEXTS) -> None:
        self._used: OrderedDict[Deflater, None] = OrderedDict()
        self._most = most
        self.plain = 0  # bytes of the frames that were compressed
        self.packed = 0  # of what they became

    def used(self, deflater: "Deflater") -> None:
        """It has a context; whoever has not used theirs for longest makes room."""
        used = self._used
        if deflater in used:
            used.move_to_end(deflater)
            return
        used[deflater] = None
        if len(used) > self._most:
            used.popitem(last=False)[0].forget()

    def left(self, deflater: "Deflater") -> None:
        """Its connection has ended."""
        self._used.pop(deflater, None)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._used)

    def __repr__(self) -> str:
        return f"<Contexts {len(self._used)} plain={self.plain} packed={self.packed}>"


class Deflater:
    """What the proxy says on one websocket: messages of some length compressed, all else as it comes."""

    __slots__ = ("_agreed", "_contexts", "_held", "_is_over", "_left", "_packer")

    def __init__(self, agreed: Agreed, contexts: Contexts) -> None:
        self._agreed = agreed
        self._contexts = contexts
        self._packer: zlib._Compress | None = None  # set while what was said before is known
        self._held = b""  # the head of a frame as far as it has come
        self._left = 0  # bytes to come of a frame that passes as it comes
        self._is_over = False  # since a frame that nobody could read, or the end of its connection

    def pack(self, data: bytes) -> bytes:
        """What goes out for these bytes of a server's frames."""
        size = len(data)
        if (
            size >= _SHORTEST + 2
            and data[0] == _TEXT_FRAME
            and not (self._left or self._held or self._is_over)
        ):
            second = data[1]  # nearly all is one message
            if second == size - 2 < 126:
                return self._packed(_TEXT_FRAME, data[2:], size)
            if second == 126 and data[2] << 8 | data[3] == size - 4:
                return self._packed(_TEXT_FRAME, data[4:], size)
        if self._held:
            data, self._held = self._held + data, b""
            size = len(data)
        at = min(self._left, size)
        self._left -= at
        out = data[:at]
        while at < size and not self._is_over:
            body, end = _extent(data, at)
            if end < 0:
                self._held = data[at:]
                break
            first = data[at]
            if first & (_COMPRESSED | _OTHER_BITS):  # it would be taken for one of ours
                self._is_over = True
            elif end > size:
                self._left = end - size
                out += data[at:]
            elif end - body >= _SHORTEST and (first == 0x80 | TEXT or first == 0x80 | BINARY):
                out += self._packed(first, data[body:end], end - at)
            else:
                out += data[at:end]
            at = end
        return out

    def _packed(self, first: int, payload: bytes, size: int) -> bytes:
        """A message as it goes out; its frame came with so many bytes."""
        contexts, packer = self._contexts, self._packer
        if packer is None:
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._agreed.bits, _MEMORY_LEVEL)
        if self._agreed.refers:
            self._packer = packer
            contexts.used(self)
        packed = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(first | _COMPRESSED, packed[:_BEFORE_FLUSHED])
        contexts.plain += size
        contexts.packed += len(frame)
        return frame

    def forget(self) -> None:
        """What was said before is referred to no more."""
        self._packer = None

    def leave(self) -> None:
        """Its connection has ended: who still says something, in the same moment, begins no new context."""
        self._contexts.left(self)
        self._packer = None
        self._is_over = True

    def __repr__(self) -> str:
        return f"<Deflater {self._agreed!r} left={self._left} held={len(self._held)}>"


class Inflater:
    """What a client says, in plain frames; nothing becomes longer than is allowed.

    A message may have `longest` bytes; so many are inflated whatever was received for them, and more only as
    far as enough is received.
    """

    __slots__ = (
        "_buffer",
        "_credit",
        "_final",
        "_is_first",
        "_left",
        "_mask",
        "_opcode",
        "_packed",
        "_passing",
        "_size",
        "_unpacker",
        "code",
        "longest",
        "reason",
    )

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._buffer = bytearray()  # what came and was not read
        self._passing = 0  # bytes to come of a frame that is not compressed
        self._unpacker: zlib._Decompress | None = None  # set while a compressed message is under way
        self._opcode = 0  # of that message
        self._is_first = False  # whether nothing of it has gone on
        self._size = 0  # bytes that it has become so far
        self._final = False  # whether its present frame is the last
        self._left = 0  # bytes to come of that frame
        self._mask = b""  # for the next of them
        self._packed = b""  # what came of it and was not inflated
        self._credit = longest  # bytes that may be inflated before more is received
        self.code = 0  # after FrameError: what the client is told
        self.reason = b""

    def push(self, data: bytes) -> None:
        """Take bytes."""
        self._buffer += data

    @property
    def has_more(self) -> bool:
        """Whether some of what came was not read."""
        return bool(self._buffer or self._packed)

    def next(self) -> bytes:
        """The next of it, in plain frames of a client; b"" until more comes. Raises FrameError."""
        buffer = self._buffer
        while True:
            if self._packed or self._left:
                plain = self._inflate()
                if plain or self._left:
                    return plain
            at = self._pass(buffer)
            if at >= 0:
                passed = bytes(buffer[:at])
                del buffer[:at]
                return passed

    def _pass(self, buffer: bytearray) -> int:
        """How much passes as it came; -1: a compressed frame has begun. Raises FrameError."""
        size = len(buffer)
        at = min(self._passing, size)
        self._passing -= at
        while at < size:
            body, end = _extent(buffer, at)
            if end < 0:
                break
            first = buffer[at]
            if not first & _COMPRESSED and (first & 0x0F >= CLOSE or self._unpacker is None):
                self._passing = max(0, end - size)
                at = min(end, size)
                continue
            if at:
                break  # what came before it goes on first
            self._begin(first, buffer[1], bytes(buffer[body - 4 : body]), end - body)
            del buffer[:body]
            return -1
        return at

    def _begin(self, first: int, second: int, mask: bytes, length: int) -> None:
        """A frame of a compressed message begins. Raises FrameError."""
        opcode, begins = first & 0x0F, bool(first & _COMPRESSED)
        if begins is not (self._unpacker is None) or opcode not in ((TEXT, BINARY) if begins else (0,)):
            raise self._refused(PROTOCOL_ERROR, b"a compressed frame where none may be")
        if not second & 0x80 or first & _OTHER_BITS:
            raise self._refused(PROTOCOL_ERROR, b"not masked, or with reserved bits")
        if begins:
            self._unpacker = zlib.decompressobj(wbits=-15)
            self._opcode, self._is_first, self._size = opcode, True, 0
        self._final, self._mask, self._left = bool(first & 0x80), mask, length
        if not length and self._final:
            self._packed = _FLUSHED + _END

    def _inflate(self) -> bytes:
        """Some of what came of a compressed frame, as a plain one; b"": nothing yet. Raises FrameError."""
        unpacker = self._unpacker
        assert unpacker is not None
        if not self._packed and not self._take():
            return b""
        try:
            plain = unpacker.decompress(self._packed, CHUNK)
        except zlib.error:
            raise self._refused(INVALID_DATA, b"not compressed as it says") from None
        self._packed = unpacker.unconsumed_tail
        self._size += len(plain)
        self._credit -= len(plain)
        if self._size > self.longest or self._credit < 0:
            raise self._refused(TOO_BIG, b"too much for one message, or for what was received")
        over = self._final and not self._left and not self._packed
        behind = unpacker.unused_data
        if len(behind) > len(_BEHIND_LAST[-1]) or (over and not (unpacker.eof and behind in _BEHIND_LAST)):
            raise self._refused(INVALID_DATA, b"not compressed to its end")
        if over:
            self._unpacker = None
        if not plain and not over:
            return b""
        opcode = self._opcode if self._is_first else 0
        self._is_first = False
        return client_frame(opcode, plain, final=over)

    def _take(self) -> bool:
        """Unmask what has come of the present frame; return whether that is anything."""
        buffer = self._buffer
        part = bytes(buffer[: self._left])
        if not part:
            return False
        del buffer[: len(part)]
        self._left -= len(part)
        self._credit = min(self.longest, self._credit + _FREELY * len(part))
        self._packed = apply_mask(part, self._mask)
        turn = len(part) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        if self._final and not self._left:
            self._packed += _FLUSHED + _END
        return True

    def _refused(self, code: int, reason: bytes) -> FrameError:
        self.code, self.reason = code, reason
        return FrameError(reason.decode())

    def __repr__(self) -> str:
        return f"<Inflater waiting={len(self._buffer)} left={self._left} credit={self._credit}>"


def _extent(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where the payload of the frame that begins there begins and ends; (-1, -1): its head is not whole."""
    size = len(data)
    if size - at < 2:
        return -1, -1
    second = data[at + 1]
    length, body = second & 0x7F, at + 2
    if length > 125:
        body += 2 if length == 126 else 8
        length = int.from_bytes(data[at + 2 : body], "big")
    if second & 0x80:
        body += 4
    return (body, body + length) if size >= body else (-1, -1)
