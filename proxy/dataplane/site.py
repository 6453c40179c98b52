"""What all connections share: the settings in effect, the router, the pools, counters and tasks.

A leaf: it knows no connection and no exchange. The Plane makes one and hands it down; nothing here decides
where a request goes (the router does) or how a backend is (probes and `report` observe, the fleet judges).
"""

import asyncio
import itertools
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from time import monotonic

from proxy.affinity.answers import answered
from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.claims import Claim
from proxy.affinity.decision import EngineSession
from proxy.affinity.evidence import Paths
from proxy.affinity.health import Observation
from proxy.affinity.router import Locate, Located, Router
from proxy.affinity.session import Session
from proxy.borders import Where, Work, guarded, held
from proxy.config import Config
from proxy.config.values import Locate as LocateMode
from proxy.dataplane import upstream_heads
from proxy.dataplane.arrivals import Arrivals
from proxy.dataplane.clients import Clients, Rates, Ticket, client_key, peer_of, refusal
from proxy.dataplane.cross_site import CrossSite
from proxy.dataplane.door import Door
from proxy.dataplane.hand_overs import HandOvers
from proxy.dataplane.head_cache import HeadCache, Known
from proxy.dataplane.linger import Ask, Lingers
from proxy.dataplane.locate import Locator
from proxy.dataplane.patience import Stood, never
from proxy.dataplane.pool import Pool
from proxy.dataplane.question import shown
from proxy.dataplane.record import Record
from proxy.dataplane.request import Request
from proxy.dataplane.shared_directory import SharedDirectory
from proxy.dataplane.stats import Stats
from proxy.errors import ConnectFailed, ConnectRefused, Limit, OverLimit, ProxyError, UpstreamClosed
from proxy.wire.deflate import Contexts
from proxy.wire.forwarding import (
    HTTP1,
    UNIX,
    IPAddress,
    Origin,
    client_address,
    read_address,
)
from proxy.wire.head import RequestHead

_MOST_ORIGINS = 8192  # addresses that are remembered


class Site:
    """Shared by all connections of one data plane; made by the Plane."""

    def __init__(
        self,
        config: Config,
        router: Router,
        access: Callable[[Record], None] | None,
        suspect: Callable[[Backend], None],
        stood: Stood = never,
    ) -> None:
        """`access` logs an exchange that has ended; `suspect` has a backend probed at once.

        `stood` tells how long this process stood still, and calls `move_on` of those who keep deadlines.
        """
        self.router = router
        self.access = access
        self.suspect = suspect
        self.stood = stood
        self.stats = Stats()
        self.heads = HeadCache()
        self.contexts = Contexts()
        self.cross_site = CrossSite()
        self.clients = Clients(config.limits)
        self.leaving = False  # set when the process is to end: connections close after their exchange
        self.lingers = Lingers(config.affinity, self.stats, stood)
        self.shared = SharedDirectory(router, stood)
        self.arrivals = Arrivals(router.fleet, stood)
        router.directory.arrival = self.arrivals.arrived
        self._pools: dict[Backend, Pool] = {}
        self._origins = lru_cache(_MOST_ORIGINS)(self._read_origin)
        self.loop: asyncio.AbstractEventLoop  # set when it runs
        self._tasks: asyncio.TaskGroup | None = None
        # Ids are unique among proxies by their random start and short to read.
        self._ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 16)
        self.paths = Paths(config.socketio_path, config.affinity.roots)
        self.locator = Locator(config.affinity, config.limits, self.stats, stood)
        # Websockets alone that have not connected, by sid: whether their CONNECT may be another one's.
        self.connecting: dict[bytes, bool] = {}
        self.hand_overs = HandOvers(self, config)
        self.doorway = Door(router, config.balance.queue, stood)
        self._use(config)
        for listener in (self._backend_changed, self.arrivals.backend_changed):
            router.fleet.listen(guarded(Where.LISTENER, listener))

    def _use(self, config: Config) -> None:
        self.config = config
        self.timeouts, self.limits = config.timeouts, config.limits  # here and below: what requests look at
        self.timing = config.responses.timing
        path = config.health.listen_path
        self.health_path = path.encode() if path else None
        self.cookie_name = config.affinity.cookie.name.encode()
        self._trusted = [
            (each.version, int(each.netmask), int(each.network_address)) for each in config.forwarded.trusted
        ]
        self._hops = config.forwarded.hops
        self.rates = Rates(config.limits) or None  # None: no request need be looked at
        self.door = self.doorway if config.balance.most_sessions else None  # the same
        self.doorway.queue.most = config.balance.queue
        engines = self.router.engines
        engines.most_packets, engines.most_bytes = config.limits.opening_frames, config.limits.opening_bytes

    def configure(self, config: Config) -> None:
        """Go by another configuration."""
        self._use(config)
        self.paths.use(config.socketio_path, config.affinity.roots)
        self.locator.configure(config.affinity, config.limits)
        self.clients.configure(config.limits)
        for pool in self._pools.values():
            pool.connect_timeout, pool.idle_timeout = config.timeouts.connect, config.timeouts.pool_idle
            pool.show(config)
        self.heads.clear()
        self._origins.cache_clear()
        self.lingers.configure(config.affinity)
        self.hand_overs.configure(config)

    # Tasks

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Work is spawned in this group."""
        self._tasks, self.loop = tasks, asyncio.get_running_loop()

    def spawn(self, work: Work, give_up: Callable[[], None]) -> asyncio.Task[None]:
        """Run work that outlives the call; if it fails by a fault of ours, log it and `give_up`."""
        assert self._tasks is not None
        return self._tasks.create_task(held(work, give_up))

    # Clients

    def origin(self, address: str, scheme: bytes = b"http", peer: str = "", protocol: str = HTTP1) -> Origin:
        """Where the connections from an address come from, and whether it is trusted; rest as in Origin."""
        return self._origins(address, scheme, peer, protocol)

    def _read_origin(self, address: str, scheme: bytes, peer: str, protocol: str) -> Origin:
        ip = read_address(address)
        peer = str(read_address(peer) or peer)
        if ip is None:
            # Who may open a listener's socket file is a proxy here. Who has no address otherwise is nobody.
            return Origin(address, scheme, address == UNIX, peer, protocol, self._hops)
        return Origin(str(ip), scheme, self.trusts(ip), peer, protocol, self._hops)

    def admit(
        self,
        transport: asyncio.Transport,
        address: str,
        waiting: Ticket | None,
        scheme: bytes = b"http",
        protocol: str = HTTP1,
        refuse: Callable[[Limit], bytes] = refusal,
    ) -> tuple[Origin, Ticket] | None:
        """Take a connection in that begins to speak a protocol, as its client's; None: it was ended.

        `address` is the client's, "" if that is the peer; `waiting` is the ticket that it had until now. One
        too many is told by `refuse`: nothing is read of it and nothing kept, which stays cheap for thousands.
        """
        if waiting is not None:
            waiting.give_back()
        self.stats.connections += 1
        peer = peer_of(transport)
        if not address:
            address = peer
            if not address:  # it has been reset: nobody knows who it was, and nobody waits for an answer
                transport.abort()
                return None
        origin = self._origins(address, scheme, "" if peer == address else peer, protocol)
        ticket = self.count(origin)
        if isinstance(ticket, Ticket):
            return origin, ticket
        transport.write(refuse(ticket))
        transport.close()
        return None

    def count(self, origin: Origin) -> Ticket | Limit:
        """Count a connection, or a stream of one, until its ticket is given back; else what it is over."""
        limit = self.clients.over(origin)
        if limit is None:
            return self.clients.arrived(origin)
        self.stats.limits[limit] += 1
        return limit

    def trusts(self, address: IPAddress) -> bool:
        """Whether an address is that of a trusted proxy."""
        version, number = address.version, int(address)
        for of_version, mask, network in self._trusted:  # ten times as quick as a network tells it
            if version == of_version and number & mask == network:
                return True
        return False

    def know(self, head: RequestHead, origin: Origin) -> Known:
        """Read the fields of a head. Raises OverLimit."""
        fields = head.fields
        if len(fields.lines) > self.limits.headers:
            raise OverLimit(Limit.HEADERS, "too many header fields", status=431)
        address, request_id, is_proxy = origin.address, None, origin.trusted
        if is_proxy:
            address, request_id = client_address(fields, origin, self.trusts), upstream_heads.given_id(fields)
            # Where they are counted, everybody may be in their networks.
            is_proxy = address == origin.address if origin.hops else self.origin(address).trusted
        client = "" if is_proxy else client_key(address)  # trusted proxies are nobody's client
        pins = self.config.affinity.cookie.enabled
        return Known(fields, origin, address, client, self.cookie_name, pins=pins, request_id=request_id)

    def request_id(self) -> bytes:
        """A new request id."""
        return b"%x" % next(self._ids)

    # Backends

    def pool(self, backend: Backend) -> Pool:
        """The pool of a backend, made at first use."""
        pool = self._pools.get(backend)
        if pool is None:
            connect, idle = self.timeouts.connect, self.timeouts.pool_idle
            pool = Pool(backend, connect_timeout=connect, idle_timeout=idle, stood=self.stood)
            self._pools[backend] = pool
            pool.show(self.config)
        return pool

    def pools(self) -> list[Pool]:
        """Those that were used."""
        return list(self._pools.values())

    def moved(self, backend: Backend) -> None:
        """A backend is somewhere else now: what is idle leads to where it was."""
        if backend in self._pools:
            self._pools[backend].close_idle(math.inf)

    def _backend_changed(self, backend: Backend, _event: str) -> None:
        pool = self._pools.get(backend)
        if pool is not None and not backend.holds_pins:
            if backend.health.refuses and backend.admin_state is not AdminState.MAINTENANCE:
                pool.let_end()
            else:
                pool.close_all()
        if backend.gone:
            self._pools.pop(backend, None)

    def report(self, backend: Backend, error: ProxyError) -> None:
        """Take note of what a connection to a backend met."""
        self.stats.upstream_errors[backend.name, type(error).__name__] += 1
        if isinstance(error, ConnectRefused):
            self.router.fleet.observe(backend, Observation.REFUSED, monotonic(), error.reason)
        elif isinstance(error, (ConnectFailed, UpstreamClosed)):
            self.suspect(backend)

    async def locate(self, question: Locate, request: Request) -> Located:
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
        asked = upstream_heads.locate_question(request, question.session_id, self.paths)
        remember = self.router.locate is not LocateMode.ALWAYS
        return await self.locator.ask(asked, pools, request.known.client, remember=remember)

    def owner_of(self, session: Session | None, backend: Backend, request: Request) -> Ask | None:
        """Who asks its instance whether a session is this client's; None: nobody need ask.

        Which CONNECT of a transport an instance has taken is known where one proxy has read them all. Where
        there are others, what is kept of a session is given to whom its instance would give its files.
        """
        is_one = not self.router.shared and self.router.locate is not LocateMode.ALWAYS
        if is_one or session is None or not self.lingers.may_know(session):
            return None
        asked = upstream_heads.locate_question(request, session.id, self.paths)

        async def ask(then: Callable[[bool], None]) -> None:
            found = False
            if asked is not None:
                with suppress(ProxyError):
                    found = await shown(self.pool(backend), asked[1], self.config.affinity.locate_timeout)
            then(found)

        return lambda then: self.spawn(partial(ask, then), partial(then, False))

    def taken(self, claim: Claim, engine: EngineSession | None, sid: bytes) -> Session | None:
        """An instance has taken a CONNECT on a websocket; None: or one that a POST has brought.

        That was for `engine`, if the websocket takes over from polls, or else for its `sid`.
        """
        polls = engine or self.router.engines.get(sid)
        said = polls is not None and (
            engine is None or polls.claim is not None or polls.connects_more or polls.decided
        )
        if said or self.connecting.get(sid, False):
            self.router.refused(claim)
            return None
        return self.router.taken(claim, monotonic())

    def doubt(self, sid: bytes) -> None:
        """A POST without a pin brings a CONNECT: whom the next answer is for, nobody knows."""
        if sid in self.connecting:
            self.connecting[sid] = True
        if (engine := self.router.engines.get(sid)) is not None:
            engine.connects_more = True

    def answered(self, engine: EngineSession, *, taken: bool) -> Session | None:
        """As `answers.answered`; of a CONNECT that came to another proxy, that is told."""
        if engine.claim is not None:
            return answered(self.router, engine, monotonic(), taken=taken)
        if not engine.decided:
            self.hand_overs.far.heard(engine, taken=taken)
        return None

    def __repr__(self) -> str:
        return f"<Site pools={len(self._pools)} {self.router!r}>"
