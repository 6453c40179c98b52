"""What is remembered of the field blocks of requests: they repeat, on a connection and on the next one."""

from proxy.affinity.evidence import Hints
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Origin, Variant

_MOST_SEEN = 512  # field blocks of all connections that are remembered
_LONGEST_SEEN = 4096  # bytes of each: a browser's has some 1,000


class Known:
    """What is remembered of one field block: its hints, and the blocks that go upstream."""

    __slots__ = ("blocks", "client", "hints", "request_id", "secure", "trace")

    def __init__(
        self, hints: Hints, client: str, *, secure: bool, request_id: bytes | None, trace: str
    ) -> None:
        self.hints = hints
        self.client = client  # who its requests are counted for, "" for nobody
        self.secure = secure  # whether the client's own connection is TLS
        self.trace = trace  # the id of the trace that the request is part of, "" if it is of none
        self.request_id = request_id  # given by a trusted proxy before us
        self.blocks: dict[Variant, bytes] = {}


class Seen:
    """What was read of field blocks lately; owned by the plane.

    A browser opens several connections and says the same on each, and again after every loss. Bounded, in
    number and size, so that made-up fields only push out others.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[Origin, bytes], tuple[Fields, Known]] = {}

    def get(self, origin: Origin, block: bytes) -> tuple[Fields, Known] | None:
        """What is known of a block that came from there."""
        return self._known.get((origin, block))

    def add(self, origin: Origin, block: bytes, fields: Fields, known: Known) -> None:
        """Remember it; the oldest makes room."""
        if len(block) <= _LONGEST_SEEN:
            self._known[origin, block] = (fields, known)
            if len(self._known) > _MOST_SEEN:
                del self._known[next(iter(self._known))]

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def clear(self) -> None:
        """All is to be read anew."""
        self._known.clear()
