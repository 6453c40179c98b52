"""What the admin listener and the access log tell an operator."""

import asyncio
import json
from itertools import islice

import pytest

from tests.support.clients import Clients, each
from tests.support.instances import Fleet, http_status
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.system

PREFIX = "chainlit_proxy_"
# What Prometheus clients of every language tell of their process, under names of their own.
STANDARD = ("process_", "python_")
BACKEND_FIELDS = {"name", "url", "health", "admin_state", "sessions", "tunnels"}


def test_metrics_tell_what_happened(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Requests, affinity decisions, sessions and tunnels are counted; no label holds an id of a client."""

    async def scenario() -> None:
        before = proxy.metric(f"{PREFIX}requests_total")
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS)
            await each(chats, lambda chat: chat.check(fleet.journal))
            websockets = sum("websocket" in chat.link.kind.transports.value for chat in chats)
            # A client by both transports may have done all that while it was still upgrading.
            await eventually(
                lambda: sum(backend["tunnels"] for backend in proxy.backends().values()) == websockets,
                10,
                lambda: f"{websockets} tunnels: {proxy.backends()}",
            )
            assert sum(backend["sessions"] for backend in proxy.backends().values()) >= len(chats)
            assert proxy.metric(f"{PREFIX}backend_tunnels") == websockets
            assert proxy.metric(f"{PREFIX}requests_total") > before + 3 * len(chats)
            for method, code in [("GET", "2xx"), ("POST", "2xx")]:
                assert proxy.metric(f"{PREFIX}requests_total", method=method, code=code) > 0
            assert proxy.metric(f"{PREFIX}affinity_decisions_total", evidence="sid") > 0
            assert proxy.metric(f"{PREFIX}first_byte_seconds_count") > 0
            assert proxy.metric(f"{PREFIX}probe_seconds_count") > 0
            labels = {value for _, found in proxy.metrics() for _, value in found}
            secrets = {chat.session for chat in chats}
            assert not [label for label in labels if any(secret in label for secret in secrets)]

    asyncio.run(scenario())
    strange = {name for name, _ in proxy.metrics() if not name.startswith((PREFIX, *STANDARD))}
    assert not strange


def test_failures_are_counted(fleet: Fleet, proxy: ProxyProcess) -> None:
    """A killed backend shows in its health, in the failovers, and as down in the API."""

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS, on="b")
            victims = [chat for chat in chats if chat.home == "b"]
            fleet["b"].kill9()
            await each(victims, lambda chat: chat.recover())

    asyncio.run(scenario())
    proxy.wait_health({"a": "healthy", "b": "down", "c": "healthy"})
    assert proxy.metric(f"{PREFIX}backend_health", backend="b", verdict="down") == 1
    assert proxy.metric(f"{PREFIX}backend_health", backend="b", verdict="healthy") == 0
    assert proxy.metric(f"{PREFIX}failovers_total", backend="b") > 0


def test_backends_are_listed_with_the_promised_fields(fleet: Fleet, proxy: ProxyProcess) -> None:
    """`/api/backends` names every backend in the order of the configuration."""
    backends = json.loads(proxy.get("/api/backends"))
    assert [backend["name"] for backend in backends] == fleet.names
    for backend in backends:
        assert backend.keys() >= BACKEND_FIELDS
        assert backend["url"] == fleet[backend["name"]].url
        assert (backend["health"], backend["admin_state"]) == ("healthy", "ready")
        assert (backend["sessions"], backend["tunnels"]) == (0, 0)


def test_ready_only_while_a_backend_takes_sessions(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """`/readyz` turns 503 when the last backend is down, and 200 again; `/healthz` is 200 throughout."""
    proxy = make_proxy("ab", affinity={"hold": 0})
    for name in "ab":
        assert http_status(f"{proxy.admin}/readyz") == 200
        fleet[name].kill9()
        proxy.wait_health({name: "down"})
    assert http_status(f"{proxy.admin}/readyz") == 503
    assert http_status(f"{proxy.admin}/healthz") == 200
    assert http_status(f"{proxy.url}/project/translations") == 503
    fleet["a"].launch()
    wait_until(lambda: http_status(f"{proxy.admin}/readyz") == 200, 40, "ready again")
    assert http_status(f"{proxy.url}/project/translations") == 200


def test_the_access_log_tells_why_a_request_went_where(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Each exchange is a JSON line with backend, evidence and outcome, and without the session's id."""
    proxy = make_proxy(log={"format": "json", "access": True})

    async def scenario() -> list[str]:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(KINDS, 9))
            await each(chats, lambda chat: chat.check(fleet.journal))
            return [chat.session for chat in chats]

    sessions = asyncio.run(scenario())
    proxy.stop()
    text = proxy.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    uploads = [line for line in lines if line.get("method") == "POST" and line.get("path") == "/project/file"]
    assert len(uploads) == len(sessions)
    for line in uploads:
        assert line["backend"] in fleet.names
        assert line["evidence"]
        assert line["outcome"]
        assert line["status"] == 200
    assert not [session for session in sessions if session in text]
