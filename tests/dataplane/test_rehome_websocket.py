"""Re-homing a connection that names its session on the websocket: moved before anything is lost.

python-socketio opens by polling, upgrades, and says CONNECT on the websocket; a client without polling says
it as its first packet. In both cases the session lives on `b` and the websocket was opened to `a`.
"""

import pytest

from proxy.affinity.health import Verdict
from tests.dataplane.chat import PATH, Chat, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket, frame, upgrade
from tests.dataplane.test_rehome_order import settle
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")
HI = b'42["hi"]'


async def opened(world: World, *, by_polling: bool) -> Socket:
    """A websocket to a, right before its CONNECT."""
    tab = Tab(world, world.cookie("a"))
    if by_polling:
        await tab.handshake()
    socket = await tab.socket()
    if by_polling:
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5")
    else:
        assert (await socket.hear()).startswith(b'0{"sid":"a-sid-0"')
    return socket


def at(instances: dict[str, Chat], name: str) -> None:
    """Everything of Socket.IO was said to this instance, once."""
    for chat in instances.values():
        assert chat.heard == ([CONNECT, HI] if chat.name == name.encode() else [])


@pytest.mark.parametrize("known", [True, False], ids=["directory", "locate"])
@pytest.mark.parametrize("by_polling", [True, False], ids=["upgraded", "websocket only"])
def test_connect_moves_the_websocket(by_polling: bool, known: bool) -> None:
    """The client hears b's answer to its CONNECT and nothing of b's handshake."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=known)
        socket = await opened(world, by_polling=by_polling)
        socket.say(CONNECT, HI)
        assert await socket.hear() == b'40{"sid":"b"}'
        assert await socket.hear() == b'42["echo","b"]'
        at(instances, "b")
        assert (world.known("a").tunnels, world.known("b").tunnels) == (0, 1)
        assert (world.known("b").sessions, world.plane.site.stats.rehomes) == (1, 1)

    run(test, "ab")


@pytest.mark.parametrize("by_polling", [True, False], ids=["upgraded", "websocket only"])
def test_connect_at_the_right_backend_stays(by_polling: bool) -> None:
    """A new session stays where its websocket is, and counts there as open until it is closed."""

    async def test(world: World) -> None:
        instances = chats(world)
        world.router.directory.announce("session-S", world.now())
        socket = await opened(world, by_polling=by_polling)
        socket.say(CONNECT, HI)
        assert await socket.hear() == b'40{"sid":"a"}'
        assert await socket.hear() == b'42["echo","a"]'
        at(instances, "a")
        assert world.known("a").sessions == 1
        socket.peer.close()
        await world.until(lambda: not world.plane.tunnels)
        world.router.sweep(world.now() + 61)
        assert world.known("a").sessions == 0

    run(test, "ab")


def test_frames_in_single_bytes() -> None:
    """However the frames of both sides are cut, the same happens."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        socket = await opened(world, by_polling=False)
        for byte in frame(CONNECT, masked=True) + frame(HI, masked=True):
            await socket.peer.say_slowly(bytes([byte]))
            await world.breathe()
        assert await socket.hear() == b'40{"sid":"b"}'
        assert await socket.hear() == b'42["echo","b"]'
        at(instances, "b")

    run(test, "ab")


def test_move_in_the_middle_of_a_frame_of_the_wrong_backend() -> None:
    """Half a frame of the old backend that has come by then is dropped whole."""

    async def test(world: World) -> None:
        backend = world.backends[0]
        right = Chat(world.backends[1])
        settle(world, {"b": right}, known=True)
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        wrong = await backend.accept()
        await wrong.request()
        wrong.say(ACCEPT + frame(b'0{"sid":"x"}') + frame(b"2")[:1])
        socket = await tab.socket(asked)
        assert await socket.hear() == b'0{"sid":"x"}'
        socket.say(CONNECT, HI)
        assert await socket.hear() == b'40{"sid":"b"}'
        assert await socket.hear() == b'42["echo","b"]'

    run(test, "ab")


def test_pings_of_the_wrong_backend_are_not_counted() -> None:
    """A websocket ping of the old backend is no packet: none of the new one's is swallowed for it."""

    async def test(world: World) -> None:
        right = Chat(world.backends[1])
        settle(world, {"b": right}, known=True)
        wrong = Chat(world.backends[0])
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        socket = await tab.socket()
        transport = wrong.transports[b"a-sid-0"]
        assert transport.socket is not None
        transport.socket.say(b"ping", opcode=9)
        assert await socket.hear() == b"ping"
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        post = await tab.post(CONNECT)
        assert (await post.response()).status == 200
        socket.say(b"5", HI)
        await tab.listen(b'40{"sid":"b"}')
        assert await socket.hear() == b'42["echo","b"]'

    run(test, "ab")


@pytest.mark.parametrize("by_polling", [True, False], ids=["upgraded", "websocket only"])
def test_right_backend_refuses(by_polling: bool) -> None:
    """If the session's backend is gone, the connection stays where it was, in a transport that is whole."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        socket = await opened(world, by_polling=by_polling)
        await world.backends[1].end()
        socket.say(CONNECT, HI)
        assert await socket.hear() == b'40{"sid":"a"}'
        assert await socket.hear() == b'42["echo","a"]'
        at(instances, "a")
        assert world.known("b").health.verdict is Verdict.DOWN
        assert world.router.directory.moves == {"b": 1}

    run(test, "ab")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_right_backend_does_not_switch(answer: bytes) -> None:
    """A backend that is there but says no may only be slow: the client is closed and tries again."""

    async def test(world: World) -> None:
        wrong = Chat(world.backends[0])
        settle(world, {"a": wrong, "b": wrong}, known=True)
        socket = await opened(world, by_polling=False)
        socket.say(CONNECT)
        right = await world.backends[1].accept()
        assert (await right.request()).get(b"upgrade") == b"websocket"
        right.say(answer).close()
        await socket.peer.gone()
        assert wrong.heard == []

    run(test, "ab")


def test_right_backend_does_not_answer() -> None:
    """No client waits longer for its move than for any response."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        instances["b"].hold("upgrade")
        socket = await opened(world, by_polling=False)
        socket.say(CONNECT)
        await socket.peer.gone()

    run(test, "ab", timeouts={"response": 0.3})


@pytest.mark.parametrize("held", ["upgrade", "locate"])
@pytest.mark.parametrize("by_polling", [True, False], ids=["upgraded", "websocket only"])
def test_client_that_leaves_while_it_is_moved(by_polling: bool, held: str) -> None:
    """A client may leave at any time; nothing is kept for it."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=held != "locate")
        gate = instances["b"].hold(held)
        socket = await opened(world, by_polling=by_polling)
        socket.say(CONNECT)
        await world.until(lambda: instances["b"].asked(held))
        socket.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        gate.set()

    run(test, "ab")


def test_client_that_says_much_while_it_is_moved() -> None:
    """What is held for a move is bounded: the rest is not read before it is done, and then passes."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        gate = instances["b"].hold("upgrade")
        socket = await opened(world, by_polling=False)
        socket.say(CONNECT)
        await world.until(lambda: instances["b"].asked("upgrade"))
        (tunnel,) = world.plane.tunnels
        for _ in range(200):
            socket.say(b'42["' + b"x" * 20_000 + b'"]')
        await world.until(lambda: tunnel.down.paused)
        held = tunnel.opening._machine._client.waiting  # type: ignore[union-attr]
        assert held < 3 * (1 << 18)
        gate.set()
        assert await socket.hear() == b'40{"sid":"b"}'
        for _ in range(200):
            assert await socket.hear() == b'42["echo","b"]'

    run(test, "ab", debug=False)


@pytest.mark.parametrize(
    "first",
    [
        frame(b"40", masked=True),
        frame(b'40{"token":"x"}', masked=True),
        frame(b'42["hi"]', masked=True),
        frame(b"\x04\x05", opcode=2, masked=True),
        frame(b'42["hi', masked=True, final=False) + frame(b'"]', opcode=0, masked=True),
    ],
)
def test_websocket_that_names_no_session_is_passed_on(first: bytes) -> None:
    """What names no session stays at its backend as it is."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT + frame(b"0{}"))
        socket = await tab.socket(asked)
        assert await socket.hear() == b"0{}"
        socket.peer.say(first)
        assert await backend.read(len(first)) == first
        more = frame(b"x" * 100_000, masked=True)
        socket.peer.say(more)
        assert await backend.read(len(more)) == more

    run(test, "ab")


@pytest.mark.parametrize("late", [True, False])
def test_a_session_is_asked_for_behind_the_open_packet(late: bool) -> None:
    """Only then it is known below which root Chainlit is; a client need not wait for it to say CONNECT."""

    async def test(world: World) -> None:
        right = Chat(world.backends[1])
        right.sessions.add("session-S")
        asked = (await world.client()).say(upgrade(b"/chat" + PATH + b"websocket", world.cookie("a")))
        asked.say(frame(CONNECT, masked=True))
        wrong = await world.backends[0].accept()
        await wrong.request()
        wrong.say(ACCEPT)
        socket = await Tab(world).socket(asked)
        if late:
            await world.until(lambda: [tunnel for tunnel in world.plane.tunnels if tunnel.active])
            await world.breathe()
        assert not right.asked("locate")
        wrong.say(frame(b'0{"sid":"x"}'))
        assert await socket.hear() == b'0{"sid":"x"}'
        assert await socket.hear() == b'40{"sid":"b"}'
        (question,) = right.asked("locate")
        assert question.target.startswith(b"/chat/project/file/")

    run(test, "ab")


def test_client_that_speaks_before_it_is_spoken_to() -> None:
    """A client that sends CONNECT with its upgrade hears the OPEN packet of the backend it ends up at."""

    async def test(world: World) -> None:
        right = Chat(world.backends[1])
        settle(world, {"b": right}, known=True)
        tab = Tab(world, world.cookie("a"))
        asked = (await tab.upgrade()).say(frame(CONNECT, masked=True))
        wrong = await world.backends[0].accept()
        await wrong.request()
        wrong.say(ACCEPT)
        socket = await tab.socket(asked)
        assert (await socket.hear()).startswith(b'0{"sid":"b-sid-0"')
        assert await socket.hear() == b'40{"sid":"b"}'

    run(test, "ab")
