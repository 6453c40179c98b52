"""Random histories of two instances and their store, against what a user is promised."""

import asyncio
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.sessions import sharing as module
from proxy.sessions.live import Running
from proxy.sessions.machine import Standing
from proxy.sessions.sqlite_store import SqliteStore
from tests.support.tabs import Flaky, Instance, Tab, end_tasks

T = TypeVar("T")
SESSION = "session-of-histories"
HERE = st.sampled_from([0, 1])


class Chat(Tab):
    """A tab of the history, whose turn ends when it is abandoned, as Chainlit's does."""

    running: Running | None = None

    def abandon(self) -> None:
        """Its turn ends half done."""
        if self.running:
            self.running.end()
            self.running = None


class Histories(RuleBasedStateMachine):
    """One session and one user, who sees what a chat shows and is where it was connected last.

    While the store works, a user who connects anywhere sees every finished turn and nothing older. Where the
    store was down or lost its memory, what the user was shown since is what counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "sessions.db"
        self.stores = [Flaky(SqliteStore(self.path)) for _ in range(2)]
        self.instances = [Instance(store, Path(self.folder.name)) for store in self.stores]
        self.memory: list[Chat | None] = [None, None]  # what Chainlit keeps of the session at each
        self.at: int | None = None  # where the user is connected
        self.last: int | None = None  # where the user was connected last
        self.shown: str | None = (
            "fresh"  # finished turns that the user was shown; None: the store may not know
        )
        self.down = self.emptied = False
        self.n = 0

    def do(self, work: Awaitable[T]) -> T:
        """Does it, and all that follows from it."""

        async def whole() -> T:
            answer = await work
            for instance in self.instances:
                await instance.settled()
            return answer

        return self.loop.run_until_complete(asyncio.wait_for(whole(), 20))

    def teardown(self) -> None:
        """Ends everything."""
        self.loop.run_until_complete(end_tasks())
        for store in self.stores:
            self.loop.run_until_complete(store.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    @property
    def here(self) -> Chat:
        """The chat that the user sees."""
        assert self.at is not None
        chat = self.memory[self.at]
        assert chat
        return chat

    @initialize()
    def begin_history(self) -> None:
        """The store is there before anything happens."""
        self.do(self.stores[0].ping())

    @rule(i=HERE, lost=st.integers(0, 2))
    def connect(self, i: int, lost: int) -> None:
        """The client connects, here or elsewhere, with the instance before not knowing that it has gone."""
        chat = self.memory[i]
        new = chat is None
        if chat is None:
            chat = self.memory[i] = Chat(SESSION)
        goes_on = chat.running if self.last == i else None
        self.stores[i].losing = 0 if self.down else lost
        apart = self.instances[i].standing(chat) is Standing.ABSENT  # it has gone on here without the store
        found = self.do(self.instances[i].connect(chat, new=new))
        self.stores[i].losing = 0
        if found is not None:
            chat.abandon()
        unsure = self.down or self.emptied or self.shown is None or lost == 2 or apart
        if not unsure and not goes_on:
            assert chat.text == self.shown, f"{found} {self.instances[i].sharing}"
        if not unsure and goes_on:
            assert chat.running, "nobody else had it: the turn goes on"
        self.at = self.last = i
        if not chat.running:
            self.shown = chat.text
        self.do(self.change())

    async def change(self) -> None:
        """What is set between turns is written, as after each greeting."""
        assert self.at is not None
        sharing = self.instances[self.at].sharing
        await sharing.save(sharing._live[SESSION])

    @precondition(lambda self: self.at is not None and not self.here.running)
    @rule(lost=st.integers(0, 1))
    def begin(self, lost: int) -> None:
        """The user says something; nobody else is connected, so it is run."""
        self.stores[self.at].losing = 0 if self.down else lost  # type: ignore[index]
        turn = self.instances[self.at].sharing.turn(SESSION, {"n": self.n})  # type: ignore[index]
        assert self.do(turn.begin())
        self.here.running = turn
        self.here.text = f"half of {self.n}"

    @precondition(lambda self: self.at is not None and self.here.running)
    @rule(lost=st.integers(0, 1))
    def end(self, lost: int) -> None:
        """The answer is whole."""
        chat, self.n = self.here, self.n + 1
        chat.text = self.shown = f"{self.n} turns"
        self.stores[self.at].losing = 0 if self.down else lost  # type: ignore[index]
        turn, chat.running = chat.running, None
        assert turn
        self.do(self.end_of(turn))
        self.stores[self.at].losing = 0  # type: ignore[index]

    @rule(i=HERE)
    def end_away(self, i: int) -> None:
        """A turn ends whose client has gone: it counts unless the client is elsewhere by now."""
        chat = self.memory[i]
        if i == self.at or chat is None or not chat.running:
            return
        turn, chat.running, self.n = chat.running, None, self.n + 1
        chat.text = f"{self.n} turns"
        if self.last == i and self.at is None:
            counts = self.instances[i].standing(chat) is Standing.CLAIMED and not self.emptied
            self.shown = chat.text if counts else None
        self.do(self.end_of(turn))

    @staticmethod
    async def end_of(turn: Running) -> None:
        """It ends as often as it is told to."""
        turn.end()
        turn.end()

    @precondition(lambda self: self.at is not None)
    @rule()
    def press_a_button(self) -> None:
        """An action's callback begins and ends, also in a message's turn, which it leaves alone."""

        async def pressed() -> None:
            async with self.instances[self.at].sharing.turn(SESSION):  # type: ignore[index]
                pass

        self.do(pressed())

    @rule(i=HERE)
    def hear_late(self, i: int) -> None:
        """An instance that was away is given a message: where another has the session it is not run."""
        chat = self.memory[i]
        if i == self.at or self.at is None or chat is None or chat.running or self.down or self.emptied:
            return
        if self.instances[i].standing(chat) in (Standing.CLAIMED, Standing.LOST):
            assert not self.do(self.instances[i].sharing.turn(SESSION, {"late": True}).begin())

    @rule(over=st.booleans())
    def disconnect(self, *, over: bool) -> None:
        """The client goes, for a while or for good."""
        if self.at is None or (over and self.emptied):
            return
        chat, i, self.at = self.here, self.at, None
        standing = self.instances[i].standing(chat)
        ours = self.do(self.instances[i].leave(chat, over=over))
        assert ours
        if chat.running and over:
            chat.running = None
        if over:
            self.shown = "fresh" if standing is Standing.CLAIMED else None
            self.memory[i] = None
        elif standing is Standing.ABSENT:
            self.shown = None

    @rule(i=HERE)
    def forget(self, i: int) -> None:
        """Chainlit's patience with a session that is not connected is over."""
        if i != self.at and self.memory[i] is not None:
            self.memory[i] = None
            self.instances[i].sharing._live.pop(SESSION, None)
            if self.down or self.emptied:
                self.shown = None

    @precondition(lambda self: not self.down)
    @rule()
    def fall(self) -> None:
        """The store is down for both, and both notice."""
        self.down = True
        for store in self.stores:
            store.down = True
        for instance in self.instances:
            self.do(instance.sharing._ask(instance.store.ping))

    @precondition(lambda self: self.down)
    @rule(first=HERE, empty=st.booleans())
    def rise(self, *, first: int, empty: bool) -> None:
        """It is back for one after the other, perhaps empty."""
        if empty:
            self.empty()
        for i in (first, 1 - first):
            self.stores[i].down = False
            self.do(self.instances[i].back())
        self.down = False
        self.renew()
        if self.at is not None and self.here.let_go_of:  # another has it, whose write came first
            self.here.let_go_of, self.shown = 0, None
            self.connect(self.at, 0)

    @precondition(lambda self: not self.down)
    @rule()
    def empty(self) -> None:
        """It forgets everything, and nobody notices."""
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("delete from records")
        self.emptied = True
        if self.at is None or self.here.running:  # no state is taken down in a turn
            self.shown = None

    @precondition(lambda self: self.emptied and not self.down)
    @rule()
    def renew(self) -> None:
        """The round of housekeeping."""
        for instance in self.instances:
            self.do(instance.sharing._renew())
        self.emptied = False

    def record(self) -> tuple[str | None, list[Any]]:
        """State and turns in the store."""
        with closing(sqlite3.connect(self.path)) as db:
            found = db.execute("select state, turns from records where id = ?", (SESSION,)).fetchone()
        return (found[0], json.loads(found[1] or "[]")) if found else (None, [])

    @invariant()
    def the_store_has_what_the_user_sees(self) -> None:
        """Between turns that, and no turn; in one, what was before it and the turn."""
        if self.at is None or self.down or self.emptied:
            return
        state, turns = self.record()
        assert self.instances[self.at].standing(self.here) is Standing.CLAIMED
        assert len(turns) == bool(self.here.running)
        if not self.here.running:
            assert state == self.here.text


Histories.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.005)
    monkeypatch.setattr(module, "LAST_RETRY", 0.005)
    monkeypatch.setattr(module, "now_ms", itertools.count(1).__next__)  # no two connections in one of them


@pytest.mark.usefixtures("_soon")
@pytest.mark.timeout(240)
class TestHistories(Histories.TestCase):  # type: ignore[valid-type,misc]
    """Two instances and a store that fails."""
