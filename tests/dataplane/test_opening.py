"""Before its CONNECT a client is watched, moved with all it said, and bounded in number, size and time."""

import asyncio
from math import inf

import pytest

from proxy.dataplane.opening import Opening
from proxy.errors import Limit
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket, frame, upgrade
from tests.dataplane.test_rehome_order import settle
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")
ADMIN = b'40/admin,{"token":"x"}'
DO = b'42/admin,["do"]'
PONG = frame(b"x" * 100, opcode=10, masked=True)
FLOOD = 2000  # pieces of 100 KB: 200 MB


async def opened(world: World, *, upgraded: bool) -> Socket:
    """A websocket to a, right before its CONNECT."""
    tab = Tab(world, world.cookie("a"))
    if upgraded:
        await tab.handshake()
    socket = await tab.socket()
    if upgraded:
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5")
    else:
        assert (await socket.hear()).startswith(b"0{")
    return socket


async def refused(socket: Socket, text: bytes) -> None:
    """Wait until the websocket was closed with 1008, and why."""
    assert await socket.hear() == (1008).to_bytes(2, "big") + text


def over(world: World) -> dict[str, int]:
    """How often clients were over limits of the opening."""
    counts = world.plane.site.stats.limits
    return {limit.value: counts[limit] for limit in Limit if limit.startswith("opening") and counts[limit]}


@pytest.mark.parametrize("known", [True, False], ids=["directory", "locate"])
@pytest.mark.parametrize("upgraded", [True, False], ids=["upgraded", "websocket only"])
def test_another_namespace_first_on_a_websocket(upgraded: bool, known: bool) -> None:
    """What it was told is said again where the session lives, and the client hears no answer twice."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=known)
        socket = await opened(world, upgraded=upgraded)
        socket.say(ADMIN)
        assert await socket.hear() == b'40/admin,{"sid":"a"}'
        socket.say(DO)
        assert await socket.hear() == b'42/admin,["echo","a"]'
        socket.say(CONNECT)
        assert await socket.hear() == b'42/admin,["echo","b"]'
        assert await socket.hear() == b'40{"sid":"b"}'
        socket.say(b'42["hi"]')
        assert await socket.hear() == b'42["echo","b"]'
        assert instances["a"].heard == [ADMIN, DO]
        assert instances["b"].heard == [ADMIN, DO, CONNECT, b'42["hi"]']
        assert world.known("b").sessions == 1

    run(test, "ab")


@pytest.mark.parametrize("known", [True, False], ids=["directory", "locate"])
@pytest.mark.parametrize("order", ["posts apart", "one post", "upgraded in between"])
def test_another_namespace_first_by_polling(order: str, known: bool) -> None:
    """The same in POSTs and polls; what is asked in between passes."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=known)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        if order == "one post":
            await (await tab.post(ADMIN, CONNECT)).response()
            await tab.listen(b'40{"sid":"b"}')
            assert tab.got == [b'40/admin,{"sid":"b"}', b'40{"sid":"b"}']
            return
        await (await tab.post(ADMIN)).response()
        await tab.listen(b'40/admin,{"sid":"a"}')
        if order == "upgraded in between":
            socket = await tab.socket()
            socket.say(b"2probe")
            assert await socket.hear() == b"3probe"
            await tab.listen(b"6")
            socket.say(b"5", CONNECT)
            assert await socket.hear() == b'40{"sid":"b"}'
        else:
            await (await tab.post(b"3")).response()
            poll = await tab.poll()
            await (await tab.post(CONNECT)).response()
            await tab.listen(b'40{"sid":"b"}', poll)
            assert [p for p in tab.got if p != b"6"] == [b'40/admin,{"sid":"a"}', b'40{"sid":"b"}']
            engine = world.router.engines.get(b"a-sid-0")
            assert engine is not None
            assert engine.is_plain
        assert instances["a"].heard == [ADMIN]
        assert instances["b"].heard == [ADMIN, CONNECT]

    run(test, "ab")


def test_a_poll_with_nothing_but_what_the_client_has() -> None:
    """It is answered with a packet that says nothing: an empty payload is none."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(ADMIN)).response()
        await tab.listen(b'40/admin,{"sid":"a"}')
        gate = instances["b"].hold("post")
        poll = await tab.poll()
        await world.until(lambda: instances["a"].asked("poll"))
        post = await tab.post(CONNECT)
        await world.until(lambda: instances["b"].asked("post"))
        transport = next(iter(instances["b"].transports.values()))
        transport.push(b'40/admin,{"sid":"b"}')
        gate.set()
        assert (await post.response()).status == 200
        await tab.listen(b'40{"sid":"b"}', poll)
        assert b'40/admin,{"sid":"b"}' not in tab.got[:1]

    run(test, "ab")


def test_what_is_over_a_bound_by_polling_is_watched_no_longer() -> None:
    """It goes on where it is; nothing is refused, for the backend has taken it."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        for _ in range(5):
            assert (await (await tab.post(ADMIN, DO)).response()).status == 200
        engine = world.router.engines.get(b"a-sid-0")
        assert engine is not None
        assert (engine.decided, engine.said) == (True, None)
        assert len(instances["a"].heard) == 10

    run(test, "ab", limits={"opening_frames": 6})


@pytest.mark.parametrize("upgraded", [True, False], ids=["upgraded", "websocket only"])
def test_a_flood_before_connect(upgraded: bool) -> None:
    """200 MB of pongs: refused at the bound, neither kept nor passed on."""

    async def test(world: World) -> None:
        chats(world)
        socket = await opened(world, upgraded=upgraded)
        for _ in range(FLOOD):
            socket.peer.say(PONG * 1000)
            if socket.peer.writer.is_closing():
                break
        await refused(socket, b"too many frames before CONNECT")
        assert over(world) == {"opening_frames": 1}
        await world.until(lambda: not world.plane.tunnels)

    run(test, "ab", debug=False)


@pytest.mark.parametrize("said", [frame(b"3" * 20_000, masked=True) * 20, frame(b"4" * 300_000, masked=True)])
def test_bytes_before_connect(said: bytes) -> None:
    """Many middling frames, or one that is long."""

    async def test(world: World) -> None:
        chats(world)
        socket = await opened(world, upgraded=False)
        socket.peer.say(said)
        await refused(socket, b"too many bytes before CONNECT")
        assert over(world) == {"opening_bytes": 1}

    run(test, "ab")


def test_a_flood_beside_a_backend_that_does_not_read() -> None:
    """What is under the bounds waits for the backend, and the client for it, also when it is plain."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT + frame(b'0{"sid":"x"}'))
        socket = await tab.socket(asked)
        assert await socket.hear() == b'0{"sid":"x"}'
        (tunnel,) = world.plane.tunnels
        socket.peer.say(frame(ADMIN, masked=True))
        assert len(await backend.some()) > 0
        backend.say(frame(b'40/admin,{"sid":"a"}'))
        assert await socket.hear() == b'40/admin,{"sid":"a"}'
        piece = frame(b"42/admin," + b"x" * 100_000, masked=True)
        for _ in range(200):
            socket.peer.say(piece)
        await world.until(lambda: tunnel.down.paused, "the client is paused")
        backend.say(frame(b'42/admin,["x"]'))  # nothing to do with it: the pause stands
        assert await socket.hear() == b'42/admin,["x"]'
        opening = tunnel.opening
        assert isinstance(opening, Opening)
        assert tunnel.down.paused
        opening.tick(inf)
        assert tunnel.opening is None
        await asyncio.sleep(0.1)
        assert tunnel.down.paused
        assert tunnel.up.transport.get_write_buffer_size() < 2 << 20
        got = 0
        while got < 200 * len(piece):
            got += len(await backend.some())
        await world.until(lambda: not tunnel.down.paused)

    run(test, "ab", debug=False, limits={"opening_bytes": 100_000_000, "opening_frames": 1000})


def test_a_client_that_does_not_read() -> None:
    """What an app's own namespace says waits for it, and the backend is not read meanwhile."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        client = await world.client(slow=True)
        socket = await tab.socket(client.say(upgrade(PATH + b"websocket", *tab.fields)))
        await socket.hear()
        (tunnel,) = world.plane.tunnels
        transport = next(iter(instances["a"].transports.values()))
        for _ in range(200):
            transport.push(b"42/admin," + b"x" * 100_000)
        await world.until(lambda: tunnel.up.paused, "the backend is paused")
        assert tunnel.down.transport.get_write_buffer_size() < 2 << 20
        for _ in range(200):
            assert len(await socket.hear()) == 100_009

    run(test, "a", debug=False, narrow=True)


@pytest.mark.parametrize(
    ("packets", "heard"),
    [((), ()), ((b"40/other,",), (b'44/other,{"message":"Unable to connect"}',))],
    ids=["silent", "refused"],
)
def test_who_connects_to_nothing_is_closed_in_time(
    packets: tuple[bytes, ...], heard: tuple[bytes, ...]
) -> None:
    """A websocket that only holds its place."""

    async def test(world: World) -> None:
        chats(world)
        socket = await opened(world, upgraded=False)
        socket.say(*packets)
        for packet in heard:
            assert await socket.hear() == packet
        await refused(socket, b"no CONNECT in time")
        assert over(world) == {"opening": 1}

    run(test, "ab", timeouts={"opening": 0.3})


@pytest.mark.parametrize("upgraded", [True, False], ids=["upgraded", "own namespace"])
def test_who_may_have_connected_goes_on(upgraded: bool) -> None:
    """An app's own namespace alone is no offence; an upgrade may have connected at another proxy."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await opened(world, upgraded=upgraded)
        if not upgraded:
            socket.say(ADMIN)
            assert await socket.hear() == b'40/admin,{"sid":"a"}'
        (tunnel,) = world.plane.tunnels
        await world.until(lambda: tunnel.opening is None, "it is plain")
        socket.say(b'42["hi"]')
        assert await socket.hear() == b'42["echo","a"]'
        assert instances["b"].heard == []
        assert over(world) == {}

    run(test, "ab", timeouts={"opening": 0.3})


def test_a_backend_that_is_late_with_connect_is_waited_for() -> None:
    """It is not the client's time that passes."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT)
        socket = await tab.socket(asked)
        socket.say(CONNECT)
        await asyncio.sleep(0.7)
        there = Socket(backend, client=False)
        assert await there.hear() == CONNECT
        assert world.known("a").sessions == 0
        there.say(b'40{"sid":"a"}')
        assert await socket.hear() == b'40{"sid":"a"}'
        await world.until(lambda: world.known("a").sessions == 1)

    run(test, "ab", timeouts={"opening": 0.2}, affinity={"locate": "never"})


def test_a_backend_that_is_late_with_open_is_waited_for() -> None:
    """A client connects when it has heard that, and has all of its time from then on."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT)
        socket, there = await tab.socket(asked), Socket(backend, client=False)
        await asyncio.sleep(1.3)  # in the middle of a further period
        there.say(b'0{"sid":"a"}')
        assert (await socket.hear()).startswith(b"0{")
        await asyncio.sleep(0.3)
        socket.say(CONNECT)
        assert await there.hear() == CONNECT
        backend.close()

    run(test, "ab", timeouts={"opening": 0.5}, affinity={"locate": "never"})


def test_time_in_which_this_process_stood_still_makes_nobody_late() -> None:
    """As everywhere."""

    async def test(world: World) -> None:
        chats(world)
        socket = await opened(world, upgraded=False)
        world.stand_still(1.6)
        await world.breathe()
        socket.say(CONNECT)
        assert await socket.hear() == b'40{"sid":"a"}'

    run(test, "a", timeouts={"opening": 1.0})


@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("cut", [True, False], ids=["in a message", "between two"])
def test_a_side_that_says_no_more_while_the_answer_is_awaited(by_client: bool, cut: bool) -> None:
    """The other goes on, as later; but a message that is not whole is never said."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT)
        client = (await tab.socket(asked)).peer
        connect = frame(CONNECT, masked=True)
        client.say(connect)
        assert await backend.read(len(connect)) == connect
        leaving, staying = (client, backend) if by_client else (backend, client)
        last, more = (frame(b"42[]", masked=masked) for masked in (by_client, not by_client))
        leaving.say(last + last[:3] if cut else last).half_close()
        assert await staying.rest() == last
        if not cut:
            staying.say(more).half_close()
            assert await leaving.rest() == more
        await world.until(lambda: not world.plane.tunnels)
        assert len(world.router.claims) == 0

    run(test, "ab", affinity={"locate": "never"})


def test_what_came_early_goes_behind_what_was_heard() -> None:
    """Also where the first word of the backend has made it a plain tunnel."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        world.backends[0]._script = None
        early = frame(b'42["early"]', masked=True)
        asked = (await tab.upgrade()).say(early)
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT + frame(b'42["hi"]'))
        socket = await tab.socket(asked)
        assert await socket.hear() == b'42["hi"]'
        assert await backend.read(len(early)) == early
        (tunnel,) = world.plane.tunnels
        assert tunnel.opening is None

    run(test, "a")
