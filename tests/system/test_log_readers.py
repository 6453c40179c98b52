"""Nobody reads what the proxy writes, or nothing can be written: chats and pages go on."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest

from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.proxy_process import HEALTH, ProxyProcess
from tests.support.run_command import RunCommand
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

REQUESTS = 3000  # their lines are some four times what a pipe holds
DROPPED = "chainlit_proxy_log_lines_dropped_total"
NOISY = """\
for n in range(3000):
    print("y" * 150, flush=True)
import chainlit as cl
"""


class Hello(BaseHTTPRequestHandler):
    """A backend that answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say hello."""
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def backend() -> Iterator[int]:
    """The port of a backend."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Serving(ProxyProcess):
    """A proxy whose log is a file that a test made."""

    def __init__(self, backend: int, folder: Path, log: Path, log_format: str = "console") -> None:
        config = {
            "listen": f"127.0.0.1:{free_port()}",
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "backends": [{"name": "a", "url": f"http://127.0.0.1:{backend}"}],
            "health": HEALTH | {"path": "/"},
            "log": {"format": log_format},
        }
        super().__init__(config, folder)
        self.log = log


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe with a name, and its reading end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, end
    os.close(end)


async def ask_many(url: str, path: str = "/") -> None:
    """Many requests as fast as they go; each has to be answered."""
    limit = aiohttp.TCPConnector(limit=20)
    async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout(30)) as session:

        async def one(number: int) -> int:
            async with session.get(f"{url}{path}?{number}") as response:
                await response.read()
                return response.status

        assert set(await asyncio.gather(*map(one, range(REQUESTS)))) == {200}


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_nobody_reads_standard_error(
    tmp_path: Path, backend: int, pipe: tuple[Path, int], log_format: str
) -> None:
    """Requests, the admin listener and SIGTERM do not wait for a reader."""
    path, _ = pipe
    proxy = Serving(backend, tmp_path, path, log_format)
    try:
        proxy.start()
        asyncio.run(ask_many(proxy.url))
        assert http_status(f"{proxy.admin}/healthz") == 200
        assert proxy.stop(timeout=15) == 0
    finally:
        proxy.kill9()


def test_who_reads_again_is_told_what_is_missing(
    tmp_path: Path, backend: int, pipe: tuple[Path, int]
) -> None:
    """Once lines are dropped the metric counts them; a reader gets the oldest, and then one line about it."""
    path, end = pipe
    proxy = Serving(backend, tmp_path, path, "json")
    try:
        proxy.start()
        while proxy.metric(DROPPED) == 0:
            asyncio.run(ask_many(proxy.url, "/" + "x" * 3000))
        os.set_blocking(end, True)
        text = b""
        while b"lines were dropped here" not in text:
            text += os.read(end, 1 << 20)
        (told,) = [line for line in text.splitlines() if b"lines were dropped here" in line]
        assert b'"level": "warning"' in told
    finally:
        proxy.kill9()


def test_the_disk_is_full(tmp_path: Path, backend: int) -> None:
    """No request waits for a line that cannot be written, and no task ends by it."""
    proxy = Serving(backend, tmp_path, Path("/dev/full"))
    try:
        proxy.start()
        asyncio.run(ask_many(proxy.url))
        assert http_status(f"{proxy.admin}/healthz") == 200
        wait_until(lambda: proxy.metric(DROPPED) >= REQUESTS, 10, "all lines are counted")
        assert proxy.stop(timeout=15) == 0
    finally:
        proxy.kill9()


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_replicas_that_print_much(tmp_path: Path, pipe: tuple[Path, int], again: bool) -> None:
    """Their output is taken from them though nobody takes it from us, and they end as usual."""
    command = RunCommand(tmp_path)
    command.log, _ = pipe
    app = tmp_path / "app.py"
    app.write_text(NOISY + app.read_text().replace("from __future__ import annotations\n", ""))
    try:
        command.start()
        pids = command.pids()
        command.send(signal.SIGTERM)
        if again:
            command.send(signal.SIGTERM)
        assert command.wait(60) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    finally:
        command.kill9()
