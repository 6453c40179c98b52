"""What a request does when its backend fails it: try again where that is safe, else tell the client."""

import pytest

from proxy.affinity.health import Observation, Verdict
from tests.dataplane.peers import Cut, get, ok, post
from tests.dataplane.world import World, run


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
def test_idempotent_request_is_tried_again(method: bytes) -> None:
    """A kept connection that the backend closes as the request comes: asked again over a new one."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        kept = await world.backend.accept()
        await kept.request()
        kept.say(ok())
        await client.response()
        client.say(post(b"/x", b"again", method=method))
        assert (await kept.request()).body == b"again"
        kept.close()
        fresh = await world.backend.accept()
        assert (await fresh.request()).body == b"again"
        fresh.say(ok())
        assert (await client.response(to_head=method == b"HEAD")).status == 200
        assert world.plane.stats.retries == {"a": 1}
        assert world.suspected == ["a"]

    run(test)


def test_post_is_not_tried_again() -> None:
    """What the backend may have done must not be done twice: 502."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        kept = await world.backend.accept()
        await kept.request()
        kept.say(ok())
        await client.response()
        client.say(post(b"/x", b"once"))
        await kept.request()
        kept.close()
        assert (await client.response()).status == 502
        client.say(get())  # the client's connection goes on
        fresh = await world.backend.accept()
        await fresh.request()
        fresh.say(ok())
        assert (await client.response()).status == 200

    run(test)


def test_long_body_that_was_let_go_is_not_tried_again() -> None:
    """A body of which a part is no longer at hand cannot be said again, whatever the method."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"Content-Length: 9", method=b"PUT"))
        backend = await world.backend.accept()
        await backend.head()
        client.say(b"half")
        assert await backend.read(4) == b"half"
        backend.close()
        response = await client.response()
        assert (response.status, response.get(b"connection")) == (502, b"close")

    run(test)


def test_backend_that_closes_each_time() -> None:
    """The tries are bounded: in the end the client is told 502."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        for _ in range(4):
            backend = await world.backend.accept()
            await backend.request()
            backend.close()
        assert (await client.response()).status == 502

    run(test)


def test_backend_that_resets_in_the_head() -> None:
    """A head that is not whole is no response: the request is tried again."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-")
        await world.breathe()
        backend.reset()
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).body == b"ok"

    run(test)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
    ],
)
def test_bad_responses_become_502(response: bytes) -> None:
    """A backend's answer that is not strict HTTP, or was not asked for, is not passed on: 502."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(response)
        assert (await client.response()).status == 502
        await backend.gone()

    run(test)


def test_bad_chunk_cuts_the_response() -> None:
    """A response that breaks its framing in the middle is cut off."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await client.head()
        assert await client.read(8) == b"3\r\nabc\r\n"
        backend.say(b"zz\r\n")
        with pytest.raises(Cut):
            await client.rest()
        await backend.gone()

    run(test)


def test_refused_connection_goes_to_the_next_backend() -> None:
    """Nothing was sent where nobody listens: the request, body and all, is tried on another backend."""

    async def test(world: World) -> None:
        world.backends[0].refuse()
        client = (await world.client()).say(post(b"/x", b"body", world.cookie("a")))
        backend = await world.backends[1].accept()
        assert (await backend.request()).body == b"body"
        backend.say(ok())
        assert (await client.response()).status == 200
        assert world.known("a").health.verdict is Verdict.DOWN
        assert world.plane.stats.upstream_errors == {("a", "ConnectRefused"): 1}

    run(test, "ab")


def test_backend_that_does_not_accept() -> None:
    """A request that belongs nowhere is tried elsewhere when a backend does not accept in time."""

    async def test(world: World) -> None:
        await world.backends[0].stall()
        client = (await world.client()).say(get(b"/x", world.cookie("a")))
        backend = await world.backends[1].accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200
        assert world.known("a").health.verdict is Verdict.HEALTHY  # the probe will tell
        assert world.suspected == ["a"]

    run(test, "ab", timeouts={"connect": 0.1})


def test_backend_that_goes_down_takes_its_requests_with_it() -> None:
    """When a backend is found down, what waits there is tried elsewhere at once, where that is safe."""

    async def test(world: World) -> None:
        asked = (await world.client()).say(get(b"/get", world.cookie("a")))
        await (await world.backends[0].accept()).request()
        posted = (await world.client()).say(post(b"/post", b"x", world.cookie("a")))
        await (await world.backends[0].accept()).request()
        world.observe("a", Observation.REFUSED)
        backend = await world.backends[1].accept()
        assert (await backend.request()).target == b"/get"
        backend.say(ok())
        assert (await asked.response()).status == 200
        assert (await posted.response()).status == 502

    run(test, "ab")
