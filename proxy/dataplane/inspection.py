"""Reading a request's body for the session it names, before anything of it is sent.

It is done for the few endpoints whose JSON names a session (`affinity.evidence`), where a body beyond
`limits.inspect` is passed on unread; and for what is POSTed to Engine.IO, where any payload may carry a
CONNECT packet. One that names an odd session is refused.
"""

from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.evidence import Kind, query_session
from proxy.dataplane import rehome
from proxy.dataplane.request_body import MOST_HELD
from proxy.errors import Limit, Odd, OddId, OverLimit
from proxy.wire.engineio import LONGEST_SID, connect_in_payload, session_in_json

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_LONGEST_PAYLOAD = 1_048_576  # bytes: python-engineio takes no more than 1000000, here with their framing
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def refuses(exchange: "Exchange") -> bool:
    """Look at what the query names; refuse the exchange for an odd id, and say so."""
    try:
        if exchange.sid is not None and len(exchange.sid) > LONGEST_SID:
            raise OddId(Odd.SID, f"sid too long: at most {LONGEST_SID} characters are allowed")
        if exchange.kind is Kind.QUERIES_SESSION:
            exchange.session_id = query_session(exchange.head.query)
    except OddId as error:
        exchange.refuse(error)
        return True
    return False


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
    body, limit = exchange.body, exchange.plane.limits.inspect
    body.hold(part)
    if not body.is_inspected:
        if body.held_size > MOST_HELD:
            exchange.down.pause()
    elif exchange.kind is Kind.SOCKETIO and body.held_size > max(_LONGEST_PAYLOAD, limit):
        exchange.refuse(OverLimit(Limit.BODY, "Engine.IO payload too large", status=413))
    elif exchange.kind is not Kind.SOCKETIO and body.held_size > limit:
        body.content()
        exchange.inspected = True
        exchange.go()
    elif body.done:
        _finish(exchange)


def _finish(exchange: "Exchange") -> None:
    """The body is whole: go on with the session it names."""
    content = exchange.body.content()
    exchange.inspected = True
    kind = exchange.kind
    try:
        if kind.key is None:
            named = connect_in_payload(content, exchange.plane.limits.packets)
        else:
            named = session_in_json(content, kind.key)
    except (OddId, OverLimit) as error:
        exchange.refuse(error)
        return
    if kind.key is None:
        rehome.read_post(exchange, named)
    elif kind is not Kind.ANNOUNCES:
        exchange.session_id = named or (
            exchange.known.hints.mcp_session if kind is Kind.NAMES_MCP_SESSION else None
        )
        exchange.go()
    else:
        if named is not None:
            exchange.plane.router.directory.announce(named, monotonic())
        exchange.go()
