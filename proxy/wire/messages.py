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
    """Splits one direction into messages; fragments wait for the last (RFC 6455 section 5.4)."""

    __slots__ = ("_begun", "_frames", "_longest", "_size", "is_broken")

    def __init__(self, longest: int) -> None:
        self._longest = longest  # bytes of a message
        self._frames = FrameReader(longest)
        self._begun: list[Frame] = []  # fragments of one that is not whole
        self._size = 0  # bytes of these
        self.is_broken = False  # after FrameError: whether it breaks the protocol, and is not only too long

    def push(self, data: bytes) -> None:
        """Take bytes."""
        self._frames.push(data)

    def next(self) -> Message | None:
        """The next whole one; None until more bytes come. Raises FrameError."""
        while (frame := self._next_frame()) is not None:
            if frame.opcode >= CLOSE:
                return Message(frame.opcode, frame.payload, frame.raw, 1)
            if (frame.opcode == 0) is not bool(self._begun):
                self.is_broken = True
                raise FrameError("a fragment without its message")
            if frame.final and not self._begun:
                return Message(frame.opcode, frame.payload, frame.raw, 1)
            self._begun.append(frame)
            self._size += len(frame.raw)
            if self._size > self._longest:
                raise FrameError("message too long to read")
            if frame.final:
                return self._whole()
        return None

    def _next_frame(self) -> Frame | None:
        try:
            return self._frames.next()
        except FrameError:
            self.is_broken = bool(self._frames.rest[0] & 0x70)
            raise

    def _whole(self) -> Message:
        frames, self._begun, self._size = self._begun, [], 0
        payload = b"".join(frame.payload for frame in frames)
        return Message(frames[0].opcode, payload, b"".join(frame.raw for frame in frames), len(frames))

    @property
    def rest(self) -> bytes:
        """What has come of those that are not read."""
        return b"".join(frame.raw for frame in self._begun) + bytes(self._frames.rest)

    @property
    def waiting(self) -> int:
        """How many bytes that is."""
        return self._size + len(self._frames.rest)

    def clear(self) -> None:
        """What has come of the next goes nowhere."""
        self._begun.clear()
        self._size = 0
        self._frames.rest.clear()
