"""One direction of a Socket.IO websocket, handed on in whole packets only.

A packet is a message and the binary messages that belong to it (Socket.IO protocol 5, binary attachments), a
message its fragments (RFC 6455 section 5.4). Since none goes on in part, both peers are between two packets
whenever one of them is lost, and another can take its place. Nothing is changed on the way. What has not come
whole waits here, up to a bound: a longer packet passes as it comes, and until its end nobody is between two.
"""

from struct import Struct

from proxy.wire.engineio import PING
from proxy.wire.websocket import BINARY, CLOSE, LONGEST_READ, PONG, TEXT, FrameError, apply_mask, server_frame

START = 32  # bytes of a message by which it is judged
_LONGEST_COUNT = 9  # digits of the number of attachments
_WITH_ATTACHMENTS = (b"45", b"46")  # Socket.IO's BINARY_EVENT and BINARY_ACK
GOODBYES = (b"41", b"1")  # Socket.IO's and Engine.IO's (socket.io-parser, engine.io-parser)
_EVENT = b"42"
_SHORTEST = 6  # bytes of a frame with an event
_TEXT_FRAME = 0x80 | TEXT  # the first byte of one that is a whole message
_ALONE = bytes((_TEXT_FRAME, *range(0x80 | CLOSE, (0x80 | PONG) + 1)))  # of one that may be a whole packet
_heads = Struct(">HHH").unpack_from  # of two kinds of frames: first and length, length or event, event
_TEXT, _LONG_TEXT = (0x80 | TEXT) << 8, (0x80 | TEXT) << 8 | 126
_EVENT_NUMBER = int.from_bytes(_EVENT, "big")


def _event_head(size: int) -> bytes:
    """How a frame of so many bytes begins that is an event; if none has so many, nothing of them does."""
    if size < _SHORTEST or 128 <= size < 130:
        return bytes(size + 1)
    return server_frame(TEXT, _EVENT + bytes(size - (4 if size < 128 else 6)))[: 4 if size < 128 else 6]


# What `data` of a backend with one whole event and nothing else begins with, by its size: nearly all does.
EVENT_HEADS = tuple(map(_event_head, range(1024)))
LONGEST_EVENT = len(EVENT_HEADS)  # bytes; a longer one is looked at by `are_events`


def are_events(data: bytes) -> bool:
    """Whether `data` of a backend is nothing but whole frames with an event each."""
    at, size = 0, len(data)
    while at + _SHORTEST <= size:
        first, second, third = _heads(data, at)
        if first == _LONG_TEXT and third == _EVENT_NUMBER and second >= 2:
            at += second + 4
        elif second == _EVENT_NUMBER and _TEXT + 2 <= first < _LONG_TEXT:
            at += (first & 0x7F) + 2
        else:
            return False
    return at == size


_Head = tuple[int, bytes, int, int]  # of a frame: its first byte, its mask, where its payload begins and ends


class PacketReader:
    """Follows the frames; a subclass looks at what they say. Owned by one side of the websocket."""

    __slots__ = (
        "_at",
        "_begun",
        "_buffer",
        "_first",
        "_is_cut",
        "_left",
        "_owed",
        "_payload",
        "_start",
        "_text",
        "_torn",
        "is_empty",
    )

    def __init__(self) -> None:
        self._buffer = bytearray()  # what has not gone on
        self._at = 0  # how much of it is whole frames
        self._begun = False  # whether more fragments are to come of a message
        self._text = False  # whether the last message is text
        self._start = b""  # how it begins, if it is
        self._payload: bytearray | None = None  # all of it so far; None: nobody wants to know
        self._is_cut = False  # whether its beginning has gone on before it was whole
        self._owed = 0  # binary messages that are to come for the last packet
        self._torn = False  # whether some of a packet has gone on, and not all
        self._left = 0  # bytes to come of a frame that passes as it comes
        self._first = 0  # the first byte of that frame
        self.is_empty = True  # whether the next byte begins a packet

    @property
    def is_between(self) -> bool:
        """Whether what has gone on ends with a whole packet."""
        return not self._torn

    @property
    def rest(self) -> bytes:
        """What has come of the next packet and has not gone on; of what is no packet too."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return what goes on. Raises FrameError (see `rest`), and what the subclass raises."""
        if self.is_empty and (passed := self._pass_alone(data)) is not None:
            return passed
        self.is_empty = False
        out = data[: self._left]
        if out:
            self._left -= len(out)
            if self._left:
                return out
            self._end_of_message(self._first)
            data = data[len(out) :]
        self._buffer += data
        try:
            whole = self._read_frames()
        except FrameError:
            self._buffer[:0] = out
            raise
        out += self._cut(whole)
        if len(self._buffer) > LONGEST_READ:
            out += self._let_pass()
        self.is_empty = not (self._torn or self._buffer)
        return out

    def feed_whole(self, data: bytes) -> tuple[bytes, bool]:
        """As `feed`; and whether what goes on is whole packets and nothing else."""
        was_between = self.is_between
        passed = self.feed(data)
        return passed, was_between and self.is_between

    def _pass_alone(self, data: bytes) -> bytes | None:
        """As `feed`, of one short frame that is a whole packet, as most are; None if it may not be one."""
        body = 6 if self._masked else 2
        size = len(data) - body
        if not 0 <= size < 126 or data[0] not in _ALONE or data[1] != (size | 0x80 if self._masked else size):
            return None
        if data[0] != _TEXT_FRAME:
            self._control(data[0] & 0x0F, data)
            return data
        payload = apply_mask(data[6:], data[2:6]) if self._masked else data[2:]
        if payload.startswith(_WITH_ATTACHMENTS):
            return None
        if size > START and not self._wants(payload[:START], final=True):
            payload = payload[:START]
        self._is_cut = False
        return data if self._hear(payload) else b""

    def _cut(self, size: int) -> bytes:
        passed = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._at -= size
        return passed

    def _read_frames(self) -> int:
        """Read the whole frames there are; return how many bytes of the buffer may go on."""
        buffer, whole = self._buffer, 0
        while (head := self._head()) is not None and head[3] <= len(buffer):
            start, opcode, end = self._at, head[0] & 0x0F, head[3]
            if opcode >= CLOSE:
                self._control(opcode, bytes(buffer[start:end]))
            elif not self._take(*head):
                del buffer[start:end]
                continue
            self._at = end
            if not (self._begun or self._owed):
                self._torn = False
                whole = self._at
            elif self._torn:
                whole = self._at
        return whole

    def _head(self) -> _Head | None:
        """That of the next frame; None until it has come."""
        buffer, at = self._buffer, self._at
        size = len(buffer)
        if size - at < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        length, body, masked = second & 0x7F, at + 2, bool(second & 0x80)
        self._check(first, length, masked)
        if length > 125:
            body += 2 if length == 126 else 8
            length = int.from_bytes(buffer[at + 2 : body], "big")
        body += 4 * masked
        if size < body:
            return None
        return (first, bytes(buffer[body - 4 : body]) if masked else b"", body, body + length)

    def _check(self, first: int, length: int, masked: bool) -> None:
        """RFC 6455 sections 5.2, 5.4 and 5.5: what the peer ends the websocket for as well."""
        opcode = first & 0x0F
        known = opcode <= BINARY or (CLOSE <= opcode <= PONG and first & 0x80 and length < 126)
        if first & 0x70 or not known or masked is not self._masked:
            raise FrameError("no frame that can be read")
        if opcode < CLOSE and self._begun is not (opcode == 0):
            raise FrameError("a fragment without its message, or a message in another")

    def _take(self, first: int, mask: bytes, body: int, end: int) -> bool:
        """A whole frame of a message; return whether it goes on."""
        if first & 0x0F:
            self._begin(first)
        if self._text:
            self._read(first, mask, body, end)
        if not first & 0x80:
            self._begun = True
            return True
        passes = not self._text or self._hear(self._start if self._payload is None else bytes(self._payload))
        self._end_of_message(first)
        return passes or not first & 0x0F  # its first fragments are on their way

    def _begin(self, first: int) -> None:
        self._text = first & 0x0F == TEXT
        self._start, self._payload, self._is_cut = b"", bytearray() if self._text else None, False

    def _read(self, first: int, mask: bytes, body: int, end: int) -> None:
        """More of a text message, which is judged by its start."""
        buffer = self._buffer
        missing = START - len(self._start)
        if missing > 0:
            part = bytes(buffer[body : min(end, body + missing)])
            self._start += apply_mask(part, mask) if mask else part
            if self._payload is not None and not self._wants(self._start, final=bool(first & 0x80)):
                self._payload = None
        if self._payload is not None:
            whole = bytes(buffer[body:end])
            self._payload += apply_mask(whole, mask) if mask else whole

    def _end_of_message(self, first: int) -> None:
        """The last byte of a frame has come: whether its message and its packet are whole."""
        self._begun = not first & 0x80
        if self._begun:
            return
        if self._owed:
            if not self._text or self._start[:1] == b"4":  # text too: that is how python-socketio takes it
                self._owed -= 1
        elif self._text:
            self._owed = attachments(self._start)
        self._payload = None
        self._torn = self._torn and self._owed > 0

    @property
    def waiting(self) -> int:
        """Bytes of that."""
        return len(self._buffer)

    def let_pass(self) -> bytes:
        """There is no room for what waits: return what goes on. Raises what the subclass raises."""
        return self._let_pass()

    def _let_pass(self) -> bytes:
        """What waits is too long to wait."""
        buffer, head = self._buffer, self._head()
        first, mask, body, end = head or (CLOSE, b"", 0, 0)
        begins = first & 0x0F < CLOSE and len(buffer) >= body + 2
        if begins:
            if first & 0x0F:
                self._begin(first)
            if self._text:
                self._read(first, mask, body, len(buffer))
        if self._text and not self._is_cut and (begins or self._begun):
            self._is_cut = True
            self._too_long(self._start)
        self._torn, self._payload = True, None
        if begins:
            self._first, self._left, self._at = first, end - len(buffer), len(buffer)
        return self._cut(self._at)

    # What a subclass looks at

    _masked = False  # whether the frames are a client's

    def _wants(self, start: bytes, *, final: bool) -> bool:
        """Whether all of a text message is to be read that begins so; `final`: that is all of it."""
        return False

    def _hear(self, payload: bytes) -> bool:
        """A text message is whole; its start only, unless it was wanted. Return whether it goes on."""
        return True

    def _control(self, opcode: int, frame: bytes) -> None:
        """A control frame has come."""

    def _too_long(self, start: bytes) -> None:
        """A message that begins so is about to pass before it is whole."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} waiting={len(self._buffer)} owed={self._owed} torn={self._torn}>"


def attachments(start: bytes) -> int:
    """How many binary messages belong to a packet that begins so (`45<number>-`)."""
    if start[:2] not in _WITH_ATTACHMENTS:
        return 0
    number, dash, _ = start[2 : 2 + _LONGEST_COUNT + 1].partition(b"-")
    return int(number) if dash and number.isdigit() else 0


class BackendPackets(PacketReader):
    """What a backend says; looked at for its pings and for how it ends."""

    __slots__ = ("goodbye", "has_pinged", "is_over")

    def __init__(self) -> None:
        super().__init__()
        self.goodbye = b""  # its close frame
        self.is_over = False  # whether it has ended the session in Socket.IO's words
        self.has_pinged = False  # whether it has said Engine.IO's ping; who looks takes it back

    def _hear(self, payload: bytes) -> bool:
        self.is_over = self.is_over or payload in GOODBYES
        self.has_pinged = self.has_pinged or payload == PING
        return True

    def _control(self, opcode: int, frame: bytes) -> None:
        if opcode == CLOSE:
            self.goodbye = frame
