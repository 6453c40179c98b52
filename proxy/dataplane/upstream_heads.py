"""The request heads that go to a backend: a request's own, and those made on its client's behalf."""

import re
from collections.abc import Hashable
from typing import NamedTuple
from urllib.parse import quote

from proxy.affinity.evidence import Kind, Paths
from proxy.dataplane.request import Request
from proxy.wire.engineio import with_sid, without_sid
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Variant, request_head

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")


def given_id(fields: Fields) -> bytes | None:
    """The request id that a trusted proxy before us gave."""
    given = fields.get(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def own_head(request: Request, sid: bytes | None, *, inspected: bool) -> bytes:
    """The head of the request itself; `sid` is what the backend calls its Engine.IO session.

    `inspected`: its body was read here, so Expect is answered already.
    """
    head, target = request.head, request.head.target
    if sid is not None and request.sid is not None:
        said = b"sid=" + request.sid
        before = b"?" if head.query.startswith(said) else b"&"  # no other field ends in it
        target = target.replace(before + said, before + b"sid=" + sid, 1)
    known = request.known
    if head.fields.usual and request.sid is not None and not inspected:
        block = known.normal or known.block(head, Variant.NORMAL)
    else:
        block = known.block(head, _variant(request, inspected=inspected))
    return request_head(head.method, target, block, request.id)


def _variant(request: Request, *, inspected: bool) -> Variant:
    if request.wants_upgrade:
        return Variant.SOCKETIO_UPGRADE if request.kind is Kind.SOCKETIO else Variant.UPGRADE
    if request.is_handshake:
        return Variant.POLLING_HANDSHAKE
    if inspected:
        return Variant.INSPECTED
    return Variant.FINITE if request.head.is_finite else Variant.NORMAL


def upgrade_head(request: Request, sid: bytes | None) -> bytes:
    """The head that opens this client's websocket at another backend; without `sid` as a new session."""
    head = request.head
    query = without_sid(head.query, b"websocket") if sid is None else with_sid(head.query, sid)
    block = request.known.block(head, Variant.SOCKETIO_UPGRADE)
    return request_head(b"GET", head.path + b"?" + query, block, request.id)


class Kept:
    """What a client's websocket began with, so that it can be said again to another instance."""

    __slots__ = ("connect", "head", "session_id")

    def __init__(self, head: bytes, connect: bytes, session_id: str) -> None:
        self.head = head  # that opens its websocket; with its cookies
        self.connect = connect  # its CONNECT packet; may have keys of the user
        self.session_id = session_id

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.head) + len(self.connect)

    def __repr__(self) -> str:
        return "<Kept>"  # these are secrets


class PollHeads(NamedTuple):
    """What is needed of a client's request to speak Engine.IO by polls in its name; holds its cookies."""

    target: bytes  # of its handshake
    block: bytes
    id: bytes

    @classmethod
    def of(cls, request: Request) -> "PollHeads":
        """From a request of a polling transport."""
        head = request.head
        target = head.path + b"?" + without_sid(head.query, b"polling")
        return cls(target, request.known.block(head, Variant.REHOME), request.id)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.target) + len(self.block)

    @property
    def handshake(self) -> bytes:
        """Chainlit authenticates a connection by the head of its handshake (chainlit/socket.py, connect)."""
        return request_head(b"GET", self.target, self.block, self.id)

    def poll(self, sid: bytes) -> bytes:
        """The head that asks for news in an Engine.IO session."""
        return request_head(b"GET", self.target + b"&sid=" + sid, self.block, self.id)

    def post(self, sid: bytes, content: bytes) -> bytes:
        """A POST that says packets in an Engine.IO session."""
        framing = b"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n" % len(content)
        return request_head(b"POST", self.target + b"&sid=" + sid, self.block + framing, self.id) + content

    def __repr__(self) -> str:
        return "<PollHeads>"  # they hold secrets


def locate_question(request: Request, session_id: str, paths: Paths) -> tuple[Hashable, bytes] | None:
    """The question whether a backend holds a session: what it is about, and its head.

    A login needs the client's cookies, so those of other clients are other questions. None on a path that
    is below no known root path of Chainlit: below another one nobody could tell.
    """
    head = request.head
    root = paths.root(head.path)
    if root is None:
        return None
    below = quote(root).encode() if root else b""
    target = b"%b/project/file/x?session_id=%b" % (below, quote(session_id, safe="").encode())
    block = request.known.block(head, Variant.LOCATE)
    said = [*head.fields.get_all(b"cookie"), b"", *head.fields.get_all(b"authorization")]
    return (target, *said), request_head(b"GET", target, block, request.id)
