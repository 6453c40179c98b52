"""Who belongs to the fleet: the backends that are configured and those that the sources of discovery found.

Each of them is a complete list. They are laid together first, so that a backend which goes from one list to
another stays, and then one rule holds for all: who is new is added, who changed is changed, who is in no list
is drained and leaves when it is empty, at once if it is dead; who is back before it had left is kept. Of two
backends with the same name or url the first is taken: what is configured, then what the sources found in the
order of `discovery`. What an operator wished of one holds for a while after it has left, under its name: a
pod that was taken out is not back in service by its own crash.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from ssl import SSLContext
from time import monotonic
from typing import Any, NamedTuple, Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.borders import Where, fault
from proxy.config import BackendSettings, Config
from proxy.config.names import doubt_of_backend, doubts
from proxy.config.sections import DiscoverySettings, DnsSettings, DockerSettings, KubernetesSettings
from proxy.controlplane.discovery.file import FileSource
from proxy.controlplane.discovery.source import Backends, Found, Source, UnusableError
from proxy.controlplane.drains import Drains
from proxy.tls import CertificateError, Trust, client_context

log = logging.getLogger("proxy")

_FIRST_ANSWER = 5.0  # seconds that serving waits for the first lists
_REMEMBERED = 3600.0  # seconds that a wish is kept for a backend that has left: longer than a pod crashes
_MOST_REMEMBERED = 1000  # of these
_AGAIN = 5.0  # seconds until a source is followed again that broke by a mistake of ours


def _dns(settings: DnsSettings, found: Found) -> Source:
    from proxy.controlplane.discovery.dns import DnsSource  # noqa: PLC0415 - needs an extra

    return DnsSource(settings, found)


def _kubernetes(settings: KubernetesSettings, found: Found) -> Source:
    from proxy.controlplane.discovery.kubernetes import KubernetesSource  # noqa: PLC0415 - as above

    return KubernetesSource(settings, found)


def _docker(settings: DockerSettings, found: Found) -> Source:
    from proxy.controlplane.discovery.docker import DockerSource  # noqa: PLC0415 - as above

    return DockerSource(settings, found)


_SOURCES: dict[str, Callable[[Any, Found], Source]] = {
    "file": FileSource,
    "dns": _dns,
    "kubernetes": _kubernetes,
    "docker": _docker,
}


class Member(NamedTuple):
    """One backend of a list."""

    settings: BackendSettings
    trust: Trust | None


def trusted(backends: Iterable[BackendSettings]) -> tuple[Member, ...]:
    """Backends, with how the certificate of each is looked at. Raises CertificateError."""
    contexts: dict[tuple[str | None, bool], SSLContext] = {}
    members = []
    for settings in backends:
        trust = None
        if settings.url.startswith("https:"):
            tls = settings.tls
            kind = tls.ca, tls.verify
            if kind not in contexts:
                contexts[kind] = _context(settings)
            if not tls.verify:
                log.warning("backend %s: its certificate is not verified", settings.name)
            # RFC 6066 section 3: names in TLS have no final dot.
            trust = Trust(contexts[kind], (tls.server_name or settings.address.host).removesuffix("."))
        members.append(Member(settings, trust))
    return tuple(members)


def warn_of_names(config: Config) -> None:
    """Log which hosts of a configuration may be looked up as somebody else's."""
    for text in doubts(config):
        log.warning("%s", text)


def _context(settings: BackendSettings) -> SSLContext:
    try:
        return client_context(settings.tls.ca, verify=settings.tls.verify)
    except CertificateError as error:
        raise CertificateError(error.key, f"backend {settings.name}: tls.{error.key} {error}") from None


class Prober(Protocol):
    """Who probes the backends."""

    def watch(self, backend: Backend) -> None:
        """Probe one that has come."""
        ...

    def suspect(self, backend: Backend) -> None:
        """Probe one now."""
        ...


class Membership:
    """Joins all lists to the fleet; created by the app, which runs it."""

    def __init__(
        self, fleet: Fleet, drains: Drains, prober: Prober, moved: Callable[[Backend], None]
    ) -> None:
        """`moved(backend)` is told of one that is somewhere else now."""
        self._fleet, self._drains, self._prober, self._moved = fleet, drains, prober, moved
        self.configured: tuple[Member, ...] = ()
        self._found: dict[str, tuple[Member, ...]] = {}  # by source
        self._joined: dict[str, Member] = {}
        self._sent: set[Backend] = set()  # drained because no list has them, not by the operator
        self._wishes: dict[
            str, tuple[AdminState, float]
        ] = {}  # of operators, for who has left, and since when
        self._doubles: set[str] = set()  # found, but known from an earlier list, and told
        self._parts: dict[str, object] = {}  # what is configured of each source
        self.sources: dict[str, Source] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None  # set while it runs

    def configure(self, configured: tuple[Member, ...], discovery: DiscoverySettings) -> None:
        """Take what the configuration says now; a source that it does not change goes on undisturbed."""
        parts = discovery.parts()
        changed = [name for name in _SOURCES if parts.get(name) != self._parts.get(name)]
        made = {
            name: _SOURCES[name](parts[name], partial(self._take, name)) for name in changed if name in parts
        }
        self.configured = configured
        for name in changed:
            if task := self._following.pop(name, None):
                task.cancel()
            self.sources.pop(name, None)
            if name in made:  # what was found stays until the new source has answered
                self.sources[name] = made[name]
                self._follow(name)
            else:
                self._found.pop(name, None)
        self._parts = parts
        self._renew_trust()
        self._join()
        self._fleet.order(list(self._joined))

    async def run(self) -> None:
        """Follow the sources until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for name in self.sources:
                self._follow(name)
            await asyncio.Event().wait()  # a reload may bring the first source

    async def first(self) -> None:
        """Wait until each source was asked once, but not for ever: what is known can be served without."""
        try:
            async with asyncio.timeout(_FIRST_ANSWER):
                for source in self.sources.values():
                    await source.asked.wait()
        except TimeoutError:
            log.warning("discovery has not answered yet, starting without it")

    def _follow(self, name: str) -> None:
        if self._tasks is not None:
            self._following[name] = self._tasks.create_task(_followed(self.sources[name]))

    def _take(self, name: str, backends: Backends) -> None:
        """A source has another list. Raises UnusableError: it is taken as a whole or not at all."""
        known = {member.settings: member for member in self._found.get(name, ())}
        try:
            fresh = trusted(settings for settings in backends if settings not in known)
        except CertificateError as error:
            raise UnusableError(str(error)) from None
        for member in fresh:
            if text := doubt_of_backend(f"backend {member.settings.name}", member.settings.address.host):
                log.warning("%s", text)
        members = known | {member.settings: member for member in fresh}
        self._found[name] = tuple(members[settings] for settings in backends)
        self._join()

    def _renew_trust(self) -> None:
        """The authorities of found backends may be others by now; those that are bad stay as they were."""
        for name, members in self._found.items():
            try:
                self._found[name] = trusted(member.settings for member in members)
            except CertificateError as error:
                log.error("discovery.%s: the changed CA certificates are not used: %s", name, error)  # noqa: TRY400

    def _join(self) -> None:
        joining: dict[str, Member] = {}
        urls: set[str] = set()
        doubles: set[str] = set()
        for member in chain(self.configured, *(self._found.get(name, ()) for name in _SOURCES)):
            name, url = member.settings.name, member.settings.url
            if name in joining or url in urls:
                doubles.add(name)
                if name not in self._doubles:
                    log.warning("backend %s (%s) was found, but its name or url is known already", name, url)
                continue
            joining[name] = member
            urls.add(url)
        before, self._joined, self._doubles = self._joined, joining, doubles
        self._sent = {backend for backend in self._sent if not backend.gone}
        for member in joining.values():
            self._add_or_change(member, before.get(member.settings.name))
        for name in before.keys() - joining.keys():
            backend = self._fleet.get(name)
            if backend is not None and not backend.leaving:
                self._let_go(backend)

    def _add_or_change(self, member: Member, before: Member | None) -> None:
        settings, trust = member
        address = settings.address
        backend = self._fleet.get(settings.name)
        wish = self._wishes.pop(settings.name, None)
        if backend is None:
            where = (settings.name, address.host, address.port)
            backend = self._fleet.add(
                *where, path=address.path, weight=settings.weight, now=monotonic(), tls=trust
            )
            self._prober.watch(backend)
            if wish is not None:
                self._as_wished(backend, *wish)
            return
        if backend.leaving:
            backend.leaving = False
            if backend in self._sent:
                self._sent.discard(backend)
                self._drains.ready(backend)
        if member == before:
            return
        if self._fleet.change(
            backend,
            address.host,
            address.port,
            path=address.path,
            weight=settings.weight,
            tls=trust,
            now=monotonic(),
        ):
            self._moved(backend)
        self._prober.suspect(backend)

    def _as_wished(self, backend: Backend, state: AdminState, since: float) -> None:
        """It is back: what an operator wished of it before it left holds, unless that is long ago."""
        if monotonic() - since > _REMEMBERED:
            return
        log.info("backend %s is back, and in %s as it was before it left", backend.name, state.value)
        if state is AdminState.MAINTENANCE:
            self._drains.maintenance(backend)
        else:
            self._drains.drain(backend)

    def _remember(self, backend: Backend) -> None:
        drain = self._drains.get(backend)
        if backend.admin_state is AdminState.READY or (drain is not None and drain.until_restart):
            return
        self._wishes[backend.name] = backend.admin_state, monotonic()
        if len(self._wishes) > _MOST_REMEMBERED:
            del self._wishes[next(iter(self._wishes))]

    def _let_go(self, backend: Backend) -> None:
        backend.leaving = True
        self._remember(backend)
        if not backend.holds_pins:
            self._fleet.remove(backend)
            return
        if backend.admin_state is AdminState.READY:
            self._sent.add(backend)
        running = self._drains.get(backend)
        if running is None or running.is_empty:  # else it goes on, with the time that the operator gave it
            self._drains.drain(backend)

    def __repr__(self) -> str:
        return f"<Membership {list(self._joined)} found by {list(self.sources.values())}>"


async def _followed(source: Source) -> None:
    while True:
        try:
            await source.run()
        except Exception as error:
            fault(Where.DISCOVERY, error, source.name)
            source.fail("it met a mistake of the proxy, see above")
        await asyncio.sleep(_AGAIN)
