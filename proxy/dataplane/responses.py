"""What the proxy changes in responses: the sid of a handshake, the pin cookie, chunks for HTTP/1.0."""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from proxy.affinity.evidence import Kind
from proxy.affinity.pins import join_pin
from proxy.dataplane.resuming import ResumedPoll
from proxy.errors import BadResponse
from proxy.wire.body import ChunkedBody
from proxy.wire.cookies import pin_cookie
from proxy.wire.engineio import open_sid, rewrite_open
from proxy.wire.forwarding import response_head
from proxy.wire.head import ResponseHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_LARGEST_HANDSHAKE = 65536  # bytes; Engine.IO's has some 120


class Rewriter(Protocol):
    """Takes a response's body in place of the client's connection."""

    def take(self, data: bytes) -> None:
        """Some of the body, framed as it came."""
        ...

    def finish(self) -> bool:
        """The body is whole; return whether all is said. If not, it calls the exchange's `close_up` then."""
        ...


class HandshakeAnswer:
    """Writes the pin into the sid that an Engine.IO handshake mints, and remembers the sid."""

    __slots__ = ("_content", "_decoder", "_exchange", "_head", "_size")

    def __init__(self, exchange: "Exchange", head: ResponseHead) -> None:
        self._exchange = exchange
        self._head = head
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
        exchange = self._exchange
        content = b"".join(self._content)
        sid = open_sid(content)
        if sid is not None:
            backend = exchange.backend
            exchange.plane.paths.opened(exchange.head.path)
            exchange.plane.router.engines.opened(sid, backend, monotonic())
            content = rewrite_open(content, join_pin(backend.token, sid))
        head = response_head(
            self._head,
            exchange.head,
            exchange.request_id,
            close=not exchange.keep or exchange.plane.leaving,
            extra=own_fields(exchange, self._head),
            length=len(content),
        )
        exchange.bytes_out += len(content)
        exchange.down.transport.write(head + content)
        return True


class Unchunked:
    """Takes the chunks off for an HTTP/1.0 client; the end of the connection ends the body."""

    __slots__ = ("_decoder", "_exchange")

    def __init__(self, exchange: "Exchange", head: ResponseHead) -> None:
        self._exchange = exchange
        self._decoder = ChunkedBody()
        exchange.keep = False
        exchange.down.transport.write(
            response_head(
                head, exchange.head, exchange.request_id, close=True, extra=own_fields(exchange, head)
            )
        )

    def take(self, data: bytes) -> None:
        """As Rewriter."""
        content: list[bytes] = []
        self._decoder.feed(data, content)
        plain = b"".join(content)
        self._exchange.bytes_out += len(plain)
        self._exchange.down.transport.write(plain)

    def finish(self) -> bool:
        """As Rewriter."""
        return True


def rewriter(exchange: "Exchange", head: ResponseHead) -> Rewriter | None:
    """Who takes this response's body, None: it passes as it is."""
    if exchange.is_handshake and head.status == 200:
        return HandshakeAnswer(exchange, head)
    if exchange.is_poll and exchange.decision is not None and head.status == 200:
        lingering = exchange.plane.lingers.at(exchange.decision.session, exchange.backend)
        if lingering is not None:
            return ResumedPoll(exchange, head, lingering)
    if head.fields.chunked and exchange.head.minor == 0 and exchange.head.method != b"HEAD":
        return Unchunked(exchange, head)
    return None


def own_fields(exchange: "Exchange", head: ResponseHead) -> bytes:
    """The lines that the proxy adds to this response."""
    pin = _pin_fields(exchange, head)
    return pin + _timing(exchange) if exchange.plane.timing else pin


def _timing(exchange: "Exchange") -> bytes:
    """What the developer tools of a browser show (https://www.w3.org/TR/server-timing/); milliseconds."""
    decision = exchange.decision
    assert decision is not None
    return b'Server-Timing: backend;dur=%.1f, affinity;desc="%b/%b"\r\n' % (
        exchange.first_byte * 1000,
        decision.evidence.value.encode(),
        decision.outcome.value.encode(),
    )


def _pin_fields(exchange: "Exchange", head: ResponseHead) -> bytes:
    """The lines that set the pin cookie, where it changes.

    A handshake moves it to its backend, since it begins the browser's newest connection; other requests
    only replace a pin that is missing or void, or was made for this backend with an older secret. Polls with
    a sid have no need of it.
    """
    plane = exchange.plane
    backend = exchange.backend
    pin = exchange.known.hints.pin
    if pin == backend.token or exchange.sid is not None or not plane.config.affinity.cookie.enabled:
        return b""
    if pin is not None and not exchange.is_handshake:
        pinned = plane.router.fleet.by_token(pin)
        if pinned is not None and pinned is not backend and pinned.holds_pins:
            return b""
    if exchange.kind is Kind.SOCKETIO and not exchange.is_handshake:
        return b""
    line = pin_cookie(plane.cookie_name, backend.token, secure=exchange.known.secure)
    # RFC 9111 section 7.3: a shared cache must not hand one client's cookie to another.
    return line if head.fields.get(b"cache-control") is not None else line + b"Cache-Control: private\r\n"
