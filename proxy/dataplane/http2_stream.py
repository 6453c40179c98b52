"""One request of an HTTP/2 connection, and the client of its exchange, as a connection is in HTTP/1.1.

What the client sends is given on at once, and its window opens again when that was taken: an exchange that
reads no more leaves it shut, so that its client stops after a window. What is to be sent waits here for the
client's windows; while much waits, the backend is not read from. The connection asks for it frame by frame.
"""

import asyncio
from typing import Protocol, cast

from proxy.dataplane.clients import Ticket
from proxy.dataplane.dates import dated
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.http2_legs import StreamLeg
from proxy.dataplane.http2_websocket import StreamTransport
from proxy.dataplane.leg import BEHIND, Leg, Source
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import Limit
from proxy.wire.body import ChunkedBody
from proxy.wire.forwarding import response_head
from proxy.wire.head import ResponseHead
from proxy.wire.http2 import FieldList, chunk, last_chunk, response_fields, trailer_fields
from proxy.wire.reply import Reply

_NEVER = float("inf")


class Host(Protocol):
    """What a stream needs of whoever owns it with its connection."""

    def left(self, connection: "Stream") -> None:
        """A stream has ended, or has become a tunnel."""
        ...

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """A stream has become a websocket."""
        ...

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """What it became has ended."""
        ...


class Carrier(Protocol):
    """What a stream needs of its connection."""

    @property
    def host(self) -> Host:
        """Who owns both."""
        ...

    def say_at_once(self, stream: "Stream", fields: FieldList) -> None:
        """Send an informational response."""
        ...

    def has_more(self, stream: "Stream") -> None:
        """It has something to say, or has said all."""
        ...

    def took(self, stream: "Stream", size: int) -> None:
        """So many bytes of its window are free again."""
        ...

    def break_off(self, stream: "Stream") -> None:
        """Its response will not become whole: reset it."""
        ...

    def malformed(self, stream: "Stream") -> None:
        """Its request has ended before it was whole: reset it."""
        ...


class Stream:
    """Made by its connection for each request, which ends it when both sides have said all."""

    __slots__ = (
        "_carrier",
        "_decoder",
        "_early",
        "_is_chunked",
        "_is_websocket",
        "_ticket",
        "_withheld",
        "deadline",
        "exchange",
        "head",
        "heard_all",
        "id",
        "is_over",
        "leg",
        "said_all",
        "site",
        "socket",
        "trailers",
    )

    def __init__(
        self, site: Site, carrier: Carrier, number: int, transport: asyncio.Transport, ticket: Ticket | None
    ) -> None:
        """`number` is its id, `ticket` counts it."""
        self.site = site
        self._carrier = carrier
        self.id = number
        self._ticket = ticket
        self.leg = StreamLeg(transport, self.cut)
        self.exchange: Exchange | None = None
        self.deadline = _NEVER
        self.heard_all = False  # whether the client has ended its side
        self.said_all = False  # whether no more of the response will come here
        self.is_over = False  # whether it has left its connection
        self.head: FieldList | None = None  # of the response, while it is to be sent
        self.trailers: FieldList | None = None
        self._early: list[bytes] | None = []  # of the body, until the exchange begins
        self._is_chunked = False  # whether the body goes up in chunks
        self._withheld = 0  # bytes that came while nobody took them: the window stays shut by so many
        self._decoder: ChunkedBody | None = None  # set while the backend's body comes in chunks
        self._is_websocket = False  # whether it asks to become one
        self.socket: StreamTransport | None = None  # set when it has

    # The way down

    def ask(self, request: Request) -> None:
        """The head is here; `begin` when what came with it was heard."""
        self._is_chunked, self._is_websocket = request.head.fields.chunked, request.wants_upgrade
        self.exchange = Exchange(self.site, self, request)

    def begin(self) -> None:
        """Have the exchange begin."""
        exchange, early = self.exchange, b""
        if not self._is_websocket:  # what one says first waits for the tunnel
            early, self._early = b"".join(self._early or ()), None
        if exchange is None:
            return
        request, rates = exchange.request, self.site.rates
        client, over = request.known.client, None
        if rates is not None and client:
            over = rates.over(client, request.started, opens=request.sid is None and request.is_handshake)
        if over is None:
            exchange.start(early)
        else:
            exchange.refuse(over)
        self._look_if_whole()

    def hear(self, data: bytes, size: int) -> None:
        """More of the body came, in a frame that took `size` bytes of the window."""
        if self.socket is not None:
            self.socket.hear(data)
        else:
            self._feed(chunk(data) if self._is_chunked else data)
        if self.leg.paused or (self._is_websocket and self.socket is None):
            self._withheld += size
        elif size and not self.said_all:
            self._carrier.took(self, size)

    def heard_end(self, trailers: bytes = b"") -> None:
        """The client has said all."""
        self.heard_all = True
        if self.socket is not None:
            self.socket.hear_end()
            return
        if self._is_chunked:
            self._feed(last_chunk(trailers))
        self._look_if_whole()

    def _look_if_whole(self) -> None:
        """RFC 9113 section 8.1.1: a body that is shorter than its length is malformed."""
        exchange = self.exchange
        if self.heard_all and self._early is None and exchange is not None and not exchange.body.done:
            self._carrier.malformed(self)

    def _feed(self, data: bytes) -> None:
        exchange = self.exchange
        if self._early is not None:
            self._early.append(data)
        elif exchange is not None and not exchange.body.done and data:
            exchange.more(data)

    def gone(self) -> None:
        """The stream, or its connection, was reset, or all of it is said."""
        self.is_over = self.said_all = True
        self.deadline = _NEVER
        self.head = self.trailers = None
        self.leg.buffer.clear()
        if self._ticket is not None:
            self._ticket.give_back()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abort()
        if self.socket is not None:
            self.socket.lose()

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
        if not self.leg.paused:
            return
        self.leg.resume()
        size, self._withheld = self._withheld, 0
        if size and not self.is_over:
            self._carrier.took(self, size)
        if self.exchange is not None:
            self.exchange.turn()

    def draw_from(self, source: Source | None) -> None:
        """As Client."""
        self.leg.draw_from(source)

    def go_ahead(self) -> None:
        """As Client."""
        self._carrier.say_at_once(self, [(b":status", b"100")])

    def inform(self, request: Request, head: ResponseHead) -> None:
        """As Client."""
        top = response_head(head, request.head, request.id, close=False)
        self._carrier.say_at_once(self, response_fields(top))

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
        top = response_head(
            head, request.head, request.id, close=False, extra=extra, length=length, unpacked=unpacked
        )
        self.head = self._head_of(top)
        self._decoder = ChunkedBody() if head.fields.chunked and length is None else None
        self.write(data)

    def write(self, data: bytes) -> None:
        """As Client."""
        if self._decoder is not None and data:
            content: list[bytes] = []
            self._decoder.feed(data, content)
            data = b"".join(content)
        if data:
            self.leg.add(data)
        self._carrier.has_more(self)

    def answer(self, request: Request, reply: Reply, *, close: bool) -> None:
        """As Client."""
        self.reply(reply, request.id, head_only=request.head.method == b"HEAD")

    def reply(self, reply: Reply, request_id: bytes = b"", *, head_only: bool = False) -> None:
        """Give a whole response of the proxy's own."""
        whole = dated(reply.http1(request_id=request_id, head_only=head_only))
        head, _, body = whole.partition(b"\r\n\r\n")
        self.head = self._head_of(head + b"\r\n\r\n")
        self.leg.add(body)
        self._carrier.has_more(self)

    def _head_of(self, top: bytes) -> FieldList:
        """To who asks for a websocket 2xx is the yes (RFC 8441 section 5), which here only a switch is."""
        fields = response_fields(top)
        if self._is_websocket and top[9:10] == b"2":
            fields[0] = (b":status", b"502")
        return fields

    def ended(self, *, keep: bool, linger: bool) -> None:
        """As Client."""
        self.exchange = self._early = None
        self.deadline = _NEVER
        self.leg.draw_from(None)
        decoder, self._decoder = self._decoder, None
        if decoder is not None and decoder.trailers:
            self.trailers = trailer_fields(decoder.trailers)
        self.said_all = True
        self._carrier.has_more(self)

    def cut(self) -> None:
        """As Client."""
        if not self.is_over:
            self._carrier.break_off(self)

    def hand_over(self) -> tuple[Leg, bytes]:
        """As Client: it asked by RFC 8441, and `response_fields` has said yes."""
        self._carrier.host.left(self)
        self.exchange = None
        self.socket = socket = StreamTransport(self)
        self.leg.draw_from(socket)
        self.leg.holds = BEHIND
        early, self._early = b"".join(self._early or ()), None
        self.resume()
        return Leg(cast("asyncio.Transport", socket)), early

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """As Client."""
        self._carrier.host.tunnel_opened(tunnel)
        if self.heard_all:  # as soon as somebody listens to it
            asyncio.get_running_loop().call_soon(tunnel.client_said_all)

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """As Client; its ticket stays with the stream."""
        self._carrier.host.tunnel_closed(tunnel)

    # As Piped of a websocket

    @property
    def unsent(self) -> int:
        """As Piped."""
        return len(self.leg.buffer)

    def send(self, data: bytes) -> None:
        """As Piped."""
        self.leg.add(data)
        self._carrier.has_more(self)

    def end(self) -> None:
        """As Piped."""
        self.said_all = True
        self._carrier.has_more(self)

    # As one of the plane's connections

    @property
    def waits_for_news(self) -> bool:
        """Whether its exchange is a long poll, which may be ended without loss."""
        return self.exchange is not None and self.exchange.request.is_poll

    def forget(self) -> None:
        """Its fields are read already."""

    def leave(self) -> None:
        """The process is to end: it ends by itself."""

    def tick(self, now: float) -> None:
        """Act when a time is over; called by the ticker."""
        patience = self.site.timeouts.write
        if self.leg.buffer and not self.leg.is_taking(now, patience):
            self.site.stats.limits[Limit.SLOW_READ] += 1
            self.cut()
        elif now >= self.deadline:
            self.deadline = _NEVER
            if self.exchange is not None:
                self.exchange.late()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        self.deadline += gap
        self.leg.move_on(gap)

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.exchange!r} unsent={len(self.leg.buffer)} said_all={self.said_all}>"
