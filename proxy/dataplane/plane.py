"""What all connections share: config, router, pools, counters, the ticker and the tasks.

The app creates one Plane and hands it what it needs; nothing here decides where a request goes (the
router does) or how a backend is (probes and `failed` observe, the fleet judges).
"""

import asyncio
import itertools
import logging
import math
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Paths
from proxy.affinity.health import Observation
from proxy.affinity.pace import Pace, time_for
from proxy.affinity.router import Locate, Located, Router
from proxy.borders import Border, Where, fault, guarded, held
from proxy.config import Config
from proxy.dataplane import requests
from proxy.dataplane.clients import REFUSALS, Clients, Rates, client_key
from proxy.dataplane.doors import Doors, raise_limit
from proxy.dataplane.linger import Lingers
from proxy.dataplane.locate import Locator
from proxy.dataplane.moves import Moves
from proxy.dataplane.pool import Pool
from proxy.dataplane.resuming import app_end
from proxy.dataplane.seen import Seen
from proxy.dataplane.shared_directory import SharedDirectory
from proxy.dataplane.stats import Stats
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import ConnectFailed, ConnectRefused, Limit, Odd, ProxyError, UpstreamClosed
from proxy.tls import Certificate
from proxy.wire.forwarding import UNIX, IPAddress, Origin, read_address

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.exchange import Exchange

log = logging.getLogger("proxy.dataplane")

_TICK = 0.5  # seconds: all deadlines are kept this well, none is shorter than a second
_SWEEP = 10  # ticks between two sweeps of the directory
_REPORT = 60.0  # seconds between two lines on limits
_COMMON = (Limit.IDLE, Limit.TUNNEL_IDLE)  # limits that everybody meets
_STEP = 0.1  # seconds between two looks at the tunnels while leaving
_LAST_CALL = 1.5  # seconds before the end in which nobody is waited for: a frame may take one to end
_MOST_ORIGINS = 1024  # addresses that are remembered
_LOOK = 2  # ticks between two looks at the files of the certificate


class Plane:
    """The data plane of one process; created by the app."""

    def __init__(
        self,
        config: Config,
        router: Router,
        access: Callable[["Exchange"], None] | None = None,
        suspect: Callable[[Backend], None] = lambda _: None,
    ) -> None:
        """`access` logs an exchange that has ended; `suspect` has a backend probed at once."""
        self.config = config
        self.timeouts = config.timeouts  # here and below: what every request looks at
        self.limits = config.limits
        self.router = router
        self.access = access
        self.suspect = suspect
        self.stats = Stats()
        self.seen = Seen()
        self._origins = lru_cache(_MOST_ORIGINS)(self._read_origin)
        self.paths = Paths(config.socketio_path, config.affinity.roots)
        self.locator = Locator(config.affinity, self.stats)
        self.timing = config.responses.timing
        self.cookie_name = config.affinity.cookie.name.encode()
        self.clients = Clients(config.limits)
        self.rates = Rates(config.limits) or None  # None: no request need be looked at
        self.connections: set[Downstream] = set()
        self.tunnels: set[Tunnel] = set()
        self.stood: Callable[[float], object] = lambda _now: None  # asked before deadlines are looked at
        self.leaving = False  # set when the process is to end: connections close after their exchange
        self._reported: dict[Limit, int] = dict(self.stats.limits)  # what the log has told
        self._reported_ids: dict[Odd, int] = dict(self.stats.odd_ids)
        self._report_next = 0.0
        self.certificate: Certificate | None = None  # of the TCP listeners; set by the app before `run`
        self._quiet = False  # set when, while leaving, no request is under way but long polls
        self._pools: dict[Backend, Pool] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.doors = Doors()
        self.moves = Moves(self)
        self.shared = SharedDirectory(router, self.moves.follow)
        self.lingers = Lingers(config.affinity.linger, config.affinity.linger_bytes)
        self.app_end = app_end(self.lingers)  # made once: what every tunnel of a session asks
        # Ids are unique among proxies by their random start and short to read.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 16)
        router.fleet.listen(guarded(Where.LISTENER, self._backend_changed))

    async def run(self, sockets: Sequence[socket.socket], client: Callable[..., asyncio.Protocol]) -> None:
        """Serve clients on bound sockets until cancelled; `client` makes the protocol of one connection.

        It is given the client's address where a PROXY header named it.
        """
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                context = self.certificate.context if self.certificate else None
                await self.doors.open(
                    sockets,
                    client,
                    self._descriptors(),
                    tls=context,
                    handshake=self.timeouts.head,
                    greets=self if self.config.forwarded.proxy_protocol else None,
                )
                await self._tick_forever()
            finally:
                with Border(Where.LEAVE):
                    self.doors.close()
                ends = [connection.abort for connection in self.connections]
                for end in (*ends, *[tunnel.cut for tunnel in self.tunnels], self.lingers.end_all):
                    with Border(Where.LEAVE):
                        end()
                for pool in self._pools.values():
                    pool.close_all()

    async def change(
        self, config: Config, sockets: Sequence[socket.socket], certificate: Certificate | None
    ) -> None:
        """Go by another configuration, on these bound sockets; what is open goes on."""
        self.config = config
        self.timeouts, self.limits = config.timeouts, config.limits
        self.paths.use(config.socketio_path, config.affinity.roots)
        self.locator.settings = config.affinity
        self.timing = config.responses.timing
        self.cookie_name = config.affinity.cookie.name.encode()
        self.clients.change(config.limits)
        self.rates = Rates(config.limits) or None
        for pool in self._pools.values():
            pool.connect_timeout, pool.idle_timeout = config.timeouts.connect, config.timeouts.pool_idle
            pool.show(named=config.responses.backend)
        self.seen.clear()
        self._origins.cache_clear()
        for connection in self.connections:
            connection.forget()
        self.lingers.seconds, self.lingers.most = config.affinity.linger, config.affinity.linger_bytes
        self.certificate = certificate
        context = certificate.context if certificate else None
        await self.doors.change(
            sockets,
            tls=context,
            handshake=self.timeouts.head,
            greets=self if config.forwarded.proxy_protocol else None,
        )

    def moved(self, backend: Backend) -> None:
        """A backend is somewhere else now: what is idle leads to where it was."""
        if backend in self._pools:
            self._pools[backend].close_idle(math.inf)

    def _descriptors(self) -> int:
        """How many file descriptors there are; say so if they are too few for `limits.connections`."""
        descriptors, wanted = raise_limit(), self.limits.connections
        if descriptors < 3 * wanted:
            log.info(
                "limits.connections is %d, but %d file descriptors are enough for %d: see ulimit -n",
                wanted,
                descriptors,
                descriptors // 3,
            )
        return descriptors

    async def leave(self, grace: float, stay: float = 0.0) -> None:
        """Take no new connections, let exchanges end and send tunnels away; at most `grace` seconds.

        Where another process has taken the ports over, tunnels go on for `stay` seconds before they leave.
        Cancel it to have the rest end at once.
        """
        since = monotonic()
        if await self.doors.hand_over() and stay:
            log.info("another process has taken over: websockets stay for at most %g s", stay)
            since += stay
        deadline = since + grace
        self.leaving = True
        self.lingers.seconds = 0.0  # nobody could come back to this process
        self.lingers.end_all()
        with Border(Where.LEAVE):
            self.doors.close()
        for connection in list(self.connections):
            with Border(Where.LEAVE):
                connection.leave()
        self._look_for_quiet()
        pace = Pace(since)
        while (self.tunnels or not self._quiet) and (now := monotonic()) < deadline:
            if now >= since:
                with Border(Where.LEAVE):
                    self._send_tunnels_away(pace, now, deadline)
            await asyncio.sleep(_STEP)
        for tunnel in list(self.tunnels):
            with Border(Where.LEAVE):
                tunnel.close()

    def _send_tunnels_away(self, pace: Pace, now: float, deadline: float) -> None:
        """A few of them; those whose app is asked or answers when there is no more time to let that end."""
        busy = [
            tunnel
            for tunnel in self.tunnels
            if tunnel.session and (tunnel.session.in_turn or not tunnel.is_silent(now))
        ]
        ready = list(self.tunnels.difference(busy))
        if not ready and deadline - now <= _LAST_CALL + time_for(len(busy)):
            ready = busy
        for tunnel in ready[: pace.allow(len(ready), now, deadline - _LAST_CALL)]:
            tunnel.send_away()

    def disconnected(self, connection: "Downstream") -> None:
        """A client connection has ended, or has become a tunnel."""
        self.connections.discard(connection)
        if self.leaving:
            self._look_for_quiet()

    def _look_for_quiet(self) -> None:
        if all(connection.waits_for_news for connection in self.connections):
            self._quiet = True

    def pools(self) -> list[Pool]:
        """Those that were used, for the metrics."""
        return list(self._pools.values())

    def pool(self, backend: Backend) -> Pool:
        """The pool of a backend, made at first use."""
        pool = self._pools.get(backend)
        if pool is None:
            connect, idle = self.timeouts.connect, self.timeouts.pool_idle
            pool = self._pools[backend] = Pool(backend, connect_timeout=connect, idle_timeout=idle)
            pool.show(named=self.config.responses.backend)
        return pool

    def origin(self, address: str, scheme: bytes = b"http") -> Origin:
        """Where the connections from an address come from, and whether it is trusted."""
        return self._origins(address, scheme)

    def _read_origin(self, address: str, scheme: bytes) -> Origin:
        ip = read_address(address)
        if ip is None:
            # Who may open a listener's socket file is a proxy here. Who has no address otherwise is nobody.
            return Origin(address, scheme, trusted=address == UNIX)
        return Origin(str(ip), scheme, self.trusts(ip))

    def trusts(self, address: IPAddress) -> bool:
        """Whether an address is that of a trusted proxy."""
        return any(address in network for network in self.config.forwarded.trusted)

    def counted_as(self, address: str) -> str:
        """What an address's requests are counted under; "" for trusted proxies that name no client."""
        return "" if self.origin(address).trusted else client_key(address)

    def turns_away(self, origin: Origin, transport: asyncio.Transport) -> bool:
        """Answer and close a new connection if it is one too many, and say so.

        Nothing is read of it and nothing kept: that has to stay cheap when there are thousands.
        """
        limit = self.clients.over(origin, len(self.connections) + len(self.tunnels))
        if limit is None:
            return False
        self.stats.limits[limit] += 1
        transport.write(REFUSALS[limit])
        transport.close()
        return True

    def spawn(self, work: Coroutine[None, None, None], give_up: Callable[[], None]) -> asyncio.Task[None]:
        """Run work that outlives the call; if it fails by a fault of ours, log it and `give_up`."""
        assert self._tasks is not None
        task = self._tasks.create_task(held(work, give_up))
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began
        return task

    def request_id(self) -> bytes:
        """A new request id."""
        return b"%x" % next(self._ids)

    async def locate(self, question: Locate, exchange: "Exchange") -> Located:
        """Ask the shared directory for a session, else which backend holds it, with this client's cookies.

        What the directory told is in ours when this returns.
        """
        if self.router.shared:
            known = await self.shared.find(question.session_id)
            if known or (question.is_new and known is not None):
                return None
        if not question.backends:
            return None
        pools = [self.pool(backend) for backend in question.backends]
        return await self.locator.ask(requests.locate_question(exchange, question.session_id), pools)

    def failed(self, backend: Backend, error: ProxyError) -> None:
        """Take note of what a connection to a backend met."""
        self.stats.upstream_errors[backend.name, type(error).__name__] += 1
        if isinstance(error, ConnectRefused):
            self.router.fleet.observe(backend, Observation.REFUSED, monotonic(), error.reason)
        elif isinstance(error, (ConnectFailed, UpstreamClosed)):
            self.suspect(backend)

    def open_tunnel(self, tunnel: Tunnel) -> None:
        """A connection has switched protocols."""
        self.tunnels.add(tunnel)
        self.stats.tunnels += 1
        if tunnel.engine is not None:
            tunnel.engine.tunnels += 1

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """A tunnel has ended."""
        self.tunnels.discard(tunnel)
        self.clients.left(tunnel.client)
        now = monotonic()
        if tunnel.session is not None:
            self.router.directory.closed(tunnel.session, now)
        if tunnel.engine is not None:
            tunnel.engine.tunnels -= 1
            self.router.engines.upgrade_ended(tunnel.engine, now)

    def _backend_changed(self, backend: Backend, _event: str) -> None:
        pool = self._pools.get(backend)
        if pool is not None and not backend.holds_pins:
            pool.close_all()
        if backend.gone:
            self._pools.pop(backend, None)

    async def _tick_forever(self) -> None:
        for tick in itertools.count():
            await asyncio.sleep(_TICK)
            now, border = monotonic(), Border(Where.TICK)
            with border:
                self.stood(now)
                await self.doors.look()
            for connection in list(self.connections):
                try:
                    connection.tick(now)
                except Exception as error:
                    self._broke(connection, connection.abort, error)
            for tunnel in list(self.tunnels):
                try:
                    if tunnel.tick(now):
                        self.stats.limits[Limit.TUNNEL_IDLE] += 1
                except Exception as error:
                    self._broke(tunnel, tunnel.cut, error)
            for pool in list(self._pools.values()):
                with border:
                    pool.close_idle(now)
            if self.certificate is not None and tick % _LOOK == 0:
                with border:
                    self.certificate.look()
            if tick % _SWEEP == 0:
                rates = [] if self.rates is None else [self.rates.sweep]
                for sweep in (self.router.sweep, self._report_limits, *rates):
                    with border:
                        sweep(now)

    def _broke(self, item: object, end: Callable[[], None], error: Exception) -> None:
        """The deadline of a connection or a tunnel could not be kept: nothing but its end is safe."""
        fault(Where.TICK, error, repr(item))
        with Border(Where.TICK):
            end()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes no client late."""
        for connection in self.connections:
            connection.deadline += gap
        for tunnel in self.tunnels:
            tunnel.deadline += gap

    def _report_limits(self, now: float) -> None:
        """Say why clients were refused lately: a service that refuses should not do so in silence."""
        if now < self._report_next:
            return
        news = {limit: count - self._reported[limit] for limit, count in self.stats.limits.items()}
        told = [f"{limit} {more}" for limit, more in news.items() if more and limit not in _COMMON]
        odd = {what: count - self._reported_ids[what] for what, count in self.stats.odd_ids.items()}
        if told:
            log.warning("clients were over limits: %s", ", ".join(told))
        named = [f"{what} {more}" for what, more in odd.items() if more]
        if named:
            log.warning("clients named odd ids and were refused: %s", ", ".join(named))
        if told or named:
            self._reported, self._reported_ids = dict(self.stats.limits), dict(self.stats.odd_ids)
            self._report_next = now + _REPORT

    def __repr__(self) -> str:
        return f"<Plane connections={len(self.connections)} tunnels={len(self.tunnels)}>"
