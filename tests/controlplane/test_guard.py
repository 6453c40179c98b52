"""The admin listener and browsers: no page from elsewhere may read it or change anything through it."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from proxy.controlplane.guard import BrowserGuard
from tests.controlplane.test_admin import TOKEN, Admin, bearer, run
from tests.dataplane.peers import Peer

JSON = b"Content-Type: application/json"
PATHS = ["/healthz", "/metrics", "/api/backends", "/docs", "/api/unknown"]


@pytest.mark.parametrize(
    "host",
    [b"127.0.0.1", b"127.0.0.1:9901", b"localhost:80", b"LOCALHOST", b"[::1]:9901", b"[::1]", b"10.0.0.7"],
)
def test_addresses_are_let_in(host: bytes) -> None:
    """Who asks for an address or for localhost asks for this machine."""

    async def test(admin: Admin) -> None:
        admin.host = host
        assert (await admin.ask("/api/backends")).status == 200

    run(test)


@pytest.mark.parametrize(
    "host",
    [
        b"evil.test",
        b"evil.test:9901",
        b"127.0.0.1.evil.test",
        b"localhost.evil.test:80",
        b"evil.localhost.",
        b"",
    ],
)
def test_names_are_refused_where_no_token_protects(host: bytes) -> None:
    """DNS rebinding: a name that somebody else owns may come to mean this machine, and is told nothing."""

    async def test(admin: Admin) -> None:
        admin.host = host
        for path in PATHS:
            answer = await admin.ask(path)
            assert answer.status == 403
            assert b"chainlit_proxy" not in answer.body

    run(test)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 200),
        ("/", 403),
        ("/api/backends", 403),
        ("/docs", 403),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_check_may_leave_the_host_out(method: bytes, path: str, status: int, version: bytes) -> None:
    """HAProxy's check has no Host, as every browser has: it is told how the proxy is, no more."""

    async def test(admin: Admin) -> None:
        peer = Peer(*await asyncio.open_connection(*admin.address))
        peer.say(b"%b %b HTTP/%b\r\nConnection: close\r\n\r\n" % (method, path.encode(), version))
        assert (await peer.response(to_head=method == b"HEAD")).status == status
        peer.close()

    run(test)


def test_a_page_from_elsewhere_may_not_leave_it_out() -> None:
    """An Origin that is not the listener is refused, Host or none."""

    async def test(admin: Admin) -> None:
        peer = Peer(*await asyncio.open_connection(*admin.address))
        peer.say(b"GET /metrics HTTP/1.0\r\nOrigin: http://evil.test\r\n\r\n")
        assert (await peer.response()).status == 403
        peer.close()

    run(test)


def test_names_are_let_in_with_a_token() -> None:
    """Where a token is set, a service may be asked by its name: a page of another does not know the token."""

    async def test(admin: Admin) -> None:
        admin.host = b"proxy.internal:9901"
        assert (await admin.ask("/metrics")).status == 200
        assert (await admin.ask("/api/backends")).status == 401
        assert (await admin.ask("/api/backends", bearer(TOKEN))).status == 200

    run(test, token=TOKEN)


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.test",
        b"https://127.0.0.1",
        b"http://localhost:1",
        b"null",
        b"",
        b"file://",
        b"//127.0.0.1",
    ],
)
def test_pages_from_elsewhere_are_refused(origin: bytes, token: str | None) -> None:
    """A request that another page makes is refused, whatever it asks for and even with the right token."""

    async def test(admin: Admin) -> None:
        for path in PATHS:
            for method, lines in ((b"GET", ()), (b"POST", (JSON, b"Content-Length: 0"))):
                answer = await admin.ask(path, b"Origin: " + origin, bearer(TOKEN), *lines, method=method)
                assert answer.status == 403
                assert not [line for line in answer.lines if line.lower().startswith(b"access-control")]

    run(test, token=token)


def test_two_origins_are_refused() -> None:
    """One that is right does not excuse another."""

    async def test(admin: Admin) -> None:
        own = b"Origin: http://" + admin.host
        assert (await admin.ask("/api/backends", own, b"Origin: http://evil.test")).status == 403

    run(test)


def test_the_listeners_own_pages_are_let_in() -> None:
    """Its API page may use the API: the Origin is the listener itself."""

    async def test(admin: Admin) -> None:
        assert (await admin.ask("/api/backends", b"Origin: http://" + admin.host)).status == 200
        assert (await admin.ask("/api/backends", b"Origin: HTTP://" + admin.host)).status == 200

    run(test)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (b"X-None: 1", 415),
        (b"Content-Type: text/plain", 415),
        (b"Content-Type: application/x-www-form-urlencoded", 415),
        (b"Content-Type: multipart/form-data; boundary=application/json", 415),
        (b"Content-Type: application/jsonp", 415),
        (b"Content-Type: application/json", 405),
        (b"Content-Type: Application/JSON; charset=utf-8", 405),
    ],
)
def test_changes_have_to_be_json(method: bytes, kind: bytes, status: int) -> None:
    """A form can be sent to anybody, JSON needs leave; as no path takes changes yet, it meets a 405."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/api/backends", kind, b"Content-Length: 0", method=method)
        assert answer.status == status

    run(test)


def test_answers_are_neither_kept_nor_guessed_at() -> None:
    """Every answer, refusals too, says that it is not to be cached, framed or taken for another type."""

    async def test(admin: Admin) -> None:
        for path in PATHS:
            for lines in ((), (b"Origin: http://evil.test",)):
                answer = await admin.ask(path, *lines)
                assert answer.get(b"x-content-type-options") == b"nosniff"
                assert answer.get(b"cache-control") == b"no-store"
                assert answer.get(b"x-frame-options") == b"DENY"
                assert answer.get(b"referrer-policy") == b"no-referrer"

    run(test)


@pytest.mark.parametrize(
    ("server", "status"), [(("127.0.0.1", 9901), 403), (("/run/admin.sock", None), 200), (None, 403)]
)
def test_the_listener_tells_whether_it_is_a_socket_file(
    server: tuple[str, int | None] | None, status: int
) -> None:
    """A TCP connection that was reset has no client's address either; its Host is looked at all the same."""
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("secret")(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        told.append(message)

    headers = [(b"host", b"evil.test")]
    scope: Scope = {"type": "http", "method": "GET", "client": None, "server": server, "headers": headers}
    asyncio.run(BrowserGuard(app, named=lambda: False)(scope, receive, send))
    assert told[0]["status"] == status
