"""Finds the requests of one HTTP/1.1 client in its bytes, and reads their heads.

A connection mostly says the same fields again, those of its polls and those of its POSTs in turn, and so do
other connections from the same origin: those are not read a second time.
"""

from time import monotonic

from proxy.dataplane.head_cache import Known
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.errors import Limit, OverLimit
from proxy.wire.forwarding import Origin
from proxy.wire.head import HeadSearch, RequestHead, parse_request, repeated_request

_LONGEST_LAST = 4096  # bytes of a field block that a connection remembers: a browser's has some 1,000
_NOWHERE = Origin("unknown", b"http", trusted=False)


class RequestReader:
    """Owned by its connection."""

    __slots__ = ("_before", "_block", "_known", "_search", "_site", "origin")

    def __init__(self, site: Site) -> None:
        self.origin = _NOWHERE  # where the connection comes from
        self._site = site
        self._block = b""  # the last field block, with its empty line
        self._known: Known | None = None  # what is known of it, if anything
        self._before: tuple[bytes, Known | None] = (b"", None)  # the other one that was said lately
        self._search: HeadSearch | None = None  # set while a head comes in pieces

    def come_from(self, origin: Origin) -> None:
        """Where the connection comes from, from now on."""
        self.origin = origin
        self.forget()

    def begin(self) -> None:
        """Another buffer: what was searched of the last one tells nothing of it."""
        self._search = None

    def forget(self) -> None:
        """Let go of what was read."""
        self._block, self._known = b"", None
        self._before = b"", None

    def read(self, buffer: bytes | bytearray) -> tuple[Request | None, int]:
        """The request whose head begins `buffer` and where that ends, if it is whole.

        While it is not, `buffer` is to be the same one each time, with what has come since at its end.
        Raises BadRequest and OverLimit, also for the start of a head that no more bytes could make valid.
        """
        site, known, limit = self._site, self._known, self._site.limits.head
        head, line_end = None, 0
        if self._search is None:
            line_end = buffer.find(b"\r\n")
            at = line_end + 2
            if known is not None and not buffer.startswith(self._block, at):
                known = self._turn_back()
                if known is not None and not buffer.startswith(self._block, at):
                    known = None
            if known is not None:
                end = at + len(self._block)
                if end <= limit + 4:
                    head = repeated_request(bytes(buffer[:line_end]), known.fields)
        if head is None or known is None:
            end = self._find_end(buffer)
            if end < 0 or end > limit:
                if len(buffer) > limit:
                    raise OverLimit(Limit.HEAD, "request head too large", status=431)
                return None, 0
            head, known = self._read(bytes(buffer[: end + 4]), line_end or buffer.find(b"\r\n"))
            end += 4
        kind = site.paths.kind(head.method, head.path)
        return Request(head, known, kind, known.request_id or site.request_id(), monotonic()), end

    def _turn_back(self) -> Known | None:
        """The other block may be said this time."""
        self._before, (self._block, self._known) = (self._block, self._known), self._before
        return self._known

    def _find_end(self, buffer: bytes | bytearray) -> int:
        search = self._search
        if search is None:
            end = buffer.find(b"\r\n\r\n")
            if end >= 0:
                return end
            search = self._search = HeadSearch()
        end = search.find(buffer)
        if end >= 0:
            self._search = None
        return end

    def _read(self, whole: bytes, line_end: int) -> tuple[RequestHead, Known]:
        """Read a head whose fields are not the last ones; another connection may have read them."""
        site, block = self._site, whole[line_end + 2 : -2]
        known = site.heads.get(self.origin, block)
        head = repeated_request(whole[:line_end], known.fields) if known is not None else None
        if head is None or known is None:
            head = parse_request(whole, known.fields if known is not None else None)
            if known is None or known.fields is not head.fields:
                known = site.know(head, self.origin)
                # A websocket's block holds a key that never comes again: it would only push out others. What
                # was read by the rules of 1.0, or with a target's authority for Host, is not the block's own.
                is_said = head.minor == 1 and whole.startswith(head.target, len(head.method) + 1)
                if head.fields.upgrade or not is_said:
                    return head, known
                site.heads.add(block, known)
        if len(block) <= _LONGEST_LAST:
            if self._before[1] is None:
                self._turn_back()  # there is room beside the one that was said last
            self._block, self._known = block + b"\r\n", known
        return head, known

    def __repr__(self) -> str:
        return f"<RequestReader {self.origin.address}>"
