"""What the rows of `make bench-lifecycle` ask of a proxy, and our own proxy's answer to it.

The other two are beside this file. Each is set up as its own documentation says for websockets and sticky
sessions, before the same instances and, where it can, with the same health checks: every 0.5 s, three
failures, 1 s for an answer.
"""

import asyncio
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from proxy import __version__
from tests.support.instances import ChainlitInstance, http_status
from tests.support.processes import free_port
from tests.support.proxy_process import COMMAND, ProxyProcess, config_for
from tests.support.waiting import wait_until

START = 20.0  # seconds
SETTLE = 0.5  # seconds for a reload: two of the three do not say when it is done
STAY = 3600  # seconds that our replaced process may serve its websockets where the others set no limit
LATE = 5.0  # seconds that a process may take longer to end than it was given
ACTIVATE = Path(__file__).parents[2] / "tests/support/activate.py"
EVICT = 4.0  # seconds of silence after which our proxy gives an instance up

Instances = Sequence[ChainlitInstance]


class Peer(ABC):
    """One proxy; made for each row, before instances that run already.

    `leave` seconds after it was replaced an old process has to be gone; 0: it may stay.
    """

    name: str
    held: socket.socket | None = None  # set where somebody else holds the socket, as systemd does

    def __init__(self, instances: Instances, folder: Path, leave: int = 0) -> None:
        self.folder = folder
        self.leave = leave
        self.instances = list(instances)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @staticmethod
    @abstractmethod
    def version() -> str:
        """Its version; raises UnavailableError where it is not installed."""

    @abstractmethod
    def start(self) -> None:
        """Starts it and waits until it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it and whatever it left."""

    @abstractmethod
    def processes(self) -> list[int]:
        """Every process of it that is alive, those that it has replaced among them."""

    @abstractmethod
    async def reload(self, instances: Instances, *, bad: bool = False) -> None:
        """Has it read its file again, with these instances, or with a mistake in it."""

    @abstractmethod
    async def upgrade(self) -> None:
        """Replaces its process by a new one while it serves."""

    async def restart(self) -> None:
        """Stops it as a service manager does, and starts it when it has ended."""
        raise RuntimeError(f"{self.name} is not restarted here")

    @abstractmethod
    async def take_out(self, instance: ChainlitInstance, within: float) -> None:
        """Has an instance's sessions leave it; returns when they have, or after `within` seconds."""

    @abstractmethod
    async def put_back(self, instance: ChainlitInstance) -> None:
        """Has an instance take sessions again."""

    def wait_ready(self) -> None:
        """Waits until it passes a request on."""
        wait_until(lambda: http_status(f"{self.url}/health") == 200, START, f"{self.name} ready")


class Ours(Peer):
    """This proxy, by its commands and signals."""

    name = "chainlit-proxy"
    sections: ClassVar[dict[str, Any]] = {}  # more of the configuration

    def __init__(self, instances: Instances, folder: Path, leave: int = 0) -> None:
        super().__init__(instances, folder, leave)
        self._started: list[ProxyProcess] = []

    @staticmethod
    def version() -> str:
        """The one of this checkout."""
        return __version__

    @property
    def _newest(self) -> ProxyProcess:
        return self._started[-1]

    def start(self) -> None:
        """Starts it and waits until all instances are healthy."""
        self._wait_healthy(self._launch())

    def _launch(self) -> ProxyProcess:
        """With `reuse_port` it may start beside one that runs; each has an admin listener of its own."""
        config = config_for(
            self.instances,
            listen=f"127.0.0.1:{self.port}",
            reuse_port=self.held is None,
            health={"interval": 0.5, "timeout": 1, "fall": 3, "rise": 2, "evict_after": EVICT},
            timeouts={"shutdown": self.leave} if self.leave else {"hand_over": STAY},
            log={"access": False},
            **self.sections,
        )
        process = ProxyProcess(config, self.folder, f"proxy{len(self._started)}")
        if self.held is not None:
            number = self.held.fileno()
            process.pass_fds = [number]
            process.command = [sys.executable, str(ACTIVATE), str(number), "http", *process.command]
        process.launch()
        self._started.append(process)
        return process

    def _wait_healthy(self, process: ProxyProcess) -> None:
        process.wait_ready()
        process.wait_health({instance.name: "healthy" for instance in self.instances})

    def stop(self) -> None:
        """Ends all of them."""
        for process in self._started:
            process.kill9()
        if self.held is not None:
            self.held.close()

    def processes(self) -> list[int]:
        """Those that run."""
        return [process.pid for process in self._started if process.running]

    async def reload(self, instances: Instances, *, bad: bool = False) -> None:
        """SIGHUP."""
        self.instances = list(instances)
        process = self._newest
        process.config["backends"] = config_for(instances)["backends"]
        text = yaml.safe_dump(process.config, sort_keys=False)
        process.file.write_text(text + "nonsense: {\n" if bad else text)
        process.send(signal.SIGHUP)
        await asyncio.sleep(SETTLE)

    async def upgrade(self) -> None:
        """A second process on the same port, then SIGTERM to the first."""
        old = self._newest
        await asyncio.to_thread(self._wait_healthy, self._launch())
        old.send(signal.SIGTERM)
        await asyncio.sleep(SETTLE)

    async def restart(self) -> None:
        """SIGTERM, and the next one when it has ended."""
        process = self._newest
        process.send(signal.SIGTERM)
        await asyncio.to_thread(process.wait, self.leave + LATE)
        process.launch()
        await asyncio.to_thread(self._wait_healthy, process)

    async def take_out(self, instance: ChainlitInstance, within: float) -> None:
        """`drain --wait`."""
        await self._command("drain", instance.name, "--wait", "--timeout", f"{within:g}")

    async def put_back(self, instance: ChainlitInstance) -> None:
        """`ready`."""
        await self._command("ready", instance.name)

    async def _command(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, "--admin", self._newest.admin, stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError(f"chainlit-proxy {' '.join(arguments)} failed")
