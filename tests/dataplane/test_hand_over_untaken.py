"""Messages that an instance may not have taken: said again, or their user hears that they were not."""

import pytest

from proxy.dataplane.ends import ClientEnd
from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import Limit
from tests.dataplane.chat import Tab, connect_packet
from tests.dataplane.frames import Socket, frame
from tests.dataplane.shared_chat import AGAIN, ASK, BEGINS, TALK, Case, SharedChat, play
from tests.dataplane.world import World, run

LONG = b'42["client_message",{"message":{"id":"m2","output":"' + b"x" * (1 << 18) + b'"}}]'


def text(payload: bytes, *, final: bool = True, opcode: int = 1) -> bytes:
    """A client's frame."""
    return frame(payload, opcode=opcode, masked=True, final=final)


PIECES = [
    text(LONG),
    text(LONG[:100_000], final=False) + text(LONG[100_000:], opcode=0),
    text(LONG[:8], final=False) + text(LONG[8:-8], opcode=0, final=False) + text(LONG[-8:], opcode=0),
]


def has_passed(tunnel: Tunnel) -> bool:
    """Whether all that its client has said is whole, and on its way."""
    end = tunnel._down_end
    return isinstance(end, ClientEnd) and end.packets.is_empty


@pytest.mark.parametrize("data", PIECES, ids=["one frame", "two", "three"])
def test_one_that_is_too_long_to_be_said_again(data: bytes) -> None:
    """Until its turn begins its client cannot be handed over: it would be lost in silence."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.old()._frames._longest = 1 << 20
        case.socket.peer.say(data)
        await case.world.until(lambda: case.tunnel.untaken.missed == 1 and has_passed(case.tunnel))
        assert (case.tunnel.can_move, case.tunnel.untaken.are_known) == (False, False)
        case.old().say(BEGINS)
        await case.hears(BEGINS)
        assert (case.tunnel.can_move, case.tunnel.untaken.are_known) == (True, True)
        case.kill()
        await case.greeted()
        await case.arrived()

    play(test)


def test_more_than_are_kept() -> None:
    """Of the first ones nobody could say whether they were taken: the client connects anew."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        for _ in range(17):
            case.socket.say(ASK)
        await case.world.until(lambda: case.tunnel.untaken.missed == 1)
        case.kill()
        await case.socket.peer.gone()
        assert not case.world.plane.tunnels
        assert not [name for name, _ in case.story if name == "b"]

    play(test)


def test_one_that_nobody_can_read() -> None:
    """What is no JSON has no answer: the client goes on without it, and no other waits for that."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.socket.say(b'42["client_message",{"id":', ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 2)
        case.kill()
        await case.greeted()
        await case.world.until(lambda: ("b", TALK[-1]) in case.story)
        assert [packet for name, packet in case.story if name == "b"] == [*TALK[:-1], AGAIN, TALK[-1]]
        await case.arrived()

    play(test)


def test_one_that_the_next_instance_cannot_take() -> None:
    """The instance says so: the client connects anew, and the message counts for nobody as taken."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.chats["b"].takes = False
        case.socket.say(b'427["client_message",{"id":"m1"}]')
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        case.kill()
        await case.greeted()
        assert await case.socket.hear() == (1012).to_bytes(2, "big")
        await case.gone(Reason.LOST, Result.REFUSED)

    play(test)


def test_an_answer_that_is_lost_with_the_second_instance() -> None:
    """What was said again there, and not answered yet, is said to the third as taken: it must not run."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.chats["b"].answers = case.chats["c"].answers = True
        case.socket.say(ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        case.kill()
        await case.world.until(lambda: case.tunnel.hand_over is not None)
        await case.world.until(lambda: case.tunnel.hand_over is None)
        second = case.tunnel.pool.backend.name
        await case.greeted(second)
        assert case.tunnel.can_move
        (third,) = {"b", "c"} - {second}
        case.kill(second)
        await case.greeted(third)
        await case.world.until(lambda: case.tunnel.hand_over is None)
        assert (third, AGAIN[:-1] + b",true]") in case.story

    play(test, "abc")


def test_one_that_was_said_by_a_poll_before_the_upgrade() -> None:
    """The websocket says it again, too."""

    async def test(world: World) -> None:
        story: list[tuple[str, bytes]] = []
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = SharedChat(backend)
            chat.story, chat.echo = story, False
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        await tab.listen(b'40{"sid":"a"}')
        await (await tab.post(ASK)).response()
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5")
        await world.until(lambda: [tunnel for tunnel in world.plane.tunnels if tunnel.can_move])
        story.clear()
        await kill(chats["a"])
        await world.until(lambda: ("b", AGAIN) in story, f"{story}")
        await said_by(socket, b'40{"sid":"b"}')

    run(test, "ab", affinity={"hand_over": "always"})


async def kill(chat: SharedChat) -> None:
    """An instance is gone."""
    chat.backend.refuse()
    for peer in chat.backend.peers:
        peer.reset()


async def said_by(socket: Socket, packet: bytes) -> None:
    """The client hears this."""
    while await socket.hear() != packet:
        pass


def test_all_that_is_kept_of_them_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that most is let go of where most is kept; such a client connects anew."""
    monkeypatch.setattr("proxy.dataplane.hand_overs._MOST", 100_000)

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        world = case.world
        case.socket.say(b'42["client_message",{"id":"' + b"x" * 100_000 + b'"}]')
        await world.until(lambda: case.tunnel.untaken.size > 100_000)
        world.plane.site.hand_overs.weigh(world.plane.tunnels)
        assert (case.tunnel.untaken.size, case.tunnel.untaken.missed) == (0, 1)
        assert world.plane.site.stats.limits[Limit.HAND_OVER_BYTES] == 1
        assert not case.tunnel.can_move

    play(test)
