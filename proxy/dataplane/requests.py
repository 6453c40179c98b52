"""The request heads that go to a backend: an exchange's own, and those made on a client's behalf."""

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING
from urllib.parse import quote

from proxy.affinity.evidence import Kind
from proxy.wire.engineio import with_sid, without_sid
from proxy.wire.forwarding import Variant, request_head
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")


def given_id(head: RequestHead) -> bytes | None:
    """The request id that a trusted proxy before us gave."""
    given = head.fields.get(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def head(exchange: "Exchange") -> bytes:
    """The head of the exchange's own request."""
    request = exchange.head
    target = request.target
    engine = exchange.decision.engine if exchange.decision else None
    if engine is not None and exchange.sid is not None:
        target = target.replace(b"sid=" + exchange.sid, b"sid=" + engine.upstream_sid, 1)
    block = exchange.down.block(request, exchange.known, _variant(exchange))
    return request_head(request.method, target, block, exchange.request_id)


def _variant(exchange: "Exchange") -> Variant:
    if exchange.wants_upgrade:
        return Variant.SOCKETIO_UPGRADE if exchange.kind is Kind.SOCKETIO else Variant.UPGRADE
    if exchange.is_handshake:
        return Variant.POLLING_HANDSHAKE
    if exchange.inspected:
        return Variant.INSPECTED
    return Variant.FINITE if exchange.head.is_finite else Variant.NORMAL


def upgrade_head(exchange: "Exchange", sid: bytes | None) -> bytes:
    """The head that opens this client's websocket at another backend; without `sid` as a new session."""
    request = exchange.head
    query = without_sid(request.query, b"websocket") if sid is None else with_sid(request.query, sid)
    block = exchange.down.block(request, exchange.known, Variant.SOCKETIO_UPGRADE)
    return request_head(b"GET", request.path + b"?" + query, block, exchange.request_id)


def handshake_head(exchange: "Exchange") -> bytes:
    """The head of a polling handshake for the client whose POST this exchange is.

    Chainlit authenticates a connection by the head of its handshake (chainlit/socket.py, connect).
    """
    request = exchange.head
    query = without_sid(request.query, b"polling")
    block = exchange.down.block(request, exchange.known, Variant.REHOME)
    return request_head(b"GET", request.path + b"?" + query, block, exchange.request_id)


def locate_question(exchange: "Exchange", session_id: str) -> tuple[Hashable, bytes] | None:
    """The question whether a backend holds a session: what it is about, and its head.

    A login needs the client's cookies, so those of other clients are other questions. None on a path that
    is below no known root path of Chainlit: below another one nobody could tell.
    """
    request = exchange.head
    root = exchange.plane.paths.root(request.path)
    if root is None:
        return None
    target = quote(root).encode() + b"/project/file/x?session_id=" + quote(session_id, safe="").encode()
    block = exchange.down.block(request, exchange.known, Variant.LOCATE)
    said = [*request.fields.get_all(b"cookie"), b"", *request.fields.get_all(b"authorization")]
    return (target, *said), request_head(b"GET", target, block, exchange.request_id)
