"""`chainlit-proxy run app.py`: one command, several instances, and none is left behind."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import APP
from tests.support.journal import Journal
from tests.support.link import KINDS
from tests.support.processes import Process, alive, free_port
from tests.support.proxy_process import COMMAND, ROOT, AdminListener
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

REPLICAS = 2
START = 40.0
GONE_WITHIN = 30.0  # Chainlit itself takes up to 24 s to let an idle polling client go


class RunCommand(Process, AdminListener):
    """`chainlit-proxy run` with two replicas of the test app in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.url, self.admin = f"http://{listen}", f"http://{admin}"
        self.journal = Journal(folder / "journal.jsonl")
        shutil.copy(APP, folder / "app.py")
        super().__init__(
            "run",
            [*COMMAND, "run", "app.py", "--replicas", str(REPLICAS), "--listen", listen, "--admin", admin],
            folder / "run.log",
            env={"JOURNAL": str(self.journal.path), "PYTHONPATH": str(ROOT)},
            cwd=folder,
        )

    def start(self) -> None:
        """Starts the command and waits until all replicas take sessions."""
        self.launch()
        wait_until(self.all_healthy, START, lambda: f"all replicas healthy\n{self.tail()}")

    def all_healthy(self) -> bool:
        """Whether the command runs and every replica is healthy."""
        assert self.running, self.tail()
        health = self.health()
        return len(health) == REPLICAS and set(health.values()) == {"healthy"}

    def pids(self) -> list[int]:
        """The processes of the replicas."""
        return [int(backend["pid"]) for backend in self.backends().values()]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[RunCommand]:
    """The command, running; whatever it leaves behind is killed."""
    folder = tmp_path / "app"
    folder.mkdir()
    run = RunCommand(folder)
    pids: list[int] = []
    try:
        run.start()
        pids = run.pids()
        yield run
    finally:
        pids += run.pids() if run.running else []
        run.kill9()
        print(run.tail(200))
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


async def some_chats(clients: Clients) -> list[Chat]:
    """Sessions of all kinds, some on each replica."""
    chats = await clients.open_many(KINDS)
    assert len({chat.home for chat in chats}) == REPLICAS
    return chats


def test_one_command_serves_and_one_ctrl_c_ends_it(command: RunCommand) -> None:
    """Sessions of every kind work over the replicas, and one SIGINT ends all with exit code 0."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            chats = await some_chats(clients)
            await each(chats, lambda chat: chat.check(command.journal))
            assert_nothing_refused(chats)

    asyncio.run(scenario())
    pids = command.pids()
    assert len(pids) == REPLICAS
    assert all(map(alive, pids))
    assert command.stop(signal.SIGINT, timeout=GONE_WITHIN) == 0
    assert not any(map(alive, pids)), "a replica outlived the command"


def test_a_killed_supervisor_leaves_no_orphan(command: RunCommand) -> None:
    """After `kill -9` of the command, with clients connected, its replicas end by themselves."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            await some_chats(clients)
            pids = command.pids()
            command.kill9()
            await eventually(lambda: not any(map(alive, pids)), GONE_WITHIN, "replicas gone")

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_replica_that_ends_is_started_again(command: RunCommand, number: signal.Signals) -> None:
    """Its clients go on with their session at the other replica, whose own clients see nothing."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            chats = await some_chats(clients)
            ended, kept = command.pids()
            victims = [chat for chat in chats if chat.home == f"pid{ended}"]
            others = [chat for chat in chats if chat.home == f"pid{kept}"]
            os.kill(ended, number)
            await each(victims, lambda chat: chat.go_on(within=60), at_once=len(victims))
            await each(others, lambda chat: chat.check(command.journal))
            assert all(chat.connects == 1 for chat in others), "a session elsewhere was disturbed"
            await eventually(
                lambda: command.all_healthy() and ended not in command.pids(), START, "a new replica"
            )
            (started,) = set(command.pids()) - {kept}
            newcomers = await clients.open_until_on(f"pid{started}")
            await each(others + newcomers, lambda chat: chat.check(command.journal))

    asyncio.run(scenario())
