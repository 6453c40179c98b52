"""Plain HTTP beside TLS: it leads to https, and answers what an authority asks for.

Nothing of it reaches a backend. One request on a connection is answered, and then it is closed. What is asked
for below `/.well-known/acme-challenge/` is answered from what is known of its last part (RFC 8555 section
8.3), everything else with 308, which keeps the method. The host of the new address is the one that was asked
for, if it has the form of one; its port is that of the TLS listener, and none for 443. Behind a forwarded
port, which shows in that 80 was asked for and ours is another, it is left out too. What came by https, as a
trusted proxy says, is led nowhere: it would come back for ever.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol, cast

from proxy.affinity.decision import Decision
from proxy.dataplane.clients import Ticket
from proxy.dataplane.dates import dated
from proxy.dataplane.leg import Leg
from proxy.dataplane.patience import Timer
from proxy.dataplane.record import Stream
from proxy.dataplane.request import Request
from proxy.dataplane.request_reader import RequestReader
from proxy.dataplane.site import Site
from proxy.errors import BadRequest, Limit, OverLimit
from proxy.wire import reply
from proxy.wire.head import RequestHead
from proxy.wire.reply import Reply

_CHALLENGES = "/.well-known/acme-challenge/"
_HOST = re.compile(rb"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_LINGER = 2.0  # seconds a client may go on sending after the answer
_HTTP, _HTTPS = 80, 443
_TWICE = (
    "this address leads to https, and the request came by https already: "
    "the proxy in front has to connect to the address with TLS"
)

Answer = Callable[[str], bytes | None]
"""What an authority is to read for a token; None: nothing is known of it."""


def answer_to(
    head: RequestHead, answer: Answer, own_port: int, secure_port: int, *, is_secure: bool = False
) -> Reply:
    """What a plain request is answered; the ports are those of this listener and of the one with TLS.

    `is_secure`: by a trusted proxy's word its client came by https. Led there it would come here again.
    """
    path = head.path.decode("ascii")
    if path.startswith(_CHALLENGES):
        text = answer(path.removeprefix(_CHALLENGES))
        return (
            reply.error(404, "not known") if text is None else Reply(200, text, b"application/octet-stream")
        )
    if is_secure:
        return reply.error(421, _TWICE)
    host = _HOST.fullmatch(head.fields.get(b"host") or b"")
    if host is None or not head.target.startswith(b"/"):
        return reply.error(400, "no Host that could be led to https")
    forwarded = host[2] in (None, b":80") and own_port != _HTTP
    port = b"" if secure_port == _HTTPS or forwarded else b":%d" % secure_port
    location = b"Location: https://%b%b%b\r\n" % (host[1], port, head.target)
    return Reply(308, b"", extra=location)


class Led:
    """As Record: a request that was answered here."""

    first_byte = 0.0
    bytes_in = 0
    error = ""

    def __init__(self, request: Request, answer: Reply) -> None:
        self.decision: Decision | None = None
        self.tunnel: Stream | None = None
        self.request = request
        self.status = answer.status
        self.bytes_out = len(answer.body)

    def __repr__(self) -> str:
        return f"<Led {self.request!r} {self.status}>"


class Owner(Protocol):
    """What a connection needs of the listeners."""

    answer: Answer
    secure_port: int

    def plain_came(self, connection: "PlainClient") -> None:
        """It is there, and has something to say."""
        ...

    def plain_left(self, connection: "PlainClient") -> None:
        """It has ended."""
        ...


class PlainClient(asyncio.Protocol):
    """One connection; made by the Listeners, which own it."""

    transport: asyncio.Transport
    _leg: Leg

    def __init__(self, site: Site, owner: Owner, address: str, ticket: Ticket | None) -> None:
        """`address` and `ticket` are as in Downstream."""
        self._site = site
        self._owner = owner
        self._address = address
        self._ticket = ticket
        self._buffer = bytearray()
        self._reader = RequestReader(site)
        self._timer: Timer | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._leg = Leg(self.transport)
        site = self._site
        admitted = site.admit(self.transport, self._address, self._ticket)
        if admitted is None:
            self._answered = True
            return
        origin, self._ticket = admitted
        self._reader.come_from(origin)
        self._timer = Timer(site.stood, site.timeouts.head, self._late)
        self._owner.plain_came(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self._answered:
            return
        self._buffer += data
        request = None
        try:
            request, _ = self._reader.read(self._buffer)
            if request is None:
                return
            self._count(request)
        except (BadRequest, OverLimit) as error:
            self._site.stats.refused(error)
            self._say(request, reply.error(error.status, error.reason, retry_after=error.retry_after))
            return
        _, own_port = (self.transport.get_extra_info("sockname") or ("", 0))[:2]
        owner, is_secure = self._owner, request.known.secure
        self._say(
            request,
            answer_to(request.head, owner.answer, own_port, owner.secure_port, is_secure=is_secure),
        )

    def _count(self, request: Request) -> None:
        """Raises OverLimit for a client that asks too often."""
        rates = self._site.rates
        over = None if rates is None else rates.over(request.known.client, request.started, opens=False)
        if over is not None:
            raise over

    def _say(self, request: Request | None, answer: Reply) -> None:
        """Answer, and close when the client has read it: what it still sends must not take it away."""
        self._answered = True
        self._buffer = bytearray()
        method = request.head.method if request else b""
        self._site.stats.answered("", method, answer.status)
        if request is not None and self._site.access is not None:
            self._site.access(Led(request, answer))
        request_id = request.id if request else b""
        self.transport.write(
            dated(answer.http1(request_id=request_id, close=True, head_only=method == b"HEAD"))
        )
        if not self._leg.finish():
            self.transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(self._site.stood, _LINGER, self.cut)

    def _late(self) -> None:
        self._site.stats.limits[Limit.SLOW_HEAD] += 1
        self.cut()

    def cut(self) -> None:
        """End it at once."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.caught_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ticket is not None:
            self._ticket.give_back()
        self._owner.plain_left(self)

    def __repr__(self) -> str:
        return f"<PlainClient {self._address} answered={self._answered}>"
