"""`chainlit-proxy run app.py`: one command, several instances, and none is left behind."""

import asyncio
import json
import os
import signal

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.link import KINDS
from tests.support.processes import alive
from tests.support.run_command import REPLICAS, START, RunCommand
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

GONE_WITHIN = 30.0  # Chainlit itself takes up to 24 s to let an idle polling client go


async def some_chats(command: RunCommand, clients: Clients) -> list[Chat]:
    """Sessions of all kinds, some on each replica."""
    return await clients.open_many(KINDS, on=[f"pid{pid}" for pid in command.pids()])


def test_one_command_serves_and_one_ctrl_c_ends_it(command: RunCommand) -> None:
    """Sessions of every kind work over the replicas, and one SIGINT ends all with exit code 0."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            chats = await some_chats(command, clients)
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
            await some_chats(command, clients)
            pids = command.pids()
            command.kill9()
            await eventually(lambda: not any(map(alive, pids)), GONE_WITHIN, "replicas gone")

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_replica_that_ends_is_started_again(command: RunCommand, number: signal.Signals) -> None:
    """Its clients go on with their session at the other replica, whose own clients see nothing."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            chats = await some_chats(command, clients)
            ended, kept = command.pids()
            victims = [chat for chat in chats if chat.home == f"pid{ended}"]
            others = [chat for chat in chats if chat.home == f"pid{kept}"]
            os.kill(ended, number)
            await each(victims, lambda chat: chat.go_on(within=60), at_once=len(victims))
            await each(others, lambda chat: chat.check(command.journal))
            assert all(chat.connects == 1 for chat in others), "a session elsewhere was disturbed"
            assert all(chat.losses == 0 for chat in victims), "a client has noticed something"
            await eventually(
                lambda: command.all_healthy() and ended not in command.pids(), START, "a new replica"
            )
            (started,) = set(command.pids()) - {kept}
            newcomers = await clients.open_until_on(f"pid{started}")
            await each(others + newcomers, lambda chat: chat.check(command.journal))

    asyncio.run(scenario())


@pytest.mark.parametrize("command", ["log: {format: json}\n"], indirect=True)
def test_a_file_changes_what_it_says_and_nothing_else(command: RunCommand) -> None:
    """At the start, and when it is read again: options win, and `run` keeps its defaults elsewhere."""

    def log_and_listen() -> tuple[dict[str, object], str]:
        config = json.loads(command.get("/api/config"))
        return config["log"], f"http://{config['listen']}"

    assert log_and_listen() == ({"format": "json", "access": False, "level": "info"}, command.url)
    command.file.write_text("listen: 0.0.0.0:1\nlog: {level: debug}\n")
    command.send(signal.SIGHUP)
    told = ({"format": "console", "access": False, "level": "debug"}, command.url)
    wait_until(lambda: log_and_listen() == told, START, command.tail)
