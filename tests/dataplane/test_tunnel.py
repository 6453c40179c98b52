"""A tunnel: after 101 a stream of bytes that nobody reads, with half-close and back-pressure."""

import asyncio

import pytest

from proxy.affinity.health import Observation
from tests.dataplane.frames import ACCEPT, frame, upgrade
from tests.dataplane.peers import Peer
from tests.dataplane.test_streaming import BOUND, LONG, held, receive, send
from tests.dataplane.world import World, run


async def tunnel(world: World, *lines: bytes, early: bytes = b"", rest: bytes = b"") -> tuple[Peer, Peer]:
    """A client and its backend after the 101."""
    client = (await world.client()).say(upgrade(b"/ws", *lines) + early)
    backend = await world.backends[0].accept()
    await backend.request()
    backend.say(ACCEPT + rest)
    assert (await client.response()).status == 101
    return client, backend


def test_bytes_pass_both_ways_unread() -> None:
    """Anything goes through a tunnel, in both directions at once."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        every = bytes(range(256)) * 300
        client.say(every)
        backend.say(every[::-1])
        assert await backend.read(len(every)) == every
        assert await client.read(len(every)) == every[::-1]
        assert world.known("a").tunnels == 1
        client.close()
        await backend.gone()
        backend.close()
        await world.until(lambda: world.ended)
        (exchange,) = world.ended
        assert (exchange.status, exchange.bytes_in, exchange.bytes_out) == (101, len(every), len(every))

    run(test)


def test_bytes_that_come_with_the_heads() -> None:
    """What either side says right behind its head is not lost."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world, early=b"early", rest=b"rest")
        assert await backend.read(5) == b"early"
        assert await client.read(4) == b"rest"

    run(test)


def test_much_that_comes_before_the_101() -> None:
    """A client that says a lot before its upgrade is granted is read on afterwards."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws"))
        sending = asyncio.create_task(send(client, LONG))
        backend = await world.backend.accept()
        await backend.request()
        connection = world.connection()
        await world.until(lambda: not connection.transport.is_reading())
        backend.say(ACCEPT)
        assert await receive(backend, LONG, world) == await sending
        assert (await client.response()).status == 101

    run(test, debug=False)


def test_half_close_of_the_client_passes() -> None:
    """The client has said all: the backend hears that and may go on until it has too."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        client.say(b"last").half_close()
        assert await backend.rest() == b"last"
        backend.say(b"more")
        assert await client.read(4) == b"more"
        backend.say(b"end").half_close()
        assert await client.rest() == b"end"
        await world.until(lambda: not world.plane.tunnels)

    run(test)


def test_half_close_of_the_backend_passes() -> None:
    """The backend has said all: the client hears that and may go on until it has too."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        backend.say(b"last").half_close()
        assert await client.rest() == b"last"
        client.say(b"more")
        assert await backend.read(4) == b"more"
        client.half_close()
        assert await backend.rest() == b""
        await world.until(lambda: not world.plane.tunnels)

    run(test)


@pytest.mark.parametrize("by_client", [True, False])
def test_half_close_behind_a_watched_opening(by_client: bool) -> None:
    """A websocket of Socket.IO is a tunnel like any other once its session is known, unless it lingers."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws/socket.io/?EIO=4&transport=websocket"))
        backend = await world.backend.accept()
        await backend.request()
        opened, connect = frame(b'0{"sid":"abc"}'), frame(b'40{"sessionId":"session-s"}', masked=True)
        backend.say(ACCEPT + opened)
        assert (await client.response()).status == 101
        assert await client.read(len(opened)) == opened
        client.say(connect)
        assert await backend.read(len(connect)) == connect
        leaving, staying = (client, backend) if by_client else (backend, client)
        last, more = (frame(b"42[]", masked=masked) for masked in (by_client, not by_client))
        leaving.say(last).half_close()
        assert await staying.rest() == last
        staying.say(more).half_close()
        assert await leaving.rest() == more
        await world.until(lambda: not world.plane.tunnels)
        assert world.suspected == []
        assert not world.plane.site.stats.upstream_errors

    run(test, affinity={"linger": 0})


@pytest.mark.parametrize("by_client", [True, False])
def test_close_and_reset_of_one_side_end_the_other(by_client: bool) -> None:
    """A side that is lost takes the other with it."""

    async def test(world: World) -> None:
        pair = await tunnel(world)
        leaving, staying = pair if by_client else pair[::-1]
        leaving.reset()
        await staying.gone()

    run(test)


def test_slow_side_stops_the_other() -> None:
    """Back-pressure passes through a tunnel, in both directions."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        (passage,) = world.plane.tunnels
        for sender, receiver, source in ((client, backend, passage.down), (backend, client, passage.up)):
            sending = asyncio.create_task(send(sender, LONG))
            await world.until(lambda source=source: source.paused)  # type: ignore[misc]
            assert held(world) < BOUND
            assert not sending.done()
            assert await receive(receiver, LONG, world) == await sending

    run(test, debug=False)


def test_tunnels_of_a_backend_that_went_down_are_closed_at_once() -> None:
    """Clients of a dead backend are told now, those of others see nothing."""

    async def test(world: World) -> None:
        lost = await tunnel(world, world.cookie("a"))
        stays = (await world.client()).say(upgrade(b"/ws", world.cookie("b")))
        other = await world.backends[1].accept()
        await other.request()
        other.say(ACCEPT)
        assert (await stays.response()).status == 101
        world.observe("a", Observation.ENDED)
        await lost[0].gone()
        await lost[1].gone()
        other.say(b"still here")
        assert await stays.read(10) == b"still here"
        assert (world.known("a").tunnels, world.known("b").tunnels) == (0, 1)

    run(test, "ab")


def test_what_was_said_last_arrives() -> None:
    """A backend that speaks and goes is heard to the end."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        backend.say(b"x" * 3_000_000 + b"bye").close()
        assert (await client.rest()).endswith(b"bye")

    run(test, debug=False)


@pytest.mark.parametrize("goodbye", [False, True])
def test_side_that_takes_the_last_words_slowly(monkeypatch: pytest.MonkeyPatch, goodbye: bool) -> None:
    """Whatever it takes begins its time anew, also when a close frame is the last of it."""
    monkeypatch.setattr("proxy.dataplane.tunnel._LAST_WORDS", 0.5)
    monkeypatch.setattr("proxy.dataplane.farewells._GOODBYE", 0.2)
    said = b"x" * 60_000

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101
        (passage,) = world.plane.tunnels
        backend.say(said)
        await world.until(lambda: passage.received[1] == len(said))
        if goodbye:
            passage.say_goodbye()
        else:
            backend.reset()
        heard = b""
        while len(heard) < len(said):
            await asyncio.sleep(0.1)
            heard += await client.read(min(3000, len(said) - len(heard)))
        assert heard == said
        assert await client.rest() == (frame((1012).to_bytes(2, "big"), opcode=8) if goodbye else b"")

    run(test, narrow=True)


def test_side_that_does_not_take_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads no more does not hold its connection for ever after the tunnel has ended."""
    monkeypatch.setattr("proxy.dataplane.tunnel._LAST_WORDS", 0.2)

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101
        (passage,) = world.plane.tunnels
        backend.say(b"x" * 60_000)
        await world.until(lambda: passage.down.transport.get_write_buffer_size() > 0)
        backend.reset()
        await world.until(lambda: passage.is_closed)
        assert passage.down.transport.get_write_buffer_size() > 0
        assert world.plane.site.clients.total == 1  # it is no way round a limit of connections
        await world.until(lambda: passage.down.transport.get_extra_info("socket").fileno() < 0)
        await world.until(lambda: world.plane.site.clients.total == 0)

    run(test, narrow=True)


def test_idle_tunnel_is_closed() -> None:
    """A tunnel without a byte for timeouts.tunnel_idle is closed; one with bytes in either way is not."""

    async def test(world: World) -> None:
        client, backend = await tunnel(world)
        for _ in range(6):
            backend.say(b"x")
            assert await client.read(1) == b"x"
            await asyncio.sleep(0.25)
        await client.gone()
        await backend.gone()

    run(test, timeouts={"tunnel_idle": 0.6})
