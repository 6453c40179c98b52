"""Both stores, real ones: an SQLite file, and a Redis server for the whole run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.sessions.redis_store import RedisStore
from proxy.sessions.sqlite_store import SqliteStore
from proxy.sessions.store import Store
from tests.support.redis_server import MISSING, RedisServer, find, install
from tests.support.tabs import Flaky, Instance, end_tasks

MakeStore = Callable[[], Store]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this run's own."""
    if find() is None:
        install()
    if find() is None:
        pytest.fail(MISSING, pytrace=False)
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill9()


@pytest.fixture(params=["sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Makes one more instance's view of the same store."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "folder" / "sessions.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda: RedisStore(server.url)


class Stores:
    """Stores of one test, closed at its end; `async with Stores(make_store) as make`."""

    def __init__(self, make_store: MakeStore) -> None:
        self._make, self._made = make_store, list[Store]()

    async def __aenter__(self) -> MakeStore:
        return self._one

    def _one(self) -> Store:
        self._made.append(self._make())
        return self._made[-1]

    async def __aexit__(self, *_: object) -> None:
        for store in self._made:
            with suppress(Exception):
                await store.close()
        await asyncio.sleep(0)


class Site:
    """Instances that share one store; made by `run`."""

    def __init__(self, make: MakeStore, folder: Path) -> None:
        self.make, self.folder = make, folder

    def instance(self, store: Any = None) -> Instance:
        """One more instance, with its own view of the store."""
        return Instance(store or self.make(), self.folder)

    def flaky(self) -> tuple[Flaky, Instance]:
        """One more, whose store fails when the test says so."""
        store = Flaky(self.make())
        return store, self.instance(store)


RunScenario = Callable[[Callable[[Site], Awaitable[None]]], None]


@pytest.fixture
def run(make_store: MakeStore, tmp_path: Path) -> RunScenario:
    """Runs a scenario with instances that share a store."""

    def runner(scenario: Callable[[Site], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with Stores(make_store) as make:
                try:
                    await scenario(Site(make, tmp_path))
                finally:
                    await end_tasks()

        asyncio.run(whole())

    return runner
