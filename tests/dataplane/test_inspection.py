"""Bodies that name their session: read before a backend is chosen, and passed on as they came."""

import pytest

from tests.dataplane.chat import DENIES, HOLDS, PATH
from tests.dataplane.peers import Message, Peer, chunked, get, ok, post
from tests.dataplane.world import World, run

QUERY = b"session_id=session-S"
NAMED = b'{"sessionId": "session-S", "name": "x"}'


def lives_on(world: World, name: str) -> None:
    """Session S lives on this backend, as far as the directory knows."""
    world.router.directory.assign("session-S", world.known(name), world.now())


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"POST", b"/project/action"),
        (b"PUT", b"/project/element"),
        (b"DELETE", b"/project/element"),
        (b"POST", b"/mcp"),
        (b"DELETE", b"/mcp"),
        (b"PUT", b"/feedback"),
    ],
)
def test_json_body_decides(method: bytes, path: bytes, name: str) -> None:
    """The session in the body beats the browser's pin, on every endpoint that names one."""

    async def test(world: World) -> None:
        lives_on(world, name)
        cookie = world.cookie("a" if name == "b" else "b")
        client = (await world.client()).say(post(path, NAMED, cookie, method=method))
        backend = await world.backends["ab".index(name)].accept()
        assert (await backend.request()).body == NAMED
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


def test_chunked_body_decides() -> None:
    """A body in chunks is read like any other, and its chunks go on as they came."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        body = chunked(NAMED[:9], NAMED[9:], trailers=b"X-Sum: 1\r\n")
        client = await world.client()
        client.say(get(b"/mcp", b"Transfer-Encoding: chunked", world.cookie("a"), method=b"POST"))
        for byte in body:
            await client.say_slowly(bytes([byte]))
        backend = await world.backends[1].accept()
        request = await backend.request()
        assert (request.body, request.raw_body) == (NAMED, body)
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


@pytest.mark.parametrize(
    ("lines", "session"),
    [((b"X-Session-ID: session-S",), "b"), ((b"X-Chainlit-Session-ID: session-S",), "a"), ((), "a")],
)
def test_body_that_names_none(lines: tuple[bytes, ...], session: str) -> None:
    """A body without a session leaves it to the fields, and then to the browser's pin."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        client = (await world.client()).say(post(b"/mcp", b"not json", world.cookie("a"), *lines))
        backend = await world.backends["ab".index(session)].accept()
        assert (await backend.request()).body == b"not json"
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


def test_expect_is_answered_here() -> None:
    """A client that waits for leave to send a body that is read here gets it from here."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        head = get(b"/mcp", b"Content-Length: %d" % len(NAMED), b"Expect: 100-continue", method=b"POST")
        client = (await world.client()).say(head)
        assert (await client.head()).status == 100
        client.say(NAMED)
        backend = await world.backends[1].accept()
        request = await backend.request()
        assert (request.body, request.get(b"expect")) == (NAMED, None)
        backend.say(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
        response = await client.response()
        assert (response.status, response.interim) == (200, [])

    run(test, "ab")


def test_larger_body_is_passed_on_unread() -> None:
    """A body beyond limits.inspect goes where the rest of the evidence points, whole."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        body = b'{"sessionId": "session-S", "x": "' + b"y" * 200_000 + b'"}'
        client = (await world.client()).say(post(b"/mcp", body, world.cookie("a")))
        backend = await world.backends[0].accept()
        assert (await backend.request()).body == body
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab", limits={"inspect": 10_000})


def test_body_of_the_limit_is_read() -> None:
    """A body of exactly limits.inspect bytes is still read."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        client = (await world.client()).say(post(b"/mcp", NAMED, world.cookie("a")))
        backend = await world.backends[1].accept()
        assert (await backend.request()).body == NAMED
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab", limits={"inspect": len(NAMED)})


def test_announcement_is_remembered() -> None:
    """The page announces a new session before its first connect: nobody has to be asked for it then."""

    async def test(world: World) -> None:
        client = (await world.client()).say(
            post(b"/set-session-cookie", b'{"session_id":"session-S"}', world.cookie("a"))
        )
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ok())
        await client.response()
        session = world.router.directory.get("session-S", world.now())
        assert session is not None
        assert (session.announced, session.backend) == (True, None)

    run(test, "ab")


def test_upload_goes_by_its_query_alone() -> None:
    """A long upload names its session in the query: it streams, and nothing of it is read first."""

    async def test(world: World) -> None:
        lives_on(world, "b")
        target = b"/project/file?session_id=session-S"
        head = get(target, b"Content-Length: 9", world.cookie("a"), method=b"POST")
        client = (await world.client()).say(head)
        backend = await world.backends[1].accept()
        await backend.head()
        client.say(b"multipart")
        assert await backend.read(9) == b"multipart"
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


def test_read_body_is_tried_again_whole() -> None:
    """A body that was read here goes to the next backend whole when the first one is gone."""

    async def test(world: World) -> None:
        lives_on(world, "a")
        world.backends[0].refuse()
        client = (await world.client()).say(post(b"/mcp", NAMED))
        backend = await world.backends[1].accept()
        assert (await backend.request()).body == NAMED
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


@pytest.mark.parametrize("path", [b"/project/file/x?" + QUERY, b"/project/file/y?a=b&" + QUERY])
def test_unknown_session_is_located_once(path: bytes) -> None:
    """The backends are asked for a session that nobody knows here, at once; then it is known."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(path))
        asked = [await backend.accept() for backend in world.backends]
        for peer in asked:
            assert (await peer.request()).target == b"/project/file/x?session_id=session-S"
        asked[0].say(DENIES)
        asked[2].say(HOLDS)
        assert (await asked[2].request()).target == path  # without waiting for the one that is silent
        await asked[1].gone()
        asked[2].say(ok(b"here"))
        assert (await client.response()).body == b"here"
        client.say(get(path))
        assert (await asked[2].request()).target == path
        asked[2].say(ok(b"again"))
        assert (await client.response()).body == b"again"

    run(test, "abc")


def test_a_payload_that_came_while_its_backend_was_looked_for() -> None:
    """Its client is paused with more than is held, and read on when the payload is to be read."""

    async def test(world: World) -> None:
        body = b"42" + b"x" * 500_000
        client = await world.client()
        client.say(post(PATH + b"polling", body, b"Cookie: X-Chainlit-Session-id=session-S"))
        asked = [await backend.accept() for backend in world.backends]
        for peer in asked:
            await peer.request()
        connection = world.connection()
        await world.until(lambda: connection.paused)
        for peer in asked:
            peer.say(DENIES)
        told = next(backend for backend in world.backends if backend.name == "a")
        peer = asked[0] if told is world.backends[0] else asked[1]
        request = await peer.request()
        assert request.body == body
        peer.say(ok(b"told"))
        assert (await client.response()).body == b"told"

    run(test, "ab", affinity={"locate": "always"})


def test_one_backend_is_not_asked() -> None:
    """With one backend there is nothing to find out."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/project/file/y?session_id=session-S"))
        backend = await world.backend.accept()
        assert (await backend.request()).target == b"/project/file/y?session_id=session-S"
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test)


def test_locate_can_be_switched_off() -> None:
    """With affinity.locate: never a session that is not known is taken for new."""

    async def test(world: World) -> None:
        async def answer(peer: Peer, _: Message) -> None:
            peer.say(ok())

        for backend in world.backends:
            backend.serve(answer)
        assert (await world.ask(get(b"/project/file/y?session_id=session-S"))).status == 200
        requests = [request for backend in world.backends for request in backend.requests]
        assert [request.target for request in requests] == [b"/project/file/y?session_id=session-S"]

    run(test, "ab", affinity={"locate": "never"})
