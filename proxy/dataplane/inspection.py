"""What a request names, in its query and in its body.

The body is read for the few endpoints whose JSON names a session (`affinity.evidence`), where one beyond
`limits.inspect` is passed on unread; and for what is POSTed to Engine.IO, where any payload may carry a
CONNECT packet. One that names an odd session is refused.
"""

from proxy.affinity.evidence import Kind, query_session
from proxy.dataplane.request import Request
from proxy.errors import Limit, Odd, OddId, OverLimit
from proxy.wire.engineio import LONGEST_SID, connect_in_payload, may_connect, session_in_json

LONGEST_PAYLOAD = 1_048_576  # bytes: python-engineio takes no more than 1000000, here with their framing


def named_in_head(request: Request) -> str | None:
    """The session that a request names in its query. Raises OddId, also for an odd sid."""
    if request.sid is not None and len(request.sid) > LONGEST_SID:
        raise OddId(Odd.SID, f"sid too long: at most {LONGEST_SID} characters are allowed")
    return query_session(request.head.query) if request.kind is Kind.QUERIES_SESSION else None


def named_in_body(request: Request, content: bytes, most: int) -> str | None:
    """The session that a request names with a whole body; a payload has at most `most` packets.

    Raises OddId and OverLimit.
    """
    kind = request.kind
    if kind.key is None:
        return connect_in_payload(content, most)
    named = session_in_json(content, kind.key)
    return request.known.hints.mcp_session if named is None and kind is Kind.NAMES_MCP_SESSION else named


def brings_connect(content: bytes, most: int) -> bool:
    """Whether a payload brings a CONNECT packet; as `named_in_body`, where nearly none does."""
    return may_connect(content) and connect_in_payload(content, most) is not None


def is_too_long(request: Request, size: int, limit: int) -> bool:
    """Whether a body of which `size` bytes are here is passed on unread. Raises OverLimit for a payload."""
    if request.kind is not Kind.SOCKETIO:
        return size > limit
    if size > max(LONGEST_PAYLOAD, limit):
        raise OverLimit(Limit.BODY, "Engine.IO payload too large", status=413)
    return False
