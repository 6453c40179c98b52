"""Another configuration for a proxy that runs: read, checked whole, and applied without dropping anything.

Everything that can fail is done first: the file is read, new ports are bound, certificates are loaded. What
follows sets values, and the doors change last. If anything fails, by whatever mistake, the old configuration
is put back whole, what was opened is closed again, and the reload is refused. New listeners are open before
old ones close; connections, health, drains, pins and the directory stay. A backend that is no more in the
file is drained, and leaves when it is empty.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from proxy import logs, net
from proxy.affinity.health import HealthRules
from proxy.borders import Where, fault
from proxy.config import Address, Config, ConfigError, Shared
from proxy.controlplane.events import EventKind
from proxy.logs import AccessLog
from proxy.members import Member, trusted, warn_of_names
from proxy.tls import Certificate, CertificateError

if TYPE_CHECKING:
    from proxy.app import App

log = logging.getLogger("proxy")

_AT_START = ("otel", "reuse_port", "sessions")  # what was handed to threads, the kernel, the replicas


@dataclass(frozen=True, slots=True)
class Reload:
    """How a reload went."""

    at: float  # unix time
    problems: tuple[str, ...] = ()  # why it was refused; none: it was applied
    changes: tuple[str, ...] = ()  # what is different now, by key
    restart: tuple[str, ...] = ()  # keys that take effect with the next start only

    @property
    def applied(self) -> bool:
        """Whether the file is in effect."""
        return not self.problems


class Reloads:
    """Reads the configuration again, one reload at a time; created by the app."""

    def __init__(self, app: "App", read: Callable[[], Config] | None) -> None:
        """`read` raises ConfigError; None: there is no file."""
        self._app = app
        self._read = read
        self._turn = asyncio.Lock()
        self.applied = 0
        self.refused = 0
        self.last: Reload | None = None  # None until the first

    async def reload(self) -> Reload:
        """Read the file and apply it; a bad one changes nothing."""
        async with self._turn:
            try:
                done = await self._reload()
            except (ConfigError, net.ListenError, CertificateError) as error:
                done = Reload(time.time(), problems=tuple(str(error).splitlines()))
            except Exception as error:  # a border: nothing that a reload meets may end the proxy
                fault(Where.CONTROL, error, "the reload broke", always=True)
                what = f"{type(error).__name__}: {error}".partition("\n")[0]
                done = Reload(time.time(), problems=(f"it met a mistake of the proxy, see the log: {what}",))
            self.last = done
            told = ", ".join(done.changes) or "nothing changed"
            text = f"applied: {told}" if done.applied else "refused: " + "; ".join(done.problems)
            self._app.events.record(EventKind.RELOAD, text)
            if done.applied:
                self.applied += 1
                log.info("the configuration was read again: %s", told)
                for key in done.restart:
                    log.warning("%s: takes effect when the proxy is started again", key)
            else:
                self.refused += 1
                log.error("the changed configuration is not used, the old one stays:")
                for problem in done.problems:
                    log.error("%s", problem)
            return done

    async def _reload(self) -> Reload:
        if self._app.changes.leaving:
            return Reload(time.time(), problems=("the proxy is about to end",))
        if self._read is None:
            return Reload(time.time())
        app, new = self._app, self._read()
        before = _InEffect(app.config, app.members.configured, app.plane.certificate, app.listening)
        old = before.config
        members = trusted(new.backends)
        certificate = before.certificate if new.tls == old.tls else _certificate(new)
        listening, admin = _open_listeners(app, new)
        try:
            await self._switch(old, _InEffect(new, members, certificate, listening))
        except BaseException:
            try:
                await self._switch(new, before)
            finally:
                _close({*listening.values(), *admin} - {*before.listening.values()})
            raise
        app.move_admin(admin)
        _close({*before.listening.values()} - {*listening.values()})
        warn_of_names(new)
        changes = tuple(key for key in Config.model_fields if getattr(old, key) != getattr(new, key))
        restart = tuple(key for key in _AT_START if key in changes)
        return Reload(time.time(), changes=changes, restart=restart)

    async def _switch(self, old: Config, to: "_InEffect") -> None:
        """Have everything that was opened and checked take effect."""
        app, new = self._app, to.config
        app.config = new
        if new.socket != old.socket:
            app.inherited.permit(to.listening, new.socket)
        if new.admin.socket != old.admin.socket and new.admin.listen == old.admin.listen:
            app.inherited.permit([new.admin.listen], new.admin.socket)
        _apply_to_log(app, old, new)
        _apply_to_decisions(app, new)
        self._apply_to_backends(old, new, to.members)
        app.listening = to.listening
        await app.plane.change(new, list(to.listening.values()), to.certificate)

    def _apply_to_backends(self, old: Config, new: Config, members: tuple[Member, ...]) -> None:
        """Backends that are new, changed, gone, or back before they had left; `run` has its own."""
        app, fleet = self._app, self._app.fleet
        now = monotonic()
        app.members.configure(members, new.discovery)
        health = new.health
        fleet.set_rules(HealthRules(fall=health.fall, rise=health.rise, evict_after=health.evict_after))
        if new.health != old.health or new.socketio_path != old.socketio_path:
            app.prober.change(health, new.socketio_path[0])
        log.debug("backends applied in %.1f ms", (monotonic() - now) * 1000)


@dataclass(frozen=True, slots=True)
class _InEffect:
    """A configuration with what was opened and loaded for it."""

    config: Config
    members: tuple[Member, ...]
    certificate: Certificate | None
    listening: dict[Address, socket.socket]


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _certificate(config: Config) -> Certificate | None:
    tls = config.tls
    return Certificate(tls.cert, tls.key) if tls.cert is not None and tls.key is not None else None


def _open_listeners(app: "App", config: Config) -> tuple[dict[Address, socket.socket], list[socket.socket]]:
    """Bind what is new, all or nothing; all of `listen`, and admin's if it is new. Raises ListenError."""
    inherited = app.inherited
    admin: list[socket.socket] = []
    listening = inherited.open(config.listen, config.socket, shared=config.reuse_port, there=app.listening)
    try:
        if config.admin.listen != app.config.admin.listen:
            admin = [*inherited.open([config.admin.listen], config.admin.socket).values()]
    except BaseException:
        _close({*listening.values()} - {*app.listening.values()})
        raise
    return listening, admin


def _apply_to_decisions(app: "App", config: Config) -> None:
    affinity, router = config.affinity, app.router
    app.fleet.set_secrets(*(secret.get_secret_value().encode() for secret in affinity.secret or ()))
    router.locate = affinity.locate
    router.placement.bound, router.placement.slow_start = config.balance.bound, config.balance.slow_start
    router.directory.resize(affinity.directory.size, affinity.session_timeout)
    app.share_directory(affinity)
    app.drains.patience = config.timeouts.drain
    app.drains.shared = config.sessions.shared is Shared.TRUE
    app.rebalance.on = config.balance.rebalance


def _apply_to_log(app: "App", old: Config, new: Config) -> None:
    if new.log == old.log:
        return
    logs.set_up(new.log)
    if app.access is not None:
        app.access.flush()
    app.access = AccessLog(new.log) if new.log.access else None
    app.plane.site.access = app.exchange_listener()
