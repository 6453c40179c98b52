"""A client's connection: requests in order, kept, half-closed and closed."""

import pytest

from tests.dataplane.chat import PATH
from tests.dataplane.peers import Cut, chunked, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.test_streaming import BOUND
from tests.dataplane.world import World, run


def test_kept_connection_serves_many_requests() -> None:
    """One connection serves one request after another, and so does the backend's."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        for number in range(20):
            client.say(post(b"/%d" % number, b"x" * number))
            assert (await client.response()).body == b"/%d " % number + b"x" * number
        assert len(world.backend.peers) == 1

    run(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent ahead, with and without bodies, are answered one by one in their order."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        client.say(
            get(b"/1")
            + post(b"/2", b"two")
            + get(b"/3", b"Transfer-Encoding: chunked", method=b"PUT")
            + chunked(b"th", b"ree")
            + post(b"/mcp", b'{"sessionId":"session-s"}')
            + get(b"/5")
        )
        answers = [(await client.response()).body for _ in range(5)]
        assert answers == [b"/1 ", b"/2 two", b"/3 three", b'/mcp {"sessionId":"session-s"}', b"/5 "]

    run(test)


def test_many_tiny_pipelined_requests() -> None:
    """A thousand requests in one piece are answered without a deep stack, each once and in order."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        client.say(b"".join(get(b"/%d" % number) for number in range(1000)))
        for number in range(1000):
            assert (await client.response()).body == b"/%d " % number
        assert len(world.backend.requests) == 1000

    run(test, debug=False)


def test_pipelined_requests_that_the_proxy_answers_itself() -> None:
    """The proxy's own answers keep their place in the order too."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        forged = get(b"/ws/socket.io/?EIO=4&transport=polling&sid=forged.x")
        client.say((forged + get(b"/1")) * 100)
        for _ in range(100):
            assert (await client.response()).status == 400
            assert (await client.response()).body == b"/1 "

    run(test)


@pytest.mark.parametrize("path", [b"/1", b"/ws/socket.io/?EIO=4&transport=polling&sid=forged.x"])
def test_a_long_pipeline_waits_at_its_client(path: bytes) -> None:
    """However much is sent ahead, of one request after another no more is read than is needed."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        client.say(get(path, b"X: " + b"x" * 8000) * 500)  # 4 MB
        most = 0
        for _ in range(500):
            await client.response()
            most = max(most, len(world.connection()._buffer))
        assert 0 < most < BOUND

    run(test, debug=False)


def test_a_pipeline_of_a_slow_client() -> None:
    """When it takes answers again what it has sent ahead is looked at first, before more is read."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        await client.say(get(b"/0")).response()
        connection = world.connection()
        connection.pause_writing()
        connection.data_received(get(b"/1", b"X: " + b"x" * 8000) * 20)
        assert connection.leg.paused
        connection.resume_writing()
        assert connection.leg.paused
        for _ in range(20):
            assert (await client.response()).body == b"/1 "
        assert not connection.leg.paused

    run(test)


def test_long_heads_in_a_pipeline() -> None:
    """One that is longer than what may be sent ahead is read to its end, and so is a body behind others."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        lines = [b"X-%d: " % number + b"x" * 6000 for number in range(20)]
        forged = get(b"/ws/socket.io/?EIO=4&transport=polling&sid=forged.x", *lines)
        client.say((forged + post(b"/2", bytes(200_000))) * 5)
        for _ in range(5):
            assert (await client.response()).status == 400
            assert len((await client.response()).body) == 200_003

    run(test, debug=False, limits={"head": 200_000})


def test_connection_close_is_obeyed() -> None:
    """Connection: close ends the client's connection after the answer and is not passed to the backend."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Connection: close"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"connection") is None
        backend.say(ok())
        assert (await client.response()).get(b"connection") == b"close"
        await client.gone()
        await world.ask_through(backend)  # the backend's connection goes on

    run(test)


@pytest.mark.parametrize("whole", [True, False])
def test_an_unknown_sid_whose_body_is_not_here(whole: bool) -> None:
    """Its answer says that the connection ends: a proxy in front would send the next request into it."""

    async def test(world: World) -> None:
        request = post(PATH + b"polling&sid=nobodys.sid", b"x" * 1000)
        client = (await world.client()).say(request if whole else request[:-1])
        answer = await client.response()
        assert (answer.status, answer.get(b"connection")) == (400, None if whole else b"close")
        client.say(get() if whole else b"x")
        if whole:
            await (await world.backend.accept()).request()
        else:
            await client.gone()

    run(test)


def test_backend_that_closes_does_not_close_the_client() -> None:
    """Connection: close of a backend concerns its own connection only."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"one", b"Connection: close"))
        assert (await client.response()).get(b"connection") is None
        await backend.gone()
        client.say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"two"))
        assert (await client.response()).body == b"two"

    run(test)


def test_client_that_half_closes_gets_all_its_answers() -> None:
    """A client that has said all may read the answers to everything that it asked before."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/1") + get(b"/2") + get(b"/3"))
        client.half_close()
        backend = await world.backend.accept()
        await world.breathe()
        for number in b"123":
            assert (await backend.request()).target == b"/%c" % number
            await world.breathe()
            backend.say(ok(b"%c" % number))
            assert (await client.response()).body == b"%c" % number
        await client.gone()

    run(test)


def test_client_that_half_closes_in_the_middle_is_gone() -> None:
    """A request that can no longer become whole is given up, and its backend sees that."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Content-Length: 9", method=b"POST") + b"half")
        backend = await world.backend.accept()
        await backend.head()
        assert await backend.read(4) == b"half"
        client.half_close()
        await client.gone()
        await backend.gone()

    run(test)


def test_client_that_leaves_takes_its_request_with_it() -> None:
    """When the client is gone its backend's connection is closed: nobody will read the answer."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        client.reset()
        await backend.gone()
        assert [exchange.status for exchange in world.ended] == [0]

    run(test)


def test_response_that_is_cut_by_the_backend() -> None:
    """A response that stops before its end is never ended cleanly by us."""

    async def test(world: World) -> None:
        for head in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            client = (await world.client()).say(get())
            backend = await world.backend.accept()
            await backend.request()
            backend.say(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n4\r\nhalf").close()
            with pytest.raises(Cut):
                await client.response()

    run(test)
