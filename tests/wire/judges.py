"""Three readers of the same bytes: ours, h11 and llhttp (by httptools), each telling what it understood."""

from dataclasses import dataclass, field
from typing import Any

import h11
import httptools

from proxy.errors import ProxyError
from proxy.wire.body import Framer, request_body, response_body
from proxy.wire.fields import Fields
from proxy.wire.head import parse_request, parse_response


@dataclass
class Seen:
    """What a reader understood of one message."""

    start: tuple[bytes, ...] = ()  # method and target, or the status
    minor: int = 1
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False  # whether the body has ended


def _ours(fields: Fields, framer: Framer, body: bytes) -> Seen:
    content: list[bytes] = []
    framer.feed(body, content)
    named = [(n, v.lower() if n == b"transfer-encoding" else v) for n, _, v, _ in fields.lines]
    return Seen(fields=named, body=b"".join(content), whole=framer.done)


def ours(head: bytes, body: bytes = b"") -> Seen | None:
    """A request as the proxy reads it, None: refused."""
    try:
        request = parse_request(head)
        seen = _ours(request.fields, request_body(request.fields), body)
    except ProxyError:
        return None
    seen.start, seen.minor = (request.method, request.target), request.minor
    return seen


def ours_response(head: bytes, body: bytes = b"", method: bytes = b"GET") -> Seen | None:
    """A response as the proxy reads it, None: refused."""
    try:
        response = parse_response(head)
        seen = _ours(response.fields, response_body(method, response.status, response.fields), body)
    except ProxyError:
        return None
    seen.start, seen.minor = (b"%d" % response.status,), response.minor
    return seen


def _events(connection: h11.Connection, data: bytes) -> Seen | None:
    seen = Seen()
    try:
        connection.receive_data(data)
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                seen.start = (event.method, event.target)
            elif isinstance(event, h11.Response):
                seen.start = (b"%d" % event.status_code,)
            if isinstance(event, (h11.Request, h11.Response)):
                seen.minor = int(event.http_version[-1:])
                # It writes codings in lower case; their case means nothing (RFC 9112 section 7).
                seen.fields = [
                    (bytes(n), bytes(v).lower() if n == b"transfer-encoding" else bytes(v))
                    for n, v in event.headers
                ]
            elif isinstance(event, h11.Data):
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.whole = True
                break
    except h11.RemoteProtocolError:
        return None
    return seen


def by_h11(head: bytes, body: bytes = b"") -> Seen | None:
    """A request as h11 reads it, None: refused."""
    return _events(h11.Connection(h11.SERVER), head + body)


def by_h11_response(head: bytes, body: bytes = b"", method: bytes = b"GET") -> Seen | None:
    """A response as h11 reads it, None: refused."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    return _events(connection, head + body)


class _Listener:
    """What httptools calls."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.url = b""
        self.in_head = True
        self.ended = False

    def on_url(self, url: bytes) -> None:
        if not self.ended:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # trailers are told in the same way, which is why few fields are allowed in them
            value = value.lower() if name.lower() == b"transfer-encoding" else value
            self.seen.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self.seen.body += body

    def on_message_complete(self) -> None:
        self.seen.whole = self.ended = True


def _by_httptools(kind: Any, data: bytes) -> tuple[_Listener, Any] | None:
    listener = _Listener()
    parser = kind(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except (httptools.HttpParserError, httptools.HttpParserCallbackError):
        if not listener.ended:  # else it stumbled over what follows the message
            return None
    return listener, parser


def by_httptools(head: bytes, body: bytes = b"") -> Seen | None:
    """A request as llhttp reads it, None: refused."""
    read = _by_httptools(httptools.HttpRequestParser, head + body)
    if read is None:
        return None
    listener, parser = read
    listener.seen.start = (parser.get_method(), listener.url)
    listener.seen.minor = int(parser.get_http_version()[-1])
    return listener.seen


def by_httptools_response(head: bytes, body: bytes = b"") -> Seen | None:
    """A response to GET as llhttp reads it, None: refused."""
    read = _by_httptools(httptools.HttpResponseParser, head + body)
    if read is None:
        return None
    listener, parser = read
    listener.seen.start = (b"%d" % parser.get_status_code(),)
    listener.seen.minor = int(parser.get_http_version()[-1])
    return listener.seen
