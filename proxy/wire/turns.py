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
_START = b'42["task_start"'
_MARKS = re.compile(rb'42\["task_(?:start|end)"')
MARK_SIZE = len(_START)  # bytes of which the last may be missing at the end of a piece
BRACKET = ord("]")  # the last byte of every event: what ends with it ends with no half of a mark
GZIP = b"\x1f\x8b\x08"  # RFC 1952 section 2.3.1; in no UTF-8 text, so a body that holds it is compressed
_MOST_PLAIN = 1 << 20  # bytes: more than Engine.IO lets a payload be


def plain(data: bytes) -> bytes:
    """A piece of a poll's body, unpacked if a gzip stream begins in it; what of it is whole."""
    at = data.find(GZIP)
    if at < 0:
        return data
    try:
        return zlib.decompressobj(wbits=31).decompress(data[at:], _MOST_PLAIN)
    except zlib.error:
        return data


def turns_in(data: bytes, known: int = 0) -> list[bool]:
    """The events in `data`, in order: True where a turn begins, False where Chainlit says that one ends.

    Those that are whole in its first `known` bytes were told before.
    """
    return [found[0] == _START for found in _MARKS.finditer(data) if found.end() > known]
