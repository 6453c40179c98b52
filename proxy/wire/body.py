"""Where a message body ends (RFC 9112 section 6): counted, chunked, none, or until the connection closes.

A framer is fed the bytes that come and says how many belong to the body; those bytes are passed on as
they are, so what goes on is exactly what was understood. The chunked framer is strict: a size of up to
15 hex digits, extensions by their grammar (RFC 9112 section 7.1.1) without the "bad" whitespace, which
others refuse, trailers that are valid fields and none that routes, frames or authorises (RFC 9110 section
6.5.1): a peer may merge them into the head.
"""

import re
from typing import Protocol

from proxy.errors import BodyError, FieldError, FramingError
from proxy.wire.fields import HOP_BY_HOP, Fields, hyphened, is_forwarding

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSION = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*")
_LONGEST_LINE = 1024  # a size and an extension; nobody sends more
_LONGEST_TRAILERS = 8192
_MOST_FRAMING = 16384  # bytes of sizes and extensions beyond those of the content: 4096 chunks of one byte
_NOT_IN_TRAILERS = HOP_BY_HOP | {
    *(b"content-length", b"content-encoding", b"content-type", b"content-range", b"host", b"trailer"),
    *(b"authorization", b"cookie", b"set-cookie", b"expect", b"max-forwards", b"via", b"x-request-id"),
}


class Framer(Protocol):
    """What every framer does. `done` is set when the body is whole."""

    done: bool

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """Take `data`; return how many of its bytes belong to the body; add the content to `payload`."""
        ...


class CountedBody:
    """A body of Content-Length bytes; 0 stands for no body."""

    __slots__ = ("done", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """As Framer.feed."""
        taken = min(len(data), self.remaining)
        self.remaining -= taken
        self.done = self.remaining == 0
        if payload is not None and taken:
            payload.append(data[:taken])
        return taken


class UntilClose:
    """A response body that the end of the connection ends; `done` is never set here."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """As Framer.feed."""
        if payload is not None:
            payload.append(data)
        return len(data)


class ChunkedBody:
    """A chunked body with its trailers (RFC 9112 section 7.1)."""

    __slots__ = ("_excess", "_in_trailers", "_is_bounded", "_line", "_remaining", "_trailers", "done")

    def __init__(self, *, is_bounded: bool = False) -> None:
        """If `is_bounded`, one whose framing outweighs its content is refused: its work is made to be ours.

        An app may stream its answer byte by byte, a client has no need to.
        """
        self.done = False
        self._is_bounded = is_bounded
        self._excess = 0  # bytes of framing less those of content
        self._remaining = 0  # bytes of this chunk still to come, its CRLF among them; 0: a line is next
        self._line = b""  # what has come of that line
        self._in_trailers = False
        self._trailers = b""

    @property
    def trailers(self) -> bytes:
        """The lines of its trailers, once it is done."""
        return self._trailers

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """As Framer.feed; raises BodyError."""
        at = 0
        while at < len(data) and not self.done:
            at = self._chunk(data, at, payload) if self._remaining else self._take_line(data, at)
        return at

    def _chunk(self, data: bytes, at: int, payload: list[bytes] | None) -> int:
        """Take what there is of a chunk's data and of the CRLF behind it."""
        content = min(len(data) - at, self._remaining - 2)
        if content > 0:
            if payload is not None:
                payload.append(data[at : at + content])
            self._remaining -= content
            return at + content
        if data[at] != (13 if self._remaining == 2 else 10):
            raise BodyError("chunk longer than its size")
        self._remaining -= 1
        return at + 1

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        self._line += data[at:stop]
        if len(self._line) > (_LONGEST_TRAILERS if self._in_trailers else _LONGEST_LINE):
            raise BodyError("chunk size line or trailer too long")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise BodyError("bare LF in chunked body")
            if self._in_trailers:
                self._trailer(line)
            else:
                self._size(line[:-2])
        return stop

    def _size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BodyError("malformed chunk size")
        size = int(match[1], 16)
        self._excess += len(line) + 4  # with the line ends here and behind the chunk
        if self._excess > _MOST_FRAMING and self._is_bounded:
            raise FramingError("more chunk framing than content")
        self._excess -= size
        if size:
            self._remaining = size + 2
        else:
            self._in_trailers = True

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
            return
        self._trailers += line
        if len(self._trailers) > _LONGEST_TRAILERS:
            raise BodyError("trailers too long")
        try:
            fields = Fields(line)
        except FieldError as error:
            raise BodyError(f"trailer: {error.reason}") from None
        name = hyphened(fields.lines[0].name)
        if name in _NOT_IN_TRAILERS or is_forwarding(name):
            raise BodyError("a field that has no place in trailers")


def request_body(fields: Fields) -> Framer:
    """The framer of a request (RFC 9112 section 6.3: none of both fields means no body)."""
    return ChunkedBody(is_bounded=True) if fields.chunked else CountedBody(fields.length or 0)


def response_body(method: bytes, status: int, fields: Fields) -> Framer:
    """The framer of a response to `method`, by the order of RFC 9112 section 6.3."""
    if method == b"HEAD" or status in (204, 304) or status < 200:
        return CountedBody(0)
    if fields.chunked:
        return ChunkedBody()
    return UntilClose() if fields.length is None else CountedBody(fields.length)
