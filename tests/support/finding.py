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
from proxy.config import Config
from proxy.reload import Reload
from proxy.scrape import Scrape
from tests.support.waiting import eventually

WITHIN = 20.0  # seconds, on a machine that is busy


class Found:
    """The app, and everything that happened to its backends since it was made."""

    def __init__(self, config: Config) -> None:
        self.config = config  # what a reload reads
        self.app = App(config, lambda: self.config)
        self.told: list[tuple[str, str]] = []
        self.app.fleet.listen(lambda backend, event: self.told.append((backend.name, event)))

    @property
    def names(self) -> list[str]:
        """The backends that are to stay."""
        return sorted(backend.name for backend in self.app.fleet if not backend.leaving)

    def backend(self, name: str) -> Backend:
        """One backend of the fleet."""
        backend = self.app.fleet.get(name)
        assert backend is not None, repr(self.app.fleet)
        return backend

    def answer(self, name: str) -> Backend:
        """A backend answers a probe, and so holds pins."""
        backend = self.backend(name)
        self.app.fleet.observe(backend, Observation.ANSWERED, monotonic())
        assert backend.takes_sessions
        return backend

    def drained(self, name: str) -> bool:
        """Whether a backend was ever drained."""
        return (name, f"is set to {AdminState.DRAIN.value}") in self.told

    async def until(self, *names: str) -> None:
        """Wait for exactly these backends."""
        await eventually(lambda: self.names == sorted(names), WITHIN, lambda: repr(self.app.fleet))

    async def until_failed(self, source: str) -> None:
        """Wait until a source has failed once more."""
        before = self.app.members.sources[source].failures
        await eventually(
            lambda: self.app.members.sources[source].failures > before, WITHIN, f"a failure of {source}"
        )

    async def reload(self, config: Config) -> Reload:
        """Read another configuration."""
        self.config = config
        listeners = self.app.plane.listeners
        await listeners.open([], 1024, None, greeted=False)
        try:
            return await self.app.reloads.reload()
        finally:
            listeners.close()
            for address in list(self.app.listening):
                self.app.listening.pop(address).close()

    def metric(self, name: str, source: str) -> float:
        """A metric of discovery as Prometheus reads it."""
        wanted = f'chainlit_proxy_discovery_{name}{{source="{source}"}} '
        text, _ = Scrape(self.app.collector.collect)("")
        lines = text.decode().splitlines()
        (value,) = [line.removeprefix(wanted) for line in lines if line.startswith(wanted)]
        return float(value)


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
            works = [found.app.members.run(), *([found.app.drains.run()] if drains else [])]
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await found.app.members.first()
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
