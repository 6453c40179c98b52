"""Requests that fail in their instance, or end it: what they do to others."""

import asyncio
import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.dataplane.peers import Peer, get, post
from tests.support.instances import http_status
from tests.support.processes import Process, free_port
from tests.support.proxy_process import HEALTH, ProxyProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

ROUNDS = 40
APP = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def health(request): return PlainTextResponse("up")
async def broken(request): raise RuntimeError("a button of a stale tab")
async def post(request): return PlainTextResponse(await request.body())
async def crash(request): os._exit(1)

app = Starlette(routes=[
    Route("/health", health), Route("/broken", broken), Route("/crash", crash),
    Route("/post", post, methods=["POST"]),
])
"""


class Uvicorn(Process):
    """A uvicorn with the app."""

    def __init__(self, name: str, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "uvicorn", "failing:app", "--port", str(port)]
        super().__init__(name, command, folder / f"{name}.log", cwd=folder)

    @property
    def answers(self) -> bool:
        """Whether it is up."""
        return http_status(f"{self.url}/health") == 200


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Uvicorn]]:
    """Two uvicorns with an app that fails."""
    (tmp_path / "failing.py").write_text(APP)
    made = [Uvicorn(name, tmp_path) for name in "ab"]
    for server in made:
        server.launch()
    wait_until(lambda: all(server.answers for server in made), 30, made[0].tail)
    yield made
    for server in made:
        server.kill9()


@pytest.fixture
def proxy(servers: list[Uvicorn], tmp_path: Path) -> Iterator[ProxyProcess]:
    """A proxy before them that does not ask them anything while the test runs."""
    backends = [{"name": server.name, "url": server.url} for server in servers]
    config = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "backends": backends,
        "health": {**HEALTH, "interval": 60},
    }
    proxy = ProxyProcess(config, tmp_path)
    proxy.start()
    proxy.wait_health({"a": "healthy", "b": "healthy"})
    yield proxy
    proxy.kill9()
    print(proxy.tail(100))


def test_unhandled_exception_breaks_no_other_request(proxy: ProxyProcess) -> None:
    """The connection of a 500 is closed without a word: a POST that comes right after it is answered."""
    where = urlsplit(proxy.url)

    async def main() -> list[int]:
        peers = [Peer(*await asyncio.open_connection(where.hostname, where.port)) for _ in range(2)]
        pin = await peers[0].say(get(b"/health")).response()
        cookie = b"Cookie: " + (pin.get(b"set-cookie") or b"").partition(b";")[0]
        statuses = []
        for _ in range(ROUNDS):
            assert (await peers[0].say(get(b"/broken", cookie)).response()).status == 500
            statuses.append((await peers[1].say(post(b"/post", b"hello", cookie)).response()).status)
        for peer in peers:
            peer.close()
        return statuses

    assert asyncio.run(main()) == [200] * ROUNDS


@pytest.mark.parametrize("over_kept_connection", [False, True])
def test_request_that_ends_its_instance(
    proxy: ProxyProcess, servers: list[Uvicorn], over_kept_connection: bool
) -> None:
    """It ends no other one."""
    where = urlsplit(proxy.url)
    client = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    cookie = ""
    if over_kept_connection:
        client.request("GET", "/health")
        answer = client.getresponse()
        answer.read()
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    client.request("GET", "/crash", headers={"Cookie": cookie})
    answer = client.getresponse()
    answer.read()
    assert answer.status == 502
    wait_until(lambda: not all(server.running for server in servers), 20, "one ends")
    client.request("GET", "/health")
    assert client.getresponse().status == 200
    client.close()
    assert [server.running for server in servers].count(True) == 1
