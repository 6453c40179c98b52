"""A real Redis for a test, and Debian's where there is none: `python -m tests.support.redis_server`.

Installed is `redis-tools` only, whose one program is also the server: nothing is started by the installation.
Where it is missing and may not be installed, one line says so.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

MISSING = (
    "no Redis for the tests of shared sessions: install Debian's package `redis-server` or `redis-tools`"
)


def find() -> str | None:
    """The server's program; `redis-check-rdb` is the same one, which looks by what name it is called."""
    return shutil.which("redis-server") or shutil.which("valkey-server") or shutil.which("redis-check-rdb")


def install() -> None:
    """Installs the Debian package, if this user may and the system has such packages."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "-y", "--no-install-recommends", "redis-tools"]):
        command = [apt, "-q", *step]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False, env=environment)


class RedisServer(Process):
    """Redis on a loopback port, which keeps nothing on disk; it keeps its port over restarts."""

    def __init__(self, folder: Path) -> None:
        program = find()
        assert program, MISSING
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        called = folder / "redis-server"
        if not called.exists():
            called.symlink_to(program)
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        super().__init__(
            "redis", [str(called), *where, "--save", "", "--appendonly", "no"], folder / "redis.log"
        )

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.launch()
        wait_until(self.answers, 10, lambda: f"redis answers\n{self.tail()}")

    def ask(self, *words: str) -> str:
        """What it answers to a command of one line."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65536).decode()

    def fill(self) -> None:
        """From now on it has no memory for anything more, and says so."""
        self.ask("config", "set", "maxmemory-policy", "noeviction")
        assert self.ask("config", "set", "maxmemory", "1").startswith("+OK")

    def make_room(self) -> None:
        """Ends `fill`."""
        assert self.ask("config", "set", "maxmemory", "0").startswith("+OK")

    def make_read_only(self) -> None:
        """It becomes a replica of a server that is not there; it is read, and takes nothing."""
        assert self.ask("replicaof", "127.0.0.1", str(free_port())).startswith("+OK")

    def make_writable(self) -> None:
        """Ends `make_read_only`; it has kept what it had."""
        assert self.ask("replicaof", "no", "one").startswith("+OK")

    def empty(self) -> None:
        """It forgets everything, and nobody's connection notices."""
        assert self.ask("flushall").startswith("+OK")

    def answers(self) -> bool:
        """Whether it answers a PING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


def main() -> int:
    """Prints the path; non-zero with one line if there is no Redis."""
    if find() is None:
        install()
    path = find()
    print(path or MISSING, file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
