"""One proxy process: its parts are made and given ports, it serves, reads its configuration again, and ends.

`serve` and `run` are one App; with a supervisor the fleet is its replicas, and the directory is complete,
because no session can exist that did not come through here.
"""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from proxy import logs, net
from proxy.admin_listener import AdminListener
from proxy.borders import Border, Where, kept, on_loop_error
from proxy.changes import beat
from proxy.config import Config
from proxy.controlplane.membership import Member, trusted, warn_of_names
from proxy.controlplane.reload import Reload, Reloads
from proxy.controlplane.rollout import RolloutError
from proxy.local_replicas import LocalReplicas
from proxy.parts import Parts, certificates_of
from proxy.ports import Bound, Ports
from proxy.service_manager import ServiceManager
from proxy.tls import Certificates
from proxy.words import counted

if TYPE_CHECKING:
    from proxy.controlplane.admin_actions import AdminActions

log = logging.getLogger("proxy")

_PROBE_START = 1.0  # seconds a first probe may take beyond its timeout, on a machine that is busy starting


@dataclass(frozen=True, slots=True)
class _Ready:
    """A configuration with what was opened and loaded for it: nothing of it can fail any more."""

    config: Config
    members: tuple[Member, ...]
    certificates: Certificates | None
    bound: Bound


class App:
    """One proxy process."""

    def __init__(
        self, config: Config, read: Callable[[], Config] | None = None, ports: Ports | None = None
    ) -> None:
        """`read` reads the configuration again, where it comes from a file; it raises ConfigError.

        `ports` are bound; without them `bind` is to be called.
        """
        self.parts = parts = Parts(config)
        self.ports = ports or Ports()
        self._manager = ServiceManager()
        self.reloads = Reloads(config, read, self.apply, parts.events, parts.reload_counts)
        self.replicas = LocalReplicas(parts, self._public_address)
        self.admin = AdminListener(parts, lambda: self.config, self._admin_sockets)
        warn_of_names(config)
        self._serving = asyncio.Event()  # set when clients are served
        self._leaving = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None  # set while it runs
        self._rolling: asyncio.Task[None] | None = None  # the newest rollout
        self._last_steps: asyncio.Task[None] | None = None  # set while it leaves
        self._hurries = False  # set when it was told to end a second time

    @property
    def config(self) -> Config:
        """What is in effect."""
        return self.reloads.config

    # Ports

    def bind(self) -> None:
        """Take all ports, or none; those that the service manager opened from it. Raises ListenError."""
        self.ports.bind(self.config)

    def _admin_sockets(self) -> list[socket.socket]:
        return list(self.ports.bound.admin.values())

    def _addresses(self) -> list[str]:
        secure, bound = self.parts.plane.certificates is not None, self.ports.bound
        return [
            net.bound_address(sock, secure=secure and sock not in bound.plain)
            for sock in bound.clients.values()
        ]

    def _public_address(self) -> str:
        addresses = self._addresses()
        first = next((each for each in addresses if each.startswith("https:")), addresses[0])
        root = "".join(f"{root.rstrip('/')}/" for root in self.config.affinity.roots[:1])
        if domains := self.config.tls.acme.domains:
            return f"https://{domains[0]}:{first.rpartition(':')[2]}".removesuffix(":443") + root
        return first.replace("//0.0.0.0:", "//localhost:") + root

    # A life

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
        parts, supervisor = self.parts, self.replicas.supervisor
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                works: list[Callable[[], Awaitable[None]]] = [
                    partial(beat, parts.standstill),
                    parts.prober.run,
                    parts.drains.run,
                    parts.rebalance.run,
                    parts.wants.run,
                    parts.recent.run,
                    *([self.replicas.elastic.run] if self.replicas.elastic else []),
                    parts.plane.site.shared.run,
                    partial(self.admin.run, self.actions, self._serving),
                    parts.membership.run,
                    partial(parts.renewals.run, self._serving),
                ]
                if self._manager.beat is not None:
                    works.append(self._manager.watch)
                running = [tasks.create_task(kept(work)) for work in works]
                await parts.membership.first()
                if supervisor is None and len(parts.fleet):
                    await self._meet_backends()
                bound = self.ports.bound
                serving = parts.plane.run(list(bound.clients.values()), bound.plain)
                running.append(tasks.create_task(serving))
                parts.plane.evictions.began = monotonic()
                self._serving.set()
                supervision = tasks.create_task(supervisor.run()) if supervisor else None
                self._tell_where()
                await self._leaving.wait()
                await self._leave(tasks)
                if supervisor and supervision:
                    supervisor.stop()
                    await asyncio.wait([supervision])
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._tasks = None
            parts.exchange_log.close()

    async def _meet_backends(self) -> None:
        """Know how the backends are before the first request: it may be for a session that lives on one.

        Clients wait in the listeners' backlog meanwhile, for a silent backend at most `health.timeout`.
        """
        try:
            async with asyncio.timeout(self.config.health.timeout + _PROBE_START):
                await self.parts.prober.met_all.wait()
        except TimeoutError:
            log.warning("not all backends have answered their first probe, starting all the same")

    def _tell_where(self) -> None:
        log.info(
            "listening on %s, admin on %s, %s",
            ", ".join(self._addresses()),
            ", ".join(map(net.bound_address, self._admin_sockets())),
            counted(len(self.parts.fleet), "backend"),
        )
        self._manager.ready(f"listening on {', '.join(self._addresses())}")

    async def _leave(self, tasks: asyncio.TaskGroup) -> None:
        if left := len(self.parts.router.directory.open()):
            log.info(
                "leaving: %s may take up to %g s (timeouts.shutdown); a second signal ends it at once",
                counted(left, "session"),
                self.config.timeouts.shutdown,
            )
        else:
            log.info("leaving")
        self._manager.stopping()
        self.parts.changes.leaving = True
        self.reloads.stop()
        if self._rolling is not None:
            self._rolling.cancel()
        self._last_steps = tasks.create_task(self._leave_in_order())
        if self._hurries:
            self._last_steps.cancel()
        await asyncio.wait([self._last_steps])
        self.parts.events.close()  # the last to go: who watches sees how the others leave

    async def _leave_in_order(self) -> None:
        timeouts = self.config.timeouts
        with Border(Where.LEAVE):
            await self.parts.plane.leave(timeouts.shutdown, timeouts.farewell, timeouts.hand_over)

    # Signals

    def _signalled(self) -> None:
        if self._leaving.is_set():
            log.warning("leaving at once")
            self._hurries = True
            if self.replicas.supervisor is not None:
                self.replicas.supervisor.kill()
            if self._last_steps is not None:
                self._last_steps.cancel()
        self._leaving.set()

    def _hung_up(self) -> None:
        """SIGHUP."""
        if self._tasks is not None and not self._leaving.is_set():
            self._tasks.create_task(self._renew())

    async def _renew(self) -> None:
        """Read the configuration again, and have replicas run what the app's file holds now."""
        with Border(Where.CONTROL):
            done = await self.reload()
            if done.applied and self.replicas.supervisor is not None:
                try:
                    self.begin_rollout()
                except RolloutError as reason:
                    log.warning("no rollout: %s", reason)

    # What operators do

    async def reload(self) -> Reload:
        """Read the configuration again; a bad one changes nothing."""
        if not self._serving.is_set():  # the manager is told of it with the start
            return await self.reloads.reload()
        self._manager.reloading()
        done = await self.reloads.reload()
        if not self._leaving.is_set():
            refused = "" if done.applied else ", the changed configuration is not used"
            self._manager.ready(f"listening on {', '.join(self._addresses())}{refused}")
        return done

    def actions(self) -> "AdminActions":
        """What the API acts on."""
        from proxy.controlplane.admin_actions import AdminActions  # noqa: PLC0415 - clients come first

        parts = self.parts
        return AdminActions(
            parts.fleet,
            parts.drains,
            self.reload,
            self.begin_rollout,
            lambda: self.replicas.rollout,
        )

    def begin_rollout(self, drain_timeout: float | None = None) -> None:
        """Replace the replicas one by one. Raises RolloutError if that cannot begin."""
        tasks = None if self._leaving.is_set() else self._tasks
        self._rolling = self.replicas.begin_rollout(tasks, drain_timeout)

    async def apply(self, old: Config, new: Config) -> None:
        """Have another configuration take effect.

        Everything that can fail is done first: new ports are bound, certificates are loaded. What follows
        sets values, and the doors change last. If anything fails, the old configuration is put back whole
        and what was opened is closed again. Raises CertificateError and ListenError.
        """
        parts, ports = self.parts, self.ports
        certificates = parts.plane.certificates
        before = _Ready(old, parts.membership.configured, certificates, ports.bound)
        members = trusted(new.backends)
        if new.tls != old.tls:
            certificates = certificates_of(new)
        after = _Ready(new, members, certificates, ports.opened(new))
        try:
            await self._switch(old, after)
        except BaseException:
            try:
                await self._switch(new, before)
            finally:
                ports.discard(after.bound)
            raise
        ports.use(after.bound)
        self.admin.follow()
        warn_of_names(new)

    async def _switch(self, old: Config, to: _Ready) -> None:
        if to.config.log != old.log:
            logs.set_up(to.config.log)
        self.ports.permit(old, to.config, to.bound)
        self.parts.configure(to.config, to.members)
        sockets = list(to.bound.clients.values())
        await self.parts.plane.configure(to.config, sockets, to.certificates, to.bound.plain)

    def __repr__(self) -> str:
        return f"<App {self.parts!r}>"
