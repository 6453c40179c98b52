"""Scripted chats over a real `Sharing`, and a store that fails when a test says so."""

import asyncio
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

from proxy.sessions.files import FolderFiles
from proxy.sessions.live import Connection, Live, Running
from proxy.sessions.machine import Standing
from proxy.sessions.sharing import Sharing
from proxy.sessions.store import Store, StoreDown
from tests.support.waiting import eventually

RECORD = {"message": "asked"}


class Tab:
    """A scripted chat: its state is what a test sets."""

    def __init__(self, session: str = "", owner: str = "", text: str = "fresh") -> None:
        self.id, self.owner, self.text = session or str(uuid.uuid4()), owner, text
        self.paths: list[Path] = []
        self.abandoned = self.let_go_of = 0
        self.refusal: Exception | None = None

    def __repr__(self) -> str:
        return f"<Tab {self.id[:8]} {self.text!r}>"

    def state(self) -> tuple[str, int]:
        """The state that the test has set."""
        if self.refusal:
            raise self.refusal
        return "".join([*self.text]), 0  # another text each time, as a real one is

    def files(self) -> list[Path]:
        """The files that the test has set."""
        return self.paths

    def abandon(self) -> None:
        """Counted."""
        self.abandoned += 1

    async def let_go(self) -> None:
        """Counted."""
        self.let_go_of += 1

    def is_alive(self) -> bool:
        """As long as the test runs."""
        return True


class Flaky:
    """A store before a real one, which is down, or loses answers, when the test says so."""

    def __init__(self, store: Store) -> None:
        self.store, self.down, self.asked = store, False, 0
        self.losing = 0  # answers that are still to be lost
        self.refuses = 0  # characters from which it takes no state; 0: it takes all

    def __getattr__(self, name: str) -> Any:
        async def operation(*arguments: Any) -> Any:
            self.asked += 1
            if self.down:
                raise StoreDown("store: it was told to be")
            if name == "write" and 0 < self.refuses <= len(arguments[3].state or ""):
                raise StoreDown("store: that is too much")
            answer = await getattr(self.store, name)(*arguments)
            if self.losing and name != "ping":
                self.losing -= 1
                raise StoreDown("store: no answer")
            return answer

        return operation


class Instance:
    """One instance: its sharing, and the tabs that are connected to it."""

    def __init__(self, store: Any, folder: Path) -> None:
        self.store = store
        self.told: list[str] = []
        self.sharing = Sharing(store, FolderFiles(folder / "files", 100), lambda: 60.0, self.told.append)
        self.connections: dict[str, Connection] = {}

    @property
    def counts(self) -> Any:
        """What it has counted."""
        return self.sharing.counts

    def live(self, tab: Tab) -> Live:
        """What it knows of the session."""
        return self.sharing._live[tab.id]

    def standing(self, tab: Tab) -> Standing | None:
        """Whose the session is, as far as it knows; None: it knows nothing of it."""
        live = self.sharing._live.get(tab.id)
        return live.standing if live else None

    async def connect(self, tab: Tab, *, new: bool) -> tuple[str | None, list[Any]] | None:
        """A client connects; what is to be restored, which becomes the state of the tab."""
        connection = self.connections[tab.id] = await self.sharing.connect(tab, new=new)
        if connection.found is None:
            return None
        tab.text = connection.found.state or "fresh"
        connection.hello()
        connection.told()
        return connection.found.state, connection.found.turns

    async def begin(self, tab: Tab, record: Any = RECORD) -> Running:
        """A turn begins."""
        turn = self.sharing.turn(tab.id, record)
        assert await turn.begin()
        return turn

    async def turn(self, tab: Tab, text: str) -> None:
        """A whole turn that ends in a state, and its write."""
        async with self.sharing.turn(tab.id, {"message": text}) as running:
            assert running
            tab.text = text

    async def leave(self, tab: Tab, *, over: bool = False) -> bool:
        """The client goes; whether the session was still ours."""
        connection = self.connections.pop(tab.id)
        ours = await connection.leaving()
        await connection.left(over=over)
        return ours

    async def settled(self) -> None:
        """Waits until nothing is being written, as far as the store lets it."""
        async with asyncio.timeout(10):
            while writing := {task for task in self.sharing._tasks if not self._is_lasting(task)}:
                await asyncio.wait(writing)

    def _is_lasting(self, task: "asyncio.Task[None]") -> bool:
        return not self.counts.store_up and "_await_store" in repr(task)

    async def back(self) -> None:
        """Waits until the store is back and everything is written."""
        await eventually(lambda: self.counts.store_up, 15, "the store is back")
        await self.settled()


async def end_tasks(kept: Collection["asyncio.Task[Any]"] = ()) -> None:
    """Ends whatever a scenario has left running."""
    others = asyncio.all_tasks() - {asyncio.current_task(), *kept}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
