"""Replicas of `run` that were to share their sessions and cannot: that is told, and a drain knows it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Clients
from tests.support.link import Driver, Kind, Transports
from tests.support.sharing import Conversation, RunSharing
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

QUIET = 5.0  # seconds without a word; a session that is shared is sent away after one or two
PAGE = Kind(Driver.PYTHON, Transports.BOTH)
WARNING = "it cannot share its sessions, so a drain waits for their end"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunSharing]:
    """Two replicas whose store is a file of something else."""
    store = tmp_path / "notes.db"
    store.write_text("no database, " * 100)
    run = RunSharing(tmp_path, 2, sessions={"store": f"sqlite://{store}"}, timeouts={"drain": 300})
    run.start()
    yield run
    run.end()
    print(run.tail(200))


def test_a_drain_sends_nobody_away(run: RunSharing) -> None:
    """A conversation that would begin anew elsewhere stays where it is until the drain has to end."""

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            talk = Conversation(await clients.chat(PAGE))
            await talk.open()
            before = await talk.turn()
            (home,) = (
                name for name, backend in run.backends().items() if f"pid{backend['pid']}" == talk.chat.home
            )
            run.post(f"/api/backends/{home}/drain")
            await eventually(lambda: run.backends()[home]["drain"], 10, "the drain is under way")
            await asyncio.sleep(QUIET)
            assert (await talk.turn()).instance == before.instance
            assert talk.chat.connects == 1
            assert run.backends()[home]["sessions"] == 1

    asyncio.run(scenario())
    told = [line for line in run.log.read_text().splitlines() if WARNING in line]
    assert len(told) == 2
    assert all("WARNING" in line and "not a database" in line for line in told)
    assert run.get("/api/events").count(WARNING) == 2
