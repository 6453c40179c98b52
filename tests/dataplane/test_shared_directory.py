"""The directory that proxies share, through a real Redis: what one sees the others know."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import pytest
import redis.asyncio

from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.affinity.standstill import Standstill
from proxy.dataplane import shared_directory
from proxy.dataplane.shared_directory import PREFIX, SharedDirectory
from tests.affinity.making import backend_of, router_of
from tests.dataplane.loop import run_loop
from tests.sessions.conftest import redis_server
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

__all__ = ["redis_server"]

WAIT = 10.0
PATIENCE = shared_directory._PATIENCE


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a Redis that works may take longer than one that is waited for elsewhere."""
    monkeypatch.setattr(shared_directory, "_PATIENCE", WAIT)


class Side:
    """One proxy, as far as it shares."""

    def __init__(self, url: str, session_timeout: float = 3600.0) -> None:
        self.router: Router = router_of("a", "b", "c")
        self.standstill = Standstill()
        self.router.directory.session_timeout = session_timeout
        self.followed: list[tuple[str, bool]] = []  # open sessions that another side has moved or sent away
        self.shared = SharedDirectory(self.router, self.standstill.measure)
        self.shared.follow = self._follow
        self.shared.use(url)

    def _follow(self, session: Session) -> None:
        self.followed.append((session.id, session.sent_away))

    def connect(self, session_id: str, name: str) -> Session:
        """A session has connected at a backend."""
        now = monotonic()
        session = self.router.directory.assign(session_id, backend_of(self.router.fleet, name), now)
        self.router.directory.opened(session)
        return session

    def home(self, session_id: str) -> str | None:
        """Where a session lives, as far as this side knows."""
        session = self.router.directory.get(session_id, monotonic())
        return session.backend.name if session and session.backend else None

    async def find(self, session_id: str) -> str | None:
        """Where a session lives, as far as the others know."""
        return self.home(session_id) if await self.shared.find(session_id) else None

    async def up(self, expected: bool = True) -> None:
        """Wait until the directory is there, or is not."""
        await eventually(lambda: self.shared.up is expected, WAIT, f"{self.shared} up: {expected}")

    async def written(self) -> None:
        """Wait until all that is known here is there."""
        shared = self.shared
        await eventually(
            lambda: not shared._changed and not shared._backlog and sum(shared.writes.values()) > 0,
            WAIT,
            "written",
        )


@asynccontextmanager
async def sides(*all_sides: Side) -> AsyncIterator[None]:
    """They run, and are up."""
    tasks = [asyncio.ensure_future(side.shared.run()) for side in all_sides]
    try:
        for side in all_sides:
            await side.up()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(side.shared.up for side in all_sides)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it on the loop of the data plane."""
    run_loop(scenario(), debug=True)


def test_what_one_has_seen_another_finds(redis_server: RedisServer) -> None:
    """Where it lives, what it left, and that it is to leave; what nobody saw is missing."""

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            session = one.connect("seen", "a")
            one.router.directory.assign("seen", backend_of(one.router.fleet, "b"), monotonic())
            one.router.directory.send_away(session)
            one.router.directory.closed(session, monotonic())
            await one.written()
            assert await two.find("seen") == "b"
            found = two.router.directory.get("seen", monotonic())
            assert found is not None
            assert (found.left, found.sent_away, found.version) == (("a",), True, session.version)
            assert await two.find("never seen") is None
            assert two.shared.lookups == {"hit": 1, "miss": 1, "error": 0}

    run(scenario)


def test_a_move_is_told_to_who_knew_better_before(redis_server: RedisServer) -> None:
    """No proxy goes on by what it knew: a move reaches those that know the session, and no others."""

    async def scenario() -> None:
        one, two, three = (Side(redis_server.url) for _ in range(3))
        async with sides(one, two, three):
            one.connect("moving", "a")
            await one.written()
            assert await two.find("moving") == "a"
            two.router.directory.assign("moving", backend_of(two.router.fleet, "c"), monotonic())
            await eventually(lambda: one.home("moving") == "c", WAIT, "one is told")
            assert three.home("moving") is None
            assert one.shared.learned == 1

    run(scenario)


def test_who_has_a_connection_follows(redis_server: RedisServer) -> None:
    """A session that was sent away, and then is elsewhere, is so at every proxy that has it open."""

    async def scenario() -> None:
        one, two, three = (Side(redis_server.url) for _ in range(3))
        async with sides(one, two, three):
            one.connect("moving", "a")
            await one.written()
            there = two.connect("moving", "a")
            assert await three.find("moving") == "a"
            session = three.router.directory.get("moving", monotonic())
            assert session is not None
            three.router.directory.send_away(session)
            await eventually(lambda: there.sent_away, WAIT, "two is told")
            three.router.directory.assign("moving", backend_of(three.router.fleet, "b"), monotonic())
            await eventually(lambda: one.home("moving") == two.home("moving") == "b", WAIT, "all are told")
            assert not there.sent_away
            assert two.followed == one.followed == [("moving", True), ("moving", False)]
            assert not three.followed

    run(scenario)


def test_a_turn_that_a_poll_told_is_known_to_all(redis_server: RedisServer) -> None:
    """The poll that tells of its end may come to another proxy; of another backend's turn nobody hears."""

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            here = one.connect("polling", "a")
            await one.written()
            there = two.connect("polling", "a")
            elsewhere = two.connect("elsewhere", "b")

            def there_is(answering: bool) -> bool:
                return there.in_turn is answering

            for answering in (True, False):
                here.hear(0.0, begins=answering)
                one.shared.turn(one.connect("elsewhere", "c"))
                one.shared.turn(here)
                await eventually(partial(there_is, answering), WAIT, "two is told")
            assert not elsewhere.in_turn

    run(scenario)


def test_an_old_word_does_not_win(redis_server: RedisServer) -> None:
    """Who was away and writes what it knew is told what became of it meanwhile."""

    async def scenario() -> None:
        old, new = Side(redis_server.url), Side(redis_server.url)
        old.connect("stale", "a")
        await asyncio.sleep(0.005)  # the versions are milliseconds
        new.connect("stale", "b")
        async with sides(new):
            await new.written()
            async with sides(old):
                await eventually(lambda: old.home("stale") == "b", WAIT, "the old one has learned")
                assert old.shared.writes["overruled"] == 1
                assert new.home("stale") == "b"

    run(scenario)


def test_many_changes_are_one_write(redis_server: RedisServer) -> None:
    """A session that changes again before it was written is written once, as it is then."""

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            for number in range(500):
                session = one.connect(f"busy-{number % 5}", "abc"[number % 3])
            assert len(one.shared._changed) == 5
            await one.written()
            assert one.shared.writes["written"] == 5
            assert await two.find(session.id) == one.home(session.id)

    run(scenario)


@pytest.mark.parametrize("sid", [b"sid", b"\xff\xfe"])
def test_a_connect_by_poll_is_told(redis_server: RedisServer, sid: bytes) -> None:
    """The other requests of its transport follow it at every proxy, whatever bytes its sid is made of."""

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            a, b = (backend_of(two.router.fleet, name) for name in "ab")
            here = one.router.engines.opened(sid, backend_of(one.router.fleet, "a"), monotonic())
            there = two.router.engines.opened(sid, a, monotonic())
            session = one.connect("polling", "b")
            one.router.engines.rehome(here, backend_of(one.router.fleet, "b"), b"other")
            one.router.engines.decide(here, session)
            await eventually(lambda: there.session is not None, WAIT, "two is told")
            assert (there.backend, there.upstream_sid) == (b, b"other")
            assert there.session is two.router.directory.get("polling", monotonic())

    run(scenario)


def test_nobody_waits_for_a_redis_that_is_gone(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is missed at once; when it is back, empty, all that is known is written, and found by the others."""

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            one.connect("before", "a")
            await one.written()
            redis_server.kill9()
            await asyncio.gather(one.up(False), two.up(False))
            assert await two.shared.find("before") is None
            assert two.shared.lookups["error"] == 1
            one.connect("meanwhile", "c")
            redis_server.start()
            await asyncio.gather(one.up(), two.up())
            await eventually(lambda: one.shared.writes["written"] == 3, WAIT, "all is written anew")
            assert [await two.find(name) for name in ("before", "meanwhile")] == ["a", "c"]
            assert one.shared.errors >= 1

    with caplog.at_level(logging.INFO, "proxy"):
        run(scenario)
    lost = [text for text in caplog.messages if "is lost, going on alone" in text]
    assert len(lost) == 2


def test_a_redis_that_hangs_is_waited_for_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who ask when it stops answering wait for half a second; who comes later does not wait."""

    async def scenario() -> None:
        one = Side(redis_server.url)
        async with sides(one):
            monkeypatch.setattr(shared_directory, "_PATIENCE", PATIENCE)
            redis_server.pause()
            try:
                assert await asyncio.gather(*(one.shared.find(f"{n}") for n in range(300))) == [None] * 300
                assert not one.shared.up
                later = asyncio.create_task(one.shared.find("later"))
                await asyncio.sleep(0)
                assert later.done()
                assert later.result() is None
            finally:
                redis_server.resume()
                monkeypatch.setattr(shared_directory, "_PATIENCE", WAIT)
            await one.up()

    run(scenario)


def test_a_proxy_that_stood_still_does_not_lose_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Redis has said meanwhile is read, a lookup is answered, and nobody has to go on alone."""
    monkeypatch.setattr("proxy.dataplane.shared_directory._DEAF", 1.0)

    async def scenario() -> None:
        one, two = Side(redis_server.url), Side(redis_server.url)
        async with sides(one, two):
            one.connect("seen", "a")
            await one.written()
            monkeypatch.setattr(shared_directory, "_PATIENCE", PATIENCE)
            finding = asyncio.create_task(two.find("seen"))
            for _ in range(4):
                await asyncio.sleep(0)
            for side in (one, two):
                side.standstill.measure(monotonic())
            time.sleep(2.5)  # noqa: ASYNC251 - nobody else in this process is to run
            assert await finding == "a"
            assert (one.shared.errors, two.shared.errors, two.shared.lookups["error"]) == (0, 0, 0)

    run(scenario)


def test_lookups_that_wait_are_bounded(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up ids fill nothing while it is slow: what is over the bound is told at once."""
    monkeypatch.setattr("proxy.dataplane.shared_directory._MOST_WANTED", 10)

    async def scenario() -> None:
        one = Side(redis_server.url)
        async with sides(one):
            found = await asyncio.gather(*(one.shared.find(f"made-up-{n}") for n in range(15)))
            assert found == [False] * 10 + [None] * 5
            assert await one.shared.find("made-up-1") is False

    run(scenario)


def test_entries_expire(redis_server: RedisServer) -> None:
    """Those of open sessions are written anew in time; those of others go a while after they go here."""

    async def scenario() -> None:
        one = Side(redis_server.url, session_timeout=6.0)
        async with sides(one):
            one.connect("stays", "a")
            one.router.directory.closed(one.connect("goes", "a"), monotonic())
            await one.written()
            client = redis.asyncio.Redis.from_url(redis_server.url)
            try:
                lives = [await client.pttl(PREFIX + name) for name in ("stays", "goes")]
                assert all(6000 < left <= 8000 for left in lives), lives
                await client.pexpire(PREFIX + "stays", 4500)
                await eventually(lambda: one.shared.writes["written"] >= 3, WAIT, "written anew")
                assert await client.pttl(PREFIX + "stays") > 4500
            finally:
                await client.aclose()

    run(scenario)


@pytest.mark.parametrize(
    "word", ["", "x", "s", "s 1 a ,", "e sid", "e a b 1 a , stays", "t", "t starts a", "s x a , stays S"]
)
def test_what_is_not_understood_is_passed_over(redis_server: RedisServer, word: str) -> None:
    """Another version of the proxy may say more on the same channel."""
    side = Side(redis_server.url)
    side.shared._take(word)
    assert len(side.router.directory) == 0


def test_a_password_is_not_logged(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the url nor what is wrong with its password."""

    async def scenario() -> None:
        side = Side(redis_server.url.replace("//", "//nobody:hunter2@"))
        task = asyncio.ensure_future(side.shared.run())
        await eventually(lambda: side.shared.errors, WAIT, "refused")
        task.cancel()
        await asyncio.wait([task])

    with caplog.at_level(logging.DEBUG, "proxy"):
        run(scenario)
    assert "is lost, going on alone" in caplog.text
    assert "hunter2" not in caplog.text


def test_another_server_takes_over(redis_server: RedisServer) -> None:
    """A reload may name another url, or none: nothing is asked or written any more."""

    async def scenario() -> None:
        side = Side(redis_server.url)
        async with sides(side):
            side.connect("known", "a")
            await side.written()
            side.shared.use(None)
            await side.up(False)
            assert not side.router.shared
            side.connect("unheard", "a")
            assert not side.shared._changed
            side.shared.use(redis_server.url + "/1")
            await side.up()
            await eventually(lambda: side.shared.writes["written"] == 3, WAIT, "written there")

    run(scenario)
