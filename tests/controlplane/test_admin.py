"""The admin listener: what it tells, to whom, and with which token."""

import asyncio
import hmac
import json
import socket
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest

from proxy import net
from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.app import App
from proxy.config import Address, Config
from proxy.controlplane.admin import AdminServer, Tokens, admin_app
from proxy.scrape import Scrape
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT, Message, Peer, get

TOKEN = "s3cret-token"
HOOK_TOKEN = "a-hooks-token"
OPEN = ["/healthz", "/readyz", "/metrics"]
GUARDED = ["/api/backends", "/openapi.json", "/docs"]


class Admin:
    """A running admin listener."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.host = b"127.0.0.1:%d" % address[1]
        self.app = App(Config())
        self.fleet = self.app.parts.fleet

    async def ask(self, path: str, *lines: bytes, method: bytes = b"GET", body: bytes = b"") -> Message:
        """What it answers."""
        peer = Peer(*await asyncio.open_connection(*self.address))
        answer = await peer.say(
            get(path.encode(), b"Connection: close", *lines, method=method).replace(b"chat.test", self.host)
            + body
        ).response()
        peer.close()
        await peer.writer.wait_closed()
        return answer


Test = Callable[[Admin], Awaitable[None]]


def run(test: Test, *, token: str | None = None) -> None:
    """Run a test beside an admin listener."""

    async def main() -> None:
        sock = net.bind(Address("127.0.0.1", 0))
        admin = Admin(sock.getsockname()[:2])
        app = admin.app
        scrape = Scrape(app.parts.collector.collect)
        server = AdminServer(
            admin_app(
                app.actions(),
                app.admin.views(),
                scrape,
                lambda: Tokens([token] if token else (), [HOOK_TOKEN]),
            ),
            [sock],
            app.parts.events.hang_up,
        )
        task = asyncio.create_task(server.run())
        try:
            await test(admin)
        finally:
            server.stop()
            async with asyncio.timeout(WAIT):
                await task
            sock.close()

    run_loop(main())


def bearer(token: str) -> bytes:
    """The field that carries a token."""
    return b"Authorization: Bearer " + token.encode()


REFUSED: list[tuple[bytes, ...]] = [
    (),
    (bearer("wrong"),),
    (bearer(TOKEN + "x"),),
    (bearer(TOKEN[:-1]),),
    (b"Authorization: Basic " + TOKEN.encode(),),
    (b"Authorization: " + TOKEN.encode(),),
    (b"Authorization: Bearer \xff\xfe",),
    (b"Cookie: token=" + TOKEN.encode(),),
]


def test_alive_and_ready() -> None:
    """/healthz answers while the process lives; /readyz says 200 only while some backend takes sessions."""

    async def test(admin: Admin) -> None:
        backend = admin.fleet.add("a", "127.0.0.1", 1, now=0.0)
        assert (await admin.ask("/healthz")).status == 200
        assert (await admin.ask("/readyz")).status == 503
        admin.fleet.observe(backend, Observation.ANSWERED, 1.0)
        assert (await admin.ask("/readyz")).status == 200
        admin.fleet.set_admin_state(backend, AdminState.DRAIN)
        assert (await admin.ask("/readyz")).status == 503
        assert (await admin.ask("/healthz")).status == 200

    run(test)


def test_backends() -> None:
    """/api/backends is the list of backends in their order, as they are now."""

    async def test(admin: Admin) -> None:
        first = admin.fleet.add("a", "127.0.0.1", 8001, weight=2.0, now=0.0)
        admin.fleet.add("b", "::1", 8002, now=0.0)
        admin.fleet.observe(first, Observation.ANSWERED, 1.0)
        first.pid = 42
        first.sessions, first.tunnels = 3, 2
        answer = await admin.ask("/api/backends")
        assert answer.get(b"content-type") == b"application/json"
        one, two = json.loads(answer.body)
        assert one.pop("since") == pytest.approx(time.time() - monotonic() + 1.0, abs=5.0)
        assert one == {
            "name": "a",
            "url": "http://127.0.0.1:8001",
            "weight": 2.0,
            "health": "healthy",
            "reason": "",
            "admin_state": "ready",
            "sessions": 3,
            "tunnels": 2,
            "takes_sessions": True,
            "most_sessions": 0,
            "unanswered": 0,
            "pid": 42,
            "leaving": False,
            "drain": None,
        }
        assert (two["url"], two["health"], two["pid"]) == ("http://[::1]:8002", "down", None)

    run(test)


def test_metrics() -> None:
    """/metrics is Prometheus text, or OpenMetrics for who asks for that."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/metrics")
        assert (answer.get(b"content-type") or b"").startswith(b"text/plain")
        assert b'\nchainlit_proxy_open_connections{protocol="http/1.1"} 0\n' in answer.body
        answer = await admin.ask("/metrics", b"Accept: application/openmetrics-text; version=1.0.0")
        assert (answer.get(b"content-type") or b"").startswith(b"application/openmetrics-text")
        assert answer.body.endswith(b"\n# EOF\n")

    run(test)


def test_openapi_describes_the_api() -> None:
    """/openapi.json names the endpoints and the fields of a backend."""

    async def test(admin: Admin) -> None:
        document = json.loads((await admin.ask("/openapi.json")).body)
        assert "/api/backends" in document["paths"]
        fields = document["components"]["schemas"]["BackendStatus"]["properties"]
        assert {"name", "url", "health", "admin_state", "sessions", "tunnels", "pid"} <= fields.keys()

    run(test)


def test_openapi_describes_and_shows_everything() -> None:
    """Each path has its words; each parameter and each field of ours has a description and an example."""

    async def test(admin: Admin) -> None:
        document = json.loads((await admin.ask("/openapi.json")).body)
        operations = [(path, one) for path, methods in document["paths"].items() for one in methods.values()]
        told = {path: one for path, one in operations if one["description"]}
        assert len(told) == len(document["paths"])
        parts = {
            f"{path} {one['name']}": one["schema"] | one
            for path, operation in operations
            for one in operation.get("parameters", [])
        }
        for name, model in document["components"]["schemas"].items():
            if name not in {"HTTPValidationError", "ValidationError"}:  # FastAPI's own
                assert model["description"], name
                parts |= {f"{name}.{field}": one for field, one in model.get("properties", {}).items()}
        assert len(parts) > 60
        assert [
            name for name, one in parts.items() if not (one.get("description") and "examples" in one)
        ] == []

    run(test)


def test_monitoring_needs_no_token() -> None:
    """Probes of an orchestrator and Prometheus get in without a token."""

    async def test(admin: Admin) -> None:
        for path in OPEN:
            assert (await admin.ask(path)).status in (200, 503)

    run(test, token=TOKEN)


@pytest.mark.parametrize("path", GUARDED)
def test_everything_else_needs_the_token(path: str) -> None:
    """Without the exact token nothing is told, and the answer does not repeat what was given."""

    async def test(admin: Admin) -> None:
        admin.fleet.add("secret-name", "127.0.0.1", 1, now=0.0)
        for lines in REFUSED:
            answer = await admin.ask(path, *lines)
            assert answer.status == 401
            assert b"secret-name" not in answer.body
            assert TOKEN.encode() not in answer.body
        assert (await admin.ask(path, bearer(TOKEN))).status in (200, 307)

    run(test, token=TOKEN)


@pytest.mark.parametrize("path", [*OPEN, "/", "/docs", "/openapi.json", "/api/backends", "/api/unknown"])
def test_head_is_answered_as_get(path: str) -> None:
    """Monitors that ask by HEAD are told what GET tells, without its body (RFC 9110 section 9.1)."""

    async def test(admin: Admin) -> None:
        by_get = await admin.ask(path)
        peer = Peer(*await asyncio.open_connection(*admin.address))
        request = get(path.encode(), b"Connection: close", method=b"HEAD").replace(b"chat.test", admin.host)
        by_head = await peer.say(request).response(to_head=True)
        assert await peer.rest() == b""
        peer.close()
        assert by_head.status == by_get.status
        assert by_head.get(b"content-type") == by_get.get(b"content-type")

    run(test)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_may_ask_by_options(path: str) -> None:
    """HAProxy asks so unless it is told of another method, in HTTP/1.0 and without Host."""

    async def test(admin: Admin) -> None:
        asked, probed = [await admin.ask(path, method=method) for method in (b"GET", b"OPTIONS")]
        assert (probed.status, probed.body) == (asked.status, asked.body)
        assert (await admin.ask("/api/backends", method=b"OPTIONS")).status == 405

    run(test)


def test_a_stream_is_not_begun_by_head() -> None:
    """It has no end, so only GET begins one."""

    async def test(admin: Admin) -> None:
        peer = Peer(*await asyncio.open_connection(*admin.address))
        request = get(b"/api/stream", method=b"HEAD").replace(b"chat.test", admin.host)
        assert (await peer.say(request).response(to_head=True)).status == 405
        peer.close()

    run(test)


def test_docs_lead_to_the_description() -> None:
    """/docs leads to the OpenAPI description beside it, below whatever path a front serves it."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/docs")
        assert (answer.status, answer.get(b"location")) == (307, b"openapi.json")

    run(test)


def test_no_answer_names_an_address_of_its_own() -> None:
    """A path with one slash too many is unknown: a redirect would name this listener and not its front."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/api/backends/")
        assert (answer.status, answer.get(b"location")) == (404, None)

    run(test)


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a refusal does not tell how much of a token was right: hmac.compare_digest compares."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return compare(given, wanted)

    monkeypatch.setattr(hmac, "compare_digest", spy)

    async def test(admin: Admin) -> None:
        assert (await admin.ask("/api/backends", bearer("wrong"))).status == 401
        assert (await admin.ask("/api/backends", bearer(TOKEN))).status == 200

    run(test, token=TOKEN)
    assert compared == [
        (b"Bearer wrong", b"Bearer s3cret-token"),
        (b"Bearer wrong", b"Bearer a-hooks-token"),
        (b"Bearer s3cret-token",) * 2,
    ]


def test_each_token_of_a_list_counts() -> None:
    """While tokens are rotated the old and the new one are good, with the same effect."""

    async def test(admin: Admin) -> None:
        config = Config.model_validate({"admin": {"token": ["new", "old"], "hook_token": ["h1", "h2"]}})
        app = App(config)
        assert app.admin.tokens() == Tokens(["new", "old"], ["h1", "h2"])
        assert admin.app.admin.tokens() == Tokens([], [])
        assert (await admin.ask("/api/backends", bearer("x"))).status == 200

    run(test)


def test_nothing_else_is_there() -> None:
    """Unknown paths and methods change nothing and tell nothing."""

    async def test(admin: Admin) -> None:
        assert (await admin.ask("/api/unknown")).status == 404
        assert (
            await admin.ask(
                "/api/backends", b"Content-Type: application/json", b"Content-Length: 0", method=b"POST"
            )
        ).status == 405
        assert (await admin.ask("/api/../etc/passwd")).status == 404
        assert (await admin.ask("/healthz")).get(b"server") is None

    run(test)


def test_a_client_that_does_not_read_delays_no_move() -> None:
    """A server that is to end does so, though somebody never reads his answer."""

    async def main() -> None:
        begun = asyncio.Event()

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            begun.set()
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        sock = net.bind(Address("127.0.0.1", 0))
        server = AdminServer(endless, [sock])
        task = asyncio.create_task(server.run())
        with socket.socket() as client:
            await asyncio.get_running_loop().run_in_executor(None, client.connect, sock.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await begun.wait()
            server.stop()
            async with asyncio.timeout(WAIT):
                await task
        sock.close()

    run_loop(main())
