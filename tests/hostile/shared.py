"""What happens to shared sessions: two real instances, a real Redis behind them, and the proxy before them.

Everything is made for one run and belongs to it; nothing is left behind, however the run ends. A run with
`files` keeps uploads in a folder that the instances share, the others in the store.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from tests.hostile.store import HostileStore
from tests.hostile.talks import Talks
from tests.support.clients import Clients
from tests.support.instances import http_status
from tests.support.journal import Journal
from tests.support.proxy_process import COMMAND, HEALTH, INTERNAL_ERRORS, ProxyProcess, config_for
from tests.support.sharing import START, Instance

T = TypeVar("T")
PAUSE = 0.05  # seconds between two questions
DELAY = 0.3  # seconds until a client connects anew
BACK = 20.0  # seconds until a store that is back has all that is live: it is asked for every 5
SLOW_START = 0.3  # seconds that `on_chat_start` takes, so that it can be met
# A mistake of sharing is told with its traceback; what Chainlit says of lost clients is none.
MISTAKE = re.compile(r"(sharing a session failed|could not be (?:written|recorded))[^\n]*\nTrace")


class SharedSite:
    """All processes of a run and what is known of them; `async with SharedSite(folder, seed)`."""

    def __init__(self, folder: Path, seed: int, *, files: bool = False) -> None:
        self.folder, self.seed = folder, seed
        self.story: list[str] = []  # what was done, for whoever reads of a failure
        self.began = time.monotonic()
        self.journal = Journal(folder / "journal.jsonl")
        self.store = HostileStore(folder / "store")
        self.files = folder / "files" if files else None
        settings = {"store": self.store.url} | ({"files": str(self.files)} if self.files else {})
        (folder / "replica.yaml").write_text(yaml.safe_dump({"sessions": settings}))
        start = [*COMMAND, "replica", "app.py", "-c", str(folder / "replica.yaml"), "--"]
        self.instances = {
            name: Instance(name, folder, "", command=start, env={"SLOW_START": str(SLOW_START)})
            for name in "ab"
        }
        health = HEALTH | {"timeout": 2, "evict_after": 4, "rise": 1}
        config = config_for((), health=health, sessions={"shared": True}, log={"access": False})
        config["backends"] = [{"name": name, "url": one.url} for name, one in self.instances.items()]
        self.proxy = ProxyProcess(config, folder)
        self.talks: Talks
        self.spares: list[HostileStore] = []  # what took the store's place
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for process in (self.store, self.proxy, *self.instances.values()):
            self._stack.callback(process.kill9)
            process.launch()
        await self.until(self.store.answers, "the store answers")
        for instance in self.instances.values():
            await asyncio.to_thread(instance.wait_ready)
        await asyncio.to_thread(self.proxy.wait_ready)
        await self.healthy()
        clients = await self._stack.enter_async_context(Clients(self.proxy.url, DELAY))
        self.talks = await self._stack.enter_async_context(Talks(self, clients, self.seed))
        await self.talks.settled()  # a conversation that is still in its beginning would begin anew elsewhere
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (self.store, *self.spares, *self.instances.values()):
            process.resume()
        await self._stack.aclose()
        for spare in self.spares:
            spare.kill9()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.proxy.config["listen"].rpartition(":")[2])

    def tell(self, text: str) -> None:
        """Write down what happens."""
        self.story.append(f"{time.monotonic() - self.began:6.1f} {text}")

    def logs(self) -> str:
        """The ends of all logs, for whoever reads of a failure."""
        processes = (self.proxy, *self.instances.values(), self.store)
        return "\n".join(process.tail(60) for process in processes)

    def home(self, name: str) -> str:
        """How an instance calls itself now."""
        return f"pid{self.instances[name].pid}"

    def name(self, home: str) -> str:
        """Which instance calls itself so now."""
        return next(name for name in self.instances if self.home(name) == home)

    async def until(self, question: Callable[[], T], what: str, within: float = START) -> T:
        """Ask in a thread until the answer is true."""
        deadline = time.monotonic() + within
        while not (answer := await asyncio.to_thread(question)):
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
            await asyncio.sleep(PAUSE)
        return answer

    async def judged(self, name: str, *verdicts: str) -> None:
        """Wait until the proxy thinks so of an instance."""
        await self.until(lambda: self.proxy.health().get(name) in verdicts, f"{name} {verdicts}")

    async def healthy(self) -> None:
        """Wait until all instances run and are judged healthy."""
        expected = dict.fromkeys(self.instances, "healthy")
        await self.until(lambda: self.proxy.health() == expected, "all healthy")

    async def heal(self) -> None:
        """Start what has ended, and wait until everything is as before."""
        for instance in self.instances.values():
            if not instance.running:
                instance.launch()  # in this thread: see `support.processes`
        for instance in self.instances.values():
            await self.until(lambda one=instance: http_status(f"{one.url}/health") == 200, f"{instance}")  # type: ignore[misc]
        await self.healthy()

    async def stored(self) -> None:
        """Wait until the store has the last finished turn of every conversation."""

        def behind() -> list[str]:
            records = self.store.records()
            newest = [
                (talk.chat.session, talk.finished[-1].encode()) for talk in self.talks.talks if talk.finished
            ]
            return [session for session, nonce in newest if nonce not in records.get(session, b"")]

        def all_there() -> bool:
            self.missing = behind()
            return not self.missing

        try:
            await self.until(all_there, "the store has everything", BACK)
        except AssertionError as error:
            error.add_note(f"missing: {self.missing}")
            raise

    async def check(self) -> None:
        """All processes run and have made no mistake."""
        assert self.proxy.running, f"{self.proxy} ended with {self.proxy.returncode}"
        assert await asyncio.to_thread(self.proxy.metric, INTERNAL_ERRORS) == 0, "an internal error"
        for process in (self.proxy, *self.instances.values()):
            text = process.log.read_text(errors="replace")
            found = MISTAKE.search(text) or ("Traceback" in text and process is self.proxy)
            assert not found, f"a mistake in the log of {process.name}: {found}"


Action = Callable[[SharedSite, Any], Awaitable[None]]
"""What is done to a site; it also takes that back."""
