"""A client that is lost and comes back gets what was said meanwhile, in order and once."""

import asyncio

import pytest

from proxy.errors import Limit
from tests.dataplane.chat import Chat, Tab, Transport, chats, connect_packet
from tests.dataplane.frames import Socket, frame
from tests.dataplane.test_evictions import START, open_socket, session, still
from tests.dataplane.world import World, run

CONNECTED = b'40{"sid":"a"}'


def tokens(first: int, last: int) -> list[bytes]:
    """Numbered packets."""
    return [b'42["stream_token",{"n":%d}]' % number for number in range(first, last)]


async def lose(world: World, socket: Socket) -> None:
    """The client is gone without a word, once its system has acknowledged what it has heard."""
    sent = [tunnel.down.sent for tunnel in world.plane.tunnels if tunnel.down.sent is not None]
    await world.until(lambda: not any(each.lost()[0] for each in sent), "all is acknowledged")
    socket.peer.reset()
    await world.until(lambda: not world.plane.tunnels)


def lingering(world: World) -> int:
    """How many backends' sides are kept."""
    return len(world.plane.site.lingers.by_session)


async def collected(world: World, count: int) -> None:
    """Wait until so many packets were collected."""
    await world.until(
        lambda: any(len(one.what.packets) == count for one in world.plane.site.lingers.by_session.values()),
        "collected",
    )


def first(instances: dict[str, Chat]) -> Transport:
    """The oldest transport of a."""
    return next(iter(instances["a"].transports.values()))


def test_a_websocket_gets_them_behind_the_answer_to_connect() -> None:
    """Collected packets, then what the backend says anew; heartbeats are answered and not passed on."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        assert old.socket is not None
        old.push(START)
        assert await socket.hear() == START
        await lose(world, socket)
        assert (lingering(world), world.known("a").tunnels) == (1, 1)
        for packet in (*tokens(0, 3), b"2", b"6", *tokens(3, 5)):
            old.push(packet)
        await collected(world, 5)
        await world.until(lambda: b"3" in old.quiet, "the heartbeat is answered")
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        again.say(connect_packet("session-S"), b'42["hi"]')
        heard = [await again.hear() for _ in range(7)]
        assert heard == [CONNECTED, *tokens(0, 5), b'42["echo","a"]']
        assert lingering(world) == 0
        assert (world.plane.site.lingers.began, world.plane.site.lingers.resumed) == (1, 1)
        assert session(world).in_turn
        await world.until(lambda: world.known("a").tunnels == 1)

    run(test, "ab")


def test_a_poll_gets_them_behind_the_answer_to_connect() -> None:
    """The JavaScript client connects by polling first: the payload is put together anew."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        await lose(world, socket)
        for packet in tokens(0, 4):
            old.push(packet)
        await collected(world, 4)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"), b'42["hi"]')).response()
        await tab.listen(b'42["echo","a"]')
        assert tab.got == [CONNECTED, *tokens(0, 4), b'42["echo","a"]']
        assert lingering(world) == 0

    run(test, "ab")


def test_nobody_leaves_before_the_last_poll_that_is_owed() -> None:
    """A session is not at rest while its next polls have more than one of them takes; then it is."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        await lose(world, socket)
        for packet in tokens(0, 20):
            old.push(packet)
        await collected(world, 20)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        await tab.listen(tokens(14, 15)[0])
        assert not still(world)
        await tab.listen(tokens(19, 20)[0])
        assert still(world)
        assert tab.got == [CONNECTED, *tokens(0, 20)]

    run(test, "ab")


def test_the_oldest_of_too_many_is_given_up() -> None:
    """So many sessions are waited for at once, and how often there were more is counted."""

    async def test(world: World) -> None:
        chats(world)
        for number in range(4):
            tab = Tab(world, world.cookie("a"))
            socket = await tab.socket()
            await socket.hear()
            socket.say(connect_packet(f"session-{number}"))
            assert await socket.hear() == CONNECTED
            await world.until(lambda: all(tunnel.session for tunnel in world.plane.tunnels))
            await lose(world, socket)
        waited = [one.session.id for one in world.plane.site.lingers.by_session.values()]
        assert waited == ["session-2", "session-3"]
        assert world.plane.site.stats.limits[Limit.LINGER_SESSIONS] == 2

    run(test, "a", affinity={"linger_sessions": 2})


def test_one_lost_again_right_behind_its_connect() -> None:
    """Its backend had begun to speak to the new connection: that is kept, and its answer said no more."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        for packet in tokens(0, 2):
            first(instances).push(packet)
        await collected(world, 2)
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        held = instances["a"].hold("connect")
        again.say(connect_packet("session-S"))
        new = instances["a"].transports[b"a-sid-1"]
        await world.until(lambda: new.heard)
        again.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        assert lingering(world) == 1
        held.set()
        for packet in (CONNECTED, *tokens(2, 4)):
            new.push(packet)
        await collected(world, 4)
        last = await Tab(world, world.cookie("a")).socket()
        await last.hear()
        last.say(connect_packet("session-S"))
        assert [await last.hear() for _ in range(5)] == [CONNECTED, *tokens(0, 4)]

    run(test, "ab")


def test_a_session_that_connects_twice_while_the_rest_is_awaited() -> None:
    """The later connection gets what was collected, and neither is left without what comes from then on."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        assert old.socket is not None
        old.socket.peer.reader._transport.pause_reading()  # type: ignore[attr-defined]  # no pong comes
        await lose(world, socket)
        for packet in tokens(0, 3):
            old.push(packet)
        await collected(world, 3)
        sockets = [await Tab(world, world.cookie("a")).socket() for _ in range(2)]
        for again in sockets:
            await again.hear()
            again.say(connect_packet("session-S"))
            assert await again.hear() == CONNECTED
        for again in sockets:
            again.say(b'42["hi"]')
        assert await sockets[0].hear() == b'42["echo","a"]'
        assert [await sockets[1].hear() for _ in range(4)] == [*tokens(0, 3), b'42["echo","a"]']
        assert lingering(world) == 0

    run(test)


def test_another_websocket_of_the_session_is_lost_while_the_rest_is_awaited() -> None:
    """Who waits for what was collected goes on without it, and is not taken for the one that was lost."""

    async def test(world: World) -> None:
        instances = chats(world)
        sockets = [await open_socket(world) for _ in range(2)]
        old = first(instances)
        assert old.socket is not None
        old.socket.peer.reader._transport.pause_reading()  # type: ignore[attr-defined]  # no pong comes
        sockets[0].peer.reset()
        await world.until(lambda: lingering(world))
        old.push(tokens(0, 1)[0])
        await collected(world, 1)
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        again.say(connect_packet("session-S"), b'42["hi"]')
        assert await again.hear() == CONNECTED
        sockets[1].peer.reset()
        assert await again.hear() == b'42["echo","a"]'
        assert lingering(world) == 1

    run(test)


def test_one_who_never_returns_costs_nothing_after_the_time() -> None:
    """The backend learns that its client has left, and nothing is kept."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        assert lingering(world) == 1
        await world.until(lambda: not lingering(world), "the time is over")
        socket_there = first(instances).socket
        assert socket_there is not None
        await world.until(socket_there.peer.reader.at_eof, "the backend is told")
        assert world.known("a").tunnels == 0

    run(test, affinity={"linger": 0.2})


def test_a_proxy_that_stood_still_waits_as_long_as_ever() -> None:
    """Time in which this process did not run is no time in which a client could come back."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        world.stand_still(1.6)
        await asyncio.sleep(0.2)
        assert lingering(world) == 1
        await world.until(lambda: not lingering(world))

    run(test, affinity={"linger": 0.5})


def test_a_backend_that_has_to_be_empty_waits_for_nobody() -> None:
    """At the deadline of a drain a lost client is no reason to keep its side; others keep theirs."""

    async def test(world: World) -> None:
        chats(world)
        for name in "ab":
            socket = await open_socket(world, f"session-{name}", at=name)
            await lose(world, socket)
        assert lingering(world) == 2
        assert not world.plane.evictions.is_empty(world.known("a"))
        world.plane.evictions.cut(world.known("a"))
        assert world.plane.evictions.is_empty(world.known("a"))
        assert [one.session.id for one in world.plane.site.lingers.by_session.values()] == ["session-b"]

    run(test, "ab")


def test_a_proxy_that_stood_still_finds_no_client_late() -> None:
    """The deadlines of connections and websockets move on by the gap."""

    async def test(world: World) -> None:
        chats(world)
        await open_socket(world)
        await world.client()
        connection, (tunnel,) = world.connection(), world.plane.tunnels
        before = connection.deadline, tunnel.deadline
        world.plane.move_on(46.0)
        assert connection.deadline - before[0] == pytest.approx(46.0)
        assert tunnel.deadline - before[1] == pytest.approx(46.0)

    run(test)


@pytest.mark.parametrize("cut", [0, 1, 3, 7], ids=["whole", "1", "3", "7"])
@pytest.mark.parametrize("long", [False, True], ids=["alone", "behind a long message"])
def test_one_who_says_goodbye_is_not_waited_for(long: bool, cut: int) -> None:
    """A close frame, however it comes: the page was closed, and its app may know at once."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        goodbye = frame((1001).to_bytes(2, "big"), opcode=8, masked=True)
        if long:
            said = frame(b'42["' + b"x" * 100_000 + b'"]', masked=True)
            socket.peer.say(said[:50_000])
            await world.until(lambda: any(tunnel.received[0] > 40_000 for tunnel in world.plane.tunnels))
            goodbye, cut_at = said[50_000:] + goodbye, len(said) - 50_000 + cut
        else:
            cut_at = cut
        socket.peer.say(goodbye[:cut_at])
        await asyncio.sleep(0.05)
        socket.peer.say(goodbye[cut_at:])
        socket.peer.close()
        await world.until(lambda: not world.plane.tunnels)
        assert lingering(world) == 0
        assert instances["a"].heard

    run(test)


def test_one_who_was_lost_behind_a_goodbye_is_waited_for() -> None:
    """It has gone on: what it said then was no farewell of its page."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        socket.say(b"41")
        await world.until(lambda: any(tunnel.frames[0] == 2 for tunnel in world.plane.tunnels))
        socket.say(b'42["x"]')
        await world.until(lambda: any(tunnel.frames[0] == 3 for tunnel in world.plane.tunnels))
        await lose(world, socket)
        assert lingering(world) == 1

    run(test)


def test_too_much_is_let_go_of() -> None:
    """Beyond `linger_bytes` nothing is kept: half of it would be no use."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        for _ in range(20):
            first(instances).push(b'42["x","' + b"x" * 100 + b'"]')
        await world.until(lambda: not lingering(world))

    run(test, affinity={"linger_bytes": 1000})


def test_one_lost_again_before_it_had_them_gets_them_later() -> None:
    """What was collected is handed on, and what came since is behind it."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        for packet in tokens(0, 2):
            first(instances).push(packet)
        await collected(world, 2)
        gate = instances["a"].hold("upgrade")
        lost = await Tab(world, world.cookie("a")).upgrade()
        await world.until(lambda: len(instances["a"].asked("upgrade")) == 2)
        lost.reset()
        gate.set()
        await world.until(lambda: not world.plane.connections)
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        again.say(connect_packet("session-S"))
        assert [await again.hear() for _ in range(3)] == [CONNECTED, *tokens(0, 2)]

    run(test, "ab")


def test_a_session_that_moved_gets_nothing_of_the_old_backend() -> None:
    """It begins elsewhere: what the old backend says is not for it."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        first(instances).push(tokens(0, 1)[0])
        await collected(world, 1)
        world.plane.evictions.send_away([session(world)])
        assert lingering(world) == 0
        again = await Tab(world, world.cookie("b")).socket()
        await again.hear()
        again.say(connect_packet("session-S"), b'42["hi"]')
        assert [await again.hear() for _ in range(2)] == [b'40{"sid":"b"}', b'42["echo","b"]']

    run(test, "ab")


def test_a_backend_that_goes_down_is_let_go_of() -> None:
    """With its pool, every side that is kept ends."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        assert lingering(world) == 1
        world.plane.site.pool(world.known("a")).close_all()
        assert (lingering(world), world.known("a").tunnels) == (0, 0)

    run(test)
