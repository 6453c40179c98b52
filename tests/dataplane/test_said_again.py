"""A client that is lost gets what was on its way to it when it is back: nothing twice, nothing of others."""

import socket as sockets
import sys

import pytest

from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import Socket
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.test_linger import CONNECTED, collected, first, lingering, lose, tokens
from tests.dataplane.test_linger_refused import REFUSED
from tests.dataplane.test_turns import newest
from tests.dataplane.world import World, run
from tests.support.vanishing import vanish

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was acknowledged")


def gone(client: Socket) -> sockets.socket:
    """Its network is gone while this is open: see `vanish`."""
    return vanish(client.peer.writer.get_extra_info("socket").fileno())


async def polled(tab: Tab) -> list[bytes]:
    """What it hears first that connects again by polling."""
    await tab.handshake()
    await (await tab.post(connect_packet("session-S"))).response()
    await tab.listen(tokens(3, 4)[0])
    return tab.got


async def cut_off(world: World, client: Socket) -> None:
    """It is gone without a word, with what is on its way to it: see `lose` for one that has all."""
    client.peer.reset()
    await world.until(lambda: not world.plane.tunnels)


async def said_again(socket: Socket, count: int) -> list[bytes]:
    """What a session that connects again hears first."""
    await socket.hear()
    socket.say(connect_packet("session-S"))
    return [await socket.hear() for _ in range(count)]


def test_where_nobody_is_waited_for_nothing_is_kept() -> None:
    """What could never be said again takes no memory."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        assert tunnel.down.sent is None
        socket.peer.close()

    run(test, "ab", affinity={"linger": 0})


def test_a_heartbeat_that_nobody_gets_makes_nothing_be_said_twice() -> None:
    """It is the first that is not acknowledged: what was said before it is not said again."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        sent = tunnel.down.sent
        assert sent is not None
        first(instances).push(tokens(0, 1)[0])
        assert await socket.hear() == tokens(0, 1)[0]
        await world.until(lambda: not sent.lost()[0], "it is acknowledged")
        with gone(socket):
            first(instances).push(b"2")
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            sent.forget()
            again = await Tab(world, world.cookie("a")).socket()
            assert await said_again(again, 1) == [CONNECTED]
            newest(instances).push(tokens(1, 2)[0])
            assert await again.hear() == tokens(1, 2)[0]

    run(test, "ab")


def test_what_was_on_its_way_before_it_came_back_is_not_said_behind_newer_words() -> None:
    """It came back before its old connection was known to be gone, and is lost once more."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        sent = tunnel.down.sent
        assert sent is not None
        with gone(socket):
            first(instances).push(tokens(0, 1)[0])
            await world.until(lambda: sent.lost()[0] != b"")
            tunnel.down.sent = None  # so nobody can tell yet that its system is silent
            again = await Tab(world, world.cookie("a")).socket()
            assert await said_again(again, 1) == [CONNECTED]
            tunnel.down.sent = sent
            newest(instances).push(tokens(1, 2)[0])
            assert await again.hear() == tokens(1, 2)[0]
            tunnel.down.abort()  # its system gives up
            await world.until(lambda: tunnel.is_closed)
            await lose(world, again)
            last = await Tab(world, world.cookie("a")).socket()
            assert await said_again(last, 1) == [CONNECTED]
            newest(instances).push(tokens(2, 3)[0])
            assert await last.hear() == tokens(2, 3)[0]

    run(test, "ab")


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "not answered"])
def test_one_whom_the_instance_does_not_take_ends_nobody(*, refused: bool) -> None:
    """Whoever names the session of a client that is cut off is its owner only once Chainlit says so."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        with gone(socket):
            first(instances).push(tokens(0, 1)[0])
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            tab = Tab(world, world.cookie("a"))
            if refused:
                instances["a"].refused.add("session-S")
                await tab.handshake()
                await (await tab.post(connect_packet("session-S"))).response()
                await tab.listen(REFUSED)
            else:
                instances["a"].hold("connect")
                stranger = await tab.socket()
                await stranger.hear()
                stranger.say(connect_packet("session-S"))
                await world.until(lambda: len(instances["a"].heard) > 1)
                stranger.peer.reset()
                await world.until(lambda: len(world.plane.tunnels) == 1)
            assert (tunnel.is_closed, lingering(world)) == (False, 0)

    run(test, "ab")


def test_what_was_said_in_the_moment_of_a_loss_is_said_again() -> None:
    """The proxy hears of the packets first and of the reset behind them: they are the first to be said."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        said = tokens(0, 3)
        for packet in said:
            old.push(packet)
        assert [await socket.hear() for _ in said] == said
        for packet in (*tokens(3, 6), b"2"):
            old.push(packet)
        await cut_off(world, socket)
        old.push(tokens(6, 7)[0])
        again = await Tab(world, world.cookie("a")).socket()
        assert await said_again(again, 5) == [CONNECTED, *tokens(3, 7)]

    run(test, "ab")


def test_what_is_lost_twice_is_said_in_the_end() -> None:
    """A client that is lost in the moment in which it gets what was collected has not got it."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await cut_off(world, socket)
        first(instances).push(tokens(0, 1)[0])
        await collected(world, 1)
        again = await Tab(world, world.cookie("a")).socket()
        assert await said_again(again, 2) == [CONNECTED, *tokens(0, 1)]
        for packet in tokens(1, 3):
            newest(instances).push(packet)
        await cut_off(world, again)
        last = await Tab(world, world.cookie("a")).socket()
        assert await said_again(last, 3) == [CONNECTED, *tokens(1, 3)]

    run(test, "ab")


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_one_whose_network_is_gone_gets_it_on_the_next(*, polls: bool) -> None:
    """It comes back from another network before the proxy has heard of the end of the old one."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        old.push(tokens(0, 1)[0])
        assert await socket.hear() == tokens(0, 1)[0]
        with gone(socket):
            for packet in tokens(1, 4):
                old.push(packet)
            (tunnel,) = world.plane.tunnels
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            tab = Tab(world, world.cookie("a"))
            heard = await polled(tab) if polls else await said_again(await tab.socket(), 4)
            assert heard == [CONNECTED, *tokens(1, 4)]
            await world.until(lambda: tunnel.is_closed)
            assert world.plane.site.lingers.unacknowledged == 3

    run(test, "ab")


def test_one_who_is_there_keeps_its_connection() -> None:
    """A tab that was copied connects with the same session: the first one stays as it is."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        for packet in tokens(0, 3):
            first(instances).push(packet)
        assert await said_again(await Tab(world, world.cookie("a")).socket(), 1) == [CONNECTED]
        assert [await socket.hear() for _ in range(3)] == tokens(0, 3)
        assert not tunnel.is_closed

    run(test, "ab")


def test_what_polls_were_owed_is_said_again() -> None:
    """A websocket that takes over from them has it first, and is lost with it."""

    async def test(world: World) -> None:
        instances = chats(world)
        await lose(world, await open_socket(world))
        for packet in tokens(0, 20):
            first(instances).push(packet)
        await collected(world, 20)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        await tab.listen(tokens(14, 15)[0])
        upgraded = await tab.socket()
        upgraded.say(b"2probe")
        assert await upgraded.hear() == b"3probe"
        with gone(upgraded):
            upgraded.say(b"5")
            await world.until(lambda: any(tunnel.is_cut_off for tunnel in world.plane.tunnels))
            again = await Tab(world, world.cookie("a")).socket()
            assert await said_again(again, 6) == [CONNECTED, *tokens(15, 20)]

    run(test, "ab")


def test_a_websocket_that_is_there_before_the_answer_to_connect() -> None:
    """A page upgrades while it polls for that answer, which tells of the same connection, of no later one."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        upgraded = await tab.socket()
        upgraded.say(b"2probe")
        assert await upgraded.hear() == b"3probe"
        await tab.listen(CONNECTED)
        upgraded.say(b"5")
        await world.until(lambda: first(instances).upgraded)
        for packet in tokens(0, 3):
            first(instances).push(packet)
        await cut_off(world, upgraded)
        again = await Tab(world, world.cookie("a")).socket()
        assert await said_again(again, 4) == [CONNECTED, *tokens(0, 3)]

    run(test, "ab")
