"""A request as the client's connection has read it: nobody changes it, but to let go of its fields."""

from typing import Final

from proxy.affinity.evidence import Kind
from proxy.dataplane.head_cache import NO_FIELDS, Known
from proxy.wire.engineio import query_sid
from proxy.wire.forwarding import trace_fields
from proxy.wire.head import RequestHead


class Request:
    """Made by the client's connection for each head; helpers take it and give bytes, replies or verdicts.

    A dataclass that is frozen at run time would take three times as long to make.
    """

    __slots__ = ("head", "id", "kind", "known", "sid", "started", "wants_upgrade")

    def __init__(self, head: RequestHead, known: Known, kind: Kind, request_id: bytes, now: float) -> None:
        """`now` is when its head was whole."""
        self.head = head
        self.known: Final = known
        self.id: Final = request_id
        self.started: Final = now
        self.kind: Final = kind
        # The Engine.IO session that it names, with its pin.
        self.sid: Final = query_sid(head.query) if kind is Kind.SOCKETIO else None
        self.wants_upgrade: Final = bool(head.fields.upgrade) and head.wants_upgrade

    def let_go(self) -> None:
        """It will only be told of: of its fields only those of its trace are needed, here and elsewhere."""
        head = self.head
        fields = trace_fields(head.fields) if self.known.trace else NO_FIELDS
        self.head = RequestHead(head.method, head.target, head.path, head.query, head.minor, fields)
        self.known.let_go()

    @property
    def is_poll(self) -> bool:
        """Whether it waits for Engine.IO packets."""
        return self.sid is not None and self.head.method == b"GET"

    @property
    def is_post(self) -> bool:
        """Whether it brings Engine.IO packets."""
        return self.kind is Kind.SOCKETIO and self.head.method == b"POST"

    @property
    def is_handshake(self) -> bool:
        """Whether it opens an Engine.IO session."""
        return self.kind is Kind.SOCKETIO and self.sid is None and self.head.method == b"GET"

    def __repr__(self) -> str:
        return f"<Request {self.head.method.decode('ascii')} {self.head.path.decode('ascii')} {self.kind}>"
