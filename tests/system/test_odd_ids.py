"""Session ids that are paths: Chainlit removes the folder that a session is called by."""

import asyncio
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.clients import Clients
from tests.support.link import Driver, Kind, Transports
from tests.support.sharing import Instance, RunSharing

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
SOCKETIO = "/ws/socket.io/?EIO=4&transport="


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no session has to do with."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder


def odd_ids(outside: Path, near: Path) -> list[str]:
    """Ways to call that folder, all folders, and files of the app by way of its folder of uploads."""
    return ["", ".", str(outside), os.path.relpath(outside, near), "../public"]


def auth(session: str) -> str:
    """The CONNECT packet of Chainlit's page."""
    return "40" + json.dumps({"sessionId": session, "clientType": "webapp", "userEnv": "{}"})


@contextmanager
def opened(url: str) -> Iterator[ClientConnection]:
    """A websocket behind its OPEN packet."""
    with connect(url.replace("http", "ws", 1) + SOCKETIO + "websocket") as socket:
        socket.recv(10)
        yield socket


def told(url: str, session: str) -> str:
    """What comes upon a CONNECT, whose session is cleared at once: the answer, or the code of the close."""
    with opened(url) as socket:
        try:
            socket.send(auth(session))
            answer = str(socket.recv(10))
            socket.send('42["clear_session"]')
            socket.send("41")
        except ConnectionClosed as closed:
            return str(closed.rcvd.code if closed.rcvd else None)
    return answer


def posted(url: str, packet: str) -> int:
    """The status of a polling transport's first POST."""
    with urllib.request.urlopen(url + SOCKETIO + "polling", timeout=10) as answer:
        sid = json.loads(answer.read()[1:])["sid"]
    try:
        target = f"{url}{SOCKETIO}polling&sid={sid}"
        with urllib.request.urlopen(target, packet.encode(), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[RunSharing]:
    """One replica that shares its sessions."""
    run = RunSharing(tmp_path, 1)
    run.start()
    yield run
    run.end()
    print(run.tail(100))


def test_no_folder_is_removed_through_the_proxy(sharing: RunSharing, tmp_path: Path, outside: Path) -> None:
    """Odd ids are refused on every way in; what others have uploaded and folders elsewhere stay."""

    async def scenario() -> None:
        async with Clients(sharing.url) as clients:
            chat = await clients.chat(Kind(Driver.PYTHON, Transports.WEBSOCKET))
            await chat.open()
            key = await chat.upload("mine")
            await asyncio.to_thread(attack)
            path = f"/project/file/{key}?session_id={chat.session}"
            assert await chat.http("GET", path) == "mine"
            assert "up.txt" in (await chat.ask(files=(key,))).fields["files"]

    def attack() -> None:
        for session in odd_ids(outside, tmp_path / ".files"):
            assert told(sharing.url, session) == "1008"
            with opened(sharing.url) as again:
                again.send(auth(str(uuid.uuid4())))
                assert str(again.recv(10)).startswith("40")
                again.send("41")
                assert told_at_last(again, session) == 1008
            assert posted(sharing.url, auth(session)) == 400

    asyncio.run(scenario())
    assert (outside / "kept").read_text() == "kept"
    assert sharing.metric("chainlit_proxy_refused_ids_total", kind="session") == 15


def told_at_last(socket: ClientConnection, session: str) -> int | None:
    """The code of the close upon a further CONNECT."""
    socket.send(auth(session))
    try:
        while True:
            socket.recv(10)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def test_an_instance_that_shares_refuses_by_itself(tmp_path: Path, outside: Path) -> None:
    """Whoever reaches an instance without the proxy is refused by the hooks; others are served."""
    instance = Instance("a", tmp_path, f"sqlite:///{tmp_path}/sessions.db")
    instance.launch()
    try:
        instance.wait_ready()
        for session in odd_ids(outside, tmp_path / "a" / ".files"):
            assert told(instance.url, session).startswith("44")
        assert told(instance.url, str(uuid.uuid4())).startswith("40")
        assert (outside / "kept").read_text() == "kept"
    finally:
        instance.kill9()
        print(instance.tail(100))
