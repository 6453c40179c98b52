"""What is not known of an instance is not the worst: its name fails, or the proxy itself stands still."""

import asyncio
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.processes import free_port
from tests.support.proxy_process import HEALTH, ROOT, ProxyProcess, config_for
from tests.support.proxy_with_names import ProxyWithNames, may_mount
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

GONE = 3.0  # seconds that a name does not resolve


@pytest.mark.skipif(not may_mount(), reason="this machine grants no mount namespace")
def test_a_name_that_fails_for_a_while_costs_nobody_anything(fleet: Fleet, tmp_path: Path) -> None:
    """The instance is never touched: its chats go on, on every transport, and it is never down."""
    names = {"a": "chat-a.test", "b": "chat-b.test"}
    config = config_for((), health=HEALTH | {"evict_after": 30})
    config["backends"] = [
        {"name": name, "url": fleet[name].url.replace("127.0.0.1", host)} for name, host in names.items()
    ]
    proxy = ProxyWithNames(config, list(names.values()), tmp_path)
    proxy.start()
    proxy.wait_health({"a": "healthy", "b": "healthy"})

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS * 2)
            proxy.know("chat-b.test")
            gone = time.monotonic()
            while time.monotonic() - gone < GONE:
                await each(chats, lambda chat: chat.ask())
            proxy.know(*names.values())
            await each(chats, lambda chat: chat.ask())
            assert all(chat.connects == 1 for chat in chats)
            await each(chats, lambda chat: chat.check(fleet.journal))

    try:
        asyncio.run(scenario())
        assert " is down" not in proxy.tail(500)
    finally:
        proxy.kill9()
        print(proxy.tail(200))


def test_what_never_answers_is_told(tmp_path: Path) -> None:
    """Each backend's first verdict, with its reason, then once that nobody takes sessions."""
    config = config_for(())
    port = free_port()
    config["backends"] = [
        {"name": "a", "url": f"http://127.0.0.1:{port}"},
        {"name": "b", "url": "http://nosuchhost.invalid:8000"},
    ]
    proxy = ProxyProcess(config, tmp_path)
    proxy.launch()
    try:
        proxy.wait_health({"a": "down", "b": "degraded"})
        shown = proxy.backends()
        a = f"nobody listens at 127.0.0.1:{port} (connection refused)"
        b = "the name nosuchhost.invalid does not resolve"
        assert (shown["a"]["reason"], shown["b"]["reason"]) == (a, b)
        assert abs(shown["a"]["since"] - time.time()) < 60
        told = [(event["backend"], event["text"]) for event in json.loads(proxy.get("/api/events"))]
        assert sorted(told[:2]) == [("a", f"is down: {a}"), ("b", f"is degraded: {b}")]
        assert told[2:] == [("", "no backend takes sessions")]
        lines = proxy.tail(50)
        for line in (f"backend a is down: {a}", f"backend b is degraded: {b}", "no backend takes sessions"):
            assert lines.count(f"WARNING {line}") == 1, lines
    finally:
        proxy.kill9()


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """A backend that answers 400, as `TrustedHostMiddleware` does to a Host that it does not know."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(400)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_reason_is_shown_wherever_a_verdict_is(refusing_url: str, tmp_path: Path) -> None:
    """What was answered, that nobody listens, and how long it was silent: log, events, API and `status`."""
    port = free_port()
    config = config_for((), health={"interval": 0.2, "timeout": 0.5, "fall": 2, "evict_after": 60})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config["backends"] = [
            {"name": "a", "url": refusing_url},
            {"name": "b", "url": f"http://127.0.0.1:{port}"},
            {"name": "c", "url": f"http://127.0.0.1:{silent.getsockname()[1]}"},
        ]
        proxy = ProxyProcess(config, tmp_path)
        proxy.launch()
        reasons = {
            "a": re.compile(r"400 to GET /health"),
            "b": re.compile(rf"nobody listens at 127\.0\.0\.1:{port} \(connection refused\)"),
            "c": re.compile(r"silent for \d+ s"),
        }
        try:
            proxy.wait_health({"a": "degraded", "b": "down", "c": "degraded"})
            wait_until(
                lambda: re.search("silent for [3-9] s", str(proxy.backends()["c"]["reason"])), 20, "later"
            )
            shown, lines = proxy.backends(), proxy.tail(50)
            events = {event["backend"]: event["text"] for event in json.loads(proxy.get("/api/events"))}
            status = subprocess.run(
                [sys.executable, "-m", "proxy", "status", "--admin", proxy.admin],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout.splitlines()
            rows = {row.split()[0]: row for row in status}
            for name, reason in reasons.items():
                verdict = shown[name]["health"]
                assert reason.fullmatch(shown[name]["reason"])
                assert re.fullmatch(f"is {verdict}: {reason.pattern}", events[name])
                assert re.search(f"WARNING backend {name} is {verdict}: {reason.pattern}\n", lines), lines
                assert re.search(rf" {reason.pattern}, \d+s$", rows[name]), status
        finally:
            proxy.kill9()


@pytest.fixture
def slow_url() -> Iterator[str]:
    """A backend that takes a second for each probe, so that one is nearly always under way."""

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(1.0)
            self.send_response(204)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_proxy_that_stood_still_blames_nobody(slow_url: str, tmp_path: Path) -> None:
    """Stopped for longer than `evict_after` in the middle of a probe, it finds its backend as it was."""
    health = {"interval": 0.2, "timeout": 3, "fall": 1, "evict_after": 3}
    config = config_for((), health=health)
    config["backends"] = [{"name": "a", "url": slow_url}]
    proxy = ProxyProcess(config, tmp_path)
    try:
        proxy.start()
        for number in range(3):
            time.sleep(0.3 + 0.35 * number)
            proxy.pause()
            time.sleep(4.5)
            proxy.resume()
            time.sleep(1.5)
            assert proxy.health() == {"a": "healthy"}
        lines = proxy.tail(100)
        assert " is down" not in lines, lines
        assert " is degraded" not in lines, lines
        assert lines.count("this process did not run for ") == 3
        assert 10 < proxy.metric("chainlit_proxy_standstill_seconds_total") < 15
    finally:
        proxy.kill9()
