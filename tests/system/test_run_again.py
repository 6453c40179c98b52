"""`run` that is ended in the middle of conversations and started again: they go on, nothing is left over."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Clients, each
from tests.support.link import KINDS
from tests.support.processes import alive
from tests.support.sharing import Conversation, RunSharing, ending
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CONVERSATIONS = 9
GONE = 10.0
MakeRun = Callable[..., RunSharing]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Makes a command with two replicas, whose state is in the folder `state`."""
    with ending() as made:

        def make(env: dict[str, str] | None = None, **sections: Any) -> RunSharing:
            state = {"XDG_STATE_HOME": str(tmp_path / "state")}
            made.append(RunSharing(tmp_path, 2, state | (env or {}), **sections))
            return made[-1]

        yield make


def in_state(folder: Path) -> set[str]:
    """What is kept for the only app."""
    (own,) = (folder / "state" / "chainlit-proxy").iterdir()
    return {str(path.relative_to(own)) for path in own.glob("*/*") if "sessions.db-" not in path.name}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_conversations_go_on(make_run: MakeRun, tmp_path: Path, number: signal.Signals) -> None:
    """However it ended, the next one knows what was said, and has the uploads; the old folders are gone."""
    run = make_run()
    run.start()

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            chats = [Conversation(await clients.chat(kind)) for kind in islice(cycle(KINDS), CONVERSATIONS)]
            of = {id(c.chat): c for c in chats}
            await each([c.chat for c in chats], lambda chat: of[id(chat)].open())
            file = await chats[0].chat.upload("kept")
            await each([c.chat for c in chats], lambda chat: of[id(chat)].turn())
            before = {c.chat.session: c.chat.connects for c in chats}
            replicas = list(run.pids().values())
            await asyncio.to_thread(run.stop, number, 40.0)
            await eventually(lambda: not any(map(alive, replicas)), GONE, "the replicas are gone")
            if number is signal.SIGTERM:
                assert in_state(tmp_path) == {"sessions/sessions.db", "sessions/sessions.db.files"}
            await asyncio.to_thread(run.start)
            await each([c.chat for c in chats], lambda chat: of[id(chat)].back(before[chat.session]))
            await each([c.chat for c in chats], lambda chat: of[id(chat)].turn())
            path = f"/project/file/{file}?session_id={chats[0].chat.session}"
            assert await chats[0].chat.http("GET", path) == "kept"
            for c in chats:
                c.check_starts(run.journal)
            assert {path for path in in_state(tmp_path) if "replica-" in path} == {
                "replicas/replica-1",
                "replicas/replica-2",
            }

    asyncio.run(scenario())


def test_a_second_one_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    """While one runs, another of the app ends with 2 and says what to do; with a folder it runs beside."""
    run = make_run()
    run.start()
    other = make_run()
    other.launch()
    assert other.wait() == 2
    assert "stop it, or name another folder for this one with --state" in other.tail()
    beside = make_run()
    beside.command += ["--state", str(tmp_path / "own")]
    beside.start()
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    assert beside.stop(timeout=40) == 0
    assert not list((tmp_path / "own").glob("replicas"))
    assert run.running
    assert run.stop(timeout=40) == 0
