"""Listeners that have something to do before HTTP begins: a TLS handshake, or the PROXY header.

A connection counts for `limits` from when it was accepted, so that silent ones are no way round them.

With `forwarded.proxy_protocol` each connection of an address in `forwarded.trusted`, and each on a unix
socket, has to begin with a PROXY header within `timeouts.head`; without one it is closed, for nobody would
know whose it is. Anybody else speaks HTTP at once, and is refused with a header as with any other bytes that
are no request. The header is taken off the socket before the event loop has it, byte for byte, so that what
follows may be TLS.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Protocol, cast

from proxy.dataplane.clients import Ticket, refusal
from proxy.dataplane.dates import dated
from proxy.dataplane.patience import Timer, within
from proxy.dataplane.site import Site
from proxy.errors import Limit
from proxy.wire import reply
from proxy.wire.forwarding import HTTP2, UNIX
from proxy.wire.proxy_protocol import LONGEST, ProxyHeaderError, read_proxy_header

log = logging.getLogger("proxy.dataplane")

ConnectionFactory = Callable[[str, Ticket | None], asyncio.Protocol]
"""Makes the protocol of a connection, from its client's address if the listener knows it, and its ticket."""

_AT_ONCE = 64  # connections accepted in one turn of the loop, so that others have theirs
_PAUSE = 0.5  # seconds without accepting after the system had no descriptor for us
_NEVER = 1e6  # seconds: the loop's own time for a handshake, which would run on while this process stands
_REPORT = 60.0  # seconds between two lines on connections without a header

_REFUSAL = reply.error(400, "a connection of a trusted proxy has to begin with a PROXY header").http1(
    close=True
)
"""What a trusted peer is told that says something else; on a TLS listener it could not read it."""


class Negotiated(asyncio.Protocol):
    """A connection until its TLS handshake is over: what is spoken then was agreed on in it (ALPN).

    Who agrees on nothing speaks HTTP/1.1 (RFC 9113 section 3.2).
    """

    def __init__(
        self, http1: ConnectionFactory, http2: ConnectionFactory, address: str, ticket: Ticket | None
    ) -> None:
        """Both make the protocol that takes its place."""
        self._http1 = http1
        self._http2 = http2
        self._address = address
        self._ticket = ticket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        session = transport.get_extra_info("ssl_object")  # None on a unix socket
        is_http2 = session is not None and session.selected_alpn_protocol() == HTTP2
        make = self._http2 if is_http2 else self._http1
        protocol = make(self._address, self._ticket)
        connection = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        connection.set_protocol(protocol)
        try:
            protocol.connection_made(transport)
        except Exception:
            connection.abort()  # the loop, which is told, leaves it open
            raise


class Host(Protocol):
    """Who made an acceptor."""

    def accepted(self, sock: socket.socket | None) -> None:
        """A connection has been accepted."""
        ...


class Acceptor:
    """Accepts the connections of one listening socket; made by the Listeners, which close it."""

    def __init__(
        self,
        site: Site,
        host: Host,
        sock: socket.socket,
        client: ConnectionFactory,
        tls: ssl.SSLContext | None,
        *,
        greeted: bool,
        greetings: "set[Greeting]",
    ) -> None:
        """`greeted`: connections of trusted peers begin with a PROXY header.

        Those whose header is awaited are among `greetings`, and stay when this accepts no more.
        """
        self.site = site
        self.tls = None if sock.family == socket.AF_UNIX else tls
        self.greetings = greetings
        self._host = host
        self._sock = sock
        self._client = client
        self._greeted = greeted
        self._loop = asyncio.get_running_loop()
        self._report_next = 0.0
        self._wakes: asyncio.TimerHandle | None = None  # set while nothing is accepted
        self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be accepted: %s", error.strerror)
                self._loop.remove_reader(self._sock)
                self._wakes = self._loop.call_later(_PAUSE, self._loop.add_reader, self._sock, self._accept)
                return
            sock.setblocking(False)
            self._begin(sock, UNIX if self._sock.family == socket.AF_UNIX else str(peer[0]))
            self._host.accepted(sock)
            if self._sock.fileno() < 0:
                return  # that was one of the last descriptors: the listeners have shut

    def _begin(self, sock: socket.socket, address: str) -> None:
        origin = self.site.origin(address)
        ticket = self.site.count(origin)
        if not isinstance(ticket, Ticket):
            self.dismiss(sock, refusal(ticket))
        elif self._greeted and origin.trusted:
            self.greetings.add(Greeting(self, sock, address, ticket))
        else:
            self.admit(sock, address, ticket)

    def dismiss(self, sock: socket.socket, answer: bytes) -> None:
        """Say why, where it can be read, and close."""
        if self.tls is None:
            with suppress(OSError):
                sock.recv(LONGEST)  # unread bytes would reset the connection and take the answer away
            with suppress(OSError):
                sock.send(answer)
        sock.close()

    def admit(self, sock: socket.socket, client: str, ticket: Ticket) -> None:
        """Let HTTP begin, with TLS before it where the listener has it."""
        self.site.spawn(partial(self._admit, sock, client, ticket), sock.close)

    async def _admit(self, sock: socket.socket, client: str, ticket: Ticket) -> None:
        try:
            if self.tls is None:
                await self._loop.connect_accepted_socket(lambda: self._client(client, ticket), sock)
            else:
                async with within(self.site.timeouts.head, self.site.stood):
                    await self._loop.connect_accepted_socket(
                        lambda: self._client(client, ticket),
                        sock,
                        ssl=self.tls,
                        ssl_handshake_timeout=_NEVER,
                    )
        except TimeoutError:  # its time for the handshake was up
            self.site.stats.limits[Limit.SLOW_HEAD] += 1
            sock.close()
        except OSError:
            sock.close()  # it has gone, or speaks no TLS: nobody is left to be told
        finally:
            ticket.give_back()

    def refused(self, peer: str, why: str) -> None:
        """A trusted peer did not say whom it is for."""
        self.site.stats.proxy_headers_refused += 1
        now = monotonic()
        if now >= self._report_next:
            self._report_next = now + _REPORT
            log.warning("%s sent no valid PROXY header: %s; see forwarded.proxy_protocol", peer, why)

    def close(self) -> None:
        """Accept nothing more."""
        if self._wakes is not None:
            self._wakes.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def __repr__(self) -> str:
        return f"<Acceptor greetings={len(self.greetings)}>"


class Greeting:
    """A connection of a trusted peer until its header is whole; owned by its Acceptor."""

    __slots__ = ("_acceptor", "_begun", "_loop", "_peer", "_sock", "_ticket", "_timer")

    def __init__(self, acceptor: Acceptor, sock: socket.socket, peer: str, ticket: Ticket) -> None:
        self._acceptor = acceptor
        self._sock = sock
        self._peer = peer
        self._ticket = ticket
        self._begun = b""  # of the header, taken off the socket
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(acceptor.site.stood, acceptor.site.timeouts.head, self._late)
        self._loop.add_reader(sock, self._read_header)

    def _read_header(self) -> None:
        try:
            # Only looked at: what stands behind the header is for those who come after us.
            data = self._sock.recv(LONGEST, socket.MSG_PEEK)
            if not data:
                self.close()  # a load balancer that looks whether somebody listens
                return
            header = read_proxy_header(self._begun + data)
            mine = len(data) if header is None else header.length - len(self._begun)
            self._begun += self._sock.recv(mine)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._end()
            self._acceptor.admit(self._sock, header.client or self._peer, self._ticket)

    def _late(self) -> None:
        self._acceptor.refused(self._peer, "it did not come in time")
        self.close()

    def _refuse(self, why: str) -> None:
        self._acceptor.refused(self._peer, why)
        self._end()
        self._ticket.give_back()
        self._acceptor.dismiss(self._sock, dated(_REFUSAL))

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._acceptor.greetings.discard(self)

    def close(self) -> None:
        """Let the connection go."""
        self._end()
        self._ticket.give_back()
        self._sock.close()
