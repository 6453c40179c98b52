"""A new version of the app goes live under `run`, and nobody is cut off."""

import asyncio
import signal
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, each
from tests.support.link import KINDS
from tests.support.processes import alive
from tests.support.run_command import REPLICAS, RunCommand
from tests.support.size import sized
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=900))]

DRAIN = 30  # seconds for each old replica: an answer takes some ten of them
CROWD = sized(len(KINDS), in_full=300)
TOKENS, PAUSE = (
    sized(100, in_full=20),
    sized(1, in_full=5) / 10,
)  # of an answer: 600 tokens a second of a crowd


def app_file(command: RunCommand) -> Path:
    """The file that replicas run."""
    assert command.cwd is not None
    return command.cwd / "app.py"


async def rolled_out(command: RunCommand, within: float = 120) -> dict[str, object]:
    """Wait for the end of a rollout; what is told of it."""
    await eventually(
        lambda: command.rollout()["state"] in {"done", "failed"},
        within,
        lambda: f"the rollout ends: {command.rollout()}",
    )
    return command.rollout()


def test_a_new_version_goes_live(command: RunCommand) -> None:
    """Answers are finished by the old replicas; the new ones know each session, and no client notices."""

    async def scenario() -> None:
        old = command.pids()
        app_file(command).write_text(app_file(command).read_text() + "\nINSTANCE = f'new{os.getpid()}'\n")
        async with Clients(command.url, delay=0.2) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD))
            await each(chats, lambda chat: chat.ask())
            homes = {chat: chat.home for chat in chats}
            command.post("/api/rollout", {"timeout": DRAIN})

            async def answered(chat: Chat) -> None:
                reply = await chat.ask(f"stream {TOKENS} {PAUSE}", within=40)
                assert len(reply.tokens) == TOKENS + 1
                assert reply.instance == homes[chat], "it was cut off and asked again"

            await each(chats, answered, at_once=len(chats))
            state = await rolled_out(command)
            assert state["state"] == "done", state

            async def moved(chat: Chat) -> None:
                reply = await chat.go_on(within=40)
                assert reply.instance.startswith("new")
                assert chat.losses == 0, chat.story()

            await each(chats, moved, at_once=len(chats))
        new = command.pids()
        assert len(new) == REPLICAS
        assert not set(new) & set(old)
        assert not any(map(alive, old)), "an old replica is left"

    asyncio.run(scenario())


def test_a_version_that_does_not_start_changes_nothing(command: RunCommand) -> None:
    """By SIGHUP: the old replicas go on with their sessions, and the log tells why."""

    async def scenario() -> None:
        old = command.pids()
        app_file(command).write_text("import no_such_module\n")
        async with Clients(command.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            command.send(signal.SIGHUP)
            state = await rolled_out(command)
            assert state["state"] == "failed"
            assert "before it was ready" in str(state["reason"])
            await each(chats, lambda chat: chat.check(command.journal))
            assert all(chat.connects == 1 for chat in chats)
            await clients.open_many(KINDS[:4])
        assert command.pids() == old
        assert "no_such_module" in command.tail(400)

    asyncio.run(scenario())
