"""Who may be moved: nobody who would lose something by it, and everybody else as soon as may be."""

import pytest

from proxy.affinity.silence import ANSWERED, ENDED
from tests.dataplane.chat import Chat, chats
from tests.dataplane.frames import Socket, frame
from tests.dataplane.peers import Peer
from tests.dataplane.test_evictions import END, START, on, open_poll, open_socket, session, still
from tests.dataplane.world import World, run

ASK = b'42["client_message",{"message":{"id":"m"}}]'
ANSWER = b'42["answer"]'


def is_at_rest(world: World, seconds: float) -> bool:
    """Whether it is at rest so many seconds after the last word, as far as that is known by now."""
    found = session(world)
    for tunnel in world.plane.tunnels:
        if not (tunnel.talks or tunnel.asks):
            tunnel.spoke_at = min(tunnel.spoke_at, world.now() - seconds)
    for engine in world.router.engines._named.values():
        engine.said_at = min(engine.said_at, world.now() - seconds)
    found.ended_at = world.now() - seconds
    return bool(world.plane.evictions.at_rest(on(world, "a")))


def backend_of(chat: Chat) -> Peer:
    """The instance's side of the only websocket."""
    (transport,) = chat.transports.values()
    assert transport.socket is not None
    return transport.socket.peer


def test_who_has_just_connected_is_not_at_rest() -> None:
    """Its page says hello next, and the app greets it: in between it would be greeted by nobody."""

    async def test(world: World) -> None:
        chats(world)
        await open_socket(world)
        assert not world.plane.evictions.at_rest(on(world, "a"))
        assert still(world)

    run(test, "ab")


async def asked(world: World, chat: Chat, socket: Socket) -> None:
    """The client has been greeted, has asked something, and is being answered."""
    backend_of(chat).say(frame(END))
    assert await socket.hear() == END
    still(world)
    socket.say(ASK)
    await world.until(lambda: ASK in chat.heard)
    assert await socket.hear() == b'42["echo","a"]'
    backend_of(chat).say(frame(START))
    assert await socket.hear() == START


@pytest.mark.parametrize("behind", [b"", ANSWER])
def test_a_turn_that_has_ended_on_a_websocket(behind: bytes) -> None:
    """A moment after its end the session is at rest, unless the app has said more behind that.

    Whatever was said before it does not count any more, whether or not the ticker has seen it.
    """

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        socket = await open_socket(world)
        await asked(world, chat, socket)
        backend_of(chat).say(frame(ANSWER) + frame(END) + (frame(behind) if behind else b""))
        for told in filter(None, (ANSWER, END, behind)):
            assert await socket.hear() == told
        assert not session(world).in_turn
        assert not is_at_rest(world, 0.0)
        assert is_at_rest(world, ENDED) is not behind.startswith(ANSWER)

    run(test, "ab")


def test_a_client_that_has_added_something() -> None:
    """It may have asked for more: the app has a second to say so."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        socket = await open_socket(world)
        await asked(world, chat, socket)
        socket.say(b'43["my name"]')
        await world.until(lambda: b'43["my name"]' in chat.heard)
        backend_of(chat).say(frame(END))
        while await socket.hear() != END:
            pass
        assert not is_at_rest(world, ENDED)
        assert is_at_rest(world, ANSWERED)

    run(test, "ab")


@pytest.mark.parametrize("adds", [False, True])
def test_a_turn_that_has_ended_by_polls(adds: bool) -> None:
    """The same of a client that polls."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        tab = await open_poll(world)
        (transport,) = chat.transports.values()
        transport.push(END)
        await (await tab.poll()).response()
        await (await tab.post(ASK)).response()
        transport.push(START)
        await (await tab.poll()).response()
        if adds:
            await (await tab.post(b'43["my name"]')).response()
        assert not is_at_rest(world, ANSWERED), "it is in its turn"
        transport.push(END)
        await (await tab.poll()).response()
        assert not is_at_rest(world, 0.0)
        assert is_at_rest(world, ENDED) is not adds
        assert is_at_rest(world, ANSWERED)

    run(test, "ab")


def test_a_process_that_has_just_begun_does_not_know_who_is_there() -> None:
    """Clients of the one before it are about to come back, unless its replicas are as new as it is."""

    async def test(world: World) -> None:
        evictions, a = world.plane.evictions, world.known("a")
        assert evictions.is_empty(a)
        evictions.began = world.now()
        assert not evictions.is_empty(a)
        world.router.sole = True
        assert evictions.is_empty(a)
        world.router.sole = False
        evictions.began -= 10.0
        assert evictions.is_empty(a)

    run(test, "ab")
