"""One client connection in HTTP/1.1: finds requests in its bytes, one exchange at a time, in order.

What a client sends ahead (pipelining) waits in the buffer until the exchange before it has ended; when
much waits, reading stops. One deadline per connection tells what the client is late with.
"""

import asyncio
import socket
from time import monotonic
from typing import Protocol, cast

from proxy.dataplane.clients import Ticket
from proxy.dataplane.connection import AGAIN
from proxy.dataplane.dates import dated
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.leg import AHEAD, BEHIND, Leg, Source
from proxy.dataplane.patience import Timer
from proxy.dataplane.request import Request
from proxy.dataplane.request_reader import RequestReader
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import BadRequest, Limit, OverLimit
from proxy.wire import reply
from proxy.wire.forwarding import plain_answer, response_head
from proxy.wire.head import ResponseHead
from proxy.wire.reply import Reply

_MOST_AHEAD = 65536  # bytes of further requests that wait before reading stops
_LINGER = 2.0  # seconds a client may go on sending after an answer that came early
_NEVER = float("inf")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Host(Protocol):
    """What a connection needs of whoever owns all of them."""

    def accepted(self, sock: socket.socket | None) -> None:
        """A connection has been accepted."""
        ...

    def admitted(self, connection: "Downstream") -> None:
        """Whose it is, is known, and that it may be there."""
        ...

    def left(self, connection: "Downstream") -> None:
        """It has ended, or has become a tunnel."""
        ...

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """A connection has switched protocols."""
        ...

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """What it became has ended."""
        ...


class Downstream(asyncio.Protocol):
    """A client connection, as Client of its exchanges; a listener makes it, its host owns it."""

    __slots__ = (
        "_address",
        "_buffer",
        "_host",
        "_reader",
        "_rested_at",
        "_said_all",
        "_ticket",
        "closing",
        "deadline",
        "exchange",
        "leg",
        "site",
        "transport",
    )

    leg: Leg
    transport: asyncio.Transport

    def __init__(self, site: Site, host: Host, address: str = "", ticket: Ticket | None = None) -> None:
        """`address` is the client's, where the listener knows it by a PROXY header or that there is none.

        With "" the peer is the client. `ticket` has counted the connection until now, as whoever's it was.
        """
        self.site = site
        self._host = host
        self._address = address
        self.deadline = _NEVER  # when the client is late, or its backend
        self._ticket = ticket  # counts it
        self.closing = False  # set when no further request is taken
        self._buffer: bytes | bytearray = b""  # the latter while a head comes in pieces
        self.exchange: Exchange | None = None
        self._rested_at = monotonic()  # when it was accepted, or answered last
        self._said_all = False  # whether the client has closed its half
        self._reader = RequestReader(site)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = connection = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.leg = Leg(connection)
        waiting, scheme = self._ticket, b"http"
        try:
            if waiting is None:
                self._host.accepted(transport.get_extra_info("socket"))
            elif transport.get_extra_info("sslcontext") is not None:  # only who waits has TLS: see `acceptor`
                scheme = b"https"
            admitted = self.site.admit(connection, self._address, waiting, scheme)
            if admitted is None:
                self.closing = True
                return
            origin, self._ticket = admitted
            self._reader.come_from(origin)
            self._host.admitted(self)
            self.deadline = monotonic() + self.site.timeouts.head
        except Exception:
            self.closing = True
            connection.abort()  # the loop, which is told, leaves it open
            raise

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self.closing:
            return
        exchange = self.exchange
        if exchange is not None and not exchange.body.done:
            data = exchange.more(data)
            if not data:
                return
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
        if self.exchange is None and self.leg.writable:
            self._next()
        elif len(self._buffer) > _MOST_AHEAD:
            self.leg.pause(AHEAD)

    def _next(self) -> None:
        """Begin the next exchange if its head is whole."""
        buffer = self._buffer
        if buffer[:2] == b"\r\n":  # RFC 9112 section 2.2: an empty line before a request is ignored
            buffer = self._buffer = bytes(buffer[2:])
            self._reader.begin()
            if not buffer:
                return
        try:
            request, end = self._reader.read(buffer)
        except (BadRequest, OverLimit) as error:
            self._refuse(error)
            return
        if request is None:
            if not isinstance(buffer, bytearray):
                self._buffer = bytearray(buffer)  # it comes in pieces: they are added in place
            self.leg.resume(AHEAD)
            if self._said_all:
                self.transport.close()
            else:
                self.deadline = min(self.deadline, monotonic() + self.site.timeouts.head)
            return
        self.deadline = _NEVER
        self._buffer = b""
        rest = bytes(buffer[end:])
        exchange = self.exchange = Exchange(self.site, self, request)
        rates, over = self.site.rates, None
        if rates is not None:
            opens = request.sid is None and request.is_handshake
            over = rates.over(request.known.client, request.started, opens=opens)
        if over is None:
            rest = exchange.start(rest)
        else:
            exchange.refuse(over)
            rest = rest if exchange.body.done else b""
        if rest and not self.closing:
            self._buffer = rest
            if exchange.ended:
                self._next_soon()
            self._bound_ahead()
        elif self.leg.holds:
            self._bound_ahead()

    def _bound_ahead(self) -> None:
        """Read on only when few of the requests that came are left: one that ends may be a short one."""
        if len(self._buffer) > _MOST_AHEAD:
            self.leg.pause(AHEAD)
        else:
            self.leg.resume(AHEAD)

    def forget(self) -> None:
        """What was read of fields is read anew: whom to trust, or the cookie's name, has changed."""
        origin = self._reader.origin
        self._reader.come_from(self.site.origin(origin.address, origin.scheme, origin.peer))

    # As Client of the exchange

    @property
    def paused(self) -> bool:
        """As Client."""
        return self.leg.paused

    def pause(self) -> None:
        """As Client."""
        self.leg.pause()
        if self.exchange is not None:
            self.exchange.turn()

    def resume(self) -> None:
        """As Client."""
        if self.leg.paused:
            self.leg.resume()
            if self.exchange is not None:
                self.exchange.turn()

    def draw_from(self, source: Source | None) -> None:
        """As Client."""
        self.leg.draw_from(source)

    def go_ahead(self) -> None:
        """As Client."""
        self.transport.write(_CONTINUE)

    def inform(self, request: Request, head: ResponseHead) -> None:
        """As Client."""
        self.transport.write(response_head(head, request.head, request.id, close=False))

    def respond(
        self,
        request: Request,
        head: ResponseHead,
        data: bytes,
        *,
        close: bool,
        extra: bytes = b"",
        length: int | None = None,
        unpacked: bool = False,
    ) -> None:
        """As Client."""
        if not close and not extra and length is None and request.head.minor:
            answer = plain_answer(head)
            if answer:
                self.transport.write(b"".join((answer[0], request.id, answer[1], data)))
                return
        top = response_head(
            head, request.head, request.id, close=close, extra=extra, length=length, unpacked=unpacked
        )
        self.transport.write(top + data)

    def write(self, data: bytes) -> None:
        """As Client."""
        self.transport.write(data)

    def answer(self, request: Request, reply: Reply, *, close: bool) -> None:
        """As Client."""
        head_only = request.head.method == b"HEAD"
        self.transport.write(dated(reply.http1(request_id=request.id, close=close, head_only=head_only)))

    def ended(self, *, keep: bool, linger: bool) -> None:
        """As Client."""
        self.exchange = None
        if not keep or self.closing or self.site.leaving or (self._said_all and not self._buffer):
            self.close(linger=linger)
            return
        if self.leg.holds:
            self._bound_ahead()
            self.leg.resume(BEHIND)
        self._rested_at = now = monotonic()
        self.deadline = now + self.site.timeouts.idle
        if self._buffer:
            self._next_soon()

    def cut(self) -> None:
        """As Client."""
        self.leg.reset()

    def hand_over(self) -> tuple[Leg, bytes]:
        """As Client."""
        self._host.left(self)
        self.exchange = None
        self.leg.draw_from(None)
        self.leg.resume(BEHIND | AHEAD)
        self._reader.forget()
        early, self._buffer = bytes(self._buffer), b""
        return self.leg, early

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """As Client."""
        tunnel.ticket, self._ticket = self._ticket, None
        self._host.tunnel_opened(tunnel)
        if self._said_all:  # as soon as somebody listens to it
            asyncio.get_running_loop().call_soon(tunnel.client_said_all)

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """As Client."""
        if tunnel.ticket is not None:
            tunnel.ticket.give_back()
        self._host.tunnel_closed(tunnel)

    # Its own life

    def _next_soon(self) -> None:
        # Not at once: the exchange that ended is still on the stack, and a pipeline may be long.
        asyncio.get_running_loop().call_soon(self._next_if_open)

    def _next_if_open(self) -> None:
        if self.exchange is None and self.leg.writable and not self.transport.is_closing() and self._buffer:
            self._next()

    def close(self, *, linger: bool = False) -> None:
        """Close after what is written; with `linger` so that a client that still sends can read it.

        A close with unread bytes would reset the connection and take the answer away (RFC 9112 section 9.6).
        """
        self._buffer = b""
        self.closing = True
        if linger and self.leg.finish():
            self.leg.resume(BEHIND | AHEAD)
        else:
            self.transport.close()
        self.deadline = monotonic() + _LINGER  # then it has to take what was written, as any answer

    def _refuse(self, error: BadRequest | OverLimit) -> None:
        self.site.stats.refused(error)
        self.site.stats.answered("", b"", error.status)
        self.transport.write(dated(reply.error(error.status, error.reason).http1(close=True)))
        self.close(linger=True)

    def tick(self, now: float) -> None:
        """Act when a time is over; called by the ticker."""
        if not self.leg.writable and self.leg.is_stuck(now, self.site.timeouts.write):
            self.site.stats.limits[Limit.SLOW_READ] += 1
            self.leg.reset()
        elif now >= self.deadline:
            self._late()

    def _late(self) -> None:
        self.deadline = _NEVER
        if self.exchange is not None:
            self.exchange.late()
        elif self._buffer:
            self._refuse(OverLimit(Limit.SLOW_HEAD, "request head too slow", status=408))
        elif self.transport.is_closing() is self.closing and self.leg.is_taking(
            monotonic(), self.site.timeouts.write
        ):
            self.deadline = monotonic() + (_LINGER if self.closing else self.site.timeouts.idle)
        elif self.transport.is_closing():
            self.transport.abort()
        else:
            self.site.stats.limits[Limit.IDLE] += not self.closing
            self.close()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        self.deadline += gap
        self.leg.move_on(gap)

    @property
    def waits_for_news(self) -> bool:
        """Whether its exchange is a long poll, which may be ended without loss."""
        return self.exchange is not None and self.exchange.request.is_poll

    def leave(self) -> None:
        """The process is to end: close when no request is under way, and none is on its way.

        Whoever polls asks again when it was answered, and what comes to a closed connection is refused.
        """
        if self.exchange is None and monotonic() < self._rested_at + AGAIN:
            Timer(self.site.stood, AGAIN, self.leave)
        elif self.exchange is None:
            self.transport.close()

    def eof_received(self) -> bool:
        """As asyncio.Protocol: a client that has said all may still read the answer."""
        exchange = self.exchange
        if exchange is None:
            self._said_all = b"\r\n\r\n" in self._buffer
        else:
            self._said_all = exchange.body.done and not self.waits_for_news  # nobody does after a goodbye
        return self._said_all and self.leg.can_finish  # TLS has no half that could stay open

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        if self._ticket is not None:
            self._ticket.give_back()
        self._host.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abort()

    def pause_writing(self) -> None:
        """As asyncio.Protocol: the client reads slowly, so its backend is not read from."""
        self.leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.caught_up()
        if self.exchange is None:
            self._bound_ahead()
            self._next_soon()

    def __repr__(self) -> str:
        return f"<Downstream {self._reader.origin.address} {self.exchange!r}>"
