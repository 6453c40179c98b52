"""Both stores keep the same promises."""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.sessions import SharingSettings
from proxy.sessions.redis_store import RedisStore
from proxy.sessions.sqlite_store import SqliteStore
from proxy.sessions.store import OPERATION, Claim, Outcome, Store, StoreDown, Write
from tests.sessions.conftest import MakeStore, Stores
from tests.support.processes import free_port

NOW, TTL = 1_800_000_000_000, 60.0
A, B = "token of a", "token of b"
Run = Callable[[Callable[[Store], Awaitable[None]]], None]


@pytest.fixture
def session() -> str:
    """An id that no other test has used in the store."""
    return str(uuid.uuid4())


@pytest.fixture
def run(make_store: MakeStore) -> Run:
    """Runs a scenario with a store."""

    def runner(scenario: Callable[[Store], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with Stores(make_store) as make:
                await scenario(make())

        asyncio.run(whole())

    return runner


def write(fence: int, number: int = 1, state: str | None = None, turns: str | None = None) -> Write:
    """A write with what the test is about."""
    return Write(fence, number, state, turns)


def test_a_new_session_has_no_state(run: Run, session: str) -> None:
    """The first claim finds nothing, and gets the time as its fence."""

    async def scenario(store: Store) -> None:
        assert await store.claim(session, "", A, NOW, TTL) == Claim(NOW)

    run(scenario)


def test_what_was_written_is_found_by_the_next(make_store: MakeStore, session: str) -> None:
    """State and turns are read by the next claim, whatever characters they have, and who wrote them."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            first, second = make(), make()
            await first.claim(session, "=ada", A, NOW, TTL)
            full = write(NOW, 1, '{"é": "\\u0000"}', '["turn"]')
            assert await first.write(session, "=ada", A, full, TTL) is Outcome.WRITTEN
            claim = await second.claim(session, "=ada", B, NOW, TTL)
            assert claim == Claim(NOW + 1, again=False, writer=A, state=full.state, turns=full.turns, taken=1)

    asyncio.run(scenario())


def test_a_claim_that_is_repeated_is_yours_already(run: Run, session: str) -> None:
    """Where an answer was lost the same token gets the same fence, and is told what is there all the same."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        await store.write(session, "", A, write(NOW, 1, "by a"), TTL)
        taken = await store.claim(session, "", B, NOW + 5, TTL)
        for later in (0, 1000):
            again = await store.claim(session, "", B, NOW + 5 + later, TTL)
            assert again == Claim(taken.fence, again=True, writer=A, state="by a", taken=1)
        await store.write(session, "", B, write(taken.fence, 9, "by b"), TTL)
        assert (await store.claim(session, "", B, NOW, TTL)).writer == B

    run(scenario)


def test_who_takes_it_over_and_writes_nothing_is_counted(run: Run, session: str) -> None:
    """Until somebody writes, be it without a state; a claim that is repeated counts once."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        await store.claim(session, "", B, NOW, TTL)
        first = await store.claim(session, "", A, NOW, TTL)
        assert (first.writer, first.taken) == ("", 0), "there is nothing to take over"
        await store.write(session, "", A, write(first.fence, 1, "by a"), TTL)
        claims = [await store.claim(session, "", token, NOW, TTL) for token in (B, "c", "c", A)]
        assert [claim.taken for claim in claims] == [1, 2, 2, 3]
        assert {(claim.writer, claim.state) for claim in claims} == {(A, "by a")}
        await store.write(session, "", A, write(claims[-1].fence, 9), TTL)
        last = await store.claim(session, "", B, NOW, TTL)
        assert (last.writer, last.state, last.taken) == (A, "by a", 1)

    run(scenario)


def test_a_write_without_state_leaves_the_old(run: Run, session: str) -> None:
    """A turn that begins is recorded beside the state before it; its end takes it away."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        await store.write(session, "", A, write(NOW, 1, "before"), TTL)
        await store.write(session, "", A, write(NOW, 2, None, "[1]"), TTL)
        begun = await store.claim(session, "", A, NOW, TTL)
        assert (begun.state, begun.turns) == ("before", "[1]")
        await store.write(session, "", A, write(NOW, 3, "after"), TTL)
        ended = await store.claim(session, "", A, NOW, TTL)
        assert (ended.state, ended.turns) == ("after", None)

    run(scenario)


def test_an_empty_state_removes_the_old(run: Run, session: str) -> None:
    """What must not be restored is gone, and the record still keeps others from writing."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        await store.write(session, "", A, write(NOW, 1, "before"), TTL)
        await store.write(session, "", A, write(NOW, 2, ""), TTL)
        assert await store.claim(session, "", B, NOW, TTL) == Claim(NOW + 1, writer=A, taken=1)
        assert await store.write(session, "", A, write(NOW, 3, "late"), TTL) is Outcome.REFUSED

    run(scenario)


def test_a_late_write_does_not_come_over_a_newer_one(run: Run, session: str) -> None:
    """One that nobody waits for any more, and that the store does in the end, changes nothing."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        for number, state in ((2, "second"), (1, "first"), (3, ""), (2, "second")):
            assert await store.write(session, "", A, write(NOW, number, state), TTL) is Outcome.WRITTEN
            if number == 1:
                assert (await store.claim(session, "", A, NOW, TTL)).state == "second"
        assert (await store.claim(session, "", A, NOW, TTL)).state is None

    run(scenario)


def test_a_claim_whose_answer_was_lost_keeps_nobody_from_writing(run: Run, session: str) -> None:
    """Who has claimed again without hearing of its new fence writes with the old one."""

    async def scenario(store: Store) -> None:
        first = await store.claim(session, "", A, NOW, TTL)
        other = await store.claim(session, "", B, NOW, TTL)
        lost = await store.claim(session, "", A, NOW, TTL)
        assert await store.write(session, "", A, write(first.fence, 5, "ours"), TTL) is Outcome.WRITTEN
        assert await store.write(session, "", B, write(other.fence, 9, "theirs"), TTL) is Outcome.REFUSED
        assert await store.write(session, "", A, write(lost.fence, 4, "late"), TTL) is Outcome.WRITTEN
        again = await store.claim(session, "", A, NOW, TTL)
        assert again == Claim(lost.fence, again=True, writer=A, state="ours")

    run(scenario)


def test_a_write_from_before_a_claim_is_late(run: Run, session: str) -> None:
    """What this process wrote before another had the session does not come over what that has written."""

    async def scenario(store: Store) -> None:
        first = await store.claim(session, "", A, NOW, TTL, 1)
        other = await store.claim(session, "", B, NOW, TTL, 1)
        await store.write(session, "", B, write(other.fence, 2, "theirs"), TTL)
        await store.claim(session, "", A, NOW, TTL, 3)
        assert await store.write(session, "", A, write(first.fence, 2, "old"), TTL) is Outcome.WRITTEN
        assert (await store.claim(session, "", A, NOW, TTL, 4)).state == "theirs"

    run(scenario)


def test_an_older_fence_cannot_write(make_store: MakeStore, session: str) -> None:
    """Once somebody else has claimed the session, its last holder's writes are refused."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            old, new = make(), make()
            before = (await old.claim(session, "", A, NOW, TTL)).fence
            after = (await new.claim(session, "", B, NOW - 5, TTL)).fence
            assert after > before, "a clock that is behind makes no lower fence"
            assert await new.write(session, "", B, write(after, 1, "new"), TTL) is Outcome.WRITTEN
            assert await old.write(session, "", A, write(before, 2, "old"), TTL) is Outcome.REFUSED
            assert (await new.claim(session, "", B, NOW, TTL)).state == "new"

    asyncio.run(scenario())


@pytest.mark.parametrize(("owner", "stranger"), [("=ada", "=eve"), ("=ada", ""), ("", "=eve"), ("=", "")])
def test_nobody_else_gets_a_session(run: Run, session: str, owner: str, stranger: str) -> None:
    """Another user, or none instead of one, is told nothing and changes nothing, with any token."""

    async def scenario(store: Store) -> None:
        await store.claim(session, owner, A, NOW, TTL)
        await store.write(session, owner, A, write(NOW, 1, "secret"), TTL)
        for token in (A, B):
            assert await store.claim(session, stranger, token, NOW, TTL) == Claim(0)
            forged = write(NOW + 99, 9, "forged")
            assert await store.write(session, stranger, token, forged, TTL) is Outcome.REFUSED
        claim = await store.claim(session, owner, B, NOW, TTL)
        assert claim == Claim(NOW + 1, writer=A, state="secret", taken=1)

    run(scenario)


def test_simultaneous_claims_get_different_fences(make_store: MakeStore, session: str) -> None:
    """A claim is one step: of many at once exactly one has the highest fence."""

    async def scenario() -> None:
        async with Stores(make_store) as make:
            stores = [make() for _ in range(4)]
            claims = await asyncio.gather(
                *(store.claim(session, "", uuid.uuid4().hex, NOW, TTL) for store in stores for _ in range(5))
            )
            assert sorted(claim.fence for claim in claims) == list(range(NOW, NOW + 20))

    asyncio.run(scenario())


def test_a_record_expires_unless_it_is_touched(run: Run, session: str) -> None:
    """After its time a record is gone; touching makes it stay, and tells what is not as it was left."""

    async def scenario(store: Store) -> None:
        kept = f"{session}-kept"
        for name in (session, kept):
            await store.claim(name, "", A, NOW, 0.3)
            await store.write(name, "", A, write(NOW, 4, "state"), 0.3)
        never = f"{session}-never"
        assert await store.touch({kept: 4, never: 0}, A, TTL) == [never]
        assert await store.touch({kept: 3}, A, TTL) == []
        for number, token in ((5, A), (4, B)):
            assert await store.touch({kept: number}, token, TTL) == [kept]
        await asyncio.sleep(0.4)
        assert await store.touch({session: 4}, A, TTL) == [session]
        assert (await store.claim(session, "", B, NOW, TTL)).state is None
        assert (await store.claim(kept, "", B, NOW, TTL)).state == "state"

    run(scenario)


def test_a_store_that_lost_everything_takes_the_next_write(run: Run, session: str) -> None:
    """A live session whose record is gone is written anew under the fence that it has, and is told so."""

    async def scenario(store: Store) -> None:
        assert await store.write(session, "", A, write(NOW, 7, "again"), TTL) is Outcome.ANEW
        assert await store.write(session, "", A, write(NOW, 8), TTL) is Outcome.WRITTEN
        assert await store.claim(session, "", A, NOW, TTL) == Claim(NOW, again=True, writer=A, state="again")

    run(scenario)


def test_a_large_state_comes_back(run: Run, session: str) -> None:
    """Megabytes are one state."""

    async def scenario(store: Store) -> None:
        await store.claim(session, "", A, NOW, TTL)
        await store.write(session, "", A, write(NOW, 1, "x" * 8_000_000), TTL)
        assert (await store.claim(session, "", B, NOW, TTL)).state == "x" * 8_000_000

    run(scenario)


def test_an_app_that_blocks_its_loop_has_no_store_that_is_down(run: Run, session: str) -> None:
    """What the store has answered meanwhile is read before the time is up, at the first question too."""

    async def scenario(store: Store) -> None:
        for _ in range(2):
            asked = asyncio.create_task(store.claim(session, "", A, NOW, TTL))
            await asyncio.sleep(0)
            time.sleep(2 * OPERATION)  # noqa: ASYNC251 - the app makes a synchronous call
            assert (await asked).fence == NOW

    run(scenario)


def test_a_locked_file_is_a_store_that_is_down(tmp_path: Path, session: str) -> None:
    """A lock that another process does not give back is told within seconds, and then it is over."""

    async def scenario() -> None:
        store = SqliteStore(tmp_path / "sessions.db")
        await store.ping()
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("begin exclusive")
        with pytest.raises(StoreDown, match="locked"):
            await store.claim(session, "", A, NOW, TTL)
        with pytest.raises(StoreDown, match="locked"):
            await store.ping()
        other.execute("rollback")
        other.close()
        assert (await store.claim(session, "", A, NOW, TTL)).fence == NOW
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("there", [False, True])
def test_only_its_user_reads_the_file(tmp_path: Path, session: str, *, there: bool) -> None:
    """The file and those that SQLite keeps beside it have mode 0600, also in a folder of the user's own."""
    path = tmp_path / "sessions.db"
    beside = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]

    async def scenario() -> None:
        store = SqliteStore(path)
        await store.claim(session, "", A, NOW, TTL)
        assert [oct(file.stat().st_mode & 0o777) for file in beside] == ["0o600"] * 3
        await store.close()

    if there:
        keeper = sqlite3.connect(path)
        keeper.execute("pragma journal_mode = wal")
        keeper.execute("create table t (x)")
        for file in beside:
            file.chmod(0o644)
    asyncio.run(scenario())
    if there:
        keeper.close()


def test_a_redis_that_is_not_there_is_down(session: str) -> None:
    """Nobody listens: StoreDown, and no word of the password."""

    async def scenario() -> None:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{free_port()}")
        with pytest.raises(StoreDown) as caught:
            await store.claim(session, "", A, NOW, TTL)
        assert "hunter2" not in f"{caught.value} {store!r}"
        await store.close()

    asyncio.run(scenario())


def test_a_file_at_rest_is_alone(tmp_path: Path) -> None:
    """What SQLite keeps beside it is gone when nobody has it open; the next call opens it again."""

    def names() -> set[str]:
        return {entry.name for entry in tmp_path.iterdir()}

    async def main() -> None:
        store = SqliteStore(tmp_path / "s.db")
        for _ in range(2):
            await store.ping()
            assert names() > {"s.db"}
            await store.rest()
            assert names() == {"s.db"}
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("store", "place"),
    [
        ("sqlite:////srv/s.db", "sqlite:////srv/s.db"),
        ("redis://user:s3cret@redis.example:6380/2?password=s3cret", "redis://redis.example:6380"),
        ("rediss://:s3cret@[::1]", "rediss://[::1]"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock"),
    ],
)
def test_where_sessions_are_is_told_without_secrets(store: str, place: str) -> None:
    """The log of an instance says so, and everybody may read that."""
    assert SharingSettings(store).place == place
