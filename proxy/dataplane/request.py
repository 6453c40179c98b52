"""A request as the client's connection has read it: a value that nobody changes."""

from typing import Final

from proxy.affinity.evidence import Kind
from proxy.dataplane.head_cache import NO_FIELDS, Known
from proxy.wire.engineio import query_sid
from proxy.wire.head import RequestHead


class Request:
    """Made by the client's connection for each head; helpers take it and give bytes, replies or verdicts.

    A dataclass that is frozen at run time would take three times as long to make.
    """

    __slots__ = ("head", "id", "kind", "known", "sid", "started", "wants_upgrade")

    def __init__(self, head: RequestHead, known: Known, kind: Kind, request_id: bytes, now: float) -> None:
        """`now` is when its head was whole."""
        self.head: Final = head
        self.known: Final = known
        self.id: Final = request_id
        self.started: Final = now
        self.kind: Final = kind
        # The Engine.IO session that it names, with its pin.
        self.sid: Final = query_sid(head.query) if kind is Kind.SOCKETIO else None
        self.wants_upgrade: Final = bool(head.fields.upgrade) and head.wants_upgrade

    def without_fields(self) -> "Request":
        """The same, to be told of later: what was read of its fields is let go of."""
        return Request(
            self.head._replace(fields=NO_FIELDS),
            self.known.without_fields(),
            self.kind,
            self.id,
            self.started,
        )

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
