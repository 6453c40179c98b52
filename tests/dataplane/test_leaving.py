"""The end of the data plane: requests are finished, everything else is closed, within the grace time."""

import asyncio
import contextlib
import socket

import pytest

from proxy import net
from proxy.config import Address
from proxy.errors import ProxyError
from tests.dataplane.chat import PATH, Tab, chats
from tests.dataplane.frames import ACCEPT, Socket, frame, upgrade
from tests.dataplane.peers import Cut, Peer, get, ok, post
from tests.dataplane.test_evictions import END, RESTART, START, open_poll, open_socket
from tests.dataplane.world import World, run


async def leave(world: World, grace: float = 20, stay: float = 0) -> asyncio.Task[None]:
    """Begin to leave."""
    task = asyncio.create_task(world.plane.leave(grace, 0.2, stay))
    await world.breathe()
    return task


async def chatting(world: World) -> tuple[Socket, Socket]:
    """A session's websocket, as its client and its app hold it."""
    app = chats(world)["a"]
    client = await open_socket(world)
    (transport,) = app.transports.values()
    assert transport.socket is not None
    return client, transport.socket


def test_requests_are_finished() -> None:
    """A request that is under way gets its answer, and then its connection is closed."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        leaving = await leave(world)
        await world.breathe()
        assert not leaving.done()
        backend.say(ok(b"last"))
        assert (await client.response()).body == b"last"
        await client.gone()
        await leaving

    run(test)


def test_who_is_busy_costs_nobody_else_anything() -> None:
    """While one request is under way all others are served as before, those that come now too."""

    async def test(world: World) -> None:
        app = chats(world)["a"]
        gate = app.hold("post")
        clients = [await open_socket(world)]
        slow = (await world.client()).say(post(b"/slow", b"content"))
        await world.until(lambda: app.asked("post"))
        leaving = await leave(world)
        clients.append(await open_socket(world, "session-T"))
        for _ in range(3):
            for client in clients:
                client.say(b'42["question"]')
                assert await client.hear() == b'42["echo","a"]'
            await Tab(world).handshake()
        assert not leaving.done()
        gate.set()
        assert (await slow.response()).status == 200
        for client in clients:
            assert await client.hear() == RESTART
            client.peer.close()
        await leaving

    run(test)


def test_heartbeats_hold_nobody_up() -> None:
    """Nor are pings and pongs a talk: among many clients there is always one."""

    async def test(world: World) -> None:
        client, app = await chatting(world)
        (tunnel,) = world.plane.tunnels

        async def told(speaker: Socket, words: bytes, opcode: int = 1) -> bool:
            """Whether somebody is busy once this has come."""
            before = tunnel.received
            speaker.say(words, opcode=opcode)
            await world.until(lambda: tunnel.received != before)
            return world.plane.evictions.somebody_is_busy(world.now())

        await world.until(lambda: tunnel.is_silent(world.now()))
        for speaker, heartbeat, opcode in ((app, b"2", 1), (client, b"3", 1), (app, b"ping", 9)):
            assert not await told(speaker, heartbeat, opcode)
        assert await told(app, b'42["x"," "]')

    run(test)


def test_an_answer_by_polls_is_waited_for() -> None:
    """A client that polls is no less busy, until its app has answered; then its poll is let go."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        tab = await open_poll(world)
        (transport,) = chat.transports.values()
        transport.push(START)
        await (await tab.poll()).response()
        leaving = await leave(world)
        poll = await tab.poll()
        await asyncio.sleep(0.3)
        assert not leaving.done()
        transport.push(END)
        assert END in (await poll.response()).body
        await leaving

    run(test)


def test_time_is_up_for_who_is_busy() -> None:
    """A request that does not end is given its time, and no more: then the others are told, and all ends."""

    async def test(world: World) -> None:
        app = chats(world)["a"]
        app.hold("post")
        client = await open_socket(world)
        slow = (await world.client()).say(post(b"/slow", b"content"))
        await world.until(lambda: app.asked("post"))
        began = world.now()
        leaving = await leave(world, grace=3)
        assert await client.hear() == RESTART
        assert world.now() - began > 1
        client.peer.close()
        await leaving
        assert world.now() - began < 3
        slow.reset()

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
        visitor = (await world.client()).say(upgrade(b"/ws"))
        tunnel = await world.backend.accept()
        await tunnel.request()
        tunnel.say(ACCEPT)
        await visitor.response()
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        leaving = await leave(world)
        tunnel.say(b"still here")
        assert await visitor.read(10) == b"still here"
        backend.say(ok())
        await client.response()
        await leaving
        assert (await visitor.rest()).endswith(RESTART)
        await tunnel.gone()

    run(test)


def test_a_question_on_its_way_is_answered() -> None:
    """Who has just asked is not sent away before the app could say that it answers, nor before it has."""

    async def test(world: World) -> None:
        client, app = await chatting(world)
        client.say(b'42["question"]')
        await client.hear()
        leaving = await leave(world)
        for event in (START, b'42["stream_token"]', END):
            app.say(event)
            assert await client.hear() == event
        assert await client.hear() == RESTART
        client.peer.close()
        await leaving

    run(test)


def test_an_answer_that_never_ends_is_cut_behind_a_frame() -> None:
    """At the end of the grace time the frame that is on its way is finished, however long it takes."""

    async def test(world: World) -> None:
        client, app = await chatting(world)
        app.say(START)
        assert await client.hear() == START
        text = b'42["stream_token","' + b"x" * 400 + b'"]'
        told = frame(text)
        pieces = [told[at : at + 20] for at in range(0, len(told), 20)]
        leaving = await leave(world, grace=1.5)
        app.peer.say(pieces[0])
        (tunnel,) = world.plane.tunnels
        await world.until(lambda: type(tunnel._up_end).__name__ == "LastFrame")
        for piece in pieces[1:]:
            await asyncio.sleep(0.02)
            app.peer.say(piece)
        assert await client.hear() == text
        assert await client.hear() == RESTART
        client.peer.close()
        await leaving

    run(test)


def test_websockets_stay_where_another_process_has_taken_over() -> None:
    """They go on for as long as they may, new connections go to the other process; then they leave."""

    async def test(world: World) -> None:
        client, app = await chatting(world)
        with net.bind(Address(*world.address), shared=True) as other:
            leaving = await leave(world, stay=1.5)
            with socket.create_connection(world.address, timeout=5), other.accept()[0]:
                for _ in range(10):
                    client.say(b'42["question"]')
                    await client.hear()
                    app.say(b'42["answer"]')
                    assert await client.hear() == b'42["answer"]'
                assert not leaving.done()
                assert await client.hear() == RESTART
                client.peer.close()
                await leaving

    run(test, shared=True)


def test_the_last_websocket_ends_the_stay() -> None:
    """Nobody is waited for when nobody is left."""

    async def test(world: World) -> None:
        client, _ = await chatting(world)
        with net.bind(Address(*world.address), shared=True):
            leaving = await leave(world, stay=3600)
            client.say(RESTART, opcode=8)
            client.peer.close()
            await leaving

    run(test, shared=True)


def test_websockets_leave_where_nobody_has_taken_over() -> None:
    """There is nothing to stay for when no new connection can be made."""

    async def test(world: World) -> None:
        client, _ = await chatting(world)
        leaving = await leave(world, stay=3600)
        assert await client.hear() == RESTART
        client.peer.close()
        await leaving

    run(test, shared=True)


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


@pytest.mark.parametrize("grace", [0, 0.2])
@pytest.mark.parametrize("asked", [False, True])
def test_who_has_no_time_to_leave_is_told_all_the_same(grace: float, asked: bool) -> None:
    """However short the time is, a client whose app says nothing is told to connect anew."""

    async def test(world: World) -> None:
        client, _ = await chatting(world)
        if not asked:
            await world.until(lambda: not any(tunnel.active for tunnel in world.plane.tunnels))
        await world.plane.leave(grace, 0.2)
        if asked and not grace:
            assert await client.peer.rest() == b""
        else:
            assert await client.hear() == RESTART
        client.peer.close()

    run(test)


def test_listeners_that_have_closed_stay_closed() -> None:
    """A reload that is under way when the process is told to end opens nothing."""

    async def test(world: World) -> None:
        await world.plane.leave(1)
        sock = net.bind(Address("127.0.0.1", 0))
        await world.plane.listeners.change([sock], None, greeted=True)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*world.address)
        assert not world.plane.listeners._servers
        sock.close()

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
        connection = world.connection()
        exchange = connection.exchange
        assert exchange is not None
        exchange.spawn(fail)
        assert (await client.response()).status == ProxyError.status
        await backend.gone()
        assert "ZeroDivisionError" in world.errors.texts.pop()
        world.faults = 1

    run(test)


def test_work_that_is_over_before_it_began() -> None:
    """Work whose client leaves at once is dropped without a trace."""

    async def test(world: World) -> None:
        async def never() -> None:
            raise AssertionError

        task = world.plane.site.spawn(never, lambda: None)
        task.cancel()
        await asyncio.wait([task])

    run(test)
