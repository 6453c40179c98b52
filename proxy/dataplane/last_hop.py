"""Requests that end at a proxy whatever they ask for: unknown expectations, loops, and the last hop of a way.

RFC 9110 section 10.1.1: we know one expectation, and who expects another is told so. Section 7.6.2: TRACE
and OPTIONS with `Max-Forwards: 0` are for us. A TRACE is shown its request as it came here, without the
fields that a script in a browser must not read (section 9.3.8). A request that has passed proxies of ours
several times goes round: a backend leads back here, and `Via` is there to show it (section 7.6.3).
"""

from proxy.errors import BadRequest, ProxyError
from proxy.wire.forwarding import OUR_NAME
from proxy.wire.head import RequestHead
from proxy.wire.reply import Reply

_MOST_DIGITS = 9
_MOST_OF_OURS = 4  # proxies of ours in a row: a site has one or two
_NOT_SHOWN = (b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"x-session-id")


def last_hop(head: RequestHead) -> Reply | None:
    """The answer to a request that goes no further, None for one that does; raises ProxyError."""
    if head.fields.via.count(OUR_NAME) >= _MOST_OF_OURS:
        raise ProxyError("a loop: a backend leads back to this proxy", status=508)
    if head.minor == 1 and not _expectations(head) <= {b"100-continue"}:
        raise BadRequest("unknown expectation", status=417)
    if not head.is_finite:
        return None
    hops = head.fields.max_forwards
    if not hops.isdigit() or len(hops) > _MOST_DIGITS:
        raise BadRequest("repeated or malformed Max-Forwards")
    if int(hops):
        return None
    if head.method == b"TRACE":
        return Reply(200, _shown(head), b"message/http")
    return Reply(200, b"")


def _expectations(head: RequestHead) -> set[bytes]:
    return {member.strip(b" \t") for member in head.fields.expect.lower().split(b",")} - {b""}


def _shown(head: RequestHead) -> bytes:
    lines = [line for name, line, _, _ in head.fields.lines if name not in _NOT_SHOWN]
    return b"\r\n".join((b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor), *lines, b"", b""))
