"""The composition root: makes the parts of one proxy process, joins them, and ends them in order.

`serve` and `run` are one App; with a supervisor the fleet is its replicas, and the directory is complete,
because no session can exist that did not come through here.
"""

import asyncio
import gc
import logging
import signal
import socket
from functools import partial
from time import monotonic

from proxy import net
from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.placement import Placement
from proxy.affinity.router import Router
from proxy.config import BackendSettings, Config
from proxy.controlplane.probes import Prober
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.plane import Plane
from proxy.logs import AccessLog
from proxy.metrics import ProxyCollector, build_registry
from proxy.replicas import EventKind, ReplicaEvent, ReplicaState, Supervisor
from proxy.tls import Certificate, Trust, client_context

log = logging.getLogger("proxy")

_PROBE_START = 1.0  # seconds a first probe may take beyond its timeout, on a machine that is busy starting


class App:
    """One proxy process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        now = monotonic()
        health = config.health
        self.fleet = Fleet(
            HealthRules(fall=health.fall, rise=health.rise, evict_after=health.evict_after),
            *(secret.get_secret_value().encode() for secret in config.affinity.secret or ()),
        )
        for settings in config.backends:
            trust = _trust(settings)
            self.fleet.add(
                settings.name,
                settings.host,
                settings.port,
                path=settings.path,
                weight=settings.weight,
                now=now,
                tls=trust,
            )
        directory = Directory(config.affinity.directory.size, config.affinity.session_timeout)
        placement = Placement(config.balance.bound, config.balance.slow_start)
        self.router = Router(self.fleet, directory, placement, config.affinity.locate)
        self.access = AccessLog(config.log) if config.log.access else None
        self.plane = Plane(config, self.router, self.access, self._suspect)
        if config.tls.cert is not None and config.tls.key is not None:
            self.plane.certificate = Certificate(config.tls.cert, config.tls.key)
        self.collector = ProxyCollector(self.plane)
        self.prober = Prober(self.fleet, health, config.socketio_path[0], self.collector.probed)
        self._supervisor: Supervisor | None = None
        self._leaving = asyncio.Event()
        self._listening: list[socket.socket] = []
        self._admin: socket.socket | None = None

    def supervise(self, supervisor: Supervisor) -> None:
        """The fleet is the replicas of a supervisor that has been prepared."""
        self._supervisor = supervisor
        self.router.sole = True
        self.prober.good_below = 500
        now = monotonic()
        for replica in supervisor.replicas:
            host, port = _host_port(replica.url)
            self.fleet.add(replica.name, host, port, now=now)

    def replica_event(self, event: ReplicaEvent) -> None:
        """Something happened to a replica: the fleet hears of it at once."""
        replica = event.replica
        backend = self.fleet.get(replica.name)
        log.log(
            logging.INFO if event.kind is EventKind.READY else logging.WARNING,
            "%s %s",
            replica.name,
            event.text,
        )
        if backend is None:
            return
        now = monotonic()
        backend.pid = replica.pid
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
            self.fleet.observe(backend, Observation.REFUSED, now)

    def _public_address(self) -> str:
        return self._address(self._listening[0]).replace("//0.0.0.0:", "//localhost:")

    def _address(self, sock: socket.socket) -> str:
        return net.bound_address(sock, secure=self.plane.certificate is not None)

    def bind(self) -> None:
        """Take all ports, or none. Raises ListenError."""
        try:
            for address in self.config.listen:
                self._listening.append(net.bind(address))
            self._admin = net.bind(self.config.admin.listen)
        except net.ListenError:
            for sock in self._listening:
                sock.close()
            raise

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then leave within `timeouts.shutdown`; a second one ends at once.

        Raises ReplicaError when the supervised app cannot be started.
        """
        # What was made to load the program lives for ever: the garbage collector need not look at it again.
        gc.freeze()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self.prober.run()), tasks.create_task(self._serve_admin())]
                if self._supervisor is None:
                    await self._meet_backends()
                serving = self.plane.run(self._listening, partial(Downstream, self.plane))
                running.append(tasks.create_task(serving))
                supervision = tasks.create_task(self._supervisor.run()) if self._supervisor else None
                log.info(
                    "listening on %s, admin on %s, %d backends",
                    ", ".join(map(self._address, self._listening)),
                    net.bound_address(self._admin) if self._admin else "-",
                    len(self.fleet),
                )
                await self._leaving.wait()
                log.info("leaving")
                await self.plane.leave(self.config.timeouts.shutdown)
                if self._supervisor and supervision:
                    self._supervisor.stop()
                    await asyncio.wait([supervision])
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            if self.access is not None:
                self.access.flush()

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
        # Imported late: the framework takes longer to load than everything else, and clients need not wait.
        from proxy.controlplane.admin import AdminServer, admin_app  # noqa: PLC0415

        assert self._admin is not None
        token = self.config.admin.token
        registry = build_registry(self.collector)
        app = admin_app(self.fleet, registry, token.get_secret_value() if token else None)
        await AdminServer(app, self._admin).run()

    def _signalled(self) -> None:
        if self._leaving.is_set():
            log.warning("leaving at once")
            if self._supervisor is not None:
                self._supervisor.kill()
            for connection in list(self.plane.connections):
                connection.abort()
        self._leaving.set()

    def _suspect(self, backend: Backend) -> None:
        self.prober.suspect(backend)

    def __repr__(self) -> str:
        return f"<App {self.fleet!r}>"


def _trust(settings: BackendSettings) -> Trust | None:
    if not settings.is_https:
        return None
    context = client_context(settings.tls.ca, verify=settings.tls.verify)
    if not settings.tls.verify:
        log.warning("backend %s: its certificate is not verified", settings.name)
    return Trust(context, settings.tls.server_name or settings.host)


def _host_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
