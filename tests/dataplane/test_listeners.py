"""Listeners shut while file descriptors are few, and open again; nobody who is inside is turned out."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from proxy import net
from proxy.config import Address, Config
from proxy.dataplane.clients import Ticket
from proxy.dataplane.listeners import Listeners
from proxy.parts import Parts
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
    assert done.stderr.count("no longer accepting connections") == 2, done.stderr
    few = "only about 42 clients can be connected at once (limits.connections is 10000)"
    assert done.stderr.count(few) == 1, done.stderr


def test_a_unix_listener_opens_again(tmp_path: Path) -> None:
    """Its socket file stays while the listeners are shut, and those who came meanwhile are accepted then."""
    path = str(tmp_path / "s")

    async def main() -> None:
        made: list[asyncio.Protocol] = []

        class Client(asyncio.Protocol):
            def __init__(self, address: str, ticket: Ticket | None) -> None:
                assert (address, ticket) == (UNIX, None)

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(self)
                transport.close()

        listeners = Listeners(Parts(Config()).plane.site, Client)
        await listeners.open([net.bind(Address.parse(f"unix:{path}"))], 1024, None, greeted=False)
        listeners.shut = True
        listeners._close_servers()
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_unix_connection(path)
        assert made == []
        await listeners.reopen_if_room()
        assert await reader.read() == b""
        assert (len(made), listeners.shut) == (1, False)
        writer.close()
        listeners.close()
        await asyncio.sleep(0)

    run_loop(main(), debug=True)
