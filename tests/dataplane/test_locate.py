"""Questions to backends: where they are asked, which answers count, and how many there may be."""

import json

import pytest

from proxy.dataplane.question import holds
from tests.dataplane.chat import DENIES, PATH, Chat, Tab, connect_packet
from tests.dataplane.peers import Message, Peer, get, ok, post
from tests.dataplane.world import World, run

FILE = b"/project/file/x?session_id="

# status and body, whether it tells that the instance holds the session (chainlit/server.py, get_file)
ANSWERS = [
    (404, b'{"detail":"File not found"}', True),
    (404, b'{ "detail": "File not found" }', True),
    (401, b'{"detail":"You are not authorized to download files from this session"}', True),
    (401, b'{"detail":"Unauthorized"}', False),
    (401, b'{"detail":"Invalid authentication token"}', None),  # nobody has looked for the session
    (404, b'{"detail":"Not Found"}', None),  # FastAPI, for a path that it has not
    (404, b'{"detail":"Not found"}', None),  # Chainlit, for what is outside of its mount
    (404, b"", None),
    (404, b"File not found", None),
    (404, b'["File not found"]', None),
    (404, b'{"detail":["File not found"]}', None),
    (404, b"[" * 100_000, None),
    (404, b'{"detail":"Unauthorized"}', None),
    (401, b'{"detail":"File not found"}', None),
    (200, b'{"detail":"File not found"}', None),
    (403, b"\xff", None),
]


@pytest.mark.parametrize(("status", "body", "told"), ANSWERS)
def test_only_the_answers_of_chainlit_count(status: int, body: bytes, told: bool | None) -> None:
    """Any app answers 404 or 401 for something."""
    assert holds(status, body) is told


def asked(world: World) -> list[bytes]:
    """The questions that came to the backends."""
    requests = [request for backend in world.backends for request in backend.requests]
    return [request.target for request in requests if b"/project/file/x" in request.target]


def results(world: World) -> dict[str, int]:
    """What became of them."""
    return {result.value: count for result, count in world.plane.site.locator.results.items() if count}


class Mounted(Chat):
    """An instance in an app that answers for everything else, and that holds the session."""

    def __init__(self, world: World, name: str, root: bytes, other: bytes) -> None:
        self.root, self.other = root, other
        super().__init__(next(backend for backend in world.backends if backend.name == name))

    async def _answer(self, peer: Peer, request: Message) -> None:
        if request.target.startswith((self.root + b"/ws/", self.root + b"/project/file/")):
            await super()._answer(peer, request)
        elif b"/project/file/" in request.target:
            peer.say(self.other)
        else:
            peer.say(ok(self.name))


NOT_FOUND = b'HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{"detail":"Not Found"}'
OWN = [
    post(b"/api/feedback", b'{"session_id":"session-S"}'),
    post(b"/api/feedback", b'{"sessionId":"session-S"}', method=b"PUT"),
    post(b"/feedback", b'{"sessionId":"session-S"}', method=b"PUT"),
    post(b"/mcp", b'{"sessionId":"session-S"}'),
    get(b"/api/project/file/x?session_id=session-S"),
    get(b"/project/file/x?session_id=session-S"),
    get(b"/who?session_id=session-S"),
    get(b"/who", b"X-Session-Id: session-S"),
    get(b"/who", b"X-Chainlit-Session-Id: session-S"),
]


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("other", [NOT_FOUND, DENIES])
@pytest.mark.parametrize("own", OWN)
def test_own_routes_lose_no_conversation(own: bytes, other: bytes, transport: str) -> None:
    """A proxy that has just started hears of a session by a route of the app first, then it reconnects."""

    async def test(world: World) -> None:
        for name in "ab":
            Mounted(world, name, b"/chat", other).sessions.update({"session-S"} if name == "b" else ())
        for name in "aabb":
            await world.ask(own.replace(b"\r\n\r\n", b"\r\n" + world.cookie(name) + b"\r\n\r\n", 1))
        tab = Tab(world, world.cookie("a"), b"Cookie: X-Chainlit-Session-id=session-S")
        tab.path = b"/chat" + PATH
        if transport == "polling":
            await tab.handshake()
            await (await tab.post(connect_packet("session-S"))).response()
            await tab.listen(b'40{"sid":"b"}')
        else:
            socket = await tab.socket()
            await socket.hear()
            socket.say(connect_packet("session-S"))
            await socket.hear()
        session = world.router.directory.get("session-S", world.now())
        assert session is not None
        assert session.backend is world.known("b")

    run(test, "ab")


@pytest.mark.parametrize("transport", [b"polling", b"websocket"])
@pytest.mark.parametrize("known", ["learnt", "configured"])
def test_a_root_path_is_learnt_or_configured(known: str, transport: bytes) -> None:
    """Below a root path a file is the session's once Socket.IO was opened there, or by the setting."""

    async def test(world: World) -> None:
        for name in "ab":
            Mounted(world, name, b"/chat", NOT_FOUND).sessions.update({"session-S"} if name == "b" else ())
        request = get(b"/chat" + FILE + b"session-S", world.cookie("a"))
        if known == "learnt":
            assert json.loads((await world.ask(request)).body)["detail"] == "Unauthorized"
            assert asked(world) == [b"/chat" + FILE + b"session-S"]  # the request itself
            tab = Tab(world)
            tab.path = b"/chat" + PATH
            if transport == b"polling":
                await tab.handshake()
            else:
                await (await tab.socket()).hear()
        assert json.loads((await world.ask(request)).body)["detail"] == "File not found"
        assert results(world) == {"found": 1}

    run(test, "ab", affinity={"roots": ["/chat"]} if known == "configured" else {})


def test_a_page_for_every_path_teaches_no_root() -> None:
    """An answer of 200 is no OPEN packet."""

    async def test(world: World) -> None:
        async def answer(peer: Peer, _: Message) -> None:
            peer.say(ok(b"<html>"))

        for backend in world.backends:
            backend.serve(answer)
        await world.ask(get(b"/chat" + PATH + b"polling"))
        assert world.plane.site.paths.root(b"/chat/mcp") == b""
        assert world.plane.site.paths.root(b"/chat/ws/socket.io/") is None

    run(test, "ab")


@pytest.mark.parametrize("locate", ["auto", "always"])
def test_a_guess_below_an_unknown_root_is_no_decision(locate: str) -> None:
    """The first handshake of a root path asks nobody, and settles nothing for the session of its cookie."""

    async def test(world: World) -> None:
        for name in "ab":
            Mounted(world, name, b"/chat", NOT_FOUND)
        tab = Tab(world, world.cookie("b"), b"Cookie: X-Chainlit-Session-id=session-S")
        tab.path = b"/chat" + PATH
        await tab.handshake()
        assert tab.sid.startswith(world.pin("b"))
        assert (asked(world), len(world.router.directory)) == ([], 0)
        assert results(world) == ({"no_root": 1} if locate == "always" else {})

    run(test, "ab", affinity={"locate": locate})


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_handshake_asks_nobody(transport: str) -> None:
    """The session of its cookie is a guess: its CONNECT asks one backend, since the other is where it is."""

    async def test(world: World) -> None:
        instances = {name: Chat(backend) for name, backend in zip("ab", world.backends, strict=True)}
        instances["b"].sessions.add("session-S")
        tab = Tab(world, world.cookie("a"), b"Cookie: X-Chainlit-Session-id=session-S")
        if transport == "polling":
            await tab.handshake()
            assert asked(world) == []
            await (await tab.post(connect_packet("session-S"))).response()
            await tab.listen(b'40{"sid":"b"}')
        else:
            socket = await tab.socket()
            await socket.hear()
            assert asked(world) == []
            socket.say(connect_packet("session-S"))
            await socket.hear()
        assert len(asked(world)) == len(instances["b"].asked("locate")) == 1
        session = world.router.directory.get("session-S", world.now())
        assert session is not None
        assert session.backend is world.known("b")

    run(test, "ab")


# Fields of a client, of which some are not those of a question: it has no body and wants a plain answer.
FIELDS = (
    b"accept-encoding: gzip",
    b"X-Range: kept",
    b"Range: bytes=0-1",
    b"If-None-Match: a",
    b"Content-Length: 0",
    b"CONTENT-TYPE: text/plain",
    b"User-Agent: a browser",
    b"Authorization: Bearer 1",
    b"TE: trailers",
    b"X-Last: upgrade: connection:",
)


@pytest.mark.parametrize("first", [b"Accept-Encoding: br", b"X-First: 1"])
def test_the_head_of_a_question(first: bytes) -> None:
    """It has the fields of its client, but those of its own request, however it connects."""

    async def test(world: World) -> None:
        instance = Chat(world.backends[1])
        Chat(world.backends[0])
        for transport in ("polling", "websocket"):
            fields = (first, world.cookie("a") + b"; access_token=jwt", *FIELDS)
            tab = Tab(world, *fields)
            session = f"session-{transport}"
            if transport == "websocket":
                socket = await tab.socket()
                await socket.hear()
                socket.say(connect_packet(session))
                await socket.hear()
            else:
                tab.fields = tuple(line for line in fields if not line.lower().startswith(b"content-"))
                await tab.handshake()
                await (await tab.post(connect_packet(session))).response()
        polling, websocket = instance.asked("locate")
        lines = [line for line in websocket.lines if not line.startswith((b"Sec-WebSocket", b"X-Request-ID"))]
        assert lines == [line for line in polling.lines if not line.startswith(b"X-Request-ID")]
        names = {line.partition(b":")[0].lower() for line in lines}
        assert names <= {
            *(b"host", b"cookie", b"authorization", b"user-agent", b"x-range", b"x-first", b"x-last"),
            *(b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
        }
        assert websocket.get(b"cookie") == b"access_token=jwt"
        assert websocket.get(b"x-last") == b"upgrade: connection:"

    run(test, "ab")
