"""The pool of one backend: its idle kept connections, and all that are open.

`take` gives the connection that was idle for the shortest time; uvicorn closes one after 5 seconds, so
ours are given up before that. When the backend goes down every connection is closed at once, and with it
every tunnel and every waiting poll: their clients reconnect now and not after Engine.IO's 45 seconds. One
that only listens no more may be ending in order: what is open ends by itself, and if its process is gone it
does so at once.
"""

from math import inf
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.borders import Border, Where
from proxy.config import Config
from proxy.dataplane.leg import Leg
from proxy.dataplane.patience import Stood, never
from proxy.dataplane.stats import CONNECTS, Histogram
from proxy.dataplane.upstream import Upstream, connect
from proxy.errors import ConnectTimeout
from proxy.wire.engineio import OVERDUE
from proxy.wire.head import ResponseHead


class Passenger(Protocol):
    """What holds a connection to the backend beyond one exchange: a tunnel."""

    up: Leg  # the connection

    def backend_lost(self) -> None:
        """The backend is down, or out of service: end at once."""
        ...


class Pool:
    """Connections to one backend; owned by the data plane."""

    __slots__ = (
        "_all",
        "_idle",
        "backend",
        "connect_seconds",
        "connect_timeout",
        "extra",
        "frames_in",
        "frames_out",
        "heads",
        "idle_timeout",
        "passengers",
        "ping_overdue",
        "stood",
    )

    def __init__(
        self, backend: Backend, *, connect_timeout: float, idle_timeout: float, stood: Stood = never
    ) -> None:
        self.backend = backend
        self.stood = stood
        self.connect_timeout = connect_timeout  # seconds
        self.idle_timeout = idle_timeout  # seconds
        self.connect_seconds = Histogram(CONNECTS)  # of connections that were opened, for the metrics
        self.frames_in = self.frames_out = 0  # of websockets, from clients and from the backend
        self.ping_overdue = OVERDUE  # seconds after an Engine.IO ping; as the newest OPEN packet tells
        self.extra = b""  # as Keeper
        self.heads: dict[bytes, ResponseHead] = {}  # as Keeper
        self._idle: list[Upstream] = []  # the most recent last
        self._all: set[Upstream] = set()
        self.passengers: set[Passenger] = set()

    def show(self, config: Config) -> None:
        """What is added to responses from now on: who gave them, and that browsers come by HTTPS only."""
        named, seconds = config.responses.backend, config.tls.hsts if config.tls.is_on else 0
        self.extra = b"X-Chainlit-Backend: %b\r\n" % self.backend.name.encode() if named else b""
        if seconds:  # RFC 6797
            self.extra += b"Strict-Transport-Security: max-age=%d\r\n" % seconds
        self.heads.clear()

    def take(self) -> Upstream | None:
        """An idle connection that is still good, or None."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.is_fit:
                return upstream
            upstream.transport.abort()
        return None

    @property
    def has_idle(self) -> bool:
        """Whether a connection is idle: one that was opened besides need not be kept."""
        return bool(self._idle)

    async def connect(self) -> Upstream:
        """A new connection; raises as `upstream.connect`."""
        begun = monotonic()
        upstream = await self._connect()
        self.opened(upstream, begun)
        return upstream

    def opened(self, upstream: Upstream, begun: float) -> None:
        """There is a new connection, which took the time since `begun`."""
        self._all.add(upstream)
        self.connect_seconds.add(monotonic() - begun)

    async def _connect(self) -> Upstream:
        while True:
            stood = self.stood(monotonic())
            try:
                return await connect(self, self.backend, self.connect_timeout)
            except ConnectTimeout:
                if self.stood(monotonic()) == stood:
                    raise  # else it was we who were late: once more

    def freed(self, upstream: Upstream) -> None:
        """As Keeper."""
        if self.backend.gone:  # nobody looks after this pool any more
            upstream.transport.abort()
            return
        upstream.reused = True
        upstream.deadline = monotonic() + self.idle_timeout
        self._idle.append(upstream)

    def lost(self, upstream: Upstream) -> None:
        """As Keeper."""
        self._all.discard(upstream)
        if upstream in self._idle:
            self._idle.remove(upstream)

    def release(self, upstream: Upstream) -> None:
        """A tunnel takes the connection over: `lost` will not be called for it."""
        self._all.discard(upstream)

    def board(self, passenger: Passenger) -> None:
        """A tunnel goes through this backend."""
        self.passengers.add(passenger)
        self.backend.tunnels += 1

    def leave(self, passenger: Passenger) -> None:
        """A tunnel has ended."""
        if passenger in self.passengers:
            self.passengers.remove(passenger)
            self.backend.tunnels -= 1

    def close_idle(self, now: float) -> None:
        """Close what has been idle for long; called by the ticker."""
        for upstream in list(self._idle):
            if upstream.deadline <= now:
                self._idle.remove(upstream)
                upstream.transport.close()

    def let_end(self) -> None:
        """Nobody listens at the backend any more: what is open may go on, as long as its process is there."""
        self.close_idle(inf)
        for leg in [*(upstream.leg for upstream in self._all), *(rider.up for rider in self.passengers)]:
            with Border(Where.POOL):
                leg.ask_for_life()

    def close_all(self) -> None:
        """The backend is down: end everything that goes through it."""
        for upstream in list(self._all):
            with Border(Where.POOL):
                upstream.transport.abort()
        for passenger in list(self.passengers):
            with Border(Where.POOL):
                passenger.backend_lost()

    def __repr__(self) -> str:
        return (
            f"<Pool {self.backend.name} idle={len(self._idle)} open={len(self._all)}"
            f" tunnels={len(self.passengers)}>"
        )
