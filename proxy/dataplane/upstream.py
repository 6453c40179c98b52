"""One connection to a backend: reads responses, and hands them to whoever sent the request.

The pool creates it and owns it while idle; from `send` until the response is whole it belongs to its
*user* (an exchange, or a fetch). After 101 the user takes the transport and this protocol is done.
"""

import asyncio
import select
from typing import Protocol, cast

from proxy import net
from proxy.affinity.backend import Backend
from proxy.dataplane.dates import date_line
from proxy.dataplane.leg import Leg
from proxy.errors import BadResponse, BodyError, ProxyError, UpstreamClosed
from proxy.wire.body import CountedBody, Framer, UntilClose, response_body
from proxy.wire.head import ResponseHead, parse_response

_DONE = CountedBody(0)
_SWITCHES = b"HTTP/1.1 101 "
_MOST_KNOWN = 64  # heads of a second
CLOSED_AT_ONCE = "the backend closed the connection at once"
LONGEST_HEAD = 65536  # bytes of a response head: Chainlit's largest are chunked login cookies of some 10 KB


class User(Protocol):
    """Who sent the request."""

    def informed(self, head: ResponseHead) -> None:
        """A 1xx response came; the real one follows."""
        ...

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """101: the connection is the user's now; `rest` came behind the head."""
        ...

    def responded(self, head: ResponseHead, framer: Framer, data: bytes) -> None:
        """The head came, and with it `data` of the body; `framer.done` says whether that is all."""
        ...

    def received(self, data: bytes) -> None:
        """More of the body came; the framer's `done` says whether that is all."""
        ...

    def failed(self, error: ProxyError) -> None:
        """The response will not be whole. The connection is closed."""
        ...


class Keeper(Protocol):
    """Who is told when the connection is free again or gone."""

    heads: dict[bytes, ResponseHead]  # response heads that came lately, by their bytes
    extra: bytes  # lines that every response gets

    def freed(self, upstream: "Upstream") -> None:
        """The response is whole and the connection may serve another request."""
        ...

    def lost(self, upstream: "Upstream") -> None:
        """The connection is closed."""
        ...


class Upstream(asyncio.Protocol):
    """A connection to a backend."""

    __slots__ = (
        "_answered",
        "_buffer",
        "_framer",
        "_keep",
        "_keeper",
        "_method",
        "_readable",
        "deadline",
        "leg",
        "reused",
        "transport",
        "user",
    )

    leg: Leg
    transport: asyncio.Transport

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._answered = False  # whether anything came since the request was sent
        self._buffer = b""
        self._framer: Framer | None = None  # set while a body is read
        self._keep = False  # whether it serves another request after this one
        self._method = b""
        self._readable: select.poll | None = None  # set once it is kept: tells what has come and is not read
        self.user: User | None = None
        self.reused = False  # whether it was kept, so that the backend may have closed it before the request
        self.deadline = 0.0  # while idle: when it is closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self.leg = Leg(self.transport)

    def send(self, user: User, method: bytes, data: bytes) -> None:
        """Send a request's head, and what is there of its body, for `user`."""
        self.user = user
        self._method = method
        self._answered = False
        self.transport.write(data)

    @property
    def is_fit(self) -> bool:
        """Whether it may serve a request, while idle: it is open and nothing has come.

        The end of a connection is seen here before the event loop delivers it: what is then sent would be
        lost. One poll(2) costs half a microsecond.
        """
        if self.transport.is_closing():
            return False
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._readable.poll(0)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        user = self.user
        if user is None:
            # Nobody asked: whatever it is must never be taken for the next request's answer.
            self.transport.abort()
            return
        try:
            if self._framer is None:
                if not self._buffer and self._is_whole(user, data):
                    return
                self._head(user, data)
            else:
                self._body(user, self._framer, data)
        except BodyError as error:
            self._fail(BadResponse(error.reason))
        except ProxyError as error:
            self._fail(error)

    def _is_whole(self, user: User, data: bytes) -> bool:
        """Hand over what is one whole response with a known head: nearly every poll's is."""
        end = data.find(b"\r\n\r\n") + 4
        head = self._keeper.heads.get(data[:end])
        if head is None or head.size != len(data) - end or self._method == b"HEAD":
            return False
        self._keep = True
        self._framer = _DONE
        user.responded(head, _DONE, data[end:])
        self._finish()
        return True

    def _head(self, user: User, data: bytes) -> None:
        self._answered = True
        self._buffer = buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > LONGEST_HEAD:
                    raise BadResponse("response head too long")
                self._buffer = buffer
                return
            head = self._parse(buffer[: end + 4])
            buffer = buffer[end + 4 :]
            if head.status == 101:
                self._buffer = b""
                user.switched(head, buffer)
                return
            if head.status >= 200:
                break
            user.informed(head)
        self._buffer = b""
        framer = response_body(self._method, head.status, head.fields)
        self._keep = head.keeps_alive and not isinstance(framer, UntilClose)
        taken = framer.feed(buffer) if not framer.done else 0
        if taken < len(buffer):
            self._keep = False  # more than was asked for
            buffer = buffer[:taken]
        self._framer = framer
        user.responded(head, framer, buffer)
        if framer.done:
            self._finish()

    def _parse(self, raw: bytes) -> ResponseHead:
        """Parse a head; equal ones, of which a backend sends many in a second, only once.

        RFC 9110 section 6.6.1: a response without a Date gets that of its arrival. The head of a websocket
        has a key in it that never comes again.
        """
        if raw.startswith(_SWITCHES):
            return parse_response(raw[:-2] + self._keeper.extra + b"\r\n")
        known = self._keeper.heads
        head = known.get(raw)
        if head is None:
            dated = raw[:-2] + date_line() + b"\r\n"
            head = known.get(dated)
            if head is None:
                if len(known) >= _MOST_KNOWN:
                    known.clear()  # the date in them changes every second
                head = parse_response(raw)
                passed = raw if head.fields.dated or head.status < 200 else dated
                extra = self._keeper.extra if head.status >= 200 else b""
                if extra or passed is dated:
                    head = parse_response(passed[:-2] + extra + b"\r\n")
                known[passed] = head
        return head

    def _body(self, user: User, framer: Framer, data: bytes) -> None:
        taken = framer.feed(data)
        if taken < len(data):
            self._keep = False
            data = data[:taken]
        user.received(data)
        if framer.done:
            self._finish()

    def _finish(self) -> None:
        """The response is whole: the user has been told and has let go."""
        self.user = None
        self._framer = None
        leg = self.leg
        if leg.source is not None:
            leg.draw_from(None)
        if self._keep and leg.writable and not leg.holds and not self.transport.is_closing():
            self._keeper.freed(self)
        else:
            self.transport.abort()  # what is still to be sent, nobody waits for

    def _fail(self, error: ProxyError) -> None:
        user, self.user = self.user, None
        self.leg.draw_from(None)
        self.transport.abort()
        if user is not None:
            user.failed(error)

    @property
    def body_done(self) -> bool:
        """Whether the response being read is whole."""
        return self._framer is None or self._framer.done

    def spoil(self) -> None:
        """The request was not sent whole: the connection serves no other."""
        self._keep = False

    def abandon(self, user: User) -> None:
        """The user wants no more of this response; nothing happens if it is another's by now."""
        if self.user is user:
            self.user = None
            self.leg.draw_from(None)
            self.transport.abort()

    def eof_received(self) -> bool:
        """As asyncio.Protocol: the end of the connection is the end of an UntilClose body."""
        framer, user = self._framer, self.user
        if isinstance(framer, UntilClose) and user is not None:
            framer.done = True
            user.received(b"")
            self.user = None
            self.leg.draw_from(None)
        elif user is not None:
            self._fail(self._closed())  # now: the transport itself waits until all is written
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._keeper.lost(self)
        if self.user is not None:
            self._fail(self._closed())

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.caught_up()

    def _closed(self) -> UpstreamClosed:
        reason = "the backend closed the connection before its response was whole"
        return UpstreamClosed(reason, reused=self.reused and not self._answered)

    def __repr__(self) -> str:
        state = "idle" if self.user is None else "reading a body" if self._framer else "waiting"
        return f"<Upstream {state} reused={self.reused}>"


async def connect(keeper: Keeper, backend: Backend, timeout: float) -> Upstream:  # noqa: ASYNC109
    """A new connection to a backend within `timeout` seconds; raises as `net.connect`, and UpstreamClosed."""
    upstream = await net.connect(
        lambda: Upstream(keeper), backend.host, backend.port, timeout, backend.tls, backend.path
    )
    if upstream.transport.is_closing():  # it would neither take a request nor tell that it is lost
        raise UpstreamClosed(CLOSED_AT_ONCE)
    return upstream
