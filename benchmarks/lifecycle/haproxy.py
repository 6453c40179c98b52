"""HAProxy under the work of `make bench-lifecycle`."""

import asyncio
import contextlib
import csv
import os
import signal
from pathlib import Path

from benchmarks.cpu import family
from benchmarks.lifecycle.peer import SETTLE, Instances, Peer
from benchmarks.peers import ask_version, program
from tests.support.instances import ChainlitInstance
from tests.support.processes import Process

LOOK = 0.5  # seconds between two looks whether an instance is empty

CONFIG = """\
global
    nbthread 1
    stats socket {folder}/stats.sock mode 600 level admin expose-fd listeners
{limit}
defaults
    mode http
    option forwardfor
    option redispatch 1
    timeout connect 2s
    timeout client 75s
    timeout server 75s
    timeout tunnel 90s
    timeout check 1s
frontend page
    bind 127.0.0.1:{port}
    default_backend chainlit
backend chainlit
    cookie SRV insert indirect nocache
    option httpchk GET /health
    default-server check inter 500ms fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
"""


class HAProxy(Peer):
    """In master-worker mode, with a cookie of its own.

    With `shutdown-sessions` an instance that hangs loses its sessions after some 4 s; so does one that is
    only slow.
    """

    name = "HAProxy"

    def __init__(self, instances: Instances, folder: Path, leave: int = 0) -> None:
        super().__init__(instances, folder, leave)
        self._file = folder / "haproxy.cfg"
        command = [program("haproxy"), "-W", "-db", "-f", str(self._file)]
        self._master = Process("haproxy", command, folder / "haproxy.log", cwd=folder)

    @staticmethod
    def version() -> str:
        """As it says."""
        return ask_version("haproxy", "-v")

    def start(self) -> None:
        """Starts the master."""
        self._write(bad=False)
        self._master.launch()
        self.wait_ready()

    def stop(self) -> None:
        """Ends the master and all its workers."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._master.kill9()

    def processes(self) -> list[int]:
        """The master and its workers, old ones among them."""
        return family(self._master.pid) if self._master.running else []

    def _write(self, *, bad: bool) -> None:
        servers = [f"    server {one.name} 127.0.0.1:{one.port} cookie {one.name}" for one in self.instances]
        limit = f"    hard-stop-after {self.leave}s" if self.leave else ""
        text = CONFIG.format(folder=self.folder, port=self.port, limit=limit, servers="\n".join(servers))
        self._file.write_text(text + "    nonsense {\n" if bad else text)

    async def reload(self, instances: Instances, *, bad: bool = False) -> None:
        """SIGUSR2: the master executes itself anew; new workers take the listeners over from the old."""
        self.instances = list(instances)
        self._write(bad=bad)
        self._master.send(signal.SIGUSR2)
        await asyncio.sleep(SETTLE)

    async def upgrade(self) -> None:
        """The same: what is executed anew is the program on the disk."""
        await self.reload(self.instances)

    async def take_out(self, instance: ChainlitInstance, within: float) -> None:
        """`state drain`: browsers that have its cookie go on there. After the time `state maint`."""
        await self._tell(f"set server chainlit/{instance.name} state drain")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while await self._connections(instance):  # noqa: ASYNC110 - it tells by being asked
                    await asyncio.sleep(LOOK)
        await self._tell(f"set server chainlit/{instance.name} state maint")

    async def put_back(self, instance: ChainlitInstance) -> None:
        """`state ready`."""
        await self._tell(f"set server chainlit/{instance.name} state ready")

    async def _connections(self, instance: ChainlitInstance) -> int:
        """How many the instance has, by the statistics."""
        lines = (await self._tell("show stat")).removeprefix("# ").splitlines()
        rows = csv.DictReader(lines)
        return next(int(row["scur"]) for row in rows if row["svname"] == instance.name)

    async def _tell(self, order: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self.folder / "stats.sock")
        writer.write(order.encode() + b"\n")
        answer = (await reader.read()).decode().strip()
        writer.close()
        await writer.wait_closed()
        return answer
