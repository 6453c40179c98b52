"""Engine.IO's pings, which the proxy says to clients of websockets while their backend is silent."""

import pytest

from proxy.affinity.health import Observation
from proxy.dataplane.tunnel import Tunnel
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket, frame, upgrade
from tests.dataplane.peers import get, ok
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")
ACCEPTED = b'40{"sid":"a"}'
HELLO = b'42["hello"]'
LATE = 28.0  # seconds after a ping
PARTS = 4  # of a message that is too long to be held


def tunnel(world: World) -> Tunnel:
    """The only one."""
    (found,) = world.plane.tunnels
    return found


def silent(world: World) -> None:
    """A probe goes unanswered."""
    world.observe("a", Observation.SILENT)


def tick(world: World, later: float = LATE) -> int:
    """The ticker looks when `later` seconds have passed; how many pings were said by then."""
    tunnel(world).tick(world.now() + later)
    return world.plane.site.stats.pings


async def sockets(world: World, opening: bytes = b'0{"sid":"s"}') -> tuple[Socket, Socket]:
    """Both sides of the websocket of a session, once it is plain."""
    client = (await world.client()).say(upgrade(PATH + b"websocket"))
    backend = await world.backend.accept()
    await backend.request()
    backend.say(ACCEPT)
    assert (await client.response()).status == 101
    ours, theirs = Socket(client, client=True), Socket(backend, client=False)
    theirs.say(opening)
    assert await ours.hear() == opening
    ours.say(CONNECT)
    assert await theirs.hear() == CONNECT
    theirs.say(ACCEPTED)
    assert await ours.hear() == ACCEPTED
    await world.until(lambda: tunnel(world).session)
    return ours, theirs


def test_clients_of_a_silent_backend_are_pinged() -> None:
    """Again and again; the answers go nowhere, and what the client says goes on."""

    async def test(world: World) -> None:
        client, backend = await sockets(world)
        silent(world)
        for times in (1, 2):
            assert tick(world) == times
            assert await client.hear() == b"2"
        client.say(b"3", b"3", HELLO)
        assert await backend.hear() == HELLO
        client.say(b"3")
        assert await backend.hear() == b"3", "the answer to a ping of the backend's own"

    run(test)


def test_none_is_said_that_is_not_due() -> None:
    """Not before the backend's own is overdue, as its OPEN packet tells; counted from the last of any."""

    async def test(world: World) -> None:
        client, backend = await sockets(world, b'0{"sid":"s","pingInterval":2000,"pingTimeout":2000}')
        silent(world)
        assert tick(world, 2.0) == 0
        tunnel(world).pinged_at -= 10
        backend.say(b"2")
        assert await client.hear() == b"2"
        assert tick(world, 2.0) == 0
        assert tick(world, 3.0) == 1
        assert tick(world, 2.0) == 1
        assert await client.hear() == b"2"

    run(test)


@pytest.mark.parametrize("observed", [Observation.ANSWERED, Observation.DENIED])
def test_the_backend_of_one_that_answers_says_its_own(observed: Observation) -> None:
    """A client that is not pinged by an instance that runs has been given up by it."""

    async def test(world: World) -> None:
        await sockets(world)
        silent(world)
        world.observe("a", observed)
        assert tick(world) == 0

    run(test)


def test_no_ping_is_said_in_the_middle_of_a_packet() -> None:
    """Fragments of the backend's message, and attachments of its event, are not torn apart."""

    async def test(world: World) -> None:
        client, backend = await sockets(world)
        silent(world)
        part = b"x" * 100_000
        backend.peer.say(frame(b'42["', final=False))
        for _ in range(PARTS):
            backend.peer.say(frame(part, opcode=0, final=False))
        assert await client.hear() == b'42["'
        for _ in range(PARTS):
            assert await client.hear() == part
        assert tick(world) == 0, "it was too long to wait for its end"
        backend.peer.say(frame(b'"]', opcode=0))
        assert await client.hear() == b'"]'
        backend.say(b'451-["event",{"_placeholder":true,"num":0}]')
        backend.peer.say(frame(b"bytes", opcode=2)[:-1])
        assert tick(world) == 1
        assert await client.hear() == b"2", "nothing of that packet has gone on"
        backend.peer.say(frame(b"bytes", opcode=2)[-1:])
        assert await client.hear() == b'451-["event",{"_placeholder":true,"num":0}]'
        assert await client.hear() == b"bytes"

    run(test)


def test_one_that_came_by_polls_is_pinged() -> None:
    """When its websocket has taken over, by the interval that its handshake told."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world)
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        await tab.listen(ACCEPTED)
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        silent(world)
        assert tick(world) == 0, "it still polls"
        socket.say(b"5")
        await world.until(lambda: tick(world))
        heard = b""
        while heard != b"2":
            heard = await socket.hear()

    run(test)


def test_the_interval_of_a_handshake() -> None:
    """A poll's OPEN packet tells it as well."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(PATH + b"polling"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b'0{"sid":"abc","pingTimeout":4000,"pingInterval":5000}'))
        await client.response()
        assert world.plane.site.pool(world.known("a")).ping_overdue == 6.0

    run(test)
