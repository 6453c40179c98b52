"""A session that has to leave: its instance puts down what it has once another one is there."""

import pytest

from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.wire.engineio import UPGRADE
from tests.dataplane.shared_chat import BEGINS, CONNECT, HELLO, TALK, Case, half, lose, play


def test_a_planned_move() -> None:
    """The instance before is told when the new one is there, and CONNECT is said when it has put all down."""

    async def test(case: Case) -> None:
        hello, part = case.chats["b"].hold("hello"), case.chats["a"].hold("part")
        case.send_away()
        await case.world.until(lambda: case.story == [("b", HELLO)])
        case.old().say(b'42["one"]')
        await case.hears(b'42["one"]')
        hello.set()
        await case.world.until(lambda: len(case.story) == 3)
        case.old().say(b'42["two"]', b"2")
        case.old().peer.say(half(b'42["three"]', masked=False)[0])
        await case.hears(b'42["two"]')
        assert case.story == [("b", HELLO), ("a", b"41"), ("a", UPGRADE)]
        case.old().peer.say(half(b'42["three"]', masked=False)[1])
        await case.hears(b'42["three"]')
        part.set()
        await case.greeted()
        await case.world.until(lambda: case.story[3:] == [("b", packet) for packet in TALK[1:]])
        await case.arrived(reason=Reason.SENT_AWAY)

    play(test)


def test_an_instance_that_is_told_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has so long to put down what it has; then it is done with."""
    monkeypatch.setattr("proxy.dataplane.websocket_hand_over.PARTS", 0.2)

    async def test(case: Case) -> None:
        case.chats["a"].hold("part")
        case.send_away()
        await case.greeted()
        await case.arrived(reason=Reason.SENT_AWAY)

    play(test)


@pytest.mark.parametrize("how", ["ended", "reset", "killed", "1012", "down"])
def test_an_instance_that_is_lost_while_it_is_told(how: str) -> None:
    """Nothing more is to come from there: the session goes on elsewhere."""

    async def test(case: Case) -> None:
        case.chats["a"].hold("part")
        case.send_away()
        await case.world.until(lambda: ("a", UPGRADE) in case.story)
        await lose(case, how)
        await case.greeted()
        await case.arrived(reason=Reason.SENT_AWAY)

    play(test)


@pytest.mark.parametrize("how", ["reset", "killed", "1012", "down"])
def test_an_instance_that_is_lost_before_it_is_told(how: str) -> None:
    """The new one was only asked: it goes on at once."""

    async def test(case: Case) -> None:
        hello = case.chats["b"].hold("hello")
        case.send_away()
        await case.world.until(lambda: case.story)
        before = case.tunnel.backend_end
        assert before is not None
        await lose(case, how)
        await case.world.until(lambda: case.tunnel.up.is_closing() or how == "down" or before.words)
        hello.set()
        await case.greeted()
        await case.arrived(reason=Reason.SENT_AWAY)

    play(test)


def test_the_new_one_is_lost_while_the_one_before_is_told() -> None:
    """A third one says CONNECT no sooner, and is not taken for the one before."""

    async def test(case: Case) -> None:
        part = case.chats["a"].hold("part")
        case.send_away()
        await case.world.until(lambda: ("a", UPGRADE) in case.story)
        first = case.story[0][0]
        (other,) = {"b", "c"} - {first}
        case.kill(first)
        await case.world.until(lambda: (other, HELLO) in case.story)
        case.old().say(b'42["still"]')
        await case.hears(b'42["still"]')
        assert (other, CONNECT) not in case.story
        part.set()
        await case.greeted(other)
        told = [(first, HELLO), ("a", b"41"), ("a", UPGRADE), *((other, said) for said in TALK)]
        await case.world.until(lambda: case.story == told)
        await case.arrived(other, Reason.SENT_AWAY)

    play(test, "abc")


def test_a_planned_move_to_one_that_shares_nothing() -> None:
    """The client connects anew; the one before has heard nothing, and puts the session down by itself."""

    async def test(case: Case) -> None:
        case.chats["b"].shares = False
        case.send_away()
        await case.sent_away(Result.NO_HOOKS, Reason.SENT_AWAY)
        assert case.story == [("b", HELLO)]

    play(test)


def test_nobody_else_takes_it() -> None:
    """It would come back to where it was: the client is told to connect anew, and nothing is tried."""

    async def test(case: Case) -> None:
        case.send_away()
        assert await case.socket.hear() == (1012).to_bytes(2, "big")
        assert not case.world.plane.site.hand_overs.counts.results
        await case.world.until(lambda: not case.world.plane.tunnels)
        case.nothing_is_left()

    play(test, "a")


def test_an_answer_that_the_move_cuts_off() -> None:
    """Its cursor goes as in a death: at the deadline of a drain, or for maintenance."""

    async def test(case: Case) -> None:
        for packet in (BEGINS, b'42["stream_token",{"id":"answer-1","token":"x"}]'):
            case.old().say(packet)
            await case.hears(packet)
        case.send_away()
        await case.greeted()
        assert ("b", b'42/chainlit-proxy,0["resume", {"streaming": "answer-1"}]') in case.story

    play(test)
