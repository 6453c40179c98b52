"""Questions to backends: where they are asked, which answers count, and how many there may be."""

import asyncio
import json

import pytest

from proxy.affinity.router import Asked
from proxy.dataplane.locate import Result
from proxy.dataplane.question import holds
from proxy.errors import Limit
from tests.dataplane.chat import DENIES, HOLDS, PATH, Chat, Tab, connect_packet
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


class Gate:
    """Answers everything at all backends, from when it is opened on."""

    def __init__(self, world: World, answer: bytes = DENIES) -> None:
        self.world = world
        self.answer = answer
        self.opened = asyncio.Event()
        for backend in world.backends:
            backend.serve(self._answer)

    async def _answer(self, peer: Peer, _: Message) -> None:
        await self.opened.wait()
        peer.say(self.answer)

    async def heard(self, count: int) -> None:
        """Wait until so many questions have come to each backend."""
        backends = self.world.backends
        await self.world.until(lambda: all(len(backend.requests) == count for backend in backends))


def test_equal_questions_are_asked_once() -> None:
    """Requests of one tab that come together wait for one answer; those with another login ask for theirs."""

    async def test(world: World) -> None:
        gate = Gate(world)
        request = get(FILE + b"session-S", b"Cookie: access_token=1")
        clients = [(await world.client()).say(request) for _ in range(5)]
        await world.until(lambda: results(world) == {"joined": 4})
        clients.append((await world.client()).say(request.replace(b"=1", b"=2")))
        await gate.heard(2)
        clients.pop(0).reset()  # the one that asked
        gate.opened.set()
        for client in clients:
            assert (await client.response()).status == 401
        assert results(world) == {"joined": 4, "nobody": 2}

    run(test, "ab")


def test_a_question_that_nobody_waits_for_is_given_up() -> None:
    """The last that leaves takes it along."""

    async def test(world: World) -> None:
        clients = [(await world.client()).say(get(FILE + b"session-S")) for _ in range(2)]
        questions = [await backend.accept() for backend in world.backends]
        await world.until(lambda: results(world) == {"joined": 1})
        clients[0].reset()
        for peer in questions:
            await peer.request()
        clients[1].reset()
        for peer in questions:
            await peer.gone()
        assert not world.plane.site.locator._questions
        assert not world.plane.site.locator._lines

    run(test, "ab")


def test_made_up_ids_cost_so_many_questions() -> None:
    """What is over the bound is asked for nobody and goes by the rest of its evidence, at once."""

    async def test(world: World) -> None:
        gate = Gate(world)
        clients = []
        for at in range(20):
            target = b"/project/file/y?session_id=made-up-%d" % at
            clients.append((await world.client()).say(get(target, world.cookie("b"))))
        await world.until(lambda: results(world) == {"over_limit": 16})
        await world.until(lambda: len(world.backends[1].requests) == 2 + 16)
        assert len(asked(world)) == 2 + 2  # over two connections to each of the two
        assert len(world.router.directory) == 0
        assert world.plane.site.stats.limits[Limit.LOCATE_QUESTIONS] == 16
        gate.opened.set()
        for client in clients:
            assert (await client.response()).status == 401
        assert len(asked(world)) == 4 * 2
        assert results(world) == {"over_limit": 16, "nobody": 4}
        assert [backend.sessions for backend in world.router.fleet] == [0, 0]

    run(test, "ab", affinity={"locate_questions": 4, "locate_connections": 2})


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


def made_up(at: int, *lines: bytes) -> bytes:
    """A request that names a session which nobody holds."""
    return get(b"/project/file/y?session_id=made-up-%d" % at, *lines)


NOBODY: dict[str, list[str]] = {"trusted": []}


def test_a_client_has_so_many_questions() -> None:
    """What is over them is not asked and goes by the rest of its evidence; each client has its own."""

    async def test(world: World) -> None:
        gate = Gate(world)
        gate.opened.set()
        clients = [b"X-Forwarded-For: 192.0.2.%d" % n for n in (1, 2)]
        for at in range(10):
            response = await world.ask(made_up(at, clients[0], world.cookie("b")))
            assert response.status == 401  # of the request itself
        assert len(asked(world)) == 3 * 2
        assert results(world) == {"nobody": 3, "over_client_limit": 7}
        assert world.plane.site.stats.limits[Limit.QUESTIONS_PER_MINUTE] == 7
        assert len(world.router.directory) == 3
        await world.ask(made_up(20, clients[1]))
        assert results(world)["nobody"] == 4
        for at in range(30, 40):
            await world.ask(made_up(at))  # a trusted proxy is nobody's client
        assert results(world)["nobody"] == 14

    run(test, "ab", limits={"questions_per_minute": 3})


def test_those_that_find_their_session_are_not_counted() -> None:
    """The tabs of an office that come back after a restart are asked for, however many they are."""

    async def test(world: World) -> None:
        Gate(world, HOLDS).opened.set()
        for at in range(10):
            await world.ask(made_up(at))
        assert results(world) == {"found": 10}

    run(test, "ab", limits={"questions_per_minute": 1}, forwarded=NOBODY)


def test_zero_sets_no_limit() -> None:
    """A client may ask as much as it likes."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        for at in range(10):
            await world.ask(made_up(at))
        assert results(world) == {"nobody": 10}
        world.plane.site.locator.sweep(world.now())

    run(test, "ab", limits={"questions_per_minute": 0}, forwarded=NOBODY)


@pytest.mark.parametrize("locate", ["auto", "always"])
def test_what_nobody_holds_is_remembered_for_a_moment(locate: str) -> None:
    """Not where proxies that share nothing always ask: it may have connected through another meanwhile."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        locator = world.plane.site.locator
        for _ in range(3):
            await world.ask(made_up(1))
            session = world.router.directory.get("made-up-1", world.now())
            assert session is not None
            world.router.directory.sweep(world.now() + 1000)  # it is forgotten
        expected = {"auto": {"nobody": 1, "remembered": 2}, "always": {"nobody": 3}}
        assert results(world) == expected[locate]
        locator.sweep(world.now() + 3)
        assert not locator._nobody
        for at in range(5000):
            locator._remember(at)
        assert len(locator._nobody) == 4096

    run(test, "ab", affinity={"locate": locate})


def test_who_has_been_up_for_long_asks_for_nothing_made_up() -> None:
    """By then every session that there is has its entry, or had it."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        for backend in world.router.fleet:
            backend.joined -= 5000
        for at in range(10):
            await world.ask(made_up(at))
        assert (asked(world), results(world)) == ([], {})

    run(test, "ab", affinity={"alone": True})


def test_a_backend_that_hangs_holds_up_no_other() -> None:
    """Who waits for one of its connections is answered by the others, or goes on in time."""

    async def test(world: World) -> None:
        answer = HOLDS

        async def say(peer: Peer, request: Message) -> None:
            peer.say(answer if b"/file/x?" in request.target else ok(b"here"))

        async def hang(peer: Peer, request: Message) -> None:
            if b"/file/x?" not in request.target:
                peer.say(ok(b"here"))

        world.backends[0].serve(hang)
        world.backends[1].serve(say)
        for at in range(6):
            assert (await world.ask(get(b"/project/file/y?session_id=session-%d" % at))).body == b"here"
        assert results(world) == {"found": 6}
        answer = DENIES
        clients = [await world.client() for _ in range(5)]
        for at, client in enumerate(clients):
            client.say(get(b"/project/file/y?session_id=made-up-%d" % at))
        for client in clients:
            assert (await client.response()).body == b"here"
        assert results(world) == {"found": 6, "unclear": 5}
        assert len(world.router.directory) == 6

    run(test, "ab", affinity={"locate_timeout": 0.3, "locate_connections": 1})


def test_the_results_are_counted_from_the_start() -> None:
    """Each of them is a series."""

    async def test(world: World) -> None:
        assert set(world.plane.site.locator.results) == set(Result)
        assert await world.plane.site.locator.ask(None, []) is Asked.IN_VAIN

    run(test)
