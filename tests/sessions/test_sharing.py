"""Who owns a session, what is written when, and what happens while the store is down."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.sessions import sharing as module
from proxy.sessions.files import FolderFiles
from proxy.sessions.sharing import Found, Sharing
from proxy.sessions.store import Claim, StoreDown
from tests.sessions.conftest import MakeStore, Stores
from tests.support.waiting import eventually

Scenario = Callable[[MakeStore], Awaitable[None]]


class Tab:
    """A scripted chat: its state is what a test sets."""

    def __init__(self, session: str, owner: str = "", text: str = "fresh") -> None:
        self.id, self.owner, self.text = session, owner, text
        self.paths: list[Path] = []
        self.abandoned = 0

    def state(self) -> tuple[str, int]:
        """The state that the test has set."""
        return self.text, 0

    def files(self) -> list[Path]:
        """The files that the test has set."""
        return self.paths

    def abandon(self) -> None:
        """Counted."""
        self.abandoned += 1

    def is_alive(self) -> bool:
        """As long as the test runs."""
        return True


class Flaky:
    """A store before a real one, which is down when the test says so."""

    def __init__(self, store: Any) -> None:
        self.store, self.down, self.asked = store, False, 0

    def __getattr__(self, name: str) -> Any:
        async def operation(*arguments: Any) -> Any:
            self.asked += 1
            if self.down:
                raise StoreDown("it was told to be")
            return await getattr(self.store, name)(*arguments)

        return operation


@pytest.fixture
def run(make_store: MakeStore) -> Callable[[Scenario], None]:
    """Runs a scenario with a way to make stores."""

    def runner(scenario: Scenario) -> None:
        async def whole() -> None:
            async with Stores(make_store) as make:
                await scenario(make)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

        asyncio.run(whole())

    return runner


def instance(store: Any, tmp_path: Path) -> Sharing:
    """One instance's sharing, with a folder that all have."""
    return Sharing(store, FolderFiles(tmp_path / "files", 10), lambda: 60.0)


async def turn(sharing: Sharing, tab: Tab, text: str) -> None:
    """A whole turn that ends in a state, and its write."""
    before = sharing.counts.writes
    token = await sharing.begin(tab.id, {"message": text})
    tab.text = text
    sharing.end(tab.id, token)
    await eventually(lambda: sharing.counts.writes >= before + 2, 5, "both writes")


def test_the_next_instance_finds_the_last_finished_turn(run: Any, tmp_path: Path) -> None:
    """After a turn the state is in the store; in one, what it was before and the turn."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        tab = Tab(str(uuid.uuid4()))
        assert await a.connected(tab, new=True) is None
        await turn(a, tab, "one")
        assert await b.connected(Tab(tab.id), new=True) == Found("one", [])
        again = Tab(tab.id, text="one")
        assert await a.connected(again, new=True) == Found("one", [])
        await a.begin(tab.id, {"message": "two"})
        again.text = "half of two"
        a.changed(tab.id)
        await asyncio.sleep(2 * module.DEBOUNCE)
        assert await b.connected(Tab(tab.id), new=True) == Found("one", [{"message": "two"}])

    run(scenario)


def test_a_first_turn_writes_the_state_before_it(run: Any, tmp_path: Path) -> None:
    """A session that dies in its very first turn is still that session."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        tab = Tab(str(uuid.uuid4()))
        await a.connected(tab, new=True)
        await a.begin(tab.id, {"message": "one"})
        assert await b.connected(Tab(tab.id), new=True) == Found("fresh", [{"message": "one"}])

    run(scenario)


def test_a_beginning_that_has_not_ended_is_not_written(run: Any, tmp_path: Path) -> None:
    """While `on_chat_start` runs nothing is stored, so that it runs anew elsewhere."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        tab = Tab(str(uuid.uuid4()))
        await a.connected(tab, new=True)
        token = a.hold(tab.id)
        a.changed(tab.id)
        await asyncio.sleep(2 * module.DEBOUNCE)
        assert a.counts.writes == 0
        a.end(tab.id, token)
        await eventually(lambda: a.counts.writes == 1, 5, "the write")
        assert await b.connected(Tab(tab.id), new=True) == Found("fresh", [])

    run(scenario)


def test_the_newer_connection_wins(run: Any, tmp_path: Path) -> None:
    """An instance whose session went elsewhere writes nothing more, and ends its copy."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        old, new = Tab(str(uuid.uuid4())), None
        await a.connected(old, new=True)
        await turn(a, old, "one")
        new = Tab(old.id)
        await b.connected(new, new=True)
        await turn(b, new, "two")
        old.text = "stale"
        assert await a.leaving(old.id) is False
        assert (old.abandoned, a.counts.overtaken) == (1, 1)
        await a.left(old.id, over=False)
        assert await b.leaving(old.id) is True
        # And back: what a has in memory is older than what b wrote.
        assert await a.connected(old, new=False) == Found("two", [])

    run(scenario)


def test_a_reconnect_at_the_same_instance_changes_nothing(run: Any, tmp_path: Path) -> None:
    """What is in memory is what counts as long as nobody else had the session, also in a turn."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        tab = Tab(str(uuid.uuid4()))
        await a.connected(tab, new=True)
        token = await a.begin(tab.id, {"message": "one"})
        assert await a.connected(tab, new=False) is None
        tab.text = "one"
        a.end(tab.id, token)
        await eventually(lambda: a.counts.writes == 2, 5, "the write")
        assert await b.connected(Tab(tab.id), new=True) == Found("one", [])

    run(scenario)


def test_another_user_starts_anew_and_overwrites_nothing(run: Any, tmp_path: Path) -> None:
    """Whoever names somebody else's session finds nothing, and is not shared."""

    async def scenario(make: MakeStore) -> None:
        a, b, c = (instance(make(), tmp_path) for _ in range(3))
        ada, eve = Tab(str(uuid.uuid4()), "=ada"), None
        await a.connected(ada, new=True)
        await turn(a, ada, "secret")
        eve = Tab(ada.id, "=eve")
        assert await b.connected(eve, new=True) is None
        eve.text = "forged"
        b.end(eve.id, await b.begin(eve.id, {"message": "x"}))
        await b.leaving(eve.id)
        assert (b.counts.refused, b.counts.writes) == (1, 0)
        assert await c.connected(Tab(ada.id, "=ada"), new=True) == Found("secret", [])

    run(scenario)


def test_a_store_that_is_down_costs_no_turn_and_is_caught_up(run: Any, tmp_path: Path) -> None:
    """Turns go on, nobody asks the store meanwhile, and what is live is written when it is back."""

    async def scenario(make: MakeStore) -> None:
        flaky = Flaky(make())
        a, b = instance(flaky, tmp_path), instance(make(), tmp_path)
        tab, newcomer = Tab(str(uuid.uuid4())), Tab(str(uuid.uuid4()))
        await a.connected(tab, new=True)
        await turn(a, tab, "one")
        flaky.down = True
        for text in ("two", "three"):
            token = await a.begin(tab.id, {"message": text})
            tab.text = text
            a.end(tab.id, token)
        assert await a.connected(newcomer, new=True) is None
        assert not a.counts.store_up
        asked = flaky.asked
        await a.begin(newcomer.id, {"message": "x"})
        assert flaky.asked == asked
        a.end(newcomer.id, next(iter(a._live[newcomer.id].turns)))
        flaky.down = False
        await eventually(
            lambda: a.counts.store_up and not any(x.behind for x in a._live.values()), 10, "back"
        )
        assert await b.connected(Tab(tab.id), new=True) == Found("three", [])
        assert await b.connected(Tab(newcomer.id), new=True) == Found("fresh", [])

    run(scenario)


def test_a_session_that_is_over_is_forgotten(run: Any, tmp_path: Path) -> None:
    """A new chat leaves neither a record nor files."""

    async def scenario(make: MakeStore) -> None:
        store = make()
        a = instance(store, tmp_path)
        tab = Tab(str(uuid.uuid4()))
        tab.paths = [tmp_path / "upload.txt"]
        tab.paths[0].write_text("x" * 100)
        await a.connected(tab, new=True)
        await turn(a, tab, "one")
        assert [path.name for path in (tmp_path / "files").rglob("*.txt")] == ["upload.txt"]
        await a.leaving(tab.id)
        await a.left(tab.id, over=True)
        assert list((tmp_path / "files").iterdir()) == []
        assert await store.claim(tab.id, "", 5, 60.0) == Claim(5)

    run(scenario)


def test_files_come_along(run: Any, tmp_path: Path) -> None:
    """What was uploaded at one instance is readable at the next, after the first has removed its own."""

    async def scenario(make: MakeStore) -> None:
        a, b = instance(make(), tmp_path), instance(make(), tmp_path)
        tab = Tab(str(uuid.uuid4()))
        tab.paths = [tmp_path / "a" / "id.txt"]
        tab.paths[0].parent.mkdir()
        tab.paths[0].write_text("hello")
        await a.connected(tab, new=True)
        await turn(a, tab, "one")
        tab.paths[0].unlink()
        await b.connected(Tab(tab.id), new=True)
        there = tmp_path / "b" / "id.txt"
        await b.bring(tab.id, [there, tmp_path / "b" / "never.txt"])
        assert there.read_text() == "hello"

    run(scenario)
