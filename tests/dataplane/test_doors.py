"""Listeners shut while file descriptors are few, and open again; nobody who is inside is turned out."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from proxy import net
from proxy.config import Address
from proxy.dataplane.doors import Doors
from proxy.wire.forwarding import UNIX
from tests.dataplane.loop import run_loop

ROOT = Path(__file__).parents[2]


def test_few_descriptors() -> None:
    """Near the limit nothing more is accepted: clients inside are served, those outside wait."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.dataplane.few_descriptors"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.count("no more connections for now") == 2, done.stderr
    assert done.stderr.count("limits.connections is 10000, but 128 file descriptors") == 1, done.stderr


def test_a_unix_listener_opens_again(tmp_path: Path) -> None:
    """Its socket file stays while the doors are shut, and those who came meanwhile are accepted then."""
    path = str(tmp_path / "s")

    async def main() -> None:
        made: list[asyncio.Protocol] = []

        class Client(asyncio.Protocol):
            def __init__(self, address: str) -> None:
                assert address == UNIX

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(self)
                transport.close()

        doors = Doors()
        await doors.open([net.bind(Address.parse(f"unix:{path}"))], Client, 1 << 20)
        doors.shut = True
        doors._close_servers()
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_unix_connection(path)
        assert made == []
        await doors.look()
        assert await reader.read() == b""
        assert (len(made), doors.shut) == (1, False)
        writer.close()
        doors.close()
        await asyncio.sleep(0)

    run_loop(main(), debug=True)
