"""Reading a request's body for the session it names, before anything of it is sent.

It is done for the few endpoints whose JSON names a session (`affinity.evidence`), and for the first POST of
a polling transport, which carries the CONNECT packet. A body beyond `limits.inspect` is passed on unread.
"""

from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.evidence import Kind
from proxy.dataplane import rehome
from proxy.dataplane.request_body import MOST_HELD
from proxy.wire.engineio import session_in_json

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def begin(exchange: "Exchange") -> None:
    """Gather the body; a client that waits for leave to send it (RFC 9110 section 10.1.1) gets it here."""
    body, head = exchange.body, exchange.head
    body.inspect()
    if body.done:
        _finish(exchange)
    elif head.minor == 1 and head.fields.get(b"expect") is not None and not body.size:
        exchange.down.transport.write(_CONTINUE)


def hold(exchange: "Exchange", part: bytes) -> None:
    """Keep a part of the body: it is being read, or no connection is there yet."""
    body = exchange.body
    body.hold(part)
    if not body.is_inspected:
        if body.held_size > MOST_HELD:
            exchange.down.pause()
    elif body.held_size > exchange.plane.limits.inspect:
        body.content()
        exchange.inspected = True
        if exchange.kind is Kind.SOCKETIO:
            exchange.send()
        else:
            exchange.go()
    elif body.done:
        _finish(exchange)


def _finish(exchange: "Exchange") -> None:
    """The body is whole: go on with the session it names."""
    content = exchange.body.content()
    exchange.inspected = True
    if exchange.kind is Kind.SOCKETIO:
        rehome.read_post(exchange, content)
        return
    named = session_in_json(content)
    if exchange.kind is Kind.NAMES_SESSION:
        exchange.session_id = named or exchange.known.hints.session
    elif named is not None:
        exchange.plane.router.directory.announce(named, monotonic())
    exchange.go()
