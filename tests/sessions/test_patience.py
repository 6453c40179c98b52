"""What an instance makes of its clients after its loop stood still; with python-engineio as it is."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import engineio
import pytest
from engineio import async_socket, exceptions, packet

from proxy.sessions.patience import LATE, RunningTime, knows, patient, within
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
GIVEN = 0.3  # seconds that a client has to answer a ping
EVERY = 0.1  # seconds between a pong and the next ping
BLOCK = LATE + GIVEN  # seconds: longer than anybody waits


class Wire:
    """A client's websocket: what it says is put into a queue, what it hears is kept."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[str] = asyncio.Queue()
        self.heard: list[str] = []
        self.closed = False

    async def wait(self) -> str:
        """As python-engineio's."""
        return await self.says.get()

    async def send(self, message: str) -> None:
        """As python-engineio's."""
        self.heard.append(message)

    async def close(self) -> None:
        """As python-engineio's."""
        self.closed = True


class Site:
    """A server of python-engineio whose sockets have our patience, or none."""

    def __init__(self, *, ours: bool = True) -> None:
        self.server = engineio.AsyncServer(
            async_mode="asgi", ping_interval=EVERY, ping_timeout=GIVEN, monitor_clients=False
        )
        self.left: list[str] = []  # who was given up
        self.server.on("disconnect", self._disconnect)
        theirs = async_socket.AsyncSocket
        self._kind: Any = patient(theirs, exceptions.QueueEmpty) if ours else theirs
        self.tasks: list[asyncio.Task[Any]] = []

    async def _disconnect(self, sid: str, *_reason: str) -> None:
        self.left.append(sid)

    def socket(self) -> Any:
        """A client that has its OPEN packet, and is pinged from now on."""
        socket = self.server.sockets["s"] = self._kind(self.server, "s")
        socket.schedule_ping()
        return socket

    def websocket(self) -> tuple[Any, Wire]:
        """A client by websocket."""
        socket, wire = self.socket(), Wire()
        self.tasks.append(asyncio.create_task(socket._websocket_handler(wire)))
        return socket, wire

    async def watch(self, socket: Any) -> None:
        """What the server's own task does."""
        while not socket.closed:
            await socket.check_ping_timeout()
            await asyncio.sleep(EVERY)


def run(test: Callable[[Site], Awaitable[None]], *, ours: bool = True) -> None:
    """Runs a test, and ends what it leaves."""

    async def main() -> None:
        site = Site(ours=ours)
        await test(site)
        for task in site.tasks:
            task.cancel()
        await asyncio.gather(*site.tasks, return_exceptions=True)

    asyncio.run(main())


def block() -> None:
    """The app makes a synchronous call."""
    time.sleep(BLOCK)


@pytest.mark.parametrize("ours", [False, True])
def test_an_answer_after_a_block_arrives(ours: bool) -> None:
    """A client whose pong waits in the kernel hears what the app says first; python-engineio cuts it."""

    async def test(site: Site) -> None:
        socket, wire = site.websocket()
        await eventually(lambda: "2" in wire.heard, 5, "pinged")
        block()
        await socket.send(packet.Packet(packet.MESSAGE, "answer"))
        if ours:
            wire.says.put_nowait("3")
            await eventually(lambda: wire.heard.count("2") > 1, 5, "pinged again")
            assert "4answer" in wire.heard
            assert site.left == []
        else:
            assert site.left == ["s"]

    run(test, ours=ours)


@pytest.mark.parametrize("ours", [False, True])
def test_nobody_is_late_who_waited_while_the_loop_stood(ours: bool) -> None:
    """Neither a websocket nor a poll ends because its timer is due before what came is read."""

    async def test(site: Site) -> None:
        socket, wire = site.websocket()
        other = site.socket()
        polled = asyncio.create_task(other.poll())
        await asyncio.sleep(0)
        block()
        asyncio.get_running_loop().call_soon(wire.says.put_nowait, "4hello")
        try:
            assert [each.packet_type for each in await polled] == [packet.PING]
            await eventually(lambda: "2" in wire.heard, 5, "pinged")
            kept = not wire.closed and not socket.closed
        except exceptions.QueueEmpty:
            kept = False
        assert kept == ours

    run(test, ours=ours)


def test_a_client_that_has_vanished_is_given_up() -> None:
    """A websocket that answers no ping is closed after the time that it was given, and its handler ends."""

    async def test(site: Site) -> None:
        socket, wire = site.websocket()
        began = time.monotonic()
        await asyncio.wait_for(site.watch(socket), 5)
        assert time.monotonic() - began >= EVERY + GIVEN
        await asyncio.wait_for(site.tasks[0], 5)
        assert wire.closed
        assert site.left == ["s"]

    run(test)


def test_one_that_has_vanished_is_given_up_after_a_block() -> None:
    """What the loop stood still is not counted, and no more than that."""

    async def test(site: Site) -> None:
        socket, wire = site.websocket()
        await eventually(lambda: "2" in wire.heard, 5, "pinged")
        block()
        assert await socket.check_ping_timeout()
        await asyncio.wait_for(site.watch(socket), 5)
        assert site.left == ["s"]

    run(test)


def test_a_poll_of_one_that_answers_no_ping_ends() -> None:
    """It is answered as a poll that python-engineio lets wait for too long."""

    async def test(site: Site) -> None:
        socket = site.socket()
        assert [each.packet_type for each in await socket.poll()] == [packet.PING]
        watching = asyncio.create_task(site.watch(socket))
        with pytest.raises(exceptions.QueueEmpty):
            await asyncio.wait_for(socket.poll(), 5)
        await watching

    run(test)


def test_a_websocket_that_is_given_up_while_its_packet_is_handled() -> None:
    """The handler of a packet goes on undisturbed; then no other is waited for."""

    async def test(site: Site) -> None:
        gate, done = asyncio.Event(), list[str]()

        async def message(sid: str, data: str) -> None:
            await gate.wait()
            done.append(data)

        site.server.on("message", message)
        site.server.async_handlers = False
        socket, wire = site.websocket()
        wire.says.put_nowait("4slow")
        await asyncio.wait_for(site.watch(socket), 5)
        gate.set()
        await asyncio.wait_for(site.tasks[0], 1)
        assert done == ["slow"]

    run(test)


def test_running_time() -> None:
    """It stands while nobody looks at the clock for longer than a busy loop would need."""
    now = 0.0
    running = RunningTime(lambda: now)
    for _ in range(10):
        now += LATE
        assert running.now() == now
    before = running.now()
    now += 120
    assert running.now() == before
    now += 1
    assert running.now() == before + 1


def test_an_engine_of_another_kind_is_not_known() -> None:
    """Sockets whose methods are missing, or use other names, stay as they are."""
    assert knows(async_socket.AsyncSocket)

    class Missing(async_socket.AsyncSocket):  # type: ignore[misc]
        check_ping_timeout = None

    class Other(async_socket.AsyncSocket):  # type: ignore[misc]
        async def poll(self) -> list[Any]:
            """Another way to wait."""
            return []

    assert not knows(Missing)
    assert not knows(Other)


IN_ITS_PROCESS = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
import engineio.async_socket as sockets
import uvicorn
before = sockets.AsyncSocket
{before}
from proxy.sessions import keep_clients
keep_clients()
keep_clients()
print(sockets.AsyncSocket is before, sockets.AsyncSocket.__mro__.index(before))
for named in ({{}}, {{"ws_ping_timeout": 7}}):
    print(uvicorn.Config("app", **named).ws_ping_timeout)
print(uvicorn.Config("app", "host").host)
"""


def in_a_process(before: str = "") -> tuple[list[str], str]:
    """What `keep_clients` does where `before` ran first."""
    command = [sys.executable, "-c", IN_ITS_PROCESS.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split("\n")[:-1], done.stderr


def test_time_in_which_the_loop_stands_is_not_counted() -> None:
    """Whatever was done meanwhile is found done, with a beat left; who is late in running time is cut off."""

    async def test() -> None:
        begun = asyncio.Event()

        async def wait(seconds: float) -> None:
            async with within(0.5):
                begun.set()
                await asyncio.sleep(seconds)

        waiting = asyncio.create_task(wait(0.9))
        await begun.wait()
        time.sleep(1)  # noqa: ASYNC251 - so that the loop stands
        await waiting
        with pytest.raises(TimeoutError):
            await wait(60)

    asyncio.run(test())


def test_a_loop_that_always_stands_has_an_end() -> None:
    """Each of its turns takes long: a wait of it is over after a few times its seconds."""

    async def test() -> None:
        turns = 0

        async def stand() -> None:
            nonlocal turns
            async with within(0.1):
                while True:
                    time.sleep(0.05)  # noqa: ASYNC251 - it stands
                    turns += 1
                    await asyncio.sleep(0)

        with pytest.raises(TimeoutError):
            await stand()
        assert 2 < turns < 15

    asyncio.run(test())


def test_a_process_is_made_patient_once() -> None:
    """Sockets get their patience, and uvicorn's websockets wait for pongs unless the app says how long."""
    assert in_a_process() == (["False 2", "None", "7", "host"], "")


def test_a_process_whose_engine_is_not_known() -> None:
    """It runs as it did, and its log tells."""
    told, log = in_a_process("sockets.AsyncSocket.poll = None")
    assert told[0] == "True 0"
    assert "unknown release of python-engineio" in log


IN_AN_APP = """
from chainlit_proxy import share
assert share("sqlite:///" + {folder!r} + "/sessions.db")
import engineio.async_socket as sockets, uvicorn
print(hasattr(sockets.AsyncSocket, "none_to_poll"), uvicorn.Config("app").ws_ping_timeout)
"""


def test_an_app_that_shares_its_sessions_is_patient(tmp_path: Path) -> None:
    """It need not be started by the proxy."""
    command = [sys.executable, "-c", IN_AN_APP.format(folder=str(tmp_path))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CHAINLIT_APP_ROOT": str(tmp_path)}
    told = subprocess.check_output(command, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert told.splitlines()[-1] == "True None"
