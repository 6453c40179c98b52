"""Who says goodbye looks whether it still can: one half-closed websocket is nobody else's trouble."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from proxy.affinity.backend import AdminState
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket, upgrade
from tests.dataplane.peers import get, ok
from tests.dataplane.test_evictions import RESTART, on, open_socket
from tests.dataplane.test_linger import collected, tokens
from tests.dataplane.world import World, run

NO_LINGER = {"linger": 0}


async def raw_session(world: World, session: bytes) -> tuple[Socket, Socket]:
    """Both sides of a session's websocket; its backend does nothing by itself."""
    client = (await world.client()).say(upgrade(PATH + b"websocket"))
    backend = await world.backend.accept()
    await backend.request()
    backend.say(ACCEPT)
    assert (await client.response()).status == 101
    ends = Socket(client, client=True), Socket(backend, client=False)
    ends[1].say(b'0{"sid":"%b"}' % session)
    await ends[0].hear()
    ends[0].say(connect_packet(session.decode()))
    await ends[1].hear()
    ends[1].say(b"40{}")
    await ends[0].hear()
    return ends


def fall_silent(world: World) -> None:
    """Nothing has come for a while."""
    for tunnel in world.plane.tunnels:
        tunnel.tick(world.now() - 5)


async def send_away(world: World) -> None:
    """All sessions are sent away at once."""
    fall_silent(world)
    world.plane.evictions.send_away(on(world, "a"))


async def drained(world: World) -> None:
    """A drain without patience; its loop goes on."""
    fall_silent(world)
    running = asyncio.create_task(world.parts.drains.run())
    await world.parts.drains.until_empty(world.known("a"), 0)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def leave(world: World) -> None:
    """The process ends in order."""
    await world.plane.leave(4)


@pytest.mark.parametrize("act", [send_away, drained, leave])
def test_a_backend_that_half_closed(act: Callable[[World], Awaitable[None]]) -> None:
    """Its client cannot be told any more, and is let go; the others are told, before and behind it."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        sockets = [await open_socket(world, session) for session in ("session-R", "session-S", "session-T")]
        transport = list(chat.transports.values())[1]
        assert transport.socket is not None
        transport.socket.peer.half_close()
        await world.until(sockets[1].peer.reader.at_eof)
        await act(world)
        for socket in (sockets[0], sockets[2]):
            assert await socket.hear() == RESTART
            socket.peer.close()
        await world.until(lambda: not world.plane.tunnels)

    run(test, "ab")


@pytest.mark.parametrize("act", [send_away, drained, leave])
def test_a_client_that_half_closed(act: Callable[[World], Awaitable[None]]) -> None:
    """It still reads, so it is told as all others are."""

    async def test(world: World) -> None:
        pairs = [await raw_session(world, session) for session in (b"session-r", b"session-s", b"session-t")]
        pairs[1][0].peer.half_close()
        assert await pairs[1][1].peer.rest() == b""
        await act(world)
        for client, backend in pairs:
            assert await client.hear() == RESTART
            client.peer.close()
            backend.peer.close()
        await world.until(lambda: not world.plane.tunnels)

    run(test, affinity=NO_LINGER)


@pytest.mark.parametrize("ahead", [False, True], ids=["while it waits", "behind a request"])
def test_a_client_that_half_closed_before_its_tunnel(ahead: bool) -> None:
    """Its backend is told as it would be later, and what it says to that reaches the client."""

    async def test(world: World) -> None:
        client = await world.client()
        client.say((get() if ahead else b"") + upgrade(b"/ws"))
        client.half_close()
        backend = await world.backend.accept()
        if ahead:
            await backend.request()
            backend.say(ok())
            assert (await client.response()).status == 200
            backend = await world.backend.accept()
        await backend.request()
        await world.breathe()
        backend.say(ACCEPT + b"hello")
        assert (await client.response()).status == 101
        assert await client.read(5) == b"hello"
        assert await backend.rest() == b""
        backend.say(b" and bye").close()
        assert await client.rest() == b" and bye"

    run(test)


def test_a_client_that_half_closed_before_its_session_is_known() -> None:
    """Nobody connects as any session here any more: it ends."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(PATH + b"websocket"))
        client.half_close()
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101
        await client.gone()
        await backend.gone()

    run(test)


def test_a_half_closed_client_is_not_waited_for() -> None:
    """Its backend was told that it has said all: what is asked there later could not be answered."""

    async def test(world: World) -> None:
        client, backend = await raw_session(world, b"session-s")
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.DRAIN)
        client.peer.half_close()
        assert await backend.peer.rest() == b""
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.READY)
        backend.say(b"x", opcode=2)
        await client.hear()
        (tunnel,) = world.plane.tunnels
        client.peer.reset()
        for _ in range(100):  # the first finds out that nobody is there
            if tunnel.is_closed:
                break
            backend.say(b"2")
            await world.breathe()
            await asyncio.sleep(0.01)
        await world.until(lambda: not world.plane.tunnels)
        assert not world.plane.site.lingers.by_session
        backend.peer.close()

    run(test)


def test_a_backend_that_half_closes_behind_the_answer_to_connect() -> None:
    """A session that has come back gets what was collected, even if its backend says no more."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        socket = await open_socket(world)
        old = next(iter(chat.transports.values()))
        socket.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        for packet in tokens(0, 3):
            old.push(packet)
        await collected(world, 3)
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        new = list(chat.transports.values())[-1]
        assert new.socket is not None
        again.say(connect_packet("session-S"))
        assert await again.hear() == b'40{"sid":"a"}'
        new.socket.peer.half_close()
        assert [await again.hear() for _ in range(3)] == tokens(0, 3)
        again.peer.close()

    run(test, "ab")


def test_a_request_of_a_half_closed_client_in_a_drain() -> None:
    """A request under way is answered and counts for nobody else, whatever is sent away meanwhile."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        client.half_close()
        connection = world.connection()
        await world.until(lambda: connection._said_all)
        leaving = asyncio.create_task(world.plane.leave(4))
        await world.until(lambda: world.plane.site.leaving)
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.response()).body == b"ok"
        await leaving

    run(test)


def test_a_backend_that_closes_as_it_accepts() -> None:
    """A connection that is gone before its request is written is a failure of the backend's, not of ours."""

    async def test(world: World) -> None:
        pool = world.plane.site.pool(world.known("a"))
        taken = asyncio.create_task(pool.connect())
        (await world.backend.accept()).reset()
        await asyncio.wait([taken])
        if taken.exception() is None:
            taken.result().transport.abort()
        await world.until(lambda: not pool._all)

    run(test)
