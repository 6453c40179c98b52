"""Heads of HTTP/2 in the form of HTTP/1.1, and back (RFC 9113 section 8).

Everything behind a client's connection speaks of requests as HTTP/1.1 has them, so a request's field list
becomes such a head, and is read by the same strict parser; what that refuses is refused here too. Frames,
compression and the rules for pseudo-fields are the library's. What could end a line is looked for all the
same: a field that brings another one with it could be a request of its own upstream.

A body has the length that its head tells, or goes up in chunks, as no other frame of it exists in HTTP/1.1.
"""

from collections.abc import Iterable

from hpack import NeverIndexedHeaderTuple

from proxy.errors import BadRequest
from proxy.wire.fields import HOP_BY_HOP, is_field

# Different in each answer, or a secret: in the table of an encoder they would only push out others.
_NEVER_INDEXED = frozenset((b"x-request-id", b"content-length", b"date", b"set-cookie", b"server-timing"))
_OF_CONNECTION = HOP_BY_HOP - {b"te"}

_PREFACE, _FRAME_HEAD = 24, 9  # bytes: RFC 9113 sections 3.4 and 4.1
_DATA, _HEADERS, _CONTINUATION, _END_HEADERS = 0x0, 0x1, 0x9, 0x4  # sections 6.1, 6.2 and 6.10
_OF_HEADS = (_HEADERS, _CONTINUATION)
_BESIDE = 64  # bytes that a request may have beside its head: of its frames, and of windows for its answer
_SETTINGS, _ACK = 0x4, 0x1  # section 6.5
_PROTOCOL_ERROR, _FRAME_SIZE_ERROR = 0x1, 0x6  # section 7

FieldList = list[tuple[bytes, bytes]]


class Progress:
    """How far the frames of a client have come, which the library keeps to itself.

    It sees what the library is given, and knows no more of a frame than where it ends and whether it ends a
    block of fields, and of SETTINGS what the library does not look at.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_bodies",
        "_heads",
        "_is_first",
        "_is_open",
        "_kind",
        "_left",
        "_size",
        "error",
    )

    def __init__(self) -> None:
        self._begun = b""  # what has come of a frame's head
        self._left = _PREFACE  # bytes until the next frame
        self._is_open = False  # whether a block of fields goes on in the next frame
        self._block = 0  # bytes of it
        self._heads = 0  # bytes of such blocks since somebody asked
        self._bodies = 0  # bytes of whole frames of bodies since then
        self._size = 0  # bytes of the frame that goes on
        self._kind = _SETTINGS  # of the frame that goes on
        self._is_first = True  # whether no frame has come
        self.error = 0  # the code of a rule that was broken, 0: of none

    @property
    def is_partial(self) -> bool:
        """Whether a frame, or a block of fields, has begun that is not whole."""
        return self._left > 0 or self._is_open or self._begun != b""

    @property
    def is_body(self) -> bool:
        """Whether what has begun is some of a body."""
        return self._left > 0 and self._kind == _DATA

    @property
    def block(self) -> int:
        """Bytes of a block of fields that is not whole."""
        return self._block if self._is_open else 0

    def take_heads(self) -> int:
        """Bytes of requests' heads that have come since this was called before, as they came."""
        heads, self._heads = self._heads, 0
        return heads

    def take_bodies(self) -> int:
        """Bytes of whole frames of bodies, padding too, that have come since this was called before."""
        bodies, self._bodies = self._bodies, 0
        return bodies

    def feed(self, data: bytes) -> None:
        """More has come."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                if self._kind in _OF_HEADS:
                    self._block += step
                    self._heads += step
                elif self._kind == _DATA and not self._left:
                    self._bodies += self._size
                at += step
                continue
            step = _FRAME_HEAD - len(self._begun)
            head = self._begun + data[at : at + step]
            at += step
            if len(head) < _FRAME_HEAD:
                self._begun = head
                return
            self._begun = b""
            self._left = self._size = int.from_bytes(head[:3], "big")
            kind, flags = head[3], head[4]
            self._kind = kind
            if kind == _HEADERS:
                self._block = 0
                self._heads += _BESIDE
            if kind in _OF_HEADS:
                self._is_open = not flags & _END_HEADERS
            acknowledges = kind == _SETTINGS and flags & _ACK
            if self._is_first and (kind != _SETTINGS or acknowledges):
                self.error = _PROTOCOL_ERROR  # section 3.4
            elif acknowledges and self._left:
                self.error = _FRAME_SIZE_ERROR  # section 6.5
            self._is_first = False

    def __repr__(self) -> str:
        return f"<Progress left={self._left} block={self.block}>"


def request_head(fields: Iterable[tuple[bytes, bytes]], *, has_body: bool, key: bytes = b"") -> bytes:
    """The head of a request in HTTP/1.1, with its empty line. Raises BadRequest.

    `:authority` is its Host (section 8.3.1), and its cookies are one field (section 8.2.3). With `has_body`
    and no length it announces chunks. With a `key` it may ask for a websocket (RFC 8441 section 5), which has
    this one in HTTP/1.1, where its client's has none.
    """
    method = target = authority = host = protocol = length = b""
    cookies, lines = [], []
    framed = not has_body
    for name, value in fields:
        if name == b":method":
            method = value
        elif name == b":path":
            target = value
        elif name == b":authority":
            authority = value
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"host":
            host = value
        elif name == b":protocol":
            protocol = value
        elif name[:1] == b":" or name == b"sec-websocket-key":
            continue
        else:
            if name == b"content-length":
                if not has_body and value.strip(b"0"):
                    raise BadRequest("a Content-Length without content")  # section 8.1.1
                framed, length = True, value
            elif name == b"te":  # the library has looked that it asks for trailers alone
                lines.append(b"Connection: TE\r\n")
            if b":" in name:  # what is behind it would be taken for the value
                raise BadRequest("malformed header field")
            lines.append(b"%b: %b\r\n" % (name, value))
    if method == b"CONNECT":
        if not key or protocol.lower() != b"websocket":
            raise BadRequest("CONNECT, but this is no forward proxy")
        if length.strip(b"0"):  # in HTTP/1.1 it would be no wish for a websocket, and any 2xx were its yes
            raise BadRequest("a Content-Length where a websocket begins")
        method, framed = b"GET", True
        lines += [b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Sec-WebSocket-Key: %b\r\n" % key]
    if not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise BadRequest("unsupported request target")
    lines.append(b"Host: %b\r\n" % (authority or host))
    if cookies:
        lines.append(b"Cookie: %b\r\n" % b"; ".join(cookies))
    if not framed:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(lines))
    if head.count(b"\n") != len(lines) + 2:
        raise BadRequest("malformed header field")
    return head


def trailer_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Trailers as they end a chunked body, without the empty line. Raises BadRequest."""
    lines = []
    for name, value in fields:
        if name in HOP_BY_HOP or not is_field(name, value):
            raise BadRequest("malformed trailer")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def response_fields(head: bytes) -> FieldList:
    """The field list of a response from its head in HTTP/1.1, as `forwarding.response_head` makes it."""
    lines = head[:-4].split(b"\r\n")
    status, fields = lines[0][9:12], _fields(lines[1:])
    if status == b"101":  # RFC 8441 section 5: the yes to a websocket, whose key nobody has
        status, fields = b"200", [field for field in fields if field[0] != b"sec-websocket-accept"]
    return [(b":status", status), *fields]


def trailer_fields(lines: bytes) -> FieldList:
    """The field list of trailers from their lines."""
    return _fields(lines[:-2].split(b"\r\n"))


def _fields(lines: list[bytes]) -> FieldList:
    found: FieldList = []
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in _NEVER_INDEXED:
            found.append(NeverIndexedHeaderTuple(name, value))
        elif name not in _OF_CONNECTION:  # section 8.2.2
            found.append((name, value))
    return found


def chunk(data: bytes) -> bytes:
    """Some of a body as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: bytes = b"") -> bytes:
    """What ends a chunked body; `trailers` are lines."""
    return b"0\r\n%b\r\n" % trailers
