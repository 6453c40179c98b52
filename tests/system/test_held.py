"""The only replica is killed: whoever comes before it is back is served when it is."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.clients import Clients, assert_nothing_refused
from tests.support.link import Driver, Kind, Transports
from tests.support.sharing import Conversation, RunSharing
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LONGEST = 19.9  # seconds: a replica takes some to start on a machine that does much else
WAIT = 60.0
HELD = "chainlit_proxy_held_requests_total"
WEBSOCKET = Kind(Driver.JS, Transports.WEBSOCKET)
POLLING = Kind(Driver.JS, Transports.POLLING)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunSharing]:
    """The command with one replica; its parameter is `affinity.hold`."""
    affinity: dict[str, Any] = {"hold": request.param, "hand_over": "never"}
    made = RunSharing(tmp_path, 1, {"XDG_STATE_HOME": str(tmp_path / "state")}, affinity=affinity)
    try:
        made.start()
        yield made
    finally:
        made.end()
        print(made.tail(200))


async def kill(run: RunSharing) -> None:
    """The only replica dies, and the proxy knows it."""
    (pid,) = (await eventually(run.pids, WAIT, "the replica's process is known")).values()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: "healthy" not in run.health().values(), WAIT, "the replica is down")


@pytest.mark.parametrize("run", [LONGEST], indirect=True)
def test_nobody_notices_that_nobody_was_there(run: RunSharing) -> None:
    """A page, an upload and newcomers on both transports are answered by the replica that is started."""

    async def scenario() -> None:
        async with Clients(run.url) as clients, aiohttp.ClientSession() as http:
            old = Conversation(await clients.chat(WEBSOCKET))
            await old.open()
            await old.turn()
            connects = old.chat.connects
            await kill(run)
            newcomers = [Conversation(await clients.chat(kind)) for kind in (WEBSOCKET, POLLING)]
            async with asyncio.TaskGroup() as tasks:
                page = tasks.create_task(http.get(f"{run.url}/", headers={"Accept": "text/html"}))
                upload = tasks.create_task(old.chat.upload("while nobody is there"))
                for newcomer in newcomers:
                    tasks.create_task(newcomer.open())
            assert page.result().status == 200
            await old.back(connects)
            for conversation in (old, *newcomers):
                await conversation.turn()
            path = f"/project/file/{upload.result()}?session_id={old.chat.session}"
            assert await old.chat.http("GET", path) == "while nobody is there"
            assert_nothing_refused([old.chat, *(newcomer.chat for newcomer in newcomers)])
            assert run.metric(HELD, result="back") >= 3
            assert run.metric(HELD, result="in_vain") == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("run", [0], indirect=True)
def test_nobody_is_held_without(run: RunSharing) -> None:
    """With `affinity.hold: 0` each is told at once, with the time to come again."""

    async def scenario() -> None:
        async with aiohttp.ClientSession() as http:
            await kill(run)
            answers = [
                await http.get(f"{run.url}/", headers={"Accept": "text/html"}),
                await http.get(f"{run.url}/ws/socket.io/?EIO=4&transport=polling"),
                await http.post(f"{run.url}/project/file?session_id=session-S", data=b"x"),
            ]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{run.url}/ws/socket.io/?EIO=4&transport=websocket")
            assert [answer.status for answer in answers] + [refused.value.status] == [503] * 4
            assert answers[0].headers["Retry-After"] == "2"
            assert "healthy" not in run.health().values(), "they were answered while nobody was there"
            assert run.metric(HELD) == 0

    asyncio.run(scenario())
