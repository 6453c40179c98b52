"""One client connection in HTTP/2: who may go on, and how much of everything a client may have.

A client has no more of anything than in HTTP/1.1: each open stream counts as a connection, and its window is
about what a connection's buffers hold. A connection whose frames are not requests and bodies, or whose
streams are reset again and again, is ended with ENHANCE_YOUR_CALM (RFC 9113 section 10.5).
"""

import asyncio
import os
from base64 import b64encode
from contextlib import suppress
from time import monotonic
from typing import Protocol, cast

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError, TooManyStreamsError

from proxy.dataplane.buckets import Bucket
from proxy.dataplane.clients import LIMIT_REPLIES, Ticket
from proxy.dataplane.connection import AGAIN
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.http2_frames import Frames, refusal
from proxy.dataplane.http2_legs import SharedLeg
from proxy.dataplane.http2_stream import Host as StreamHost
from proxy.dataplane.http2_stream import Stream
from proxy.dataplane.http2_turns import WORTH, Turns
from proxy.dataplane.leg import AHEAD
from proxy.dataplane.patience import Timer
from proxy.dataplane.request_reader import RequestReader
from proxy.dataplane.site import Site
from proxy.errors import BadRequest, Limit, OverLimit
from proxy.wire import reply
from proxy.wire.forwarding import HTTP2
from proxy.wire.http2 import FieldList, request_head, trailer_lines

_PIECE = 16_384  # bytes that are read before somebody looks what they were
_FREE_OVERHEAD = 65_536  # bytes of frames beside content that a client may say at once
_RESETS_AT_ONCE = 10  # seconds' worth: a window that is closed resets all that its tabs asked for
_LINGER = 2.0  # seconds for which the last words may take, as in `downstream`
_NEVER = float("inf")
_BROKEN = {DenialOfServiceError: Limit.HEAD, TooManyStreamsError: Limit.HTTP2_STREAMS}


class Host(StreamHost, Protocol):
    """What a connection needs of whoever owns all of them, and their streams."""

    def admitted(self, connection: Stream) -> None:
        """A stream has begun."""
        ...

    def http2_admitted(self, connection: "Http2Connection") -> None:
        """Whose a connection is, is known, and that it may be there."""
        ...

    def http2_left(self, connection: "Http2Connection") -> None:
        """A connection has ended."""
        ...


class Http2Connection(asyncio.Protocol):
    """A client connection, and the Carrier of its streams; a listener makes it, its host owns it."""

    leg: SharedLeg
    transport: asyncio.Transport

    def __init__(self, site: Site, host: Host, address: str = "", ticket: Ticket | None = None) -> None:
        """As `Downstream`."""
        self.site = site
        self.exchange: Exchange | None = None  # its streams have them
        self.deadline = _NEVER
        self.closing = False  # set when nothing more is read of it
        self.leaving = False  # set when it takes no further streams
        self._come_at = monotonic()
        self.streams: dict[int, Stream] = {}
        self.port = 0  # of its listener
        self.host = host
        self._address = address
        self._ticket = ticket
        self._reader = RequestReader(site)
        self._fresh: list[Stream] = []  # asked for in what is being read
        self._whole_by = _NEVER  # when a frame, or a block of fields, that has begun is to be whole
        resets, overhead = site.limits.http2_resets_per_second, site.limits.http2_overhead
        self._resets = Bucket(resets, _RESETS_AT_ONCE * resets)
        self._overhead = Bucket(overhead, _FREE_OVERHEAD)
        self._frames = Frames(site.limits, websockets=site.config.tls.http2_websockets)
        self._turns = Turns(self._frames, self._overhead, self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.leg = SharedLeg(self.transport)
        site = self.site
        site.stats.http2_connections += 1
        admitted = site.admit(self.transport, self._address, self._ticket, b"https", HTTP2, refusal)
        if admitted is None:
            self.closing = True
            return
        origin, self._ticket = admitted
        self._reader.come_from(origin)
        self.port = (transport.get_extra_info("sockname") or ("", 0))[1]
        self.host.http2_admitted(self)
        self.deadline = monotonic() + site.timeouts.head
        self.flush()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        now = monotonic()
        for at in range(0, len(data), _PIECE):
            if self.closing:
                return
            self._read(data[at : at + _PIECE], now)
        if not self.closing:
            self._turns.soon()

    def _read(self, piece: bytes, now: float) -> None:
        frames = self._frames
        try:
            found = frames.hear(piece)
        except ProtocolError as error:
            self._broken(error)
            return
        content = sum([self._take(event) for event in found])
        content += frames.progress.take_heads() + frames.take_ignored()
        fresh, self._fresh = self._fresh, []
        for stream in fresh:
            stream.begin()
        if not frames.progress.is_partial:
            self._whole_by = _NEVER
        elif found or self._whole_by == _NEVER:
            timeouts = self.site.timeouts
            self._whole_by = now + (timeouts.body if frames.progress.is_body else timeouts.head)
        if frames.progress.block > 2 * self.site.limits.head:
            self._over(Limit.HEAD)
        if not self._overhead.take(len(piece) - content * (1 + 1 / WORTH), now):
            self._over(Limit.HTTP2_OVERHEAD)

    # What the client says

    def _take(self, event: events.Event) -> int:
        """Act on an event; return how many of its bytes are of a body."""
        if self.closing:
            return 0
        if isinstance(event, events.DataReceived):
            return self._hear(event)
        if isinstance(event, events.RequestReceived):
            self._ask(event)
        elif isinstance(event, events.StreamEnded):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None and not stream.heard_all:
                stream.heard_end()
        elif isinstance(event, events.TrailersReceived):
            self._hear_trailers(event)
        elif isinstance(event, events.StreamReset):  # by the client, or by the library for what it did
            if (reset := self.streams.get(event.stream_id or 0)) is not None:
                self.left(reset)
            self._count_reset()
        elif isinstance(event, events.RemoteSettingsChanged):
            self._frames.use_settings()
        elif isinstance(event, events.ConnectionTerminated):
            self._client_leaves(event)
        return 0

    def _ask(self, event: events.RequestReceived) -> None:
        number, fields = event.stream_id or 0, event.headers or []
        if self.leaving:
            self._frames.reset(number, ErrorCodes.REFUSED_STREAM)  # section 8.7: it may be said again
            self._count_reset()
            return
        site, origin = self.site, self._reader.origin
        counted = site.count(origin)
        ticket = counted if isinstance(counted, Ticket) else None
        stream = self.streams[number] = Stream(site, self, number, self.transport, ticket)
        site.stats.http2_streams += 1
        self.host.admitted(stream)
        self.deadline = _NEVER
        if not isinstance(counted, Ticket):
            self._refuse(stream, LIMIT_REPLIES[counted], fields)
            return
        try:
            key = b64encode(os.urandom(16)) if site.config.tls.http2_websockets else b""
            head = request_head(fields, has_body=event.stream_ended is None, key=key)
            request, _ = self._reader.read(head)
        except (BadRequest, OverLimit) as error:
            site.stats.refused(error)
            self._refuse(stream, reply.error(error.status, error.reason), fields)
            return
        assert request is not None
        stream.ask(request)
        self._fresh.append(stream)

    def _refuse(self, stream: Stream, answer: reply.Reply, fields: FieldList) -> None:
        self.site.stats.answered("", b"", answer.status)
        stream.reply(answer, head_only=(b":method", b"HEAD") in fields)
        stream.ended(keep=True, linger=False)

    def _hear(self, event: events.DataReceived) -> int:
        data, size = event.data or b"", event.flow_controlled_length or 0
        self._frames.received(size)
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.hear(data, size)
        return len(data)

    def _hear_trailers(self, event: events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            try:
                stream.heard_end(trailer_lines(event.headers or []))
            except BadRequest:
                self.malformed(stream)

    def _count_reset(self) -> None:
        if not self._resets.take(1, monotonic()):
            self._over(Limit.HTTP2_RESETS)

    def _client_leaves(self, event: events.ConnectionTerminated) -> None:
        """GOAWAY: section 6.8, what it has asked for before may still be answered."""
        self._frames.client_leaves()
        self.leaving = True
        if event.error_code != ErrorCodes.NO_ERROR or not self.streams:
            self._end(ErrorCodes.NO_ERROR)

    # As Carrier

    def say_at_once(self, stream: Stream, fields: FieldList) -> None:
        """As Carrier."""
        if not stream.is_over:
            with suppress(ProtocolError):  # it was closed in what is being read
                self._frames.fields(stream.id, fields)
            self.flush()  # at once, so that it is seen whether the client takes them

    def has_more(self, stream: Stream) -> None:
        """As Carrier."""
        if not stream.is_over:
            self._turns.add(stream)

    def took(self, stream: Stream, size: int) -> None:
        """As Carrier."""
        if not (stream.heard_all or stream.is_over) and self._frames.took(stream.id, size):
            self._turns.soon()

    def break_off(self, stream: Stream) -> None:
        """As Carrier."""
        self._cancel(stream, ErrorCodes.INTERNAL_ERROR)

    def malformed(self, stream: Stream) -> None:
        """As Carrier."""
        self._cancel(stream, ErrorCodes.PROTOCOL_ERROR)
        self._count_reset()

    def _cancel(self, stream: Stream, error: ErrorCodes) -> None:
        """Reset a stream that is open."""
        if not self.closing:
            self._frames.reset(stream.id, error)
            self._turns.soon()
        self.left(stream)

    def left(self, stream: Stream) -> None:
        """As Speaker: a stream is over."""
        self.streams.pop(stream.id, None)
        self._turns.drop(stream)
        self._frames.left(stream.id)
        self.host.left(stream)
        stream.gone()
        if not self.streams and not self.closing:
            self.deadline = monotonic() + self.site.timeouts.idle
            if self.leaving:
                self._turns.soon()

    @property
    def may_speak(self) -> bool:
        """As Speaker."""
        return self.leg.writable and not self.closing

    def flush(self) -> None:
        """As Speaker."""
        data = self._frames.to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def all_said(self) -> None:
        """As Speaker: with the last stream goes a connection that takes no further ones."""
        if self.leaving and not self.streams and not self.closing:
            self._end(ErrorCodes.NO_ERROR)

    # Its own life

    def _broken(self, error: ProtocolError) -> None:
        """The client breaks the protocol: GOAWAY, which says why, waits to be sent."""
        stats, limit = self.site.stats, _BROKEN.get(type(error))
        if limit is not None:
            stats.limits[limit] += 1
        else:
            stats.http2_errors[ErrorCodes(error.error_code).name.lower()] += 1
        self._close()

    def _over(self, limit: Limit) -> None:
        """The client asks for more work than it may."""
        if not self.closing:
            self.site.stats.limits[limit] += 1
            self._end(ErrorCodes.ENHANCE_YOUR_CALM, limit.value.encode())

    def _end(self, error: ErrorCodes, why: bytes = b"") -> None:
        """Say that this is the end, and why."""
        if not self.closing:
            self._frames.end(error, why)
            self._close(linger=error is ErrorCodes.NO_ERROR)

    def _close(self, *, linger: bool = False) -> None:
        """Close after what is written; with `linger` when the client has it, which closes by itself then."""
        self.closing = True
        self.flush()
        for stream in list(self.streams.values()):
            self.left(stream)
        if not linger:
            self.transport.close()
        self.deadline = monotonic() + _LINGER

    def cut(self) -> None:
        """End at once; the client sees what was cut off."""
        is_whole = self.closing and not self.leg.has_unsent
        self.closing = True
        if is_whole:
            self.transport.close()
        else:
            self.leg.reset()

    def leave(self) -> None:
        """It takes no further streams, once it was heard, and ends with the last of those that are open."""
        if not self.streams and monotonic() < self._come_at + AGAIN:
            Timer(self.site.stood, AGAIN, self.leave)
        elif not (self.closing or self.leaving):
            self.leaving = True
            self._frames.take_no_more()
            self._turns.soon()

    @property
    def requests(self) -> int:
        """As Multiplexed."""
        return sum([stream.socket is None for stream in self.streams.values()])

    @property
    def waits_for_news(self) -> bool:
        """Whether all that is left of it are its streams, which speak for themselves."""
        return bool(self.streams)

    def forget(self) -> None:
        """As `Downstream`."""
        origin = self._reader.origin
        self._reader.come_from(self.site.origin(origin.address, origin.scheme, origin.peer, HTTP2))

    def tick(self, now: float) -> None:
        """Act when a time is over; called by the ticker."""
        timeouts, limits = self.site.timeouts, self.site.stats.limits
        if not self.leg.writable and self.leg.is_stuck(now, timeouts.write):
            limits[Limit.SLOW_READ] += 1
            self.cut()
        elif self.closing:
            if now >= self.deadline and not self.leg.is_taking(now, timeouts.write):
                (self.transport.abort if self.transport.is_closing() else self.transport.close)()
        elif now >= self._whole_by:
            self._over(Limit.SLOW_BODY if self._frames.progress.is_body else Limit.SLOW_HEAD)
        elif now >= self.deadline:
            limits[Limit.IDLE] += 1
            self._end(ErrorCodes.NO_ERROR)

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        self.deadline += gap
        self.leg.move_on(gap)
        self._whole_by += gap

    def pause_writing(self) -> None:
        """As asyncio.Protocol: a client that does not take what it is said is not heard meanwhile."""
        self.leg.fell_behind()
        self.leg.pause(AHEAD)
        for stream in self.streams.values():
            stream.leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.caught_up()
        self.leg.resume(AHEAD)
        for stream in list(self.streams.values()):
            stream.leg.look_again()
        self._turns.soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.closing = True
        for stream in list(self.streams.values()):
            self.left(stream)
        if self._ticket is not None:
            self._ticket.give_back()
        self.host.http2_left(self)

    def __repr__(self) -> str:
        return f"<Http2 {self._reader.origin.address} {list(self.streams.values())} leaving={self.leaving}>"
