"""The composition root: makes the parts of one proxy process, joins them, and ends them in order.

`serve` and `run` are one App; with a supervisor the fleet is its replicas, and the directory is complete,
because no session can exist that did not come through here.
"""

import asyncio
import gc
import importlib
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from proxy import net
from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.placement import Placement
from proxy.affinity.router import Router
from proxy.affinity.standstill import Standstill
from proxy.borders import Border, Where, fault, kept, on_loop_error
from proxy.changes import Changes, beat
from proxy.config import Address, AffinitySettings, BackendSettings, Config, Shared
from proxy.controlplane.drains import Drains
from proxy.controlplane.events import EventKind as Told
from proxy.controlplane.events import EventLog
from proxy.controlplane.probes import Prober
from proxy.controlplane.rebalance import Rebalance
from proxy.dataplane.fetch import ask
from proxy.dataplane.plane import Plane
from proxy.dataplane.record import Record
from proxy.logs import AccessLog
from proxy.members import Members, trusted, warn_of_names
from proxy.metrics import ProxyCollector
from proxy.output import lines_dropped
from proxy.reload import Reloads
from proxy.replicas import EventKind, ReplicaEvent, ReplicaState, Supervisor
from proxy.rollout import Rollout, RolloutStatus
from proxy.tls import Certificate, Trust
from proxy.tracing import Spans

if TYPE_CHECKING:
    from proxy.controlplane.admin import AdminServer
    from proxy.controlplane.looking import Sights
    from proxy.controlplane.operations import Operations

log = logging.getLogger("proxy")

_CLIENTS_FIRST = 1.0  # seconds that the admin listener's framework is not loaded, unless clients are served
_PROBE_START = 1.0  # seconds a first probe may take beyond its timeout, on a machine that is busy starting


class App:
    """One proxy process."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        """`read` reads the configuration again, where it comes from a file; it raises ConfigError."""
        self.config = config
        health = config.health
        self.fleet = Fleet(
            HealthRules(fall=health.fall, rise=health.rise, evict_after=health.evict_after),
            *(secret.get_secret_value().encode() for secret in config.affinity.secret or ()),
        )
        self.events = EventLog()
        self.standstill = Standstill()
        self.changes = Changes(self.fleet, self.events)  # told first, so that lost sessions still count
        directory = Directory(config.affinity.directory.size, config.affinity.session_timeout)
        placement = Placement(config.balance.bound, config.balance.slow_start)
        self.router = Router(self.fleet, directory, placement, config.affinity.locate)
        self.access = AccessLog(config.log) if config.log.access else None
        self.spans = Spans(config.otel) if config.otel.endpoint else None
        self.plane = Plane(config, self.router, self.exchange_listener(), self._suspect, self.standstill.look)
        self.share_directory(config.affinity)
        if config.tls.cert is not None and config.tls.key is not None:
            self.plane.certificate = Certificate(config.tls.cert, config.tls.key)
        self.drains = Drains(
            self.fleet,
            self.plane.evictions,
            patience=config.timeouts.drain,
            shared=config.sessions.shared is Shared.TRUE,
            emptied=self._emptied,
            stood=self.standstill.look,
        )
        self.rebalance = Rebalance(self.fleet, placement, self.plane.evictions, on=config.balance.rebalance)
        self.reloads = Reloads(self, read)
        self.members = Members(self)
        sources, stood = self.members.sources, self.standstill
        self.collector = ProxyCollector(self.plane, self.drains, self.reloads, sources, lines_dropped, stood)
        self.prober = Prober(
            self.fleet, health, config.socketio_path[0], ask, self.collector.probed, stood.look
        )
        for move_on in (self.fleet.stood, self.drains.move_on, self.plane.move_on):
            stood.listen(move_on)
        self.members.configure(trusted(config.backends), config.discovery)
        warn_of_names(config)
        self.listening: dict[Address, socket.socket] = {}  # bound, by what is configured
        self.inherited = net.Inherited({})  # nothing, until `bind` looks
        self.rollout: Rollout | None = None  # set where the backends are replicas of ours
        self._supervisor: Supervisor | None = None
        self._serving = asyncio.Event()  # set when clients are served
        self._leaving = asyncio.Event()
        self._admin: socket.socket | None = None
        self._admin_server: AdminServer | None = None  # set while it serves
        self._tasks: asyncio.TaskGroup | None = None  # set while it runs
        self._last_steps: asyncio.Task[None] | None = None  # set while it leaves
        self._hurries = False  # set when it was told to end a second time

    def exchange_listener(self) -> Callable[[Record], None] | None:
        """Who is told of each exchange that has ended; None: nobody."""
        listeners = [each for each in (self.access, self.spans) if each is not None]
        if not listeners:
            return None

        def tell(record: Record) -> None:
            for listener in listeners:
                try:
                    listener(record)
                except Exception as error:  # its errors stay its own: the client has its answer
                    fault(Where.LISTENER, error, f"{type(listener).__name__} cannot tell of a request")

        return tell

    def supervise(self, supervisor: Supervisor) -> None:
        """The fleet is the replicas of a supervisor that has been prepared."""
        self._supervisor = supervisor
        tell = partial(self.events.record, Told.ROLLOUT)
        self.rollout = Rollout(supervisor, self.fleet, self.drains, tell)
        self.router.sole = True
        self.prober.own_replicas = True
        now = monotonic()
        for replica in supervisor.replicas:
            host, port = _host_port(replica.url)
            self.fleet.add(replica.name, host, port, now=now).starting = True

    def replica_event(self, event: ReplicaEvent) -> None:
        """Something happened to a replica: the fleet hears of it at once."""
        replica = event.replica
        backend = self.fleet.get(replica.name)
        log.log(
            logging.INFO if event.kind in {EventKind.READY, EventKind.RETIRED} else logging.WARNING,
            "%s %s",
            replica.name,
            event.text,
        )
        self.events.record(Told.REPLICA, event.text, replica.name, event.lines)
        now = monotonic()
        if backend is None and event.kind is EventKind.READY:
            backend = self.fleet.add(replica.name, *_host_port(replica.url), now=now)
            self.prober.watch(backend)
        if backend is None:
            return
        backend.pid = replica.pid
        backend.starting = backend.starting and event.kind is not EventKind.READY
        if event.kind is EventKind.RETIRED:
            self.fleet.remove(backend)
            return
        if event.kind is EventKind.READY:
            self.fleet.move(backend, *_host_port(replica.url))
            self.fleet.observe(backend, Observation.ANSWERED, now)
            self.prober.suspect(backend)
            supervisor = self._supervisor
            if supervisor and all(other.state is ReplicaState.READY for other in supervisor.replicas):
                log.info(
                    "all %d replicas are ready: open %s", len(supervisor.replicas), self._public_address()
                )
        else:
            self.fleet.observe(backend, Observation.ENDED, now, f"the process {event.text}")

    def share_directory(self, settings: AffinitySettings) -> None:
        """Share the directory with other proxies, or do not."""
        redis = settings.directory.redis
        self.plane.site.shared.use(redis.get_secret_value() if redis else None)

    def add_backend(self, settings: BackendSettings, tls: Trust | None) -> None:
        """A backend that is configured or was found comes to the fleet."""
        backend = self.fleet.add(
            settings.name,
            settings.host,
            settings.port,
            path=settings.path,
            weight=settings.weight,
            now=monotonic(),
            tls=tls,
        )
        self.prober.watch(backend)

    def _emptied(self, backend: Backend) -> None:
        """A drained backend has no sessions any more: one that was to leave the fleet does."""
        drain = self.drains.get(backend)
        if drain is not None:
            text = f"is drained: {drain.sent_away} sessions were sent away, {drain.forced} while answering"
            self.events.record(Told.DRAIN, text, backend.name)
        if backend.leaving:
            self.fleet.remove(backend)

    def _public_address(self) -> str:
        return self._address(next(iter(self.listening.values()))).replace("//0.0.0.0:", "//localhost:")

    def _address(self, sock: socket.socket) -> str:
        return net.bound_address(sock, secure=self.plane.certificate is not None)

    def bind(self) -> None:
        """Take all ports, or none; those that the service manager opened from it. Raises ListenError."""
        self.inherited = net.Inherited()
        self.inherited.refuse_others([*self.config.listen, self.config.admin.listen])
        try:
            for address in self.config.listen:
                self.listening[address] = self.inherited.open(address, shared=self.config.reuse_port)
            self._admin = self.inherited.open(self.config.admin.listen)
        except net.ListenError:
            for sock in self.listening.values():
                sock.close()
            raise

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then leave within `timeouts.shutdown`; a second one ends at once.

        SIGHUP reads the configuration again, and has replicas replaced by new ones. Raises ReplicaError when
        the supervised app cannot be started.
        """
        # What was made to load the program lives for ever: the garbage collector need not look at it again.
        gc.freeze()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                running = [
                    tasks.create_task(kept(partial(beat, self.standstill))),
                    tasks.create_task(kept(self.prober.run)),
                    tasks.create_task(kept(self.drains.run)),
                    tasks.create_task(kept(self.rebalance.run)),
                    tasks.create_task(kept(self.plane.site.shared.run)),
                    tasks.create_task(kept(self._serve_admin)),
                    tasks.create_task(kept(self.members.run)),
                ]
                await self.members.first()
                if self._supervisor is None and len(self.fleet):
                    await self._meet_backends()
                serving = self.plane.run(list(self.listening.values()))
                running.append(tasks.create_task(serving))
                self._serving.set()
                supervision = tasks.create_task(self._supervisor.run()) if self._supervisor else None
                log.info(
                    "listening on %s, admin on %s, %d backends",
                    ", ".join(map(self._address, self.listening.values())),
                    net.bound_address(self._admin) if self._admin else "-",
                    len(self.fleet),
                )
                await self._leaving.wait()
                log.info("leaving")
                self.changes.leaving = True
                self._last_steps = tasks.create_task(self._leave())
                if self._hurries:
                    self._last_steps.cancel()
                await asyncio.wait([self._last_steps])
                self.events.close()
                if self._supervisor and supervision:
                    self._supervisor.stop()
                    await asyncio.wait([supervision])
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._tasks = None
            if self.access is not None:
                self.access.flush()
            if self.spans is not None:
                self.spans.close()

    async def _leave(self) -> None:
        timeouts = self.config.timeouts
        with Border(Where.LEAVE):
            await self.plane.leave(timeouts.shutdown, timeouts.farewell, timeouts.hand_over)

    async def _meet_backends(self) -> None:
        """Know how the backends are before the first request: it may be for a session that lives on one.

        Clients wait in the listeners' backlog meanwhile, for a silent backend at most `health.timeout`.
        """
        try:
            async with asyncio.timeout(self.config.health.timeout + _PROBE_START):
                await self.prober.met_all.wait()
        except TimeoutError:
            log.warning("not all backends could be probed")

    async def _serve_admin(self) -> None:
        # The framework takes longer to load than most of the rest, and clients need not wait for it: it is
        # loaded beside them once they are served, or would be if discovery had found a backend.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._serving.wait(), _CLIENTS_FIRST)
        await asyncio.to_thread(importlib.import_module, "proxy.controlplane.admin")
        from proxy.controlplane.admin import AdminServer, admin_app  # noqa: PLC0415
        from proxy.scrape import Scrape  # noqa: PLC0415

        scrape = Scrape(self.collector.collect)
        app = admin_app(self.operations(), self.sights(), scrape, self.admin_token)
        while True:  # another round for each address that it moves to
            assert self._admin is not None
            self._admin_server = AdminServer(app, self._admin, self.events.hang_up)
            await self._admin_server.run()

    def operations(self) -> "Operations":
        """What the API acts on."""
        from proxy.controlplane.operations import Operations  # noqa: PLC0415 - as above

        return Operations(
            self.fleet,
            self.drains,
            self.reloads.reload,
            self.begin_rollout,
            lambda: self.rollout.status if self.rollout else RolloutStatus(),
            self._leaving.is_set,
        )

    def sights(self) -> "Sights":
        """What the API shows."""
        from proxy.controlplane.looking import Sights  # noqa: PLC0415 - as above

        return Sights(self.router, self.events, lambda: self.config, self.collector.traffic)

    def admin_token(self) -> str | None:
        """The token that the admin listener asks for at present."""
        token = self.config.admin.token
        return token.get_secret_value() if token else None

    def move_admin(self, sock: socket.socket | None) -> None:
        """Serve the admin listener on another bound socket; None: where it is."""
        if sock is None:
            return
        self._admin = sock
        if self._admin_server is not None:
            self._admin_server.stop()

    def begin_rollout(self, drain_timeout: float | None = None) -> str:
        """Replace the replicas one by one; return why that cannot begin, "" if it has."""
        if self.rollout is None:
            return "the backends are not replicas of this proxy: only those of `run` can be replaced"
        if self._tasks is None or self._leaving.is_set():
            return "the proxy is about to end"
        if reason := self.rollout.hindrance:
            return reason
        self._tasks.create_task(self._roll_out(self.rollout, drain_timeout))
        return ""

    async def _roll_out(self, rollout: Rollout, drain_timeout: float | None) -> None:
        leaving = asyncio.ensure_future(self._leaving.wait())
        rolling = asyncio.ensure_future(rollout.run(drain_timeout))
        await asyncio.wait([leaving, rolling], return_when=asyncio.FIRST_COMPLETED)
        for work in (leaving, rolling):
            work.cancel()
        await asyncio.wait([leaving, rolling])

    def _hung_up(self) -> None:
        """SIGHUP."""
        if self._tasks is not None and not self._leaving.is_set():
            self._tasks.create_task(self._renew())

    async def _renew(self) -> None:
        """Read the configuration again, and have replicas run what the app's file holds now."""
        with Border(Where.CONTROL):
            done = await self.reloads.reload()
            if done.applied and self.rollout is not None and (reason := self.begin_rollout()):
                log.warning("no rollout: %s", reason)

    def _signalled(self) -> None:
        if self._leaving.is_set():
            log.warning("leaving at once")
            self._hurries = True
            if self._supervisor is not None:
                self._supervisor.kill()
            if self._last_steps is not None:
                self._last_steps.cancel()
        self._leaving.set()

    def _suspect(self, backend: Backend) -> None:
        self.prober.suspect(backend)

    def __repr__(self) -> str:
        return f"<App {self.fleet!r}>"


def _host_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
