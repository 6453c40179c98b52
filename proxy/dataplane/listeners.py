"""The listeners of the data plane, which shut for a while when file descriptors run out.

The kernel gives a new descriptor the lowest free number, so the number of an accepted connection tells how
many are open, for nothing. What is accepted may need a second one for its backend: so the listeners shut
while a quarter is left, and clients wait in the backlog instead of being served half. Without that libuv
accepts and closes whatever comes at the limit, and requests fail that are under way. A low number that is
free tells nothing: the listeners' own are, once they have shut. So the free ones are counted first.
"""

import asyncio
import fcntl
import logging
import os
import resource
import socket
import ssl
from collections.abc import Collection, Sequence
from functools import partial

from proxy import net
from proxy.dataplane.acceptor import Acceptor, ConnectionFactory, Greeting, Negotiated
from proxy.dataplane.clients import Ticket
from proxy.dataplane.plain import Answer, PlainClient
from proxy.dataplane.site import Site
from proxy.steering import steer_away
from proxy.wire.forwarding import UNIX

log = logging.getLogger("proxy.dataplane")

_KEPT = 4  # one in so many descriptors is kept for backends, probes and the admin listener
_REOPEN = 8  # one in so many of the limit has to be free beyond that before the listeners open again
_MOST_COUNTED = 4096  # descriptors: each costs a microsecond
_QUEUED = 0.1  # seconds in which what is queued is accepted
_HANDED_OVER = 0.5  # seconds: a connection that has begun is whole after a round trip or two
_ENOUGH = 1 << 20  # descriptors, where there is no hard limit


def raise_limit() -> int:
    """Let this process open as many descriptors as its hard limit allows; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


class Listeners:
    """Listeners that can stop accepting and go on later; owned by the Plane."""

    def __init__(self, site: Site, client: ConnectionFactory) -> None:
        """`client` makes the protocol of a connection."""
        self._site = site
        self._client = client
        self.http2: ConnectionFactory | None = None  # set by the owner while TLS offers it
        self._shut_at = 0  # descriptors: set when they open
        self._room = 0  # descriptors that have to be free below that before they open again
        self._sockets: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._greeted = False
        self._plain: frozenset[socket.socket] = frozenset()  # those that only lead to TLS
        self._plain_clients: set[PlainClient] = set()
        self.answer: Answer = lambda _: None  # as Owner of these; set by the app
        self.secure_port = 0  # as Owner; set while there is TLS
        self._begun = False  # set while it may accept: from `open` to `close`
        self._servers: dict[socket.socket, asyncio.Server | Acceptor] = {}
        self._greetings: set[Greeting] = set()  # connections that have not said whom they are for
        self.shut = False  # whether nothing is accepted for want of descriptors
        self.times_shut = 0
        self.times_opened = 0  # connections accepted, for the hand-over

    async def open(
        self,
        sockets: Sequence[socket.socket],
        descriptors: int,
        tls: ssl.SSLContext | None,
        *,
        greeted: bool,
        plain: Collection[socket.socket] = (),
    ) -> None:
        """Accept connections on bound sockets, with `tls` on those of TCP that are not `plain`.

        `descriptors` is how many this process may have open; `greeted` is as in `acceptor`.
        """
        self._begun = True
        self._shut_at = descriptors - descriptors // _KEPT
        self._room = min(descriptors // _REOPEN, _MOST_COUNTED)
        self._sockets = list(sockets)
        self._tls, self._greeted, self._plain = tls, greeted, frozenset(plain)
        self._find_secure_port()
        await self._serve()

    async def change(
        self,
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        *,
        greeted: bool,
        plain: Collection[socket.socket] = (),
    ) -> None:
        """Accept on these bound sockets from now on; the owner closes those that are not among them.

        Raises OSError if that cannot be done. A second call with what held before puts that back.
        """
        if not self._begun:  # it will open with what holds then, or never again
            return
        now = (tls, greeted, frozenset(plain))
        if now != (self._tls, self._greeted, self._plain):
            # A server keeps what it was made with; who waits in a socket's backlog stays there meanwhile.
            self._tls, self._greeted, self._plain = now
            self._close_servers()
        self._sockets = list(sockets)
        self._find_secure_port()
        if not self.shut:
            try:
                await self._serve()
            except BaseException:
                self.shut = True  # the ticker opens what is to be open then
                raise
        for sock in self._servers.keys() - set(sockets):
            self._servers.pop(sock).close()

    async def hand_over(self) -> bool:
        """Before the end: if another process listens on the same ports, have new connections go there.

        Return whether there is one.

        What the kernel has queued for a socket is lost when it closes. So it is told to queue nothing more
        here, and what it had queued is accepted meanwhile.
        """
        for newest in (True, False):
            shared = [sock for sock in self._sockets if steer_away(sock, newest=newest)]
            if not shared:
                return False
            await asyncio.sleep(_QUEUED)
            before = self.times_opened
            await asyncio.sleep(_HANDED_OVER)
            if self.times_opened == before:
                break  # otherwise it was ourselves who joined last
        return True

    async def _serve(self) -> None:
        # A server closes the socket it was given; what waits in the backlog stays with the one kept here.
        for sock in self._sockets:
            if sock in self._servers:
                continue
            local = sock.family == socket.AF_UNIX
            if self._greeted or (self._tls is not None and not local):
                plain = sock in self._plain
                self._servers[sock] = Acceptor(
                    self._site,
                    self,
                    sock.dup(),
                    self._plain_client if plain else self._secure_client,
                    None if plain else self._tls,
                    greeted=self._greeted,
                    greetings=self._greetings,
                )
            else:
                # What the listener is decides: a connection that was reset has no peer's name either.
                client = partial(self._client, UNIX if local else "", None)
                server = await net.serve(client, sock.dup())
                if not self._begun:  # it was closed meanwhile
                    server.close()
                    return
                self._servers[sock] = server

    def _find_secure_port(self) -> None:
        """Where plain requests are led to: the first listener with TLS."""
        secure = [each for each in self._sockets if each.family != socket.AF_UNIX and each not in self._plain]
        self.secure_port = secure[0].getsockname()[1] if secure else 0

    def _plain_client(self, address: str, ticket: Ticket | None) -> PlainClient:
        return PlainClient(self._site, self, address, ticket)

    def plain_came(self, connection: PlainClient) -> None:
        """As Owner."""
        if self._begun:
            self._plain_clients.add(connection)
        else:
            connection.cut()

    def _secure_client(self, address: str, ticket: Ticket | None) -> asyncio.Protocol:
        if self.http2 is None:
            return self._client(address, ticket)
        return Negotiated(self._client, self.http2, address, ticket)

    def plain_left(self, connection: PlainClient) -> None:
        """As Owner."""
        self._plain_clients.discard(connection)

    def accepted(self, sock: socket.socket | None) -> None:
        """A connection has been accepted: shut the listeners if its descriptor is one of the last."""
        self.times_opened += 1
        if not self._servers or sock is None or sock.fileno() < self._shut_at:
            return
        self.shut = True
        self.times_shut += 1
        log.warning("no longer accepting connections: %d file descriptors are in use", self._shut_at)
        self._close_servers()

    async def reopen_if_room(self) -> None:
        """Open shut listeners again if enough descriptors are free; called by the ticker."""
        if self.shut and self._has_room():
            log.warning("accepting connections again")
            self.shut = False
            await self._serve()

    def _has_room(self) -> bool:
        """Count free descriptors from the lowest number on; while few are, that is soon over."""
        lowest = 0
        for _ in range(self._room):
            try:
                free = fcntl.fcntl(self._sockets[0], fcntl.F_DUPFD_CLOEXEC, lowest)
            except OSError:
                return False
            os.close(free)
            if free >= self._shut_at:
                return False
            lowest = free + 1
        return True

    def close(self) -> None:
        """Accept nothing any more, and refuse what still comes."""
        self._begun = self.shut = False
        self._close_servers()
        for sock in self._sockets:
            sock.close()
        for greeting in list(self._greetings):
            greeting.close()
        for client in list(self._plain_clients):
            client.cut()

    def _close_servers(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def __repr__(self) -> str:
        return f"<Listeners {len(self._sockets)} shut={self.shut}>"
