"""Chromium by HTTPS: tabs that poll share one connection in HTTP/2, and none waits for another."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext

from tests.browser.chat_server import ChatServer
from tests.browser.tab import Tab
from tests.support.certificates import Authority
from tests.support.instances import Fleet
from tests.support.proxy_process import AdminListener, ProxyProcess, config_for
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

NAME = "chat.test"
TABS = 20
# What a tab does that polls: it opens an Engine.IO session, connects, and waits for news.
POLLS = """async (session) => {
  const path = "/ws/socket.io/?EIO=4&transport=polling";
  const {sid} = JSON.parse((await (await fetch(path)).text()).slice(1));
  const at = `${path}&sid=${sid}`;
  const body = "40" + JSON.stringify({clientType: "webapp", sessionId: session});
  await fetch(at, {method: "POST", body});
  const first = await (await fetch(at)).text();
  window.waiting = fetch(at).then((answer) => answer.text());
  return first;
}"""


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ProxyProcess]:
    """A proxy with TLS before one instance."""
    with Fleet(tmp_path, 1) as fleet:
        config = config_for([fleet[name] for name in fleet.names], tls=Authority(tmp_path).issue(NAME))
        proxy = ProxyProcess(config, tmp_path, "proxy")
        try:
            proxy.start()
            proxy.wait_health(dict.fromkeys(fleet.names, "healthy"))
            yield proxy
        finally:
            proxy.kill9()
            print(proxy.tail(200))


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """One that takes the certificate."""
    context = chromium.new_context(ignore_https_errors=True)
    yield context
    context.close()


def test_tabs_that_poll(context: BrowserContext, proxy: ProxyProcess) -> None:
    """Twenty of them wait at once, over one connection: in HTTP/1.1 a browser has six for all of a host."""
    url = proxy.url.replace("http://", "https://")
    tabs = [context.new_page() for _ in range(TABS)]
    for number, tab in enumerate(tabs):
        tab.goto(f"{url}/favicon")
        assert tab.evaluate(POLLS, f"tab-{number:08}").startswith("40")
    polling = "chainlit_proxy_open_requests"
    wait_until(lambda: proxy.metric(polling, state="polling") == TABS, 20, proxy.tail)
    assert proxy.metric("chainlit_proxy_open_connections", protocol="h2") == 1
    assert proxy.metric("chainlit_proxy_open_connections", protocol="http/1.1") == 0
    for tab in tabs:
        tab.close()
    wait_until(lambda: proxy.metric(polling, state="polling") == 0, 20, proxy.tail)
    assert proxy.metric("chainlit_proxy_limits_hit_total") == 0


@pytest.mark.parametrize("websockets", [False, True])
def test_a_conversation(context: BrowserContext, tmp_path: Path, websockets: bool) -> None:
    """Chainlit's page comes by HTTP/2, its websocket by either, and an upload goes through."""
    tls = {**Authority(tmp_path).issue(NAME), "http2_websockets": websockets}
    server = ChatServer(tmp_path, 2, yaml.safe_dump({"tls": tls}))
    try:
        server.launch()
        server.wait_healthy()
        tab = Tab(context, server.url.replace("http://", "https://"))
        assert "Nice to meet you, Ada." in tab.say("my name is Ada")
        assert "You are Ada." in tab.say("who am I?")
        file = tmp_path / "notes.txt"
        file.write_text("x" * 300_000)
        assert tab.fetch(tab.attach(file)) == "200 " + file.read_text()
        assert tab.page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        assert (tab.failures, tab.errors) == ([], [])
        proxy = AdminListener()
        proxy.admin = server.admin
        assert proxy.metric("chainlit_proxy_backend_tunnels") == 1
        assert (proxy.metric("chainlit_proxy_connections_total", protocol="http/1.1") == 0) is websockets
    finally:
        print(server.tail(100))
        server.shut_down()
