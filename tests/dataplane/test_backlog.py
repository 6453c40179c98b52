"""What was collected for a lost client reaches it by polls in portions, whichever request comes first."""

import pytest

from tests.dataplane.chat import SEPARATOR, Tab, chats, connect_packet
from tests.dataplane.peers import get
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.test_linger import CONNECTED, collected, first, lingering, lose, tokens
from tests.dataplane.world import World, run


def sizes(polls: list[list[bytes]]) -> list[int]:
    """How many packets each poll had."""
    return [len(packets) for packets in polls]


async def take(tab: Tab, wanted: int) -> list[list[bytes]]:
    """Poll until so many packets came; those of each poll."""
    polls: list[list[bytes]] = []
    while sum(sizes(polls)) < wanted:
        answer = await (await tab.poll()).response()
        assert answer.status == 200
        polls.append(answer.body.split(SEPARATOR))
    return polls


@pytest.mark.parametrize("poll_first", [False, True], ids=["connect first", "poll first"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_polls_get_them_in_portions(poll_first: bool, packed: bool) -> None:
    """No more than 16 packets a poll, all of them, in order and once, whichever request comes first."""

    async def test(world: World) -> None:
        instances = chats(world)
        instances["a"].packed = packed
        socket = await open_socket(world)
        old = first(instances)
        await lose(world, socket)
        for packet in tokens(0, 40):
            old.push(packet)
        await collected(world, 40)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        early = await tab.poll() if poll_first else None
        if poll_first:
            await world.until(lambda: instances["a"].asked("poll"))
        await (await tab.post(connect_packet("session-S"))).response()
        polls = [] if early is None else [(await early.response()).body.split(SEPARATOR)]
        polls += await take(tab, 41 - sum(sizes(polls)))
        assert sizes(polls) == [16, 16, 9]
        assert [packet for packets in polls for packet in packets] == [CONNECTED, *tokens(0, 40)]
        asked = len(instances["a"].asked("poll"))
        assert asked == 1
        instances["a"].packed = False
        await (await tab.post(b'42["hi"]')).response()
        await tab.listen(b'42["echo","a"]')
        assert tab.got == [b'42["echo","a"]']
        assert len(world.router.engines.settled) == 1

    run(test, "ab")


def test_a_poll_that_is_gone_leaves_them_to_the_next() -> None:
    """Its client was lost while the rest of what was said was awaited."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        assert old.socket is not None
        old.socket.peer.reader._transport.pause_reading()  # type: ignore[attr-defined]  # no pong comes
        await lose(world, socket)
        for packet in tokens(0, 20):
            old.push(packet)
        await collected(world, 20)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        poll = await tab.poll()
        await world.until(lambda: instances["a"].asked("poll"))
        await (await tab.post(connect_packet("session-S"))).response()
        (one,) = world.plane.site.lingers.by_session.values()
        await world.until(lambda: one._resumer is not None, "the rest is awaited")
        poll.reset()
        await world.until(lambda: not lingering(world))
        polls = await take(tab, 21)
        assert [packet for packets in polls for packet in packets] == [CONNECTED, *tokens(0, 20)]

    run(test, "ab")


async def backlogged(world: World) -> tuple[Tab, list[bytes]]:
    """A transport with 25 packets left, and what its first poll had."""
    instances = chats(world)
    socket = await open_socket(world)
    await lose(world, socket)
    for packet in tokens(0, 40):
        first(instances).push(packet)
    await collected(world, 40)
    tab = Tab(world, world.cookie("a"))
    await tab.handshake()
    await (await tab.post(connect_packet("session-S"))).response()
    (poll,) = await take(tab, 16)
    return tab, poll


def test_a_poll_whose_body_is_still_to_come() -> None:
    """It is answered at once, and its body is not taken for a request."""

    async def test(world: World) -> None:
        tab, _ = await backlogged(world)
        body = get(b"/hidden")
        client = await world.client()
        client.say(get(tab.path + b"polling&sid=" + tab.sid, b"Content-Length: %d" % len(body)))
        answer = await client.response()
        assert (answer.status, len(answer.body.split(SEPARATOR))) == (200, 16)
        assert answer.get(b"connection") == b"close"
        client.say(body)
        await client.gone()
        assert b"/hidden" not in [request.target for request in world.backends[0].requests]
        assert [record.status for record in world.ended][-1] == 200

    run(test, "ab")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_poll_that_wants_its_connection_closed(version: bytes) -> None:
    """The answer is told to be the last, and the connection ends behind it."""

    async def test(world: World) -> None:
        tab, _ = await backlogged(world)
        fields = [b"Connection: close"] if version == b"1.1" else []
        client = await world.client()
        client.say(get(tab.path + b"polling&sid=" + tab.sid, *fields, version=version))
        answer = await client.response()
        assert (answer.status, len(answer.body.split(SEPARATOR))) == (200, 16)
        await client.gone()

    run(test, "ab")


def test_a_websocket_that_takes_over_gets_the_rest() -> None:
    """The JavaScript client polls no more once it is probed: what is left comes behind its upgrade."""

    async def test(world: World) -> None:
        tab, poll = await backlogged(world)
        assert poll == [CONNECTED, *tokens(0, 15)]
        again = await tab.socket()
        again.say(b"2probe")
        assert await again.hear() == b"3probe"
        again.say(b"5", b'42["hi"]')
        heard = [await again.hear() for _ in range(26)]
        assert heard == [*tokens(15, 40), b'42["echo","a"]']
        engine = world.router.engines.get(b"a-sid-1")
        assert engine is not None
        assert engine.is_plain

    run(test, "ab")


def test_the_backlog_goes_with_its_transport() -> None:
    """A transport that ends, or is swept, keeps nothing."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        await lose(world, socket)
        for packet in tokens(0, 40):
            first(instances).push(packet)
        await collected(world, 40)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        await take(tab, 16)
        engine = world.router.engines.get(b"a-sid-1")
        assert engine is not None
        assert len(engine.backlog or ()) == 25
        world.router.sweep(world.now() + 61)
        assert engine.backlog is None

    run(test, "ab")
