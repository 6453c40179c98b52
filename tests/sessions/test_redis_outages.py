"""A real Redis that stands still, is slow, full, read-only or empty."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from proxy.sessions.redis_store import RedisFiles, RedisStore
from proxy.sessions.sharing import Sharing
from proxy.sessions.store import StoreDown, Write
from tests.sessions.conftest import Stores
from tests.support.redis_relay import RedisRelay
from tests.support.redis_server import RedisServer
from tests.support.tabs import RECORD, Instance, Tab, end_tasks
from tests.support.waiting import eventually

Scenario = Callable[[Instance, Instance, RedisRelay], Awaitable[None]]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.resume()
    server.kill9()


def run(server: RedisServer, folder: Path, scenario: Scenario) -> None:
    """Runs a scenario with two instances: one behind a relay, and one that reaches Redis directly."""

    async def whole() -> None:
        async with RedisRelay(server.port) as relay, Stores(lambda: RedisStore(server.url)) as make:
            behind = RedisStore(relay.url)
            try:
                await scenario(Instance(behind, folder), Instance(make(), folder), relay)
            finally:
                await end_tasks()
                await behind.close()

    asyncio.run(whole())


def test_a_redis_that_stands_still_for_a_moment(own_redis: RedisServer, tmp_path: Path) -> None:
    """While it is stopped for 1.3 s a tab comes back: its turn goes on, and the claim is its own."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        tab = Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        turn = await a.begin(tab)
        own_redis.pause()
        asyncio.get_running_loop().call_later(1.3, own_redis.resume)
        assert await a.connect(tab, new=False) is None
        tab.text = "two"
        turn.end()
        await a.settled()
        assert (tab.abandoned, a.counts.overtaken, a.told) == (0, 0, [""])
        assert await b.connect(Tab(tab.id), new=True) == ("two", [])

    run(own_redis, tmp_path, scenario)


def test_what_is_done_late_changes_nothing(own_redis: RedisServer, tmp_path: Path) -> None:
    """After 3 s all that was asked is done at once, in any order: no finished turn is rolled back."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        tab = Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        relay.stall()
        began = time.monotonic()
        await a.turn(tab, "two")
        assert await a.connect(tab, new=False) is None
        await a.turn(tab, "three")
        turn = await a.begin(tab)
        assert a.told[1:] == [f"{relay.url.removeprefix('redis://')}: no answer"]
        await asyncio.sleep(began + 3 - time.monotonic())
        relay.go_on()
        await a.back()
        assert await a.connect(tab, new=False) is None
        tab.text = "four"
        turn.end()
        await a.settled()
        assert (tab.abandoned, a.counts.overtaken) == (0, 0)
        assert await b.connect(Tab(tab.id), new=True) == ("four", [])

    run(own_redis, tmp_path, scenario)


def test_an_answer_that_is_lost(own_redis: RedisServer, tmp_path: Path) -> None:
    """The connection breaks after a claim was done: it is asked again, and is ours already."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        tab = Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        fence, turn = a.live(tab).fence, await a.begin(tab)
        relay.losing = 1
        assert await a.connect(tab, new=False) is None
        assert (relay.lost, a.live(tab).fence) == (1, fence)
        turn.end()
        await a.settled()
        relay.losing = 1
        await b.connect(there := Tab(tab.id), new=True)
        await b.turn(there, "two")
        assert await a.connect(tab, new=True) == ("two", [])
        assert relay.lost == 2

    run(own_redis, tmp_path, scenario)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_redis_that_takes_nothing_is_down(own_redis: RedisServer, tmp_path: Path, fault: str) -> None:
    """It answers, and is down all the same, once, for a reason; all is written afterwards."""
    begin, end, reason = {
        "full": (own_redis.fill, own_redis.make_room, "maxmemory"),
        "read-only": (own_redis.make_read_only, own_redis.make_writable, "read only"),
    }[fault]

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        tab, late = Tab(), Tab()
        await a.connect(tab, new=True)
        await a.turn(tab, "one")
        begin()
        await a.turn(tab, "two")
        await a.connect(late, new=True)
        await a.turn(late, "begun meanwhile")
        await eventually(lambda: a.counts.store_errors >= 5, 10, "it was asked whether it is back")
        assert len(a.told) == 2
        assert reason in a.told[1]
        assert a.counts.unstorable == 0
        end()
        await a.back()
        assert a.told[2:] == [""]
        assert await b.connect(Tab(tab.id), new=True) == ("two", [])
        assert await b.connect(Tab(late.id), new=True) == ("begun meanwhile", [])

    run(own_redis, tmp_path, scenario)


def test_a_redis_that_was_emptied_in_passing(own_redis: RedisServer, tmp_path: Path) -> None:
    """Nobody notices that it forgot everything, until the next write: then all that lives is written."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        idle, busy = Tab(), Tab()
        for tab in (idle, busy):
            await a.connect(tab, new=True)
            await a.turn(tab, "one")
        own_redis.empty()
        turn = await a.begin(busy)
        await a.settled()
        assert await b.connect(Tab(idle.id), new=True) == ("one", [])
        busy.text = "two"
        turn.end()
        await a.settled()
        assert await b.connect(Tab(busy.id), new=True) == ("two", [])

    run(own_redis, tmp_path, scenario)


def test_a_redis_that_comes_back_empty(own_redis: RedisServer, tmp_path: Path) -> None:
    """After a restart every live session is written, also those in which nothing has happened since."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        idle, busy = Tab(), Tab()
        for tab in (idle, busy):
            await a.connect(tab, new=True)
            await a.turn(tab, "one")
        own_redis.kill9()
        await a.turn(busy, "two")
        own_redis.start()
        await a.back()
        assert await b.connect(Tab(idle.id), new=True) == ("one", [])
        assert await b.connect(Tab(busy.id), new=True) == ("two", [])

    run(own_redis, tmp_path, scenario)


@pytest.mark.parametrize("restarts", [True, False], ids=["restarted", "emptied in passing"])
def test_files_that_a_redis_has_lost_are_kept_again(
    own_redis: RedisServer, tmp_path: Path, restarts: bool
) -> None:
    """With the states come the files, also those of sessions in which nothing has happened since."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        for one in (a, b):
            one.sharing = Sharing(one.store, RedisFiles(one.store, 100), lambda: 60.0, one.told.append)
        idle, busy = Tab(), Tab()
        for tab in (idle, busy):
            await a.connect(tab, new=True)
            tab.paths = [tmp_path / f"{tab.id}.txt"]
            tab.paths[0].write_text(tab.id)
            await a.turn(tab, "one")
        if restarts:
            own_redis.kill9()
            await a.turn(busy, "two")
            own_redis.start()
            await a.back()
        else:
            own_redis.empty()
            await a.turn(busy, "two")
        await a.settled()
        for tab in (idle, busy):
            await b.connect(Tab(tab.id), new=True)
            await b.sharing.bring(tab.id, [there := tmp_path / "b" / tab.paths[0].name])
            assert there.read_text() == tab.id

    run(own_redis, tmp_path, scenario)


def test_a_large_state_on_a_slow_link_has_its_time(own_redis: RedisServer, tmp_path: Path) -> None:
    """What takes seconds to send is no store that is down, in either direction."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        large, small = Tab(), Tab()
        for tab in (large, small):
            await a.connect(tab, new=True)
        await a.turn(large, "one")
        relay.rate = 1_000_000
        async with a.sharing.turn(large.id, RECORD):
            large.text = "x" * 1_500_000  # more than an operation's second, and far from a client's four
        await a.turn(small, "two")
        await a.settled()
        assert (a.counts.store_up, a.counts.store_errors) == (True, 0)
        again = Tab(large.id)
        assert await b.connect(again, new=True) == (large.text, [])
        await b.turn(again, large.text + "y")
        assert await a.connect(Tab(large.id), new=True) == (again.text, [])
        assert a.counts.store_errors == 0

    run(own_redis, tmp_path, scenario)


def test_a_large_file_on_a_slow_link_is_no_store_that_is_down(own_redis: RedisServer, tmp_path: Path) -> None:
    """An upload takes its time, a piece at once: turns end as fast as ever, of its own session too."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        store = a.store
        a.sharing = Sharing(store, RedisFiles(store, 10_000_000), lambda: 60.0, a.told.append)
        b.sharing = Sharing(b.store, RedisFiles(b.store, 10_000_000), lambda: 60.0, b.told.append)
        uploader, other = Tab(), Tab()
        for tab in (uploader, other):
            await a.connect(tab, new=True)
        uploader.paths = [tmp_path / "large.bin"]
        uploader.paths[0].write_bytes(bytes(range(256)) * 36_000)  # nine seconds
        relay.rate = 1_000_000
        for text in ("one", "two"):
            for tab in (uploader, other):
                await a.turn(tab, text)
        assert (filing := a.live(uploader).filing)
        assert not filing.done(), "turns have waited for the upload"
        relay.rate = 0
        await a.settled()
        assert (a.counts.store_errors, a.counts.dropped_values, a.told) == (0, 0, [""])
        await b.connect(Tab(uploader.id), new=True)
        await b.sharing.bring(uploader.id, [there := tmp_path / "b" / "large.bin"])
        assert there.read_bytes() == uploader.paths[0].read_bytes()

    run(own_redis, tmp_path, scenario)


def test_files_are_kept_again_in_a_redis_that_was_emptied(own_redis: RedisServer, tmp_path: Path) -> None:
    """Uploads are as much of a session as its state: the round that finds it gone keeps them again."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        a.sharing = Sharing(a.store, RedisFiles(a.store, 100), lambda: 60.0, a.told.append)
        b.sharing = Sharing(b.store, RedisFiles(b.store, 100), lambda: 60.0, b.told.append)
        await a.connect(tab := Tab(), new=True)
        tab.paths = [tmp_path / "upload"]
        tab.paths[0].write_text("content")
        await a.turn(tab, "one")
        own_redis.ask("flushall")
        await a.sharing._renew()
        await a.settled()
        assert await b.connect(Tab(tab.id), new=True) == ("one", [])
        await b.sharing.bring(tab.id, [there := tmp_path / "b" / "upload"])
        assert there.read_text() == "content"

    run(own_redis, tmp_path, scenario)


def test_an_empty_file_comes_along(own_redis: RedisServer, tmp_path: Path) -> None:
    """A file without content is a file."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        files = RedisFiles(a.store, 10)
        (empty := tmp_path / "empty").touch()
        assert await files.keep("session-1", empty, 60)
        assert await files.bring("session-1", there := tmp_path / "b" / "empty", 60)
        assert there.read_bytes() == b""
        await files.drop("session-1", ["empty"])
        assert not await files.bring("session-1", there, 60)

    run(own_redis, tmp_path, scenario)


def test_the_reason_is_never_empty(own_redis: RedisServer, tmp_path: Path) -> None:
    """A silent Redis is one that gives no answer."""

    async def scenario(a: Instance, b: Instance, relay: RedisRelay) -> None:
        relay.stall()
        with pytest.raises(StoreDown, match=r"no answer$"):
            await a.store.write("session-1", "", "a", Write(1, 1, "x", None), 60)
        relay.go_on()

    run(own_redis, tmp_path, scenario)
