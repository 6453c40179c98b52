"""What pages of other sites may read of the proxy's own answers: what instances would let them read.

A widget on another site whose script may not read the answer to a poll, an upload or a button sees "network
error" and no status. So the Origin is echoed where Chainlit has its sessions, with leave for requests with
cookies: what the proxy itself says there tells a status and a reason, and nothing of a session or a user. An
origin to which the last handshake's answer gave no leave gets none here either.

Leave to send a request (a preflight) is another matter: it would let a page of any site act for a user while
the instances are away. So it is only said again, to those who ask the very same as instances have granted.
"""

from collections import OrderedDict

from proxy.affinity.evidence import Kind
from proxy.dataplane.request import Request
from proxy.wire import reply
from proxy.wire.fields import Fields
from proxy.wire.head import ResponseHead
from proxy.wire.reply import Reply

_MOST = 1000  # origins, and questions, that are remembered
_LONGEST = 1024  # bytes of one: those of Chainlit's widget have some 100
_ALLOWED = b"access-control-allow-origin"

_Question = tuple[bytes, bytes, bytes, bytes]  # the origin, the path, the method and the names of fields


class CrossSite:
    """Owned by the Site."""

    __slots__ = ("_leaves", "_refused")

    def __init__(self) -> None:
        self._refused: OrderedDict[bytes, None] = OrderedDict()  # origins that may read nothing
        self._leaves: OrderedDict[_Question, bytes] = OrderedDict()  # what instances have answered

    def learn(self, request: Request, head: ResponseHead) -> None:
        """An instance has opened a transport, or has answered a preflight."""
        origin = request.head.fields.get(b"origin")
        if origin is None or len(origin) > _LONGEST:
            return
        allowed = head.fields.get(_ALLOWED) in (origin, b"*") and 200 <= head.status < 300
        question = _question(request)
        if question is not None:
            self._leaves.pop(question, None)
            if allowed and len(leave := _lines(head.fields)) + sum(map(len, question)) <= _LONGEST:
                self._leaves[question] = leave
                _bound(self._leaves)
        elif request.is_handshake:
            self._refused.pop(origin, None)
            if not allowed:
                self._refused[origin] = None
                _bound(self._refused)

    def leave(self, request: Request) -> Reply | None:
        """What instances have answered to the same preflight; None: nobody knows, or it is none."""
        question = _question(request)
        leave = None if question is None else self._leaves.get(question)
        return None if leave is None else Reply(200, b"OK", extra=leave)

    def readable(self, request: Request, answer: Reply) -> Reply:
        """The proxy's own answer as a page of the request's origin may read it; not to preflights."""
        head = request.head
        origin = head.fields.get(b"origin")
        if (
            origin is None
            or request.kind is Kind.PLAIN
            or head.method == b"OPTIONS"
            or origin in self._refused
        ):
            return answer
        return reply.readable(answer, origin)

    def __repr__(self) -> str:
        return f"<CrossSite refused={len(self._refused)} leaves={len(self._leaves)}>"


def _question(request: Request) -> _Question | None:
    """What a preflight asks for (https://fetch.spec.whatwg.org/#cors-preflight-fetch)."""
    head = request.head
    if head.method != b"OPTIONS":
        return None
    origin, method = head.fields.get(b"origin"), head.fields.get(b"access-control-request-method")
    if origin is None or method is None:
        return None
    return origin, head.path, method, head.fields.get(b"access-control-request-headers") or b""


def _lines(fields: Fields) -> bytes:
    """Those that tell a browser what it may do."""
    told = [
        line.raw for line in fields.lines if line.name.startswith(b"access-control-") or line.name == b"vary"
    ]
    return b"".join(line + b"\r\n" for line in told)


def _bound(table: OrderedDict[_Question, bytes] | OrderedDict[bytes, None]) -> None:
    """What was learnt first makes room."""
    if len(table) > _MOST:
        table.popitem(last=False)
