"""The body of a request on its way up: held until a connection is there, kept while it may be said again.

Where affinity must read it for its session, its content is gathered too, up to a limit.
"""

import sys

from proxy.errors import BadRequest, BodyError, FramingError, Limit, OverLimit
from proxy.wire.body import Framer, request_body
from proxy.wire.fields import Fields

_SMALL = 1024  # bytes of a part
MOST_HELD = 65536  # bytes that wait for a connection before reading stops, and that may be said again


class RequestBody:
    """Owned by its exchange."""

    __slots__ = (
        "_fields",
        "_framer",
        "_held",
        "_limit",
        "done",
        "held_size",
        "is_inspected",
        "size",
        "streamed",
    )

    def __init__(self, fields: Fields, limit: int = 0) -> None:
        """`limit` is the most bytes it may have, 0 for any number."""
        self._limit = limit or sys.maxsize  # -1 if it is announced longer: then nothing of it is taken
        if fields.length is not None and fields.length > self._limit:
            self._limit = -1
        self._fields = fields
        self._framer: Framer = request_body(fields)
        self.is_inspected = False  # whether its content is being gathered: then all of it is held
        self._held: list[bytes] = []
        self.done = self._framer.done  # whether it is whole
        self.held_size = 0
        self.size = 0  # bytes that came, framing included
        self.streamed = False  # whether bytes went up that are held no more

    @property
    def is_announced_too_long(self) -> bool:
        """Whether its Content-Length is over the limit; `feed` raises whatever has come."""
        return self._limit < 0

    def inspect(self) -> None:
        """Gather the content, of what is held already and from here on."""
        self.is_inspected = True

    def content(self) -> bytes:
        """What was gathered; the inspection is over."""
        self.is_inspected = False
        content: list[bytes] = []
        request_body(self._fields).feed(b"".join(self._held), content)
        return b"".join(content)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Split `data` into this body's and the next request's; raises BadRequest or OverLimit."""
        try:
            taken = self._framer.feed(data)
        except FramingError as error:
            raise OverLimit(Limit.FRAMING, error.reason, status=400) from None
        except BodyError as error:
            raise BadRequest(error.reason) from None
        self.size += taken
        if self.size > self._limit:
            raise OverLimit(Limit.BODY, "request body too large", status=413)
        self.done = self._framer.done
        return (data, b"") if taken == len(data) else (data[:taken], data[taken:])

    def hold(self, part: bytes) -> None:
        """Keep a part that cannot be sent yet; small ones as one, for each takes some 40 bytes more."""
        self.held_size += len(part)
        held = self._held
        if held and len(part) < _SMALL and len(held[-1]) < _SMALL:
            held[-1] += part
        else:
            held.append(part)

    @property
    def whole(self) -> bytes:
        """What is held, of a body that came with its head."""
        return self._held[0] if self._held else b""

    def say(self, head: bytes) -> bytes:
        """What to send now: the head with what is held; long bodies are let go of."""
        if not self._held:
            return head
        whole = b"".join((head, *self._held))
        if self.held_size > MOST_HELD:
            self._held.clear()
            self.held_size = 0
            self.streamed = True
        return whole

    def __repr__(self) -> str:
        return f"<RequestBody size={self.size} held={self.held_size} done={self.done}>"


NO_BODY = RequestBody(Fields(b""))  # what most requests have; nothing ever changes it
