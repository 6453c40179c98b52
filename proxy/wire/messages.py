"""WebSocket messages: frames put together, each message with the bytes that made it (RFC 6455 section 5.4).

For who has to read all that is said before it lets it pass; `guard` looks only at how messages begin.
"""

from proxy.wire.websocket import CLOSE, Frame, FrameError, FrameReader


class Message:
    """A message, or a control frame: the bytes of its frames, how many there are, and what they say."""

    __slots__ = ("frames", "opcode", "payload", "raw")

    def __init__(self, opcode: int, payload: bytes, raw: bytes, frames: int) -> None:
        self.opcode = opcode
        self.payload = payload
        self.raw = raw
        self.frames = frames


class MessageReader:
    """Splits one direction into messages; fragments wait for the last (RFC 6455 section 5.4).

    However small they are, they take no more room than their bytes.
    """

    __slots__ = ("_begun", "_frames", "_longest", "_opcode", "_payload", "_raw", "is_broken")

    def __init__(self, longest: int) -> None:
        self._longest = longest  # bytes of a message
        self._frames = FrameReader(longest)
        self._begun = 0  # fragments of one that is not whole
        self._opcode = 0  # of that, and below what they say, and their bytes as they came
        self._payload = bytearray()
        self._raw = bytearray()
        self.is_broken = False  # after FrameError: whether it breaks the protocol, and is not only too long

    def push(self, data: bytes) -> None:
        """Take bytes."""
        self._frames.rest += data

    def next(self) -> Message | None:
        """The next whole one; None until more bytes come. Raises FrameError."""
        frames = self._frames
        while True:
            try:
                frame = frames.next()
            except FrameError:
                self.is_broken = bool(frames.rest[0] & 0x70)
                raise
            if frame is None:
                return None
            opcode, final, payload, raw = frame
            if opcode >= CLOSE or (final and opcode and not self._begun):
                return Message(opcode, payload, raw, 1)
            if (opcode == 0) is not bool(self._begun):
                self.is_broken = True
                raise FrameError("a fragment without its message")
            self._add(frame)
            if len(self._raw) > self._longest:
                raise FrameError("message too long to read")
            if final:
                return self._whole()

    def _add(self, frame: Frame) -> None:
        if not self._begun:
            self._opcode = frame.opcode
        self._begun += 1
        self._payload += frame.payload
        self._raw += frame.raw

    def _whole(self) -> Message:
        message = Message(self._opcode, bytes(self._payload), bytes(self._raw), self._begun)
        self._let_go()
        return message

    def _let_go(self) -> None:
        self._begun = 0
        self._payload.clear()
        self._raw.clear()

    @property
    def rest(self) -> bytes:
        """What has come of those that are not read."""
        return bytes(self._raw + self._frames.rest)

    @property
    def waiting(self) -> int:
        """How many bytes that is."""
        return len(self._raw) + len(self._frames.rest)

    def clear(self) -> None:
        """What has come of the next goes nowhere."""
        self._let_go()
        self._frames.rest.clear()
