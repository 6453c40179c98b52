"""A client that polls does not notice either: its sid leads to another instance from then on."""

import asyncio

import pytest

from proxy.affinity.silence import ANSWERED, TAKEN
from proxy.controlplane.drains import Drains
from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.wire.engineio import UNKNOWN_SESSION
from tests.dataplane.chat import PATH, Tab
from tests.dataplane.peers import Peer, post
from tests.dataplane.shared_chat import (
    AGAIN,
    ASK,
    BYE,
    CONNECT,
    GREETING,
    HELLO,
    RESUME,
    TALK,
    Case,
    play,
)

GREETED = [b"2", b'40{"sid":"b"}', GREETING]
SECONDS = 0.4  # that a client is held where a test waits for the end of it


async def polling(case: Case) -> tuple[Tab, Peer]:
    """A client whose session is at a, and its poll that waits there."""
    world = case.world
    tab = Tab(world, world.cookie("a"))
    await tab.handshake()
    await (await tab.post(CONNECT)).response()
    await tab.listen(b'40{"sid":"a"}')
    tab.got.clear()
    case.story.clear()
    before = len(case.chats["a"].asked("poll"))
    poll = await tab.poll()
    await world.until(lambda: len(case.chats["a"].asked("poll")) > before)
    return tab, poll


async def goes_on(case: Case, tab: Tab, poll: Peer, reason: Reason = Reason.LOST, name: str = "b") -> None:
    """The client gets the greeting, and speaks with the instance; all that is counted is right."""
    world = case.world
    await tab.listen(GREETING, poll)
    for packets in [b"3"], [b'42["x"]']:
        assert (await (await tab.post(*packets)).response()).status == 200
    await tab.listen(b'42["echo","%b"]' % name.encode())
    got = [packet for packet in tab.got if packet != b"6"]
    assert got == [b"2", b'40{"sid":"%b"}' % name.encode(), GREETING, b'42["echo","%b"]' % name.encode()]
    (engine,) = world.router.engines.of([case.session])
    assert (engine.backend.name, engine.hand_over, engine.polls, engine.tunnels) == (name, None, 0, 0)
    assert (engine.owed_pongs, len(engine.untaken)) == (0, 0)
    assert case.session.arrived
    assert [known.sessions for known in world.router.fleet if known.name == name] == [1]
    assert sum(known.sessions for known in world.router.fleet) == 1
    case.nothing_is_left()
    counts = world.plane.site.hand_overs.counts
    await world.until(lambda: counts.results == {(reason, Result.DONE): 1}, f"{counts}")


async def ends(case: Case, poll: Peer, result: Result, reason: Reason = Reason.LOST) -> None:
    """The client is told that its sid is unknown, and connects anew."""
    answer = await poll.response()
    assert (answer.status, answer.body) == (400, UNKNOWN_SESSION)
    counts = case.world.plane.site.hand_overs.counts
    await case.world.until(lambda: counts.results == {(reason, result): 1}, f"{counts}")
    case.nothing_is_left()


def test_an_instance_is_lost() -> None:
    """The poll that waited there is answered by what the next one says; the ping's answer goes nowhere."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.kill()
        await goes_on(case, tab, poll)
        assert case.story == [*(("b", packet) for packet in TALK), ("b", b'42["x"]')]

    play(test, connect=False)


def test_a_message_beside_the_answer_to_the_ping() -> None:
    """Both are in one payload: the message may have to be said again, and no later pong is lost."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.kill()
        await tab.listen(GREETING, poll)
        await (await tab.post(b"3", ASK)).response()
        (engine,) = case.world.router.engines.of([case.session])
        assert (engine.owed_pongs, engine.untaken.packets) == (0, [ASK])
        assert case.story[-1] == ("b", ASK)

    play(test, connect=False)


def test_a_message_that_was_not_taken_yet() -> None:
    """Its client is not at rest, however long an instance with much to do does not say that it answers.

    Unless that is very long; and what is no message is answered by nothing.
    """

    async def test(case: Case) -> None:
        tab, _ = await polling(case)
        (engine,) = case.world.router.engines.of([case.session])
        evictions = case.world.plane.evictions
        for said, may_go_after in ((b'42["stop"]', ANSWERED), (ASK, TAKEN)):
            await (await tab.post(said)).response()
            for seconds in (0.0, ANSWERED, TAKEN):
                engine.said_at = case.world.now() - seconds
                assert bool(evictions.at_rest([case.session])) == (seconds >= may_go_after), said

    play(test, connect=False)


def test_what_was_being_said() -> None:
    """A POST that broke is answered as if it had been taken; what it said is said again, and acknowledged."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.chats["a"].hold("post")
        asked = await tab.post(b'427["client_message",{"id":"m1"}]')
        await case.world.until(lambda: len(case.chats["a"].asked("post")) == 2)
        case.kill()
        assert (await asked.response()).body == b"OK"
        await tab.listen(b"437[]", poll)
        assert tab.got == [*GREETED, b"437[]"]
        assert case.story == [("b", packet) for packet in (HELLO, CONNECT, RESUME, AGAIN, BYE)]

    play(test, connect=False)


def test_a_planned_move() -> None:
    """The instance before is told when another is there, and has put all down before CONNECT is said."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        hello = case.chats["b"].hold("hello")
        case.send_away()
        await case.world.until(lambda: case.story == [("b", HELLO)])
        hello.set()
        await goes_on(case, tab, poll, Reason.SENT_AWAY)
        assert case.story[:3] == [("b", HELLO), ("a", b"41"), ("b", CONNECT)]

    play(test, connect=False)


@pytest.mark.parametrize(
    ("what", "result"), [("shares", Result.NO_HOOKS), ("holds", Result.REFUSED), ("resumes", Result.REFUSED)]
)
def test_an_instance_that_does_not_take_it(what: str, result: Result) -> None:
    """Its client connects anew."""

    async def test(case: Case) -> None:
        setattr(case.chats["b"], what, False)
        _, poll = await polling(case)
        case.kill()
        await ends(case, poll, result)

    play(test, connect=False)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_nobody_takes_it_in_time(names: str) -> None:
    """Nobody is there, or the only one is silent."""

    async def test(case: Case) -> None:
        if names == "ab":
            case.chats["b"].hold("handshake")
        _, poll = await polling(case)
        case.kill()
        await ends(case, poll, Result.LATE)

    play(test, names, connect=False, hold=SECONDS)


@pytest.mark.parametrize("step", ["hello", "restore", "resume", "again"])
def test_the_next_instance_is_lost_too(step: str) -> None:
    """At every step: a third one goes on."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.chats["a"].echo = False
        await (await tab.post(ASK)).response()
        case.story.clear()
        for name in "bc":
            case.chats[name].breaks = step
        case.kill()
        await case.world.until(lambda: case.story)
        first = case.story[0][0]
        (other,) = {"b", "c"} - {first}
        case.chats[other].breaks = ""
        await tab.listen(GREETING, poll)
        await case.world.until(lambda: (other, BYE) in case.story)
        assert [packet for name, packet in case.story if name == other] == [*TALK[:3], AGAIN, BYE]
        assert [packet for packet in tab.got if packet != b"6"] == [
            b"2",
            b'40{"sid":"%b"}' % other.encode(),
            GREETING,
        ]

    play(test, "abc", connect=False)


def test_a_client_that_asks_meanwhile() -> None:
    """Its requests wait, and go to the next instance when it is there."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        gate = case.chats["b"].hold("restore")
        case.kill()
        await case.world.until(lambda: case.asked("restore"))
        asked = await tab.post(b'42["meanwhile"]')
        await case.world.until(lambda: case.world.plane.site.arrivals._held == 2)
        gate.set()
        assert (await asked.response()).body == b"ok"
        await case.world.until(lambda: case.story[-1] == ("b", b'42["meanwhile"]'))
        await tab.listen(b'42["echo","b"]', poll)
        assert [packet for packet in tab.got if packet != b"6"] == [*GREETED, b'42["echo","b"]']

    play(test, connect=False)


def test_the_proxy_ends_meanwhile() -> None:
    """Nobody waits for it."""

    async def test(case: Case) -> None:
        await polling(case)
        case.chats["b"].hold("restore")
        case.kill()
        await case.world.until(lambda: case.asked("restore"))
        await case.world.stop()
        case.nothing_is_left()

    play(test, connect=False)


def test_where_it_is_not_wanted() -> None:
    """Never: the transport ends with its instance, as ever."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.kill()
        case.down("a")
        assert (await poll.response()).status >= 400
        answer = await case.world.ask(post(PATH + b"polling&sid=" + tab.sid, b"3"))
        assert answer.status == 400
        assert case.story == []

    play(test, connect=False, mode="never")


def test_who_has_the_session_may_greet_for_longer_than_others_are_held() -> None:
    """`affinity.hold` is for the search; an instance that has found the state is not left for another one."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        gate = case.chats["b"].hold("resume")
        case.kill()
        await case.world.until(lambda: ("b", RESUME) in case.story)
        await asyncio.sleep(2 * SECONDS)
        gate.set()
        await goes_on(case, tab, poll)

    play(test, connect=False, hold=SECONDS)


def test_the_deadline_of_a_drain() -> None:
    """A poll that has waited there since before hears the next instance, in the middle of an answer too."""

    async def test(case: Case) -> None:
        tab, poll = await polling(case)
        case.session.hear(0.0, begins=True)
        fleet = case.world.router.fleet
        drains = Drains(fleet, case.world.plane.evictions)
        running = asyncio.create_task(drains.run())
        drain = drains.drain(case.world.known("a"), 0)
        await goes_on(case, tab, poll, Reason.SENT_AWAY)
        await case.world.until(lambda: drain.is_empty)
        assert (drain.sent_away, drain.forced) == (0, 1)
        running.cancel()

    play(test, connect=False)
