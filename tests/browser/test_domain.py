"""One command from app.py to HTTPS under a name of one's own, in Chromium, by a real authority.

Pebble's certificates are good for half a minute here, so they are renewed while everybody is connected.
"""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from playwright.sync_api import Browser

from tests.browser.chat_server import START, ChatServer
from tests.browser.chromium import FLAGS
from tests.browser.conftest import Launch
from tests.browser.tab import Tab
from tests.support.pebble_server import Pebble
from tests.support.proxy_process import AdminListener
from tests.support.waiting import wait_until
from tests.system.test_https import LIFE, NAME, RENEWED, pebble, proof_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

__all__ = ["pebble", "proof_port"]

CONNECTIONS = 20  # of either kind


class Load(threading.Thread):
    """Clients that keep their connections: some ask for the page again and again, some have a websocket."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.url = f"https://127.0.0.1:{port}"
        self.answers = 0
        self.opened = 0  # connections for requests
        self.lost: list[str] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self.ready = threading.Event()

    def run(self) -> None:
        """As Thread."""
        asyncio.run(self._all())

    def stop(self) -> None:
        """Have all of them leave, and wait for that."""
        self._over.set()
        self.join(30)

    async def _all(self) -> None:
        # Who it is that answers is the browser's affair here; these count what they lose.
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._ask(anybody, trace))
                tasks.create_task(self._listen(anybody))
        await asyncio.sleep(0.25)  # aiohttp's own advice: it does not wait for the end of its TLS connections

    async def _count(self, *_: object) -> None:
        self.opened += 1

    async def _ask(self, anybody: ssl.SSLContext, trace: aiohttp.TraceConfig) -> None:
        connector = aiohttp.TCPConnector(ssl=anybody, limit=1)
        async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as http:
            while not self._over.is_set():
                async with http.get(f"{self.url}/", headers={"Host": NAME}) as answer:
                    await answer.read()
                    if answer.status != 200:
                        self.failed.append(f"{answer.status}")
                self.answers += 1
                await asyncio.sleep(0.5)

    async def _listen(self, anybody: ssl.SSLContext) -> None:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=anybody)) as http,
            http.ws_connect(f"{self.url}/ws/socket.io/?EIO=4&transport=websocket") as socket,
        ):
            while not self._over.is_set():
                try:
                    message = await socket.receive(timeout=0.5)
                except TimeoutError:
                    continue
                if message.type is not aiohttp.WSMsgType.TEXT:
                    self.lost.append(f"{message.type} {message.data}")
                    return
                if message.data == "2":
                    await socket.send_str("3")


@pytest.fixture
def chromium_at_home(launch: Launch) -> Iterator[Browser]:
    """A Chromium for which the name is this machine's."""
    rules = f"--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.*"
    flags = [flag for flag in FLAGS if not flag.startswith("--host-resolver-rules")]
    browser = launch([*flags, rules])
    yield browser
    browser.close()


def test_a_name_is_enough(chromium_at_home: Browser, pebble: Pebble, proof_port: int, tmp_path: Path) -> None:
    """The page comes by HTTPS and HTTP/2, and nobody loses a connection when the certificate is renewed."""
    acme = {"directory": pebble.directory, "ca": pebble.ca, "email": f"ops@{NAME}"}
    server = ChatServer(tmp_path, 2, yaml.safe_dump({"tls": {"acme": acme}}))
    server.command += ["--domain", NAME, "--listen", f"http://127.0.0.1:{proof_port}"]
    server.command += ["--state", str(tmp_path / "state")]
    port = int(server.url.strip("/").rpartition(":")[2])
    admin = AdminListener()
    admin.admin = server.admin
    load = Load(port)
    try:
        server.launch()
        server.wait_healthy()
        wait_until(lambda: admin.metric(RENEWED, result="renewed") >= 1, START, server.tail)
        with chromium_at_home.new_context(ignore_https_errors=True) as context:
            tab = Tab(context, f"https://{NAME}:{port}/")
            assert "Nice to meet you, Ada." in tab.say("my name is Ada")
            load.start()
            wait_until(lambda: load.answers >= CONNECTIONS, START, server.tail)
            before = admin.metric(RENEWED, result="renewed")
            wait_until(lambda: admin.metric(RENEWED, result="renewed") > before, 2 * LIFE, server.tail)
            answers = load.answers
            wait_until(lambda: load.answers >= answers + 2 * CONNECTIONS, START, server.tail)
            assert "You are Ada." in tab.say("who am I?")
            assert tab.page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
            assert (tab.failures, tab.errors) == ([], [])
            assert not tab.was_closed(0)
            load.stop()
        assert (load.lost, load.failed) == ([], [])
        assert load.opened == CONNECTIONS
        assert admin.metric(RENEWED, result="failed") == 0
    finally:
        if load.is_alive():
            load.stop()
        print(server.tail(100))
        server.shut_down()
