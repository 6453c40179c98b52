"""Both stores keep the same promises."""

import asyncio
import sqlite3
import uuid
from pathlib import Path

import pytest

from proxy.sessions.redis_store import RedisStore
from proxy.sessions.sqlite_store import SqliteStore
from proxy.sessions.store import Claim, StoreDown
from tests.sessions.conftest import MakeStore, Stores
from tests.support.processes import free_port

NOW, TTL = 1_800_000_000_000, 60.0


@pytest.fixture
def session() -> str:
    """An id that no other test has used in the store."""
    return str(uuid.uuid4())


def test_a_new_session_has_no_state(make_store: MakeStore, session: str) -> None:
    """The first claim finds nothing, and gets the time as its fence."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            assert await make().claim(session, "", NOW, TTL) == Claim(NOW)

    asyncio.run(scenario())


def test_what_was_written_is_found_by_the_next(make_store: MakeStore, session: str) -> None:
    """State and turns are read by the next claim, whatever characters they have."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            first, second = make(), make()
            fence = (await first.claim(session, "=ada", NOW, TTL)).fence
            assert await first.write(session, "=ada", fence, '{"é": "\\u0000"}', '["turn"]', TTL)
            claim = await second.claim(session, "=ada", NOW, TTL)
            assert claim == Claim(NOW + 1, NOW, '{"é": "\\u0000"}', '["turn"]')

    asyncio.run(scenario())


def test_a_write_without_state_leaves_the_old(make_store: MakeStore, session: str) -> None:
    """A turn that begins is recorded beside the state before it; its end takes it away."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            store = make()
            fence = (await store.claim(session, "", NOW, TTL)).fence
            assert await store.write(session, "", fence, "before", None, TTL)
            assert await store.write(session, "", fence, None, "[1]", TTL)
            begun = await store.claim(session, "", NOW, TTL)
            assert (begun.state, begun.turns) == ("before", "[1]")
            assert await store.write(session, "", begun.fence, "after", None, TTL)
            ended = await store.claim(session, "", NOW, TTL)
            assert (ended.state, ended.turns) == ("after", None)

    asyncio.run(scenario())


def test_an_older_fence_cannot_write(make_store: MakeStore, session: str) -> None:
    """Once somebody else has claimed the session, its last holder's writes are refused."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            old, new = make(), make()
            before = (await old.claim(session, "", NOW, TTL)).fence
            after = (await new.claim(session, "", NOW - 5, TTL)).fence
            assert after > before, "a clock that is behind makes no lower fence"
            assert await new.write(session, "", after, "new", None, TTL)
            assert not await old.write(session, "", before, "old", None, TTL)
            await old.delete(session, before)
            assert (await new.claim(session, "", NOW, TTL)).state == "new"

    asyncio.run(scenario())


@pytest.mark.parametrize(("owner", "stranger"), [("=ada", "=eve"), ("=ada", ""), ("", "=eve"), ("=", "")])
def test_nobody_else_gets_a_session(make_store: MakeStore, session: str, owner: str, stranger: str) -> None:
    """Another user, or none instead of one, is told nothing and changes nothing."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            store = make()
            fence = (await store.claim(session, owner, NOW, TTL)).fence
            await store.write(session, owner, fence, "secret", None, TTL)
            assert await store.claim(session, stranger, NOW, TTL) == Claim(0)
            assert not await store.write(session, stranger, NOW + 99, "forged", None, TTL)
            assert await store.claim(session, owner, NOW, TTL) == Claim(fence + 1, fence, "secret")

    asyncio.run(scenario())


def test_simultaneous_claims_get_different_fences(make_store: MakeStore, session: str) -> None:
    """A claim is one step: of many at once exactly one has the highest fence."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            stores = [make() for _ in range(4)]
            claims = await asyncio.gather(*(s.claim(session, "", NOW, TTL) for s in stores for _ in range(5)))
            assert sorted(claim.fence for claim in claims) == list(range(NOW, NOW + 20))

    asyncio.run(scenario())


def test_a_record_expires_unless_it_is_touched(make_store: MakeStore, session: str) -> None:
    """After its time a record is gone; touching makes it stay, and tells what is not there."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            store = make()
            for name in (session, session + "-kept"):
                fence = (await store.claim(name, "", NOW, 0.3)).fence
                await store.write(name, "", fence, "state", None, 0.3)
            assert await store.touch([session + "-kept", session + "-never"], TTL) == [session + "-never"]
            await asyncio.sleep(0.4)
            await store.purge()
            assert (await store.claim(session, "", NOW, TTL)).state is None
            assert (await store.claim(session + "-kept", "", NOW, TTL)).state == "state"

    asyncio.run(scenario())


def test_a_store_that_lost_everything_takes_the_next_write(make_store: MakeStore, session: str) -> None:
    """A live session whose record is gone is written anew under the fence that it has."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            store = make()
            fence = (await store.claim(session, "", NOW, TTL)).fence
            await store.delete(session, fence)
            assert await store.write(session, "", fence, "again", None, TTL)
            assert await store.claim(session, "", NOW, TTL) == Claim(fence + 1, fence, "again")

    asyncio.run(scenario())


def test_a_locked_file_is_a_store_that_is_down(tmp_path: Path, session: str) -> None:
    """A lock that another process does not give back is told within seconds, and then it is over."""

    async def scenario() -> None:
        store = SqliteStore(tmp_path / "sessions.db")
        await store.ping()
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("begin exclusive")
        with pytest.raises(StoreDown, match="locked"):
            await store.claim(session, "", NOW, TTL)
        other.execute("rollback")
        other.close()
        assert (await store.claim(session, "", NOW, TTL)).fence == NOW
        await store.close()

    asyncio.run(scenario())


def test_a_redis_that_is_not_there_is_down(session: str) -> None:
    """Nobody listens: StoreDown, and no word of the password."""

    async def scenario() -> None:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{free_port()}")
        with pytest.raises(StoreDown) as caught:
            await store.claim(session, "", NOW, TTL)
        assert "hunter2" not in f"{caught.value} {store!r}"
        await store.close()

    asyncio.run(scenario())
