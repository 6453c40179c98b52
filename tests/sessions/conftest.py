"""Both stores, real ones: an SQLite file, and a Redis server for the whole run."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.sessions.redis_store import RedisStore
from proxy.sessions.sqlite_store import SqliteStore
from proxy.sessions.store import Store
from tests.support.redis_server import MISSING, RedisServer, find, install

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
