"""Instances that share their sessions, and conversations that know what they should remember."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.chat import PATIENCE, Chat, Reply
from tests.support.instances import http_status
from tests.support.journal import Journal
from tests.support.link import Event
from tests.support.processes import Process, alive, free_port, kill_left, threads_of
from tests.support.proxy_process import COMMAND, ROOT, AdminListener
from tests.support.waiting import eventually, wait_until

APP = Path(__file__).with_name("session_app.py")
NOTICE = "The answer was cut off"
START = 60.0
# Older releases call home otherwise, by a package that is not there.
SILENT = """
[project]
enable_telemetry = false
session_timeout = 3600
[features]
[UI]
name = "Assistant"
[meta]
generated_by = "2.0.0"
"""


@contextmanager
def ending() -> Iterator[list["RunSharing"]]:
    """A list for the runs that a test makes: they and their replicas end with it; their logs are shown."""
    made: list[RunSharing] = []
    try:
        yield made
    finally:
        for run in made:
            run.end()
            print(run.tail(200))


class RunSharing(Process, AdminListener):
    """`chainlit-proxy run` of the app for sessions; `sections` become its configuration."""

    def __init__(
        self,
        folder: Path,
        replicas: int,
        /,
        env: dict[str, str] | None = None,
        most: int = 0,
        by_file: bool = False,
        **sections: Any,
    ) -> None:
        """With `most` there are between `replicas` and so many; `by_file`: the sections tell how many."""
        count = f"{replicas}..{most}" if most else str(replicas)
        wanted = [] if by_file else ["--replicas", count]
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.url, self.admin, self.replicas = f"http://{listen}", f"http://{admin}", replicas
        self.journal = Journal(folder / "journal.jsonl")
        self.seen: set[int] = set()
        shutil.copy(APP, folder / "app.py")
        self.folder = folder
        self.config = {"listen": listen, "admin": {"listen": admin}, "log": {"access": False}} | sections
        (folder / "run.yaml").write_text(yaml.safe_dump(self.config))
        super().__init__(
            "run",
            [*COMMAND, "run", "app.py", *wanted, "-c", "run.yaml"],
            folder / "run.log",
            env={"JOURNAL": str(self.journal.path), "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=folder,
        )

    def start(self) -> None:
        """Starts the command and waits until all replicas take sessions."""
        self.launch()
        wait_until(self.all_healthy, START, lambda: f"all replicas healthy\n{self.tail()}")

    def pids(self) -> dict[str, int]:
        """The processes of the replicas, by the name that the app gives itself."""
        pids = [backend["pid"] for backend in self.backends().values() if backend["pid"]]
        self.seen.update(pids)
        return {f"pid{pid}": pid for pid in pids}

    def all_healthy(self) -> bool:
        """Whether every replica is healthy."""
        assert self.running, self.tail(200)
        health = self.health()
        self.pids()
        return len(health) == self.replicas and set(health.values()) == {"healthy"}

    def name_of(self, instance: str | None) -> str:
        """The replica whose app gives itself this name."""
        return next(name for name, backend in self.backends().items() if f"pid{backend['pid']}" == instance)

    async def kill(self, instance: str) -> None:
        """Kills the replica whose app gives itself this name, and waits until nothing of it is left.

        Its first thread is gone before its sockets are.
        """
        pid = self.pids()[instance]
        os.kill(pid, signal.SIGKILL)
        await eventually(
            lambda: not any(map(alive, threads_of(pid))), PATIENCE, f"{instance} is dead", pause=0.001
        )

    def rollout(self) -> dict[str, Any]:
        """How far the newest rollout is."""
        state: dict[str, Any] = json.loads(self.get("/api/rollout"))
        return state

    def configure(self, **sections: Any) -> None:
        """Has it go by other sections, beside what it began with."""
        (self.folder / "run.yaml").write_text(yaml.safe_dump(self.config | sections))
        self.post("/api/reload")

    def end(self) -> None:
        """Ends the command, and whatever it would leave behind."""
        self.pids()
        self.kill9()
        kill_left(self.seen)


class Instance(Process):
    """One instance that shares: by `chainlit-proxy replica`, or by the command that is given."""

    def __init__(
        self,
        name: str,
        folder: Path,
        store: str,
        *,
        command: list[str] | None = None,
        env: dict[str, str] | None = None,
        root: str = "",
        files: bool = True,
    ) -> None:
        """`root` is the app's folder below `folder`, by default its own; `files` fills it."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.root = folder / (root or name)
        if files:
            self.root.mkdir(exist_ok=True)
            shutil.copy(APP, self.root / "app.py")
            (self.root / ".chainlit").mkdir(exist_ok=True)
            (self.root / ".chainlit" / "config.toml").write_text(SILENT)
        start = command or [*COMMAND, "replica", "app.py", "--sessions", store, "--"]
        where = ["--headless", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {"JOURNAL": str(folder / "journal.jsonl"), "PYTHONPATH": str(ROOT)} | (env or {})
        super().__init__(name, [*start, *where], folder / f"{name}.log", env=environment, cwd=self.root)

    def wait_ready(self) -> None:
        """Waits until it answers its health check; AssertionError with its log if it ends first."""

        def answers() -> bool:
            assert self.running, f"{self.name} ended with {self.returncode}\n{self.tail()}"
            return http_status(f"{self.url}/health") == 200

        wait_until(answers, START, lambda: f"{self.name} ready\n{self.tail()}")


PLAIN_RUN = [sys.executable, "-m", "chainlit", "run", "app.py"]


class Conversation:
    """A chat whose session must outlive its instance; made over a chat that is not open yet."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.turns = 0
        self.first: Reply | None = None
        self.last: Reply | None = None
        self.context = 0  # messages in the chat context before the next turn
        self.outputs: list[str] = []  # every message that the server sent whole
        self.tokens = 0
        self.running = 0  # turns that the server has announced and not ended, `on_chat_start` is one
        self.told = asyncio.Event()  # set when the user is told that an answer was cut off
        self._listener = chat.link.listener
        chat.link.listener = self._hear

    def __repr__(self) -> str:
        return f"<Conversation {self.chat!r} {self.turns} turns>"

    def _hear(self, event: Event) -> None:
        if event.name == "new_message":
            self.outputs.append(event.data["output"])
            if NOTICE in event.data["output"]:
                self.told.set()
        if event.name == "stream_token":
            self.tokens += 1
        if event.name == "connect":
            self.running = 0
        if event.name == "task_start":
            self.running += 1
        if event.name == "task_end":
            self.running = max(0, self.running - 1)
        self._listener(event)

    @property
    def notices(self) -> int:
        """How often the user was told that an answer was cut off."""
        return sum(NOTICE in output for output in self.outputs)

    async def open(self) -> None:
        """Opens the chat; the greeting is the first message of the context."""
        await self.chat.open()
        self.context = 1

    async def turn(self, text: str = "say", within: float = PATIENCE, files: tuple[str, ...] = ()) -> Reply:
        """One turn, to its end; its answer remembers everything before it."""
        reply = self.check(await self.chat.ask(text, files, within))
        await eventually(lambda: self.running == 0, within, f"{self} ends its turn")
        return reply

    def check(self, reply: Reply) -> Reply:
        """An answer knows all finished turns, in one thread, under the id of the session."""
        self.turns += 1
        fields = reply.fields
        assert reply.n == self.turns, f"{self}: n={reply.n}: {self.chat.story()}"
        assert reply.session == self.chat.session
        self.first = self.first or reply
        assert fields["first"] == self.first.nonce
        assert fields["thread"] == self.first.fields["thread"]
        context = fields["context"].split("/")
        assert context[-1][0] == "u", fields["context"]
        # A streamed answer is in the context only when it is complete, as the question is before it.
        assert len(context) == self.context + 1, f"{self}: {fields['context']}"
        self.context += 2
        assert len(self.chat.greetings) == 1, f"{self} was greeted again: {self.chat.greetings}"
        self.last = reply
        return reply

    async def back(self, before: int) -> None:
        """Waits until the client is connected again."""
        await self.chat.back(before)

    async def cut(self, kill: asyncio.Event) -> None:
        """A turn in whose middle the instance is killed, when the test says so; it never ends.

        Returns when the user has been told so.
        """
        heard, told = self.tokens, self.notices
        asking = asyncio.create_task(self.chat.ask("stream 2000 0.02", within=60))
        await eventually(lambda: self.tokens > heard + 2, PATIENCE, f"{self} streams")
        kill.set()
        await eventually(
            lambda: self.notices > told, PATIENCE, lambda: f"{self} is told: {self.chat.story()}"
        )
        await eventually(lambda: self.running == 0, PATIENCE, f"{self} ends its turn")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    def check_starts(self, journal: Journal) -> None:
        """`on_chat_start` ran once."""
        assert len(journal.starts(self.chat.session)) == 1
