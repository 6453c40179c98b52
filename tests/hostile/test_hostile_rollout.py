"""A new version of the app goes live while strangers do what they can, and twelve chats go on."""

import asyncio
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random

import pytest

from tests.hostile import clients, transports
from tests.hostile.chats import PATIENCE
from tests.support.chat import Chat
from tests.support.clients import Clients, each
from tests.support.link import KINDS
from tests.support.processes import kill_left
from tests.support.proxy_process import INTERNAL_ERRORS
from tests.support.run_command import RunCommand
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STRANGERS = [*clients.SIMPLE, *transports.SIMPLE]
CROWD = 12
DRAIN = 10  # seconds for each old replica
ENDS = 120.0  # seconds


class Run(RunCommand):
    """`run`, where strangers find its port."""

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.url.rpartition(":")[2])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Two replicas; whatever they leave behind is killed."""
    command = Run(tmp_path)
    pids: list[int] = []
    try:
        command.start()
        pids = command.pids()
        yield command
    finally:
        pids += command.pids() if command.running else []
        command.kill9()
        print(command.tail(200))
        kill_left(pids)


async def torment(run: Run, over: asyncio.Event, chance: Random) -> list[str]:
    """One stranger after the other; their names. Who failed may have met a replica that just ended."""
    done = []
    while not over.is_set():
        stranger = chance.choice(STRANGERS)
        done.append(stranger.__name__)
        await asyncio.gather(stranger(run, chance), return_exceptions=True)
    return done


async def talk(chat: Chat, over: asyncio.Event) -> None:
    """Say something again and again; the session knows what it was told, and was greeted once."""
    while not over.is_set():
        await chat.go_on(PATIENCE)
        await asyncio.sleep(0.5)


def test_a_rollout_among_strangers(run: Run) -> None:
    """All replicas are replaced, each chat goes on where it was, and the proxy makes no mistake."""

    async def scenario() -> None:
        old, over = set(run.pids()), asyncio.Event()
        async with Clients(run.url, delay=0.3) as crowd:
            chats = await crowd.open_many(islice(cycle(KINDS), CROWD))
            tasks = [asyncio.create_task(talk(chat, over)) for chat in chats]
            strangers = [asyncio.create_task(torment(run, over, Random(number))) for number in range(2)]
            await asyncio.to_thread(run.post, "/api/rollout", {"timeout": DRAIN})
            await eventually(lambda: run.rollout()["state"] in {"done", "failed"}, ENDS, "the rollout ends")
            over.set()
            await asyncio.gather(*tasks)
            done = [name for names in await asyncio.gather(*strangers) for name in names]
            await each(chats, lambda chat: chat.go_on(PATIENCE))
            assert run.rollout()["state"] == "done", run.rollout()
            assert not old & set(run.pids())
            assert len(set(done)) > len(STRANGERS) / 2, done
            assert run.metric(INTERNAL_ERRORS) == 0

    asyncio.run(scenario())
