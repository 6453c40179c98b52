"""Whether an app is answering, over the end of its client's connection and the start of the next one."""

import asyncio

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from tests.dataplane.chat import Chat, Tab, Transport, chats, connect_packet
from tests.dataplane.frames import frame
from tests.dataplane.test_evictions import END, START, on, open_poll, open_socket, session, still
from tests.dataplane.test_linger import collected, lose
from tests.dataplane.world import World, run

GREETING = (END, b'42["clear_ask",{}]', b'42["clear_call_fn",{}]')  # what Chainlit says after every connect
GONE = 6.0  # seconds without a poll


def newest(instances: dict[str, Chat]) -> Transport:
    """The newest transport of a."""
    *_, transport = instances["a"].transports.values()
    return transport


@pytest.mark.parametrize("linger", [0, 15])
def test_a_greeting_ends_no_turn_on_a_websocket(linger: int) -> None:
    """A client that is back in the middle of an answer is still in it, until the turn's own end."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        for packet in (*GREETING, START):
            newest(instances).push(packet)
            assert await socket.hear() == packet
        await lose(world, socket)
        assert session(world).in_turn is bool(linger), "who has gone for good is in no turn"
        again = await open_socket(world)
        for packet in GREETING:
            newest(instances).push(packet)
            assert await again.hear() == packet
        assert session(world).in_turn
        assert not still(world)
        newest(instances).push(END)
        assert await again.hear() == END
        assert still(world)

    run(test, affinity={"linger": linger})


def test_a_greeting_ends_no_turn_by_polls() -> None:
    """The same for a client that polls, whose websocket was lost before."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        newest(instances).push(START)
        assert await socket.hear() == START
        await lose(world, socket)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        await tab.listen(b'40{"sid":"a"}')
        for packet in GREETING:
            newest(instances).push(packet)
        await tab.listen(GREETING[-1])
        assert not still(world)
        newest(instances).push(END)
        await (await tab.poll()).response()
        assert still(world)

    run(test)


def test_a_mark_that_comes_in_two_pieces_is_one_event() -> None:
    """The end of a piece is kept for the next one: an event that was whole in it is told once."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        newest(instances).push(START)
        assert await socket.hear() == START
        await lose(world, socket)
        again = await open_socket(world)
        for packet in (END[:-1] + b" ", b"42", b"2"):  # the second piece comes behind a whole mark
            newest(instances).push(packet)
            assert await again.hear() == packet
        assert session(world).in_turn

    run(test, affinity={"linger": 0})


@pytest.mark.parametrize("cut", [3, 6, 14])
def test_a_mark_in_two_pieces_is_heard_for_a_lost_client(cut: int) -> None:
    """Who comes back behind the end of its turn is at rest."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        newest(instances).push(START)
        assert await socket.hear() == START
        app = newest(instances).socket
        assert app is not None
        await lose(world, socket)
        told = frame(END)
        app.peer.say(told[:cut])
        await asyncio.sleep(0.01)
        app.peer.say(told[cut:])
        await collected(world, 1)
        assert not session(world).in_turn

    run(test, affinity={"linger": 15})


def test_who_polled_and_has_gone_is_in_no_turn() -> None:
    """Its client asks for nothing any more: nobody waits for the end of its answer."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await open_poll(world)
        newest(instances).push(START)
        await (await tab.poll()).response()
        assert session(world).in_turn
        assert not still(world), "its next poll may be on its way"
        for engine in world.router.engines._named.values():
            engine.seen -= GONE
        assert still(world)
        assert on(world, "a"), "it may come back, and is sent away with the others"

    run(test)


def test_a_turn_that_nobody_has_heard_for_long_is_over() -> None:
    """Who is back after a while is taken to be in its turn if somebody listened, or it was no long while."""
    directory, backend = Directory(10, 3600.0), Backend("a", "127.0.0.1", 8001)
    session = directory.assign("session-S", backend, 0.0)
    for gap, heard, goes_on in ((5.0, False, True), (60.0, False, False), (60.0, True, True)):
        directory.opened(session)
        session.hear(0.0, begins=True)
        assert session.in_turn
        directory.closed(session, 100.0)
        session.is_awaited = heard
        assert session.in_turn is heard
        session.came(100.0 + gap)
        directory.opened(session)
        session.is_awaited = False
        assert session.in_turn is goes_on
        session.hear(0.0, begins=False)
        assert session.in_turn is goes_on, "that is Chainlit's greeting"
        session.hear(0.0, begins=False)
        assert (session.in_turn, session.is_awaited) == (False, False)
        directory.closed(session, 200.0)
        session.came(200.0)


@pytest.mark.parametrize("cut", [0, 20])
def test_a_turn_that_ends_with_its_last_tokens(cut: int) -> None:
    """Its end may come in one read with them, whole or not."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        for packet in (*GREETING, START):
            newest(instances).push(packet)
            assert await socket.hear() == packet
        assert session(world).in_turn
        token = b'42["stream_token",{"id":"m","token":"x"}]'
        said = b"".join(map(frame, (token, token, END, token)))
        link = newest(instances).socket
        assert link is not None
        link.peer.say(said[: len(said) - cut])
        assert [await socket.hear() for _ in range(3)] == [token, token, END]
        assert not session(world).in_turn

    run(test)
