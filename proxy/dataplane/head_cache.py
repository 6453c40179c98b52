"""What is known of the field blocks of requests: they repeat, on a connection and on the next one.

A browser opens several connections and says the same on each, and again after every loss. So what was read of
a block, and what is sent upstream for it, is kept once for all connections from the same origin.
"""

from collections import OrderedDict

from proxy.affinity.evidence import Hints, read_hints
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Origin, Variant, client_scheme, request_fields, trace_id
from proxy.wire.head import RequestHead

_MOST_BYTES = 16 << 20  # of memory, for all of them
_LONGEST = 4096  # bytes of one block: a browser's has some 1,000
# Memory of one: the block, what it was parsed to, and a block or two that go upstream for it.
# Where its lines are shorter than a browser's, it is their number that tells.
_FOLD, _LINE, _OVERHEAD = 4, 240, 1800
_NO_HINTS = Hints(session=None, cookie_session=None, pin=None, client=b"")
NO_FIELDS = Fields(b"")


class Known:
    """What is known of one field block; what few requests need of it is read when it is asked for."""

    __slots__ = (
        "_blocks",
        "_cookie",
        "_hints",
        "_pins",
        "_secure",
        "_trace",
        "address",
        "client",
        "fields",
        "normal",
        "origin",
        "request_id",
    )

    def __init__(
        self,
        fields: Fields,
        origin: Origin,
        address: str,
        client: str,
        cookie: bytes,
        *,
        pins: bool = True,
        request_id: bytes | None = None,
    ) -> None:
        """`cookie` is the name of the pin cookie, which never goes upstream; it counts if it `pins`."""
        self.fields = fields
        self.origin = origin
        self.address = address  # the client's own, as far as those between are trusted
        self.client = client  # who its requests are counted for, "" for nobody
        self.request_id = request_id  # given by a trusted proxy before us
        self._cookie = cookie
        self._pins = pins
        self._hints: Hints | None = None
        self._secure: bool | None = None
        self._trace: str | None = None
        self.normal = b""  # what `block` gives for nearly all requests, once it was asked for
        self._blocks: dict[Variant, bytes] | None = None  # the others

    @property
    def hints(self) -> Hints:
        """What its fields tell of where it belongs."""
        hints = self._hints
        if hints is None:
            pin = self._cookie if self._pins else None
            hints = self._hints = read_hints(self.fields, self.address, pin)
        return hints

    @property
    def secure(self) -> bool:
        """Whether the client's own connection is TLS."""
        if self._secure is None:
            self._secure = client_scheme(self.fields, self.origin) == b"https"
        return self._secure

    @property
    def trace(self) -> str:
        """The id of the trace that its requests are part of, "" if they are of none."""
        if self._trace is None:
            self._trace = trace_id(self.fields)
        return self._trace

    def block(self, head: RequestHead, variant: Variant) -> bytes:
        """The field block that goes upstream; the same for all requests with these fields."""
        if variant is Variant.NORMAL:
            self.normal = self.normal or request_fields(head, self.origin, variant, self._cookie)
            return self.normal
        blocks = self._blocks
        if blocks is None:
            blocks = self._blocks = {}
        block = blocks.get(variant)
        if block is None:
            block = blocks[variant] = request_fields(head, self.origin, variant, self._cookie)
        return block

    def let_go(self) -> None:
        """Only who asked is to be known from now on, and its trace; for what is not in the cache."""
        self._trace = self.trace
        self.fields, self._hints, self.normal, self._blocks = NO_FIELDS, _NO_HINTS, b"", None


class HeadCache:
    """The blocks that were read lately, by the origin that said them; owned by the Site.

    Bounded in bytes, so that made-up fields only push out others; what was used longest ago goes first.
    """

    __slots__ = ("_known", "_most", "size")

    def __init__(self, most: int = _MOST_BYTES) -> None:
        self._known: OrderedDict[tuple[Origin, bytes], Known] = OrderedDict()
        self._most = most
        self.size = 0  # bytes of memory, as they are counted here

    def get(self, origin: Origin, block: bytes) -> Known | None:
        """What is known of a block that came from there."""
        key = (origin, block)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def add(self, block: bytes, known: Known) -> None:
        """Remember it; those that were used longest ago make room."""
        if len(block) > _LONGEST or self._known.setdefault((known.origin, block), known) is not known:
            return
        self.size += _size(block, known)
        while self.size > self._most:
            (_, oldest), its = self._known.popitem(last=False)
            self.size -= _size(oldest, its)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def clear(self) -> None:
        """All is to be read anew."""
        self._known.clear()
        self.size = 0

    def __repr__(self) -> str:
        return f"<HeadCache {len(self._known)} blocks, {self.size} bytes>"


def _size(block: bytes, known: Known) -> int:
    """Bytes of memory that this one takes, about."""
    return _OVERHEAD + max(_FOLD * len(block), _LINE * len(known.fields.lines))
