"""The data plane of one process, on top: listeners, connections, tunnels, the ticker and the way to leave.

The app creates one Plane, which makes the Site that its connections share and hands it down.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.router import Router
from proxy.borders import Border, Where, fault, guarded
from proxy.config import Config
from proxy.dataplane.acceptor import ConnectionFactory
from proxy.dataplane.clients import Ticket
from proxy.dataplane.connection import Connection, Multiplexed
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.evictions import Evictions
from proxy.dataplane.leaving import Leaving
from proxy.dataplane.listeners import Listeners, raise_limit
from proxy.dataplane.patience import Stood, all_is_read, never
from proxy.dataplane.record import Record
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import Limit
from proxy.tls import Certificates

log = logging.getLogger("proxy.dataplane")

_TICK = 0.5  # seconds: all deadlines are kept this well, none is shorter than a second
_SWEEP = 10  # ticks between two sweeps of the directory
_REPORT = 60.0  # seconds between two lines on limits
_COMMON = (Limit.IDLE, Limit.TUNNEL_IDLE)  # limits that everybody meets
_RENEW = 2  # ticks between two looks at the files of the certificate


class Plane:
    """The data plane of one process; created by the app."""

    def __init__(
        self,
        config: Config,
        router: Router,
        access: Callable[[Record], None] | None = None,
        suspect: Callable[[Backend], None] = lambda _: None,
        stood: Stood = never,
    ) -> None:
        """The rest is as in Site."""
        self.site = site = Site(config, router, access, suspect, stood)
        self.connections: set[Connection] = set()
        self.http2_connections: set[Multiplexed] = set()  # those of them that are in HTTP/2
        self.tunnels: set[Tunnel] = set()
        self.listeners = Listeners(site, self._connection)
        self.evictions = Evictions(site, self.connections, self.tunnels)
        site.shared.follow = self.evictions.follow
        site.hand_overs.far.redirect = self.evictions.redirect
        site.hand_overs.far.end = self.evictions.end_polls
        router.fleet.listen(guarded(Where.LISTENER, self._backend_changed))
        self.certificates: Certificates | None = None  # of the TCP listeners; set by the app before `run`
        self._leaving: Leaving | None = None  # set when the process is to end
        self._reported: dict[str, dict[str, int]] = {}  # what the log has told, by how
        self._report_next = 0.0

    def _connection(self, address: str, ticket: Ticket | None) -> Downstream:
        return Downstream(self.site, self, address, ticket)

    def _http2_connection(self) -> ConnectionFactory | None:
        """What makes a connection in HTTP/2, None while that is not offered."""
        if self.certificates is None or not self.site.config.tls.http2:
            return None
        from proxy.dataplane.http2 import Http2Connection  # noqa: PLC0415 - it brings h2, which others do not need

        return lambda address, ticket: Http2Connection(self.site, self, address, ticket)

    async def run(self, sockets: Sequence[socket.socket], plain: Collection[socket.socket] = ()) -> None:
        """Serve clients on bound sockets until cancelled; those that are `plain` only lead to TLS."""
        site = self.site
        async with asyncio.TaskGroup() as tasks:
            site.run_in(tasks)
            try:
                context = self.certificates.context if self.certificates else None
                greeted = site.config.forwarded.proxy_protocol
                self.listeners.http2 = self._http2_connection()
                await self.listeners.open(sockets, self._descriptors(), context, greeted=greeted, plain=plain)
                await self._tick_forever()
            finally:
                with Border(Where.LEAVE):
                    self.listeners.close()
                ends = [connection.cut for connection in self.connections]
                for end in (*ends, *[tunnel.cut for tunnel in self.tunnels], site.lingers.end_all):
                    with Border(Where.LEAVE):
                        end()
                for pool in site.pools():
                    pool.close_all()

    async def configure(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        certificates: Certificates | None,
        plain: Collection[socket.socket] = (),
    ) -> None:
        """Go by another configuration, on these bound sockets; what is open goes on."""
        self.site.configure(config)
        for connection in self.connections:
            connection.forget()
        self.certificates = certificates
        context = certificates.context if certificates else None
        greeted = config.forwarded.proxy_protocol
        self.listeners.http2 = self._http2_connection()
        await self.listeners.change(sockets, context, greeted=greeted, plain=plain)
        offered = {
            sock.getsockname()[1] for sock in set(sockets) - set(plain) if sock.family != socket.AF_UNIX
        }
        for multiplexed in list(self.http2_connections):  # they would go on for hours
            if self.listeners.http2 is None or multiplexed.port not in offered:
                multiplexed.leave()

    def _descriptors(self) -> int:
        """How many file descriptors there are; say so if they are too few for `limits.connections`."""
        descriptors, wanted, site = raise_limit(), self.site.limits.connections, self.site
        # A developer's own machine has no thousand users.
        is_private = site.router.sole and all(address.is_loopback for address in site.config.listen)
        if descriptors < 3 * wanted and not is_private:
            log.info(
                "only about %d clients can be connected at once (limits.connections is %d): raise `ulimit -n`"
                " to %d",
                descriptors // 3,
                wanted,
                3 * wanted,
            )
        return descriptors

    async def leave(self, grace: float, farewell: float = 0.0, stay: float = 0.0) -> None:
        """Have everybody leave; see `Leaving.run`."""
        self._leaving = leaving = Leaving(
            self.site, self.listeners, self.evictions, self.connections, self.tunnels
        )
        await leaving.run(grace, farewell, stay)

    def _backend_changed(self, backend: Backend, _event: str) -> None:
        if backend.health.refuses:
            self.evictions.let_polls_go(backend)

    # As Host of the connections

    def accepted(self, sock: socket.socket | None) -> None:
        """As Host."""
        self.listeners.accepted(sock)

    def admitted(self, connection: Connection) -> None:
        """As Host."""
        self.connections.add(connection)

    def left(self, connection: Connection) -> None:
        """As Host."""
        self.connections.discard(connection)

    def http2_admitted(self, connection: Multiplexed) -> None:
        """As Host."""
        self.http2_connections.add(connection)
        self.connections.add(connection)

    def http2_left(self, connection: Multiplexed) -> None:
        """As Host."""
        self.http2_connections.discard(connection)
        self.connections.discard(connection)

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """As Host."""
        self.tunnels.add(tunnel)

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """As Host."""
        self.tunnels.discard(tunnel)

    async def _tick_forever(self) -> None:
        for tick in itertools.count():
            await asyncio.sleep(_TICK)
            border = Border(Where.TICK)
            with border:
                self.site.stood(monotonic())
            await all_is_read()
            now = monotonic()
            with border:
                await self.listeners.reopen_if_room()
            for connection in list(self.connections):
                try:
                    connection.tick(now)
                except Exception as error:
                    self._broke(connection, connection.cut, error)
            for tunnel in list(self.tunnels):
                try:
                    limit = tunnel.tick(now)
                    if limit is not None:
                        self.site.stats.limits[limit] += 1
                except Exception as error:
                    self._broke(tunnel, tunnel.cut, error)
            for pool in list(self.site.pools()):
                with border:
                    pool.close_idle(now)
            if self.certificates is not None and tick % _RENEW == 0:
                with border:
                    self.certificates.reload_if_changed()
            if tick % _SWEEP == 0:
                site, rates = self.site, self.site.rates
                with border:
                    site.hand_overs.weigh(self.tunnels)
                sweeps = [
                    site.hand_overs.far.sweep,
                    site.router.sweep,
                    site.locator.sweep,
                    site.doorway.sweep,
                ]
                limits = [self._report_limits] if rates is None else [self._report_limits, rates.sweep]
                for sweep in (*sweeps, *limits):
                    with border:
                        sweep(now)

    def _broke(self, item: object, end: Callable[[], None], error: Exception) -> None:
        """The deadline of a connection or a tunnel could not be kept: nothing but its end is safe."""
        fault(Where.TICK, error, repr(item))
        with Border(Where.TICK):
            end()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes no client late."""
        if self._leaving is not None:
            self._leaving.move_on(gap)
        for connection in self.connections:
            connection.move_on(gap)
        for tunnel in self.tunnels:
            tunnel.move_on(gap)

    def _report_limits(self, now: float) -> None:
        """Say why clients were refused lately: a service that refuses should not do so in silence."""
        if now < self._report_next:
            return
        stats = self.site.stats
        counted: dict[str, dict[str, int]] = {
            "clients exceeded limits": {str(k): n for k, n in stats.limits.items() if k not in _COMMON},
            "clients were refused for malformed ids": {str(k): n for k, n in stats.odd_ids.items()},
            "clients broke rules of HTTP/2": dict(stats.http2_errors),
        }
        for what, counts in counted.items():
            before = self._reported.get(what, {})
            news = [f"{name} {more}" for name, n in counts.items() if (more := n - before.get(name, 0))]
            if news:
                log.warning("%s: %s", what, ", ".join(news))
                self._report_next = now + _REPORT
        self._reported = counted

    def __repr__(self) -> str:
        return f"<Plane connections={len(self.connections)} tunnels={len(self.tunnels)}>"
