"""A client does not notice that its instance went away: another one goes on with its websocket."""

import pytest

from proxy.affinity.backend import AdminState
from proxy.dataplane.hand_over_counts import Reason, Result
from tests.dataplane.shared_chat import (
    AGAIN,
    ASK,
    BEGINS,
    BYE,
    CONNECT,
    GREETING,
    HELLO,
    TALK,
    Case,
    half,
    lose,
    play,
)

SECONDS = 0.4  # that a client is held where a test waits for the end of it
WAYS = ["ended", "reset", "killed", "1012", "1001", "down"]
PARTS = pytest.mark.parametrize("part", ["nothing", "the instance", "the client"])


@PARTS
@pytest.mark.parametrize("how", WAYS)
def test_an_instance_is_lost(how: str, part: str) -> None:
    """However it goes, with half a packet under way from either side: that of the lost one is never heard."""

    async def test(case: Case) -> None:
        rest = b""
        if part == "the instance":
            lost = half(b'42["lost"]', masked=False)
            case.old().peer.say(lost[0])
            await case.world.until(lambda: case.tunnel.backend_end and case.tunnel.backend_end.rest)
            if how.isdigit():  # who says goodbye has said all that it began
                case.old().peer.say(lost[1])
                await case.hears(b'42["lost"]')
        elif part == "the client":
            first, rest = half(b'42["kept"]', masked=True)
            case.socket.peer.say(first)
            await case.world.breathe()
        if how in {"ended", "reset"}:
            case.world.parts.fleet.set_admin_state(case.world.known("a"), AdminState.DRAIN)
            case.session.sent_away = True
        reason = await lose(case, how)
        await case.greeted()
        await case.said("b", *TALK)
        if rest:
            case.socket.peer.say(rest)
            await case.hears(b'42["echo","b"]')
            assert case.told("b")[-1] == b'42["kept"]'
        await case.arrived(reason=reason)

    play(test)


def test_a_broken_connection_to_an_instance_that_lives() -> None:
    """It still has the session, and gets it back."""

    async def test(case: Case) -> None:
        case.old().peer.reset()
        await case.greeted("a")
        await case.said("a", *TALK)
        await case.arrived("a")

    play(test)


def test_what_is_said_again() -> None:
    """What no turn has answered yet; of a message that was taken that is said, and which answer was cut."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.socket.say(ASK.replace(b"m1", b"m0"))
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        for packet in (BEGINS, b'42["task_end",{}]'):
            case.old().say(packet)
            await case.hears(packet)
        assert not case.tunnel.untaken.packets
        case.socket.say(ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        case.old().say(BEGINS)
        await case.hears(BEGINS)
        case.old().say(b'42["stream_token",{"id":"answer-1","token":"x"}]')
        await case.socket.hear()
        case.socket.say(b'427["client_message",{"id":"m2"}]')
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        case.kill()
        await case.greeted()
        await case.hears(b"437[]")
        await case.world.until(lambda: ("b", BYE) in case.story)
        resume = b'42/chainlit-proxy,0["resume", {"streaming": "answer-1"}]'
        said = [packet for name, packet in case.story if name == "b"]
        begun = AGAIN[:-1] + b",true]"
        assert said == [
            HELLO,
            CONNECT,
            resume,
            begun,
            AGAIN.replace(b",1[", b",2[").replace(b"m1", b"m2"),
            BYE,
        ]
        await case.arrived()
        assert case.world.plane.site.hand_overs.counts.said_again == 2

    play(test)


def test_an_instance_that_refuses() -> None:
    """It cannot restore the session: the client connects anew, as ever."""

    async def test(case: Case) -> None:
        case.chats["b"].holds = False
        case.kill()
        await case.sent_away(Result.REFUSED)

    play(test)


def test_an_instance_that_cannot_greet() -> None:
    """It has taken the CONNECT, and then not the session."""

    async def test(case: Case) -> None:
        case.chats["b"].resumes = False
        case.kill()
        await case.greeted()
        assert await case.socket.hear() == (1012).to_bytes(2, "big")
        await case.gone(Reason.LOST, Result.REFUSED)

    play(test)


def test_an_instance_that_shares_nothing() -> None:
    """It never sees the CONNECT."""

    async def test(case: Case) -> None:
        case.chats["b"].shares = False
        case.kill()
        await case.sent_away(Result.NO_HOOKS)
        assert case.story == [("b", HELLO)]

    play(test)


@pytest.mark.parametrize("step", ["upgrade", "hello", "restore"])
def test_nobody_answers(step: str) -> None:
    """A client is held so long and no longer; then it connects anew."""

    async def test(case: Case) -> None:
        case.chats["b"].hold(step)
        case.kill()
        await case.sent_away(Result.LATE)

    play(test, hold=SECONDS)


def test_nobody_is_there() -> None:
    """Nobody takes sessions in time."""

    async def test(case: Case) -> None:
        case.kill()
        await case.sent_away(Result.LATE)

    play(test, "a", hold=SECONDS)


def test_nobody_is_held() -> None:
    """Without a time to hold its client it is tried once."""

    async def test(case: Case) -> None:
        case.kill()
        await case.sent_away(Result.LATE)

    play(test, "a", hold=0)


def test_somebody_is_there_later() -> None:
    """The client is held meanwhile, and goes on as soon as one takes sessions."""

    async def test(case: Case) -> None:
        case.world.parts.fleet.set_admin_state(case.world.known("b"), AdminState.DRAIN)
        case.kill()
        case.down("a")
        case.socket.say(b'42["meanwhile"]')
        await case.world.breathe()
        assert case.tunnel.down.paused
        assert case.tunnel.hand_over is not None
        case.world.parts.fleet.set_admin_state(case.world.known("b"), AdminState.READY)
        await case.greeted()
        await case.hears(b'42["echo","b"]')
        await case.said("b", *TALK, b'42["meanwhile"]')
        await case.arrived(reason=Reason.DOWN)

    play(test)


@pytest.mark.parametrize("step", ["hello", "restore", "resume", "again"])
def test_the_next_instance_is_lost_too(step: str) -> None:
    """At every step: a third one goes on, and the client hears of it once more at most."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        case.socket.say(ASK)
        await case.world.until(lambda: len(case.tunnel.untaken) == 1)
        order = {"b", "c"}
        for name in order:
            case.chats[name].breaks = step
        case.kill()
        await case.world.until(lambda: any(name != "a" for name, _ in case.story))
        await case.world.until(
            lambda: any(not case.world.known(name).holds_pins for name in order) or lost(case)
        )
        (first,) = {name for name, _ in case.story if name != "a"}
        (other,) = order - {first}
        case.chats[other].breaks = ""
        if step in {"resume", "again"}:
            await case.hears(b"2", b'40{"sid":"%b"}' % first.encode())
            if step == "again":
                await case.hears(GREETING)
        await case.greeted(other)
        await case.world.until(lambda: (other, BYE) in case.story)
        assert [packet for name, packet in case.story if name == other] == [*TALK[:3], AGAIN, BYE]
        await case.arrived(other)

    def lost(case: Case) -> bool:
        return any(chat.breaks and chat.backend._server is None for chat in case.chats.values())

    play(test, "abc")


def test_twice() -> None:
    """Two in a row, each as if it were the first."""

    async def test(case: Case) -> None:
        case.kill()
        await case.world.until(lambda: case.story)
        first = case.story[0][0]
        (other,) = {"b", "c"} - {first}
        await case.greeted(first)
        await case.arrived(first)
        case.kill(first)
        await case.greeted(other)
        await case.world.until(lambda: (other, BYE) in case.story)
        assert [packet for name, packet in case.story if name == other] == TALK
        await case.arrived(other, times=2)

    play(test, "abc")
