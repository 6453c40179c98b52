"""What the proxy changes in responses: sid and patience of a handshake, pin cookie, chunks for HTTP/1.0."""

import re
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision
from proxy.affinity.evidence import Kind
from proxy.affinity.fleet import Fleet
from proxy.dataplane.request import Request
from proxy.errors import BadResponse
from proxy.wire.body import ChunkedBody
from proxy.wire.cookies import pin_cookie
from proxy.wire.engineio import open_sid, ping_overdue, rewrite_open
from proxy.wire.head import ResponseHead

# RFC 9111 section 7.3: a shared cache must not hand one client's cookie to another.
_PRIVATE = b"Cache-Control: private\r\n"
_UNSHARED = re.compile(rb"(?i)\b(?:private|no-store)\b")
_LARGEST_HANDSHAKE = 65536  # bytes; Engine.IO's has some 120


class Rewriter(Protocol):
    """Takes a response's body in place of the client."""

    def take(self, data: bytes) -> None:
        """Some of the body, framed as it came."""
        ...

    def finish(self) -> bool:
        """The body is whole; return whether all is said. If not, it calls the sink's `close_up` then."""
        ...


class Sink(Protocol):
    """What a rewrite needs of its exchange."""

    def pass_head(
        self,
        head: ResponseHead,
        data: bytes,
        extra: bytes = b"",
        length: int | None = None,
        *,
        unpacked: bool = False,
    ) -> None:
        """Pass the head on, with `data` of the body; as `Client.respond`."""
        ...

    def pass_data(self, data: bytes) -> None:
        """Pass more of the body on."""
        ...


class HandshakeSink(Sink, Protocol):
    """What the rewrite of a handshake needs."""

    def opened(self, sid: bytes, overdue: float) -> bytes:
        """The backend has opened an Engine.IO session; return the sid that the client gets.

        `overdue` is as in `ping_overdue`.
        """
        ...


class HandshakeAnswer:
    """Writes the pin into the sid that an Engine.IO handshake mints, and how patient its client is to be."""

    __slots__ = ("_content", "_decoder", "_extra", "_head", "_patience", "_sink", "_size")

    def __init__(self, sink: HandshakeSink, head: ResponseHead, extra: bytes, patience: float) -> None:
        """`extra` are further lines of the head; `patience` is as in `rewrite_open`, in seconds."""
        self._patience = patience
        self._sink = sink
        self._head = head
        self._extra = extra
        self._decoder = ChunkedBody() if head.fields.chunked else None
        self._content: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> None:
        """As Rewriter."""
        self._size += len(data)
        if self._size > _LARGEST_HANDSHAKE:
            raise BadResponse("handshake answer too long")
        if self._decoder is None:
            self._content.append(data)
        else:
            self._decoder.feed(data, self._content)

    def finish(self) -> bool:
        """As Rewriter."""
        content = b"".join(self._content)
        sid = open_sid(content)
        if sid is not None:
            pinned = self._sink.opened(sid, ping_overdue(content))
            content = rewrite_open(content, pinned, self._patience)
        self._sink.pass_head(self._head, content, self._extra, len(content))
        return True


class Unchunked:
    """Takes the chunks off for an HTTP/1.0 client; the end of the connection ends the body."""

    __slots__ = ("_decoder", "_sink")

    def __init__(self, sink: Sink, head: ResponseHead, extra: bytes) -> None:
        self._sink = sink
        self._decoder = ChunkedBody()
        sink.pass_head(head, b"", extra)

    def take(self, data: bytes) -> None:
        """As Rewriter."""
        content: list[bytes] = []
        self._decoder.feed(data, content)
        self._sink.pass_data(b"".join(content))

    def finish(self) -> bool:
        """As Rewriter."""
        return True


def timing_field(decision: Decision, first_byte: float) -> bytes:
    """What the developer tools of a browser show (https://www.w3.org/TR/server-timing/); milliseconds."""
    return b'Server-Timing: backend;dur=%.1f, affinity;desc="%b/%b"\r\n' % (
        first_byte * 1000,
        decision.evidence.value.encode(),
        decision.outcome.value.encode(),
    )


def pin_fields(request: Request, head: ResponseHead, backend: Backend, fleet: Fleet, cookie: bytes) -> bytes:
    """The lines that set the pin cookie, where it changes; `cookie` is its name.

    A handshake moves it to its backend, since it begins the browser's newest connection; pages and answers of
    the app's own only replace a pin that is missing or void, or was made for this backend with an older
    secret. What a cache may keep for everybody, as files or because the backend says so, and polls with a sid
    are left alone.
    """
    if request.sid is not None or (pin := request.known.hints.pin) == backend.token:
        return b""
    if not request.is_handshake and not _is_of_this_moment(head):
        return b""
    if pin is not None and not request.is_handshake:
        pinned = fleet.by_token(pin)
        if pinned is not None and pinned is not backend and pinned.holds_pins:
            return b""
    if request.kind is Kind.SOCKETIO and not request.is_handshake:
        return b""
    line = pin_cookie(cookie, backend.token, secure=request.known.secure)
    caching = head.fields.get(b"cache-control")
    if caching is None:
        return line + _PRIVATE
    return line if request.is_handshake or _UNSHARED.search(caching) else b""


def _is_of_this_moment(head: ResponseHead) -> bool:
    """Whether a response is a page, or JSON that is no file: a file's has what caches compare.

    RFC 9111 section 4.3.4: what a 304 says becomes part of what a cache has.
    """
    fields = head.fields
    if head.status == 304:
        return False
    kind = (fields.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        is_file = fields.get(b"etag") is not None or fields.get(b"last-modified") is not None
        return head.status < 300 and not is_file
    return kind == b"text/html"
