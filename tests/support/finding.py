"""An app whose sources of backends are followed, for tests of who belongs to a fleet; it has no listeners."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from time import monotonic

import uvloop

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.health import Observation
from proxy.app import App
from proxy.config import Address, Config
from proxy.controlplane.reload import Reload
from proxy.scrape import Scrape
from tests.support.waiting import eventually

WITHIN = 20.0  # seconds, on a machine that is busy


class Found:
    """The app, and everything that happened to its backends since it was made."""

    def __init__(self, config: Config) -> None:
        self.config = config  # what a reload reads
        self.app = App(_anywhere(config), lambda: _anywhere(self.config))
        self.told: list[tuple[str, str]] = []
        self.app.parts.fleet.listen(lambda backend, event: self.told.append((backend.name, event)))

    @property
    def names(self) -> list[str]:
        """The backends that are to stay."""
        return sorted(backend.name for backend in self.app.parts.fleet if not backend.leaving)

    def backend(self, name: str) -> Backend:
        """One backend of the fleet."""
        backend = self.app.parts.fleet.get(name)
        assert backend is not None, repr(self.app.parts.fleet)
        return backend

    def answer(self, name: str) -> Backend:
        """A backend answers a probe, and so holds pins."""
        backend = self.backend(name)
        self.app.parts.fleet.observe(backend, Observation.ANSWERED, monotonic())
        assert backend.takes_sessions
        return backend

    def drained(self, name: str) -> bool:
        """Whether a backend was ever drained."""
        return (name, f"is set to {AdminState.DRAIN.value}") in self.told

    async def until(self, *names: str) -> None:
        """Wait for exactly these backends."""
        await eventually(lambda: self.names == sorted(names), WITHIN, lambda: repr(self.app.parts.fleet))

    async def until_failed(self, source: str) -> None:
        """Wait until a source has failed once more."""
        before = self.app.parts.membership.sources[source].failures
        await eventually(
            lambda: self.app.parts.membership.sources[source].failures > before,
            WITHIN,
            f"a failure of {source}",
        )

    async def reload(self, config: Config) -> Reload:
        """Read another configuration."""
        self.config = config
        listeners = self.app.parts.plane.listeners
        await listeners.open([], 1024, None, greeted=False)
        try:
            return await self.app.reloads.reload()
        finally:
            listeners.close()
            self.app.ports.close()

    def metric(self, name: str, source: str) -> float:
        """A metric of discovery as Prometheus reads it."""
        wanted = f'chainlit_proxy_discovery_{name}{{source="{source}"}} '
        text, _ = Scrape(self.app.parts.collector.collect)("")
        lines = text.decode().splitlines()
        (value,) = [line.removeprefix(wanted) for line in lines if line.startswith(wanted)]
        return float(value)


def _anywhere(config: Config) -> Config:
    """Its admin listener takes a port that nobody has."""
    admin = config.admin.model_copy(update={"listen": Address("127.0.0.1", 0)})
    return config.model_copy(update={"admin": admin})


def follow(
    config: Config,
    scenario: Callable[[Found], Awaitable[None]],
    *,
    drains: bool = True,
    beside: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Run a scenario while the sources are followed; without `drains` nothing is ever empty.

    `beside` is a server that is there before.
    """

    async def both() -> None:
        async with beside or nullcontext():
            found = Found(config)
            works = [found.app.parts.membership.run(), *([found.app.parts.drains.run()] if drains else [])]
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await found.app.parts.membership.first()
                await scenario(found)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the proxy runs
        runner.run(both())


def url(name: str) -> str:
    """Where a backend called by one letter would listen."""
    return f"http://127.0.0.1:{1000 + ord(name)}"


def entries(*names: str, **weights: float) -> str:
    """A list of backends as JSON."""
    return json.dumps([{"name": name, "url": url(name), "weight": weights.get(name, 1)} for name in names])


def replace(file: Path, text: str) -> None:
    """Put another text in the place of a file at once."""
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(text)
    fresh.replace(file)
