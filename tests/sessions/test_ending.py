"""An instance that ends, and its clients that poll; with python-engineio and uvicorn as they are."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import engineio
import pytest
import uvicorn
from engineio import async_socket, exceptions

from proxy.sessions import ending
from proxy.sessions.patience import patient
from tests.support.waiting import eventually

EVERY = 25  # seconds between two pings
SOON = 5.0  # seconds: far less than that
HANDSHAKE = "/engine.io/?EIO=4&transport=polling"


class Instance:
    """A server in this process, and clients that wait for news."""

    def __init__(self, leaves: Callable[[], Any]) -> None:
        """`leaves` is what the app does when a client has gone."""
        self.left: list[str] = []
        self.answered = asyncio.Event()  # set when all polls are
        self._leaves = leaves
        self.engine = engineio.AsyncServer(
            async_mode="asgi", ping_interval=EVERY, ping_timeout=EVERY, monitor_clients=False
        )
        self.said: list[str] = []
        self.engine.on("disconnect", self._disconnect)
        self.engine.on("message", self._message)
        app = engineio.ASGIApp(self.engine)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    async def _disconnect(self, sid: str, *_: Any) -> None:
        await self._leaves()
        self.left.append(sid)

    async def _message(self, _: str, data: str) -> None:
        self.said.append(data)

    async def end(
        self, clients: int, before: Callable[[str], Awaitable[None]] | None = None
    ) -> tuple[list[str], float]:
        """Ends while these wait: what their polls were answered, and after how many seconds it had ended.

        `before` is told the sid of the first when all wait.
        """
        serving = asyncio.create_task(self.server._serve([self.listener]))
        async with aiohttp.ClientSession() as http:
            sids = []
            for _ in range(clients):
                async with http.get(self.url + HANDSHAKE) as response:
                    sids.append((await response.text()).split('"')[3])
            polls = [asyncio.create_task(self._poll(http, sid)) for sid in sids]
            tasks = self.server.server_state.tasks
            await eventually(lambda: len(tasks) == clients, SOON, "all wait")
            if before is not None:
                await before(sids[0])
            began = time.monotonic()
            self.server.should_exit = True
            heard = await asyncio.gather(*polls)
            self.answered.set()
            await serving
            return heard, time.monotonic() - began

    async def _poll(self, http: aiohttp.ClientSession, sid: str) -> str:
        async with http.get(f"{self.url}{HANDSHAKE}&sid={sid}") as response:
            return f"{response.status} {await response.text()}"


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an instance; as before afterwards."""
    theirs = async_socket.AsyncSocket
    monkeypatch.setattr(async_socket, "AsyncSocket", patient(theirs, exceptions.QueueEmpty))
    monkeypatch.setattr(uvicorn.Server, "shutdown", uvicorn.Server.shutdown)
    ending.leave_polls()


def test_it_waits_for_no_poll() -> None:
    """All who poll are left, hear that there is no news, and the instance ends long before the next ping."""

    async def leaves() -> None:
        pass

    async def scenario() -> None:
        instance = Instance(leaves)
        heard, seconds = await instance.end(clients=3)
        assert heard == ["200 6"] * 3
        assert len(instance.left) == 3
        assert seconds < SOON

    asyncio.run(scenario())


def test_what_is_last_is_done_behind_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is let go when nobody needs it any more; what fails of it ends nothing else."""
    monkeypatch.setattr(ending, "_LAST", [])
    done: list[int] = []

    async def scenario() -> None:
        async def leaves() -> None:
            await asyncio.sleep(0.1)

        async def fails() -> None:
            raise OSError

        async def last() -> None:
            done.append(len(instance.left))

        instance = Instance(leaves)
        ending.at_the_end(fails)
        ending.at_the_end(last)
        await instance.end(clients=2)

    asyncio.run(scenario())
    assert done == [2]


def test_it_hears_what_is_being_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST that had begun to come is taken, and answered so."""
    monkeypatch.setattr(ending, "READS", 1.0)

    async def scenario() -> None:
        instance = Instance(asyncio.Event().wait)
        instance.engine.handlers.pop("disconnect")
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def say_half(sid: str) -> None:
            reader, writer = await asyncio.open_connection(*instance.listener.getsockname())
            streams.append((reader, writer))
            head = f"POST {HANDSHAKE}&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
            writer.write(head.encode() + b"4he")
            await eventually(lambda: len(instance.server.server_state.tasks) == 2, SOON, "it is read")

        ends = asyncio.create_task(instance.end(1, say_half))
        await eventually(lambda: len(instance.server.server_state.tasks) == 3, SOON, "it is left")
        ((reader, writer),) = streams
        writer.write(b"llo")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        await ends
        writer.close()
        assert instance.said == ["hello"]

    asyncio.run(scenario())


def test_it_waits_for_no_poll_of_a_client_that_has_gone() -> None:
    """One that has said goodbye while its poll waited."""

    async def scenario() -> None:
        instance = Instance(asyncio.Event().wait)
        instance.engine.handlers.pop("disconnect")

        async def say_goodbye(sid: str) -> None:
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{instance.url}{HANDSHAKE}&sid={sid}", data="1") as response,
            ):
                assert response.status == 200

        _, seconds = await instance.end(1, say_goodbye)
        assert seconds < SOON

    asyncio.run(scenario())


def test_it_waits_for_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `disconnect` handler that takes long comes to its end, but the client is not kept for that."""
    monkeypatch.setattr(ending, "WRITES", 0.01)

    async def scenario() -> None:
        goes_on = asyncio.Event()
        instance = Instance(goes_on.wait)
        ends = asyncio.create_task(instance.end(clients=1))
        await instance.answered.wait()
        assert not instance.left
        goes_on.set()
        await ends
        assert len(instance.left) == 1

    asyncio.run(scenario())


def test_it_waits_for_what_is_done_behind_a_goodbye() -> None:
    """Nobody is connected any more, but the app has not come to the end of it."""

    async def scenario() -> None:
        goes_on, done = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await goes_on.wait()
            done.set()

        instance = Instance(goes_on.wait)
        await ending.behind(work(), 0)
        ends = asyncio.create_task(instance.end(clients=0))
        await eventually(lambda: len(instance.server.server_state.tasks) == 1, SOON, "it is waited for")
        assert not done.is_set()
        goes_on.set()
        await ends
        assert done.is_set()

    asyncio.run(scenario())
