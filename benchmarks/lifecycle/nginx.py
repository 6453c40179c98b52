"""nginx under the work of `make bench-lifecycle`."""

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from benchmarks.cpu import family
from benchmarks.forms import NGINX_PASS, NGINX_SESSION
from benchmarks.lifecycle.peer import SETTLE, START, Instances, Peer
from benchmarks.peers import ask_version, program
from tests.support.instances import ChainlitInstance
from tests.support.processes import alive
from tests.support.waiting import eventually, wait_until

CONFIG = (
    """\
user root;
worker_processes 1;
{limit}
pid {folder}/nginx.pid;
error_log {folder}/errors crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
"""
    + NGINX_SESSION
    + """\
    map $http_upgrade $onward {{ default upgrade; "" close; }}
    upstream chainlit {{
        hash $session consistent;
{servers}
    }}
"""
    + NGINX_PASS
    + """\
            proxy_connect_timeout 2s;
            proxy_read_timeout 30s;
        }}
    }}
}}
"""
)


class Nginx(Peer):
    """With a consistent hash of Chainlit's cookie.

    It has no health checks. `proxy_read_timeout` cannot be below the 25 s between two pings of Engine.IO, so
    30 s is as close as it comes to giving up an instance that hangs. It runs as a daemon, because without
    one it does not heed the signal of an upgrade.
    """

    name = "nginx"

    def __init__(self, instances: Instances, folder: Path, leave: int = 0) -> None:
        super().__init__(instances, folder, leave)
        self._file, self._pid_file = folder / "nginx.conf", folder / "nginx.pid"
        self._out: set[str] = set()
        self._masters: list[int] = []

    @staticmethod
    def version() -> str:
        """As it says."""
        return ask_version("nginx", "-v")

    def start(self) -> None:
        """Starts the daemon."""
        self._write(bad=False)
        command = [program("nginx"), "-p", str(self.folder), "-c", str(self._file)]
        subprocess.run(command, check=True, capture_output=True, timeout=START)
        wait_until(self._pid_file.exists, START, "nginx's pid file")
        self._masters.append(self._newest())
        self.wait_ready()

    def stop(self) -> None:
        """Ends every master and its workers: the masters first, which would else start others."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """The masters and their workers; a new master is a child of the old one while that lives."""
        return list(dict.fromkeys(pid for one in self._masters if alive(one) for pid in family(one)))

    def _newest(self) -> int:
        return int(self._pid_file.read_text())

    def _write(self, *, bad: bool) -> None:
        servers = [
            f"        server 127.0.0.1:{one.port}{' down' if one.name in self._out else ''};"
            for one in self.instances
        ]
        limit = f"worker_shutdown_timeout {self.leave}s;" if self.leave else ""
        text = CONFIG.format(folder=self.folder, port=self.port, limit=limit, servers="\n".join(servers))
        self._file.write_text(text + "nonsense {\n" if bad else text)

    async def reload(self, instances: Instances, *, bad: bool = False) -> None:
        """SIGHUP: new workers; the old ones stay until their last websocket has gone."""
        self.instances = list(instances)
        self._write(bad=bad)
        os.kill(self._newest(), signal.SIGHUP)
        await asyncio.sleep(SETTLE)

    async def upgrade(self) -> None:
        """USR2, and when the new master is there WINCH and QUIT to the old one."""
        old = self._newest()
        os.kill(old, signal.SIGUSR2)
        await eventually(lambda: self._pid_file.exists() and self._newest() != old, START, "a new master")
        self._masters.append(self._newest())
        await asyncio.sleep(SETTLE)
        os.kill(old, signal.SIGWINCH)
        os.kill(old, signal.SIGQUIT)

    async def take_out(self, instance: ChainlitInstance, within: float) -> None:
        """Marked `down`. It does not tell when an instance is empty."""
        self._out.add(instance.name)
        await self.reload(self.instances)
        await asyncio.sleep(within)

    async def put_back(self, instance: ChainlitInstance) -> None:
        """Not marked any more."""
        self._out.discard(instance.name)
        await self.reload(self.instances)
