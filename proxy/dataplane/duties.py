"""Requests that end at a proxy whatever they ask for: unknown expectations, and the last hop of a way.

RFC 9110 section 10.1.1: we know one expectation, and who expects another is told so. Section 7.6.2: TRACE
and OPTIONS with `Max-Forwards: 0` are for us. A TRACE is shown its request as it came here, without the
fields that a script in a browser must not read (section 9.3.8).
"""

from typing import TYPE_CHECKING

from proxy.errors import BadRequest
from proxy.wire import reply
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_MOST_DIGITS = 9
_NOT_SHOWN = (b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"x-session-id")


def settled(exchange: "Exchange") -> bool:
    """Answer a request that goes no further; return whether it was answered."""
    head = exchange.head
    if head.minor == 1 and not _expectations(head) <= {b"100-continue"}:
        exchange.refuse(BadRequest("unknown expectation", status=417))
        return True
    if not head.is_finite:
        return False
    hops = head.fields.max_forwards
    if not hops.isdigit() or len(hops) > _MOST_DIGITS:
        exchange.refuse(BadRequest("repeated or malformed Max-Forwards"))
        return True
    if int(hops):
        return False
    body, content_type = b"", b"text/plain; charset=utf-8"
    if head.method == b"TRACE":
        body, content_type = _shown(head), b"message/http"
    close = not exchange.body.done or not head.keeps_alive
    exchange.answer(
        200, reply.reply(200, body, content_type=content_type, request_id=exchange.request_id, close=close)
    )
    return True


def _expectations(head: RequestHead) -> set[bytes]:
    return {member.strip(b" \t") for member in head.fields.expect.lower().split(b",")} - {b""}


def _shown(head: RequestHead) -> bytes:
    lines = [line for name, line, _ in head.fields.lines if name not in _NOT_SHOWN]
    return b"\r\n".join((b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor), *lines, b"", b""))
