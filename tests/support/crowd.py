"""A proxy that has a crowd to carry: many stand-in backends, more sessions than can be opened in a test.

`python -m tests.support.crowd backends COUNT FILE` is one process that stands in for so many instances, and
writes their ports to the file. `python -m tests.support.crowd proxy FILE SESSIONS` is the real proxy of a
configuration; when it serves, so many sessions are written into its directory, as open ones on the backends
in turn, each thirtieth with an app that answers. Whoever needs sessions that move opens `RealSession`s.
"""

import asyncio
import json
import sys
import urllib.request
import uuid
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Self

import uvloop
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from benchmarks.backend import CONNECTED, Connection, Instance
from proxy import logs
from proxy.affinity.evidence import Evidence
from proxy.app import App
from proxy.config.load import load
from tests.support.processes import Process, free_port
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.waiting import wait_until

ENDPOINT = "/ws/socket.io/?EIO=4&transport="
PATIENCE = 60.0  # seconds, for hundreds of backends on a busy machine


class SharingInstance(Instance):
    """A stand-in that takes every session, as instances do that share them."""

    def connect(self, _packet: bytes) -> bytes:
        """The answer to a CONNECT."""
        return CONNECTED


async def serve_backends(number: int, file: Path) -> None:
    """Listen for so many instances until killed."""
    loop = asyncio.get_running_loop()
    ports = []
    for _ in range(number):
        instance = SharingInstance({})
        server = await loop.create_server(lambda it=instance: Connection(it), "127.0.0.1", 0)  # type: ignore[misc]
        ports.append(server.sockets[0].getsockname()[1])
    file.with_suffix(".new").write_text(json.dumps(ports))
    file.with_suffix(".new").rename(file)
    await asyncio.Event().wait()


async def serve_proxy(file: Path, sessions: int) -> None:
    """Run the proxy with so many sessions in its directory."""
    config = load(file)
    logs.set_up(config.log)
    app = App(config)
    app.bind()
    running = asyncio.create_task(app.run())
    await app._serving.wait()
    fleet, directory = list(app.parts.fleet), app.parts.router.directory
    takers = [backend for backend in fleet if backend.takes_sessions] or fleet
    for number in range(sessions):
        session = directory.assign(
            str(uuid.uuid4()), takers[number % len(takers)], monotonic(), Evidence.SESSION
        )
        directory.opened(session)
        session.set_turn(goes_on=number % 30 == 0)
    await running


class Crowd:
    """The two processes; owned by a fixture."""

    def __init__(self, folder: Path, backends: int, sessions: int, *, down: int = 0) -> None:
        """At the ports of the last few of the backends nobody listens: `down` says how many."""
        self.ports = folder / "ports.json"
        command = [sys.executable, "-m", "tests.support.crowd"]
        self.backends = Process(
            "backends",
            [*command, "backends", str(backends - down), str(self.ports)],
            folder / "backends.log",
            cwd=ROOT,
        )
        self.backends.launch()
        wait_until(self.ports.exists, PATIENCE, "stand-ins that listen")
        ports = [*json.loads(self.ports.read_text()), *(free_port() for _ in range(down))]
        self.proxy = ProxyProcess(
            {
                "listen": f"127.0.0.1:{free_port()}",
                "admin": {"listen": f"127.0.0.1:{free_port()}"},
                "backends": [
                    {"name": f"chat-{number}", "url": f"http://127.0.0.1:{port}"}
                    for number, port in enumerate(ports)
                ],
                "log": {"access": False},
            },
            folder,
        )
        self.proxy.command = [*command, "proxy", str(self.proxy.file), str(sessions)]
        self.proxy.launch()
        wait_until(
            lambda: self._sessions() >= sessions, PATIENCE, lambda: f"a full proxy\n{self.proxy.tail()}"
        )

    def _sessions(self) -> int:
        return sum(one["sessions"] for one in self.proxy.backends().values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Both end; the proxy's log is shown if the test fails."""
        print(self.proxy.tail())
        self.proxy.kill9()
        self.backends.kill9()


class RealSession(ExitStack):
    """A session with a websocket through the proxy; open while it is entered."""

    def __init__(self, proxy: ProxyProcess) -> None:
        super().__init__()
        self.id = str(uuid.uuid4())
        self._url = f"ws{proxy.url.removeprefix('http')}{ENDPOINT}websocket"
        self._socket: ClientConnection  # set once it is entered

    def __enter__(self) -> Self:
        self._open()
        return super().__enter__()

    def _open(self) -> None:
        """Connect, as a page does that upgrades at once."""
        self._socket = self.enter_context(connect(self._url))
        assert str(self._socket.recv(PATIENCE)).startswith("0")
        self._socket.send(f"40{json.dumps({'sessionId': self.id, 'clientType': 'webapp'})}")
        assert str(self._socket.recv(PATIENCE)).startswith("40")

    def come_back(self) -> None:
        """Wait until the connection ends, and connect anew, as Socket.IO's client does."""
        try:
            while True:
                self._socket.recv(PATIENCE)
        except ConnectionClosed:
            self._open()


def open_polling(proxy: ProxyProcess) -> str:
    """Open a session that polls; its id."""
    session = str(uuid.uuid4())
    with urllib.request.urlopen(f"{proxy.url}{ENDPOINT}polling", timeout=PATIENCE) as answer:
        sid = json.loads(answer.read()[1:])["sid"]
    packet = f"40{json.dumps({'sessionId': session, 'clientType': 'webapp'})}".encode()
    for body in (packet, None):
        with urllib.request.urlopen(f"{proxy.url}{ENDPOINT}polling&sid={sid}", body, PATIENCE) as answer:
            answer.read()
    return session


if __name__ == "__main__":
    _, part, first, second = sys.argv
    if part == "backends":
        uvloop.run(serve_backends(int(first), Path(second)))
    else:
        uvloop.run(serve_proxy(Path(first), int(second)))
