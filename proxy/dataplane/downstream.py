"""One client connection: finds requests in its bytes, one exchange at a time, in order.

What a client sends ahead (pipelining) waits in the buffer until the exchange before it has ended; when
much waits, reading stops. One deadline per connection tells what the client is late with.
"""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, cast

from proxy import net
from proxy.affinity.evidence import read_hints
from proxy.dataplane import failures, requests
from proxy.dataplane.dates import dated
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.seen import Known
from proxy.dataplane.settled import settled
from proxy.errors import BadRequest, Limit, OverLimit
from proxy.wire import reply
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Origin, Variant, client_address, client_scheme, request_fields, trace_id
from proxy.wire.head import HeadSearch, RequestHead, parse_request, repeated_request

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane

_MOST_AHEAD = 65536  # bytes of further requests that wait before reading stops
_MOST_KNOWN = 16  # different field blocks of one connection: a browser has some five
_LINGER = 2.0  # seconds a client may go on sending after an answer that came early
_LAST_WORDS = 60.0  # seconds in which a client has to take what was written before it was closed
_NEVER = float("inf")


class Downstream(asyncio.Protocol):
    """A client connection; the listener creates it, the plane lists it."""

    __slots__ = (
        "_blocks",
        "_buffer",
        "_known",
        "_recent",
        "_said_all",
        "_search",
        "_told",
        "client",
        "closing",
        "deadline",
        "exchange",
        "origin",
        "paused",
        "plane",
        "transport",
        "writable",
    )

    transport: asyncio.Transport

    def __init__(self, plane: "Plane", told: str = "") -> None:
        """`told` is what the listener knows of the client's address: by a PROXY header, or that it has none.

        With "" the peer is the client.
        """
        self.plane = plane
        self._told = told
        self.origin = Origin("unknown", b"http", trusted=False)
        self.deadline = _NEVER  # when the client is late, or its backend
        self.client = ""  # who its connection is counted for
        self.closing = False  # set when no further request is taken
        self.writable = True  # whether the client keeps up with what is written
        self._buffer: bytes | bytearray = b""
        self._search: HeadSearch | None = None  # set while a head comes in pieces; the buffer is then its own
        self.exchange: Exchange | None = None
        self.paused = False  # whether nothing is read of it for now
        self._said_all = False  # whether the client has closed its half
        self._blocks: dict[bytes, Fields] = {}
        self._known: dict[Fields, Known] = {}
        self._recent: list[tuple[bytes, Fields]] = []  # field blocks with their empty line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        try:
            self._arrived()
        except Exception:
            self.closing = True
            self.transport.abort()  # the loop, which is told, leaves it open
            raise

    def _arrived(self) -> None:
        transport = self.transport
        peer = transport.get_extra_info("peername")
        scheme = b"http" if transport.get_extra_info("sslcontext") is None else b"https"
        self.plane.stats.connections += 1
        self.plane.doors.accepted(self.transport)
        address = self._told or (str(peer[0]) if isinstance(peer, tuple) else "")
        if not address:  # it has been reset: nobody knows who it was, and nobody waits for an answer
            self.closing = True
            self.transport.abort()
            return
        self.origin = self.plane.origin(address, scheme)
        if self.plane.turns_away(self.origin, self.transport):
            self.closing = True
            return
        self.client = self.plane.clients.arrived(self.origin)
        self.plane.connections.add(self)
        self.deadline = monotonic() + self.plane.timeouts.head

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self.closing:
            return
        exchange = self.exchange
        if exchange is not None and not exchange.body.done:
            data = exchange.more(data)
            if not data:
                return
        if self._search is not None:
            self._buffer += data
        else:
            self._buffer = self._buffer + data if self._buffer else data
        if self.exchange is None and self.writable:
            self._next()
        elif len(self._buffer) > _MOST_AHEAD:
            self.pause()

    def _next(self) -> None:
        """Begin the next exchange if its head is whole."""
        buffer: bytes = self._buffer  # type: ignore[assignment]  # a bytearray while it is searched
        if buffer[:2] == b"\r\n":
            # RFC 9112 section 2.2: an empty line before a request is ignored.
            buffer = self._buffer = bytes(buffer[2:])
            self._search = None
            if not buffer:
                return
        limit = self.plane.limits.head
        head, end = self._repeated(buffer) if self._search is None else (None, -1)
        if head is None:
            try:
                end = self._find_end(buffer)
            except BadRequest as error:
                self._refuse(error)
                return
        if end < 0 or end > limit:
            if len(buffer) > limit:
                self._refuse(OverLimit(Limit.HEAD, "request head too large", status=431))
            elif self._said_all:
                self.transport.close()
            else:
                self.deadline = min(self.deadline, monotonic() + self.plane.timeouts.head)
            return
        if self._search is not None:
            self._search, buffer = None, bytes(buffer)
        try:
            if head is None:
                block = buffer[buffer.find(b"\r\n") + 2 : end + 2]
                self._recall(block)
                head = parse_request(buffer[: end + 4], self._blocks)
                known = self._known.get(head.fields) or self._remember(head, block)
            else:
                known = self._known[head.fields]
        except (BadRequest, OverLimit) as error:
            self._refuse(error)
            return
        self.deadline = _NEVER
        self._buffer = b""
        rest = buffer[end + 4 :]
        exchange = self.exchange = settled(self, head, known, len(rest)) or Exchange(self, head, known)
        if self.plane.rates is not None and self._is_too_fast(exchange):
            rest = rest if exchange.body.done else b""
        else:
            rest = exchange.start(rest)
        if rest and not self.closing:
            self._buffer = rest
            if self.exchange is None:
                self._next_soon()

    def _repeated(self, buffer: bytes) -> tuple[RequestHead | None, int]:
        """The head at the start of `buffer` and its end, if its fields are those of one before."""
        line_end = buffer.find(b"\r\n")
        for block, fields in self._recent:
            if buffer.startswith(block, line_end + 2):
                return repeated_request(buffer[:line_end], fields), line_end + len(block) - 2
        return None, 0

    def _is_too_fast(self, exchange: Exchange) -> bool:
        """Refuse a request if its client asks too often, and say so."""
        rates, client = self.plane.rates, exchange.known.client
        if rates is None or not client:
            return False
        error = rates.over(client, exchange.started, opens=exchange.is_handshake)
        if error is not None:
            exchange.refuse(error)
        return error is not None

    def _find_end(self, buffer: bytes | bytearray) -> int:
        """Where the head ends, or -1: then the buffer grows in place from now on. Raises BadRequest."""
        search = self._search
        if search is None:
            end = buffer.find(b"\r\n\r\n")
            if end >= 0:
                return end
            search = self._search = HeadSearch()
            buffer = self._buffer = bytearray(buffer)
        return search.find(buffer)

    def _remember(self, head: RequestHead, block: bytes) -> Known:
        if len(head.fields.lines) > self.plane.limits.headers:
            raise OverLimit(Limit.HEADERS, "too many header fields", status=431)
        if len(self._known) >= _MOST_KNOWN:
            self.release()
        address = client_address(head.fields, self.origin, self.plane.trusts)
        hints = read_hints(head.fields, address, self.plane.cookie_name)
        if not self.plane.config.affinity.cookie.enabled:
            hints = replace(hints, pin=None)
        known = self._known[head.fields] = Known(
            hints,
            self.plane.counted_as(address),
            secure=client_scheme(head.fields, self.origin) == b"https",
            request_id=requests.given_id(head) if self.origin.trusted else None,
            trace=trace_id(head.fields),
        )
        # A websocket's block holds a key that never comes again: it would only push out others.
        if self._blocks.get(block) is head.fields and not head.fields.upgrade:
            self._recent.insert(0, (block + b"\r\n", head.fields))
            self.plane.seen.add(self.origin, block, head.fields, known)
        return known

    def _recall(self, block: bytes) -> None:
        """Take over what another connection from the same origin has read of the same fields."""
        seen = self.plane.seen.get(self.origin, block)
        if seen is None or block in self._blocks:
            return
        if len(self._known) >= _MOST_KNOWN:
            self.release()
        fields, known = seen
        self._blocks[block] = fields
        self._known[fields] = known
        self._recent.insert(0, (block + b"\r\n", fields))

    def release(self) -> None:
        """Let go of what was read of fields."""
        self._known.clear()
        self._blocks.clear()
        self._recent.clear()

    def forget(self) -> None:
        """What was read of fields is read anew: whom to trust, or the cookie's name, has changed."""
        self.release()
        self.origin = replace(self.origin, trusted=self.plane.origin(self.origin.address).trusted)

    def block(self, head: RequestHead, known: Known, variant: Variant) -> bytes:
        """The field block that goes upstream; the same for all requests with equal fields."""
        block = known.blocks.get(variant)
        if block is None:
            block = request_fields(head, self.origin, variant, self.plane.cookie_name)
            known.blocks[variant] = block
        return block

    def ended(self, *, keep: bool, linger: bool = False) -> None:
        """The exchange is over; with `keep` the next request may come, with `linger` see `close`."""
        self.exchange = None
        if not keep or self.closing or self.plane.leaving or (self._said_all and not self._buffer):
            self.close(linger=linger)
            return
        if self.paused:
            self.resume()
        self.deadline = monotonic() + self.plane.timeouts.idle
        if self._buffer:
            self._next_soon()

    def _next_soon(self) -> None:
        # Not at once: the exchange that ended is still on the stack, and a pipeline may be long.
        asyncio.get_running_loop().call_soon(self._next_if_open)

    def _next_if_open(self) -> None:
        if self.exchange is None and self.writable and not self.transport.is_closing() and self._buffer:
            self._next()

    def hand_over(self) -> bytes:
        """A tunnel takes the transport; what the client has sent ahead goes with it."""
        self.plane.disconnected(self)
        self.exchange = None
        self.resume()
        early, self._buffer = bytes(self._buffer), b""
        return early

    def close(self, *, linger: bool = False) -> None:
        """Close after what is written; with `linger` so that a client that still sends can read it.

        A close with unread bytes would reset the connection and take the answer away (RFC 9112 section 9.6).
        """
        self._buffer = b""
        self.closing = True
        if linger and self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
            self.resume()
            self.deadline = monotonic() + _LINGER
        else:
            self.transport.close()
            self.deadline = monotonic() + _LAST_WORDS

    def _refuse(self, error: BadRequest | OverLimit) -> None:
        self.plane.stats.refused(error)
        self.plane.stats.answered("", b"", error.status)
        self.transport.write(
            dated(reply.error(error.status, error.reason, request_id=b"", wants_page=False, close=True))
        )
        self.close(linger=True)

    def pause(self) -> None:
        """Read no more for now."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()

    def tick(self, now: float) -> None:
        """Act when the deadline has passed; called by the ticker."""
        if now < self.deadline:
            return
        self.deadline = _NEVER
        if self.exchange is not None:
            failures.late(self.exchange)
        elif self._buffer:
            self._refuse(OverLimit(Limit.SLOW_HEAD, "request head too slow", status=408))
        elif self.transport.is_closing():
            self.transport.abort()
        else:
            if not self.closing:
                self.plane.stats.limits[Limit.IDLE] += 1
            self.close()

    @property
    def waits_for_news(self) -> bool:
        """Whether its exchange is a long poll, which may be ended without loss."""
        return self.exchange is not None and self.exchange.is_poll

    def leave(self) -> None:
        """The process is to end: close when no request is under way."""
        if self.exchange is None:
            self.transport.close()

    def abort(self) -> None:
        """End at once; the client sees a message that was cut off."""
        net.reset(self.transport)

    def eof_received(self) -> bool:
        """As asyncio.Protocol: a client that has said all may still read the answer."""
        exchange = self.exchange
        if exchange is None:
            self._said_all = b"\r\n\r\n" in self._buffer
        else:
            # Nobody waits for a poll's answer after saying goodbye.
            self._said_all = exchange.body.done and not exchange.is_poll
        return self._said_all and self.transport.can_write_eof()  # TLS has no half that could stay open

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.plane.clients.left(self.client)
        self.plane.disconnected(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abort()

    def pause_writing(self) -> None:
        """As asyncio.Protocol: the client reads slowly, so its backend is not read from."""
        self.writable = False
        if self.exchange is not None:
            self.exchange.stop_receiving()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.writable = True
        if self.exchange is not None:
            self.exchange.go_on_receiving()
        else:
            self.resume()
            self._next_soon()

    def __repr__(self) -> str:
        return f"<Downstream {self.origin.address} {self.exchange!r}>"
