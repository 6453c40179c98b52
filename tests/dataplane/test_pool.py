"""Connections to backends: kept, used again and given up."""

import os
import socket
from collections.abc import Callable

import pytest

from proxy.affinity.backend import AdminState
from tests.dataplane.peers import get, ok
from tests.dataplane.world import World, run


def test_connections_are_used_again() -> None:
    """A connection whose response is whole serves the next request, of whichever client."""

    async def test(world: World) -> None:
        (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        await world.clients[0].response()
        for _ in range(3):
            await world.ask_through(backend)
        assert sum(world.plane.site.pool(world.known("a")).connect_seconds.counts) == 1

    run(test)


def test_requests_at_once_get_a_connection_each() -> None:
    """No request waits for another one's connection; the newest idle one is used first."""

    async def test(world: World) -> None:
        clients = [(await world.client()).say(get(b"/%d" % number)) for number in range(3)]
        backends = [await world.backend.accept() for _ in clients]
        targets = [(await backend.request()).target for backend in backends]
        assert sorted(targets) == [b"/0", b"/1", b"/2"]
        for backend, target in zip(backends, targets, strict=True):
            backend.say(ok(target))
            await clients[int(target[1:])].response()
        await world.ask_through(backends[-1])

    run(test)


def test_idle_connections_are_closed() -> None:
    """A connection that nobody used for timeouts.pool_idle is closed."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        await client.response()
        await backend.gone()

    run(test, timeouts={"pool_idle": 0.2})


def test_idle_connection_that_the_backend_closes_is_forgotten() -> None:
    """A kept connection that was closed while idle is no failure and is not used again."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        await client.response()
        backend.close()
        await world.until(lambda: not world.plane.site.pool(world.known("a"))._all)
        client.say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200
        assert dict(world.plane.site.stats.upstream_errors) == {}

    run(test)


def test_idle_connection_that_speaks_is_never_used() -> None:
    """Bytes that nobody asked for must not become the answer to the next request."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok() + ok(b"poison"))
        assert (await client.response()).body == b"ok"
        await backend.gone()
        client.say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"good"))
        assert (await client.response()).body == b"good"
        backend.say(ok(b"poison"))
        await backend.gone()

    run(test)


def _shut(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def _speak(sock: socket.socket) -> None:
    sock.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


@pytest.mark.parametrize("act", [_shut, _speak])
def test_end_that_is_not_delivered_yet_is_seen(act: Callable[[socket.socket], None]) -> None:
    """What the backend closed or said just now is seen when a connection is taken, not when it is used."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        await client.response()
        pool, kept = world.plane.site.pool(world.known("a")), world.upstream()
        assert pool.take() is kept
        pool.freed(kept)
        with socket.socket(fileno=os.dup(backend.writer.get_extra_info("socket").fileno())) as sock:
            act(sock)
        assert not kept.transport.is_closing()  # the event loop has not run since
        assert pool.take() is None
        await world.until(lambda: not pool._all)
        assert world.suspected == []

    run(test)


def test_late_connection_counts_as_kept() -> None:
    """A connection that came too late for its request was idle before it serves: the backend may close it."""

    async def test(world: World) -> None:
        pool = world.plane.site.pool(world.known("a"))
        upstream = await pool.connect()
        assert not upstream.reused
        pool.freed(upstream)
        client = (await world.client()).say(get())
        late = await world.backend.accept()
        await late.request()
        late.close()
        fresh = await world.backend.accept()
        await fresh.request()
        fresh.say(ok())
        assert (await client.response()).status == 200

    run(test)


@pytest.mark.parametrize("status", [b"500 Internal Server Error", b"503 Service Unavailable"])
def test_connection_is_not_kept_behind_a_server_error(status: bytes) -> None:
    """A backend may close behind one without saying so; the client's connection goes on."""

    async def test(world: World) -> None:
        client = await world.client()
        for _ in range(2):  # the second head is known by its bytes
            client.say(get())
            backend = await world.backend.accept()
            await backend.request()
            backend.say(b"HTTP/1.1 %b\r\nDate: x\r\nContent-Length: 2\r\n\r\nno" % status)
            answer = await client.response()
            assert (answer.status, answer.body) == (int(status[:3]), b"no")
            assert answer.get(b"connection") is None
            await backend.gone()
        assert world.suspected == []

    run(test)


def test_maintenance_closes_connections_and_drain_does_not() -> None:
    """A backend set to drain goes on with what it has; one set to maintenance is left at once."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", world.cookie("a")))
        backend = await world.backends[0].accept()
        await backend.request()
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.DRAIN)
        backend.say(ok())
        assert (await client.response()).status == 200
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.MAINTENANCE)
        await backend.gone()

    run(test, "ab")


def test_a_connection_to_a_backend_that_has_left_is_not_kept() -> None:
    """Whoever opened it left, and so did the backend: nobody would ever close it."""

    async def test(world: World) -> None:
        (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        known = world.known("a")
        pool, upstream = world.plane.site.pool(known), world.upstream()
        known.gone = True
        pool.freed(upstream)
        await backend.gone()
        assert not pool.has_idle

    run(test)
