"""Whether an app is answering, read from what its instance sends: Chainlit brackets a turn with two events.

`task_start` when a message is taken, `task_end` when the answer is whole (chainlit/emitter.py). It also says
`task_end` once after every connect, in answer to `connection_successful` and whatever goes on
(chainlit/socket.py): who keeps the turn of a session has to leave that one out. As packets they begin with
`42["task_`, which no JSON text can hold: its quotes would be escaped, and no number stands before a bracket.
So the bytes are searched and no frame has to be read. Long polls come compressed (engineio/base_server.py:
gzip from 1024 bytes on).
"""

import re
import zlib

TASK = b'42["task_'
STREAM = b'42["stream_'  # how the tokens of an answer come (chainlit/emitter.py)
TASK_END = b'42["task_end",{}]'  # all of it
_START = b'42["task_start"'
_MARKS = re.compile(rb'42\["task_(?:start|end)"')
MARK_SIZE = len(_START)  # bytes of which the last may be missing at the end of a piece
_TOKEN = re.compile(rb'42\["stream_(?:token|start)",\{[^{}]*?"id":"([0-9A-Za-z_\-]{1,64})"')
_SEPARATOR = b"\x1e"  # Engine.IO's, of packets: it is in none of them
GZIP = b"\x1f\x8b\x08"  # RFC 1952 section 2.3.1; in no UTF-8 text, so a body that holds it is compressed
_PART = 1 << 16  # bytes that are unpacked at once
_MOST_PLAIN = 1 << 26  # bytes of one answer that are looked at: no client takes as many


def turns_in(data: bytes, known: int = 0) -> list[bool]:
    """The events in `data`, in order: True where a turn begins, False where Chainlit says that one ends.

    Those that are whole in its first `known` bytes were told before.
    """
    return [found[0] == _START for found in _MARKS.finditer(data) if found.end() > known]


def tells(data: bytes, mark: bytes) -> bool:
    """Whether a whole answer to a poll may tell of a turn, or of tokens of a message that is not known.

    `mark` is how the one that is known is named, by `mark_of`.
    """
    if TASK in data or GZIP in data:
        return True
    last = data.rfind(STREAM)
    if last < 0:
        return False
    end = data.find(_SEPARATOR, last)  # the packets behind it may name the known one for other reasons
    return data.find(mark, last, end if end >= 0 else len(data)) < 0


def mark_of(message_id: str) -> bytes:
    """How Chainlit names a message where it streams a token of it; "" is named nowhere."""
    return b'"id":"%b"' % (message_id.encode(errors="replace") or _SEPARATOR)


def streamed_in(data: bytes) -> str:
    """The id of the message of which `data` has the last token, "" if it has none."""
    found = _TOKEN.findall(data)
    return found[-1].decode() if found else ""


class Ear:
    """Hears the events of one answer that comes in pieces, wherever they are cut; made for each answer.

    It is unpacked if a gzip stream begins in it, chunk sizes before that or not.
    """

    __slots__ = ("_left", "_tail", "_unpacking", "streamed")

    def __init__(self) -> None:
        self._tail = b""  # of what was heard: it may have stopped in the middle of a mark
        self._unpacking: zlib._Decompress | None = None  # set when a gzip stream has begun
        self._left = _MOST_PLAIN
        self.streamed = ""  # the id of the message of which it had the last token, as `streamed_in`

    def hear(self, data: bytes) -> list[bool]:
        """The events that this piece makes whole, as `turns_in`."""
        if self._unpacking is None:
            at = (self._tail + data).find(GZIP)
            if at < 0:
                return self._find(data)
            data, self._tail = (self._tail + data)[at:], b""
            self._unpacking = zlib.decompressobj(wbits=31)
        events: list[bool] = []
        try:
            while self._left > 0:
                part = self._unpacking.decompress(data, _PART)
                data = self._unpacking.unconsumed_tail
                self._left -= len(part)
                events += self._find(part)
                if len(part) < _PART:
                    break
        except zlib.error:
            self._left = 0
        return events

    def _find(self, data: bytes) -> list[bool]:
        known, data = len(self._tail), self._tail + data
        self._tail = data[-MARK_SIZE:]
        if STREAM in data:
            self.streamed = streamed_in(data) or self.streamed
        return turns_in(data, known)
