"""The end of the data plane: requests are finished, everything else is closed, within the grace time."""

import asyncio
import contextlib

import pytest

from proxy.errors import ProxyError
from tests.dataplane.chat import PATH, Tab, chats
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import Cut, Peer, get, ok
from tests.dataplane.world import World, run


async def leave(world: World, grace: float = 20) -> asyncio.Task[None]:
    """Begin to leave."""
    task = asyncio.create_task(world.plane.leave(grace))
    await world.until(lambda: world.plane.leaving)
    return task


def test_requests_are_finished() -> None:
    """A request that is under way gets its answer, and its connection is closed with it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        leaving = await leave(world)
        await world.breathe()
        assert not leaving.done()
        backend.say(ok(b"last"))
        response = await client.response()
        assert (response.body, response.get(b"connection")) == (b"last", b"close")
        await client.gone()
        await leaving

    run(test)


def test_idle_connections_are_closed_and_new_ones_refused() -> None:
    """Nobody waits for a client that asks for nothing, and nobody new is let in."""

    async def test(world: World) -> None:
        idle = await world.client()
        await (await leave(world))
        await idle.gone()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*world.address)

    run(test)


def test_long_polls_hold_nobody_up() -> None:
    """A poll that waits for news may be ended without loss."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        tab = Tab(world)
        await tab.handshake()
        poll = await tab.poll()
        await world.until(lambda: chat.asked("poll"))
        await (await leave(world))
        poll.reset()

    run(test)


def test_tunnels_are_closed_when_requests_are_done() -> None:
    """Websockets go on while requests are finished, and are closed then."""

    async def test(world: World) -> None:
        socket = (await world.client()).say(upgrade(b"/ws"))
        tunnel = await world.backend.accept()
        await tunnel.request()
        tunnel.say(ACCEPT)
        await socket.response()
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        leaving = await leave(world)
        tunnel.say(b"still here")
        assert await socket.read(10) == b"still here"
        backend.say(ok())
        await client.response()
        await leaving
        await socket.gone()
        await tunnel.gone()

    run(test)


def test_grace_is_limited() -> None:
    """A request that does not end in time is cut off."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        await (await leave(world, 0.05))
        await world.stop()
        with pytest.raises(Cut):
            await client.head()
        await backend.gone()

    run(test)


def test_end_without_leaving() -> None:
    """Cancelled in the middle of everything, the plane closes everything."""

    async def test(world: World) -> None:
        chats(world)
        peers: list[Peer] = []
        tab = Tab(world)
        await tab.handshake()
        peers += [await tab.poll(), await tab.upgrade(), await world.client()]
        peers.append((await world.client()).say(get(PATH + b"websocket")[:-2]))
        await world.until(lambda: len(world.plane.tunnels) == 1)
        await world.stop()
        for peer in peers:
            with contextlib.suppress(Cut):
                while True:
                    await peer.some()

    run(test)


def test_fault_of_ours_is_an_answer() -> None:
    """A task that fails by a fault of the proxy is logged, and its client is told 500."""

    async def test(world: World) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        (connection,) = world.plane.connections
        exchange = connection.exchange
        assert exchange is not None
        exchange.spawn(fail())
        assert (await client.response()).status == ProxyError.status
        await backend.gone()
        assert "ZeroDivisionError" in world.errors.texts.pop()

    run(test)


def test_work_that_is_over_before_it_began() -> None:
    """Work whose client leaves at once is dropped without a trace."""

    async def test(world: World) -> None:
        async def never() -> None:
            raise AssertionError

        task = world.plane.spawn(never(), lambda: None)
        task.cancel()
        await asyncio.wait([task])

    run(test)


def test_origin_of_both_families() -> None:
    """A client of IPv4 is the same to a listener of IPv6; one on a socket file is a proxy beside us."""

    async def test(world: World) -> None:
        origins = [world.plane.origin(text) for text in ("::ffff:127.0.0.1", "::1", "::2", "1.2.3.4", "unix")]
        told = [(origin.address, origin.trusted) for origin in origins]
        assert told == [
            ("127.0.0.1", True),
            ("::1", True),
            ("::2", False),
            ("1.2.3.4", False),
            ("unix", True),
        ]

    run(test)
