"""What the pages say of the programs around the proxy, as far as it can be shown here."""

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from proxy.config import Config, loads
from proxy.config.sections import TimeoutSettings
from proxy.wire.fields import Fields
from proxy.wire.forwarding import IPAddress, Origin, client_address
from tests.docs.pages import ROOT, found, table
from tests.support.waiting import eventually

BALANCER = ROOT / "docs/deployment/balancer.md"
RUNNING = ROOT / "docs/running-chainlit.md"
DEFAULTS = TimeoutSettings()


def trusts(config: Config) -> Callable[[IPAddress], bool]:
    """Whose addresses a configuration trusts."""
    return lambda address: any(address in network for network in config.forwarded.trusted)


def test_the_client_behind_google() -> None:
    """With the file of the page the client is the first of the two; where they are not counted it is lost."""
    (block,) = [piece for piece in found("yaml") if piece.page == BALANCER and "35.191" in piece.text]
    config = loads(block.text)
    is_trusted = trusts(config)(ipaddress.ip_address("35.191.3.4"))
    peer = Origin("35.191.3.4", b"http", is_trusted, hops=config.forwarded.hops)
    fields = Fields(b"X-Forwarded-For: 192.0.2.66, 198.51.100.7, 203.0.113.10\r\n")
    assert client_address(fields, peer, trusts(config)) == "198.51.100.7"
    uncounted = Origin("35.191.3.4", b"http", is_trusted)
    assert client_address(fields, uncounted, trusts(config)) == "203.0.113.10"
    named = loads(block.text.replace("hops: 2", "  - 203.0.113.10"))
    assert client_address(fields, uncounted, trusts(named)) == "198.51.100.7"


def seconds(cell: str) -> float:
    """The number at the beginning of a table's cell."""
    match = re.match(r"(\d+)", cell)
    assert match, cell
    return float(match[1])


def test_idle_times_are_longer_than_those_of_balancers() -> None:
    """Whoever closes first must not be the proxy; the default is enough for those that have no setting."""
    rows = table(BALANCER, "Idle times")
    assert len(rows) == 5
    for balancer, theirs, ours in rows:
        assert seconds(ours) > seconds(theirs), balancer
        assert ("the default" in ours) == (seconds(ours) == DEFAULTS.idle), balancer


def test_kept_connections_are_closed_by_the_proxy_first() -> None:
    """Servers that need no setting keep connections for longer than the proxy does; the others get one."""
    rows = table(RUNNING, "Connections that are kept")
    for server, theirs, setting in rows:
        assert setting.startswith("nothing") == (seconds(theirs) > DEFAULTS.pool_idle), server
    (row,) = [row for row in rows if row[0].startswith("uvicorn")]
    assert seconds(row[1]) == uvicorn.Config("app").timeout_keep_alive
    (block,) = re.findall(r"`timeouts\.pool_idle: (\d+)`", "".join(row[2] for row in rows))
    assert float(block) < min(seconds(row[1]) for row in rows)


@pytest.mark.parametrize("block", found("nginx"), ids=str)
def test_the_host_keeps_its_port(block: Any) -> None:
    """Nginx's `$host` has none: what is passed on is `$http_host`."""
    assert not re.search(r"\$host\b", block.text)


@pytest.mark.parametrize(("allowed", "scheme"), [("127.0.0.1", "http"), ("*", "https")])
def test_uvicorn_on_a_unix_socket(tmp_path: Path, allowed: str, scheme: str) -> None:
    """It believes nobody's X-Forwarded-Proto there, unless it believes everybody's."""
    path = str(tmp_path / "app.sock")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps(scope["scheme"]).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def scenario() -> bytes:
        config = uvicorn.Config(
            app, uds=path, forwarded_allow_ips=allowed, log_config=None, lifespan="off", ws="none"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        await eventually(lambda: server.started, 20, "uvicorn listens")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
        return answer

    assert asyncio.run(scenario()).endswith(json.dumps(scheme).encode())
