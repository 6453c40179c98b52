"""What a request does when its backend fails it: try again where that is safe, else tell the client."""

import pytest

from proxy.affinity.health import Observation, Verdict
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import Cut, Peer, get, ok, post
from tests.dataplane.world import World, run

IDEMPOTENT = [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"]


async def kept(world: World) -> tuple[Peer, Peer]:
    """A client, and the connection to the first backend that is kept from its first request."""
    client = (await world.client()).say(get(b"/first", world.cookie("a")))
    backend = await world.backend.accept()
    await backend.request()
    backend.say(ok())
    await client.response()
    return client, backend


async def kept_besides(world: World) -> tuple[Peer, Peer]:
    """The same, while another connection to it is kept for longer."""
    await kept(world)
    other = (await world.client()).say(get(b"/other", world.cookie("a")))
    client = (await world.client()).say(get(b"/first", world.cookie("a")))
    (first,) = world.backend.peers
    await first.request()
    backend = await world.backend.accept()
    await backend.request()
    first.say(ok())
    await other.response()
    backend.say(ok())
    await client.response()
    return client, backend


@pytest.mark.parametrize("method", IDEMPOTENT)
def test_idempotent_request_is_tried_again(method: bytes) -> None:
    """A kept connection that the backend closes as the request comes: asked again over a new one."""

    async def test(world: World) -> None:
        client, backend = await kept_besides(world)
        client.say(post(b"/x", b"again", world.cookie("a"), method=method))
        assert (await backend.request()).body == b"again"
        backend.close()
        fresh = await world.backend.accept()
        assert (await fresh.request()).body == b"again"
        fresh.say(ok())
        assert (await client.response(to_head=method == b"HEAD")).status == 200
        assert world.plane.site.stats.retries == {"a": 1}
        assert world.suspected == ["a"]

    run(test, "ab")


@pytest.mark.parametrize("method", IDEMPOTENT)
def test_request_that_breaks_a_new_connection(method: bytes) -> None:
    """The request itself may be what ended the backend: it is said to nobody else, whatever its method."""

    async def test(world: World) -> None:
        client = (await world.client()).say(post(b"/x", b"once", world.cookie("a"), method=method))
        backend = await world.backend.accept()
        await backend.request()
        backend.close()
        assert (await client.response(to_head=method == b"HEAD")).status == 502
        assert len(world.backend.peers) == 1
        assert world.backends[1].peers == []
        assert world.plane.site.stats.retries == {}
        assert world.suspected == ["a"]

    run(test, "ab")


def test_second_try_is_the_last() -> None:
    """A request that broke a kept connection and then a new one is said to nobody else."""

    async def test(world: World) -> None:
        client, backend = await kept(world)
        client.say(get(b"/x", world.cookie("a")))
        await backend.request()
        backend.close()
        fresh = await world.backend.accept()
        await fresh.request()
        fresh.reset()
        assert (await client.response()).status == 502
        assert len(world.backend.peers) == 2
        assert world.backends[1].peers == []

    run(test, "ab")


def test_second_try_goes_nowhere_else() -> None:
    """A backend that refuses after it was asked may have died of it: no other one is asked."""

    async def test(world: World) -> None:
        client, backend = await kept(world)
        client.say(get(b"/x", world.cookie("a")))
        await backend.request()
        world.backend.refuse()
        backend.close()
        assert (await client.response()).status == 502
        assert world.backends[1].peers == []
        assert world.known("a").health.verdict is Verdict.DOWN
        assert world.plane.site.stats.retries == {"a": 1}

    run(test, "ab")


@pytest.mark.parametrize("start", [b"H", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_kept_connection_that_answered(start: bytes) -> None:
    """A backend that began to answer was not closed before: the request is not said again."""

    async def test(world: World) -> None:
        client, backend = await kept(world)
        client.say(get(b"/x", world.cookie("a")))
        await backend.request()
        backend.say(start)
        await world.until(lambda: world.upstream()._answered)
        backend.close()
        assert (await client.response()).status == 502
        assert len(world.backend.peers) == 1
        assert world.backends[1].peers == []

    run(test, "ab")


def test_upgrade_is_said_once() -> None:
    """An upgrade goes over a new connection, and if that breaks over no other."""

    async def test(world: World) -> None:
        client, backend = await kept(world)
        client.say(upgrade(b"/x", world.cookie("a")))
        fresh = await world.backend.accept()
        await fresh.request()
        fresh.close()
        assert (await client.response()).status == 502
        assert len(world.backend.peers) == 2
        await world.ask_through(backend)

    run(test)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("is_settled", [True, False])
def test_poll_is_not_said_again(is_kept: bool, is_settled: bool) -> None:
    """A poll takes packets with it: when its connection breaks its client is sent to open another."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        if is_settled:
            assert (await (await tab.post(connect_packet("session-S"))).response()).status == 200
            await tab.listen(b'40{"sid":"a"}')
        if not is_kept:
            world.plane.site.pool(world.known("a")).close_all()
        gate = instances["a"].hold("poll")
        before = len(instances["a"].asked("poll"))
        client = await tab.poll()
        await world.until(lambda: len(instances["a"].asked("poll")) > before)
        world.backend.peers[-1].reset()
        answer = await client.response()
        assert (answer.status, answer.body) == (400, b'{"code":1,"message":"Session ID unknown"}')
        gate.set()
        assert len(instances["a"].asked("poll")) == before + 1
        assert instances["b"].asked("poll") == []

    run(test, "ab")


def test_what_was_not_sent_is_tried_once_at_each() -> None:
    """A request that no backend accepts is offered to each of them once."""

    async def test(world: World) -> None:
        for backend in world.backends:
            backend.refuse()
        client = (await world.client()).say(post(b"/x", b"once", world.cookie("a")))
        assert (await client.response()).status == 503
        assert world.plane.site.stats.retries == {"a": 1, "b": 1, "c": 1}

    run(test, "abc", affinity={"hold": 0})


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
        assert world.plane.site.stats.upstream_errors == {("a", "ConnectRefused"): 1}

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
    """When a backend is found down, what waits there ends at once: it may be what brought it down."""

    async def test(world: World) -> None:
        asked = (await world.client()).say(get(b"/get", world.cookie("a")))
        await (await world.backends[0].accept()).request()
        posted = (await world.client()).say(post(b"/post", b"x", world.cookie("a")))
        await (await world.backends[0].accept()).request()
        world.observe("a", Observation.ENDED)
        assert (await asked.response()).status == 502
        assert (await posted.response()).status == 502
        assert world.backends[1].peers == []

    run(test, "ab")


def test_kept_connection_of_a_backend_that_goes_down() -> None:
    """A backend that was found down meanwhile is not asked again."""

    async def test(world: World) -> None:
        client, backend = await kept(world)
        client.say(get(b"/x", world.cookie("a")))
        await backend.request()
        world.observe("a", Observation.ENDED)
        assert (await client.response()).status == 502
        assert len(world.backend.peers) == 1
        assert world.backends[1].peers == []

    run(test, "ab")
