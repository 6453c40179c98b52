"""Who belongs to the fleet: the backends that are configured and those that discovery found.

Both come as complete lists, and one rule holds for both: who is new is added, who changed is changed, who
is missing is drained and leaves when it is empty, and who is back before it had left is kept. What is
configured comes first: a found backend with the name or the url of a configured one is not taken.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from proxy.config import BackendSettings
from proxy.controlplane.discovery import FileSource
from proxy.tls import CertificateError, Trust

if TYPE_CHECKING:
    from proxy.app import App

log = logging.getLogger("proxy")

_FIRST_ANSWER = 5.0  # seconds that serving waits for the first list


def apply(
    app: "App",
    before: Mapping[str, BackendSettings],
    settings_now: Iterable[BackendSettings],
    trusts: Mapping[str, Trust | None],
) -> None:
    """Turn one complete list into another; the fleet's backends of other lists are left alone."""
    now = {settings.name: settings for settings in settings_now}
    for name, settings in now.items():
        backend = app.fleet.get(name)
        if backend is None:
            app.add_backend(settings, trusts[name])
            continue
        if backend.leaving:
            backend.leaving = False
            app.drains.ready(backend)
        if settings == before.get(name):
            continue
        where = (settings.host, settings.port)
        tls = trusts[name]
        if app.fleet.change(backend, *where, path=settings.path, weight=settings.weight, tls=tls):
            app.plane.moved(backend)
        app.prober.suspect(backend)
    for name in before.keys() - now.keys():
        backend = app.fleet.get(name)
        if backend is None or backend.leaving:
            continue
        backend.leaving = True
        if backend.holds_pins:
            app.drains.drain(backend)
        else:
            app.fleet.remove(backend)


class Discovery:
    """Joins what the sources find to the fleet; created by the app, which runs it."""

    def __init__(self, app: "App") -> None:
        self._app = app
        self._joined: dict[str, BackendSettings] = {}  # found, and in the fleet
        file = app.config.discovery.file
        self.source = FileSource(file, self._found) if file is not None else None

    async def run(self) -> None:
        """Follow the sources until cancelled."""
        if self.source is not None:
            await self.source.run()

    async def first(self) -> None:
        """Wait for the first list, but not for ever: what is configured can be served without it."""
        if self.source is None:
            return
        try:
            async with asyncio.timeout(_FIRST_ANSWER):
                await self.source.asked.wait()
        except TimeoutError:
            log.warning("discovery has not answered yet")

    def rejoin(self) -> None:
        """The configured backends changed: look again at what was found."""
        if self.source is not None:
            self._found(self.source.last)

    def _found(self, backends: tuple[BackendSettings, ...]) -> None:
        configured = self._app.config.backends
        names = {settings.name for settings in configured}
        urls = {settings.url for settings in configured}
        joining: dict[str, BackendSettings] = {}
        trusts: dict[str, Trust | None] = {}
        for settings in backends:
            if settings.name in names or settings.url in urls:
                log.warning("found backend %s is configured already", settings.name)
                continue
            try:
                trusts[settings.name] = self._app.trust(settings)
            except CertificateError as error:
                log.error("found backend %s: tls.%s: %s", settings.name, error.key, error)  # noqa: TRY400
                continue
            joining[settings.name] = settings
        before = {name: settings for name, settings in self._joined.items() if name not in names}
        self._joined = joining
        apply(self._app, before, joining.values(), trusts)

    def __repr__(self) -> str:
        return f"<Discovery {self.source} joined={list(self._joined)}>"
