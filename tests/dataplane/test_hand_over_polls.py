"""What a client that polls says to an instance that has gone is said once to the next."""

import asyncio

import pytest

from proxy.dataplane.hand_over_counts import Reason, Result
from tests.dataplane.shared_chat import AGAIN, ASK, BYE, GREETING, RESUME, shared_chats
from tests.dataplane.test_settled_polls import settled
from tests.dataplane.world import World, run

HOLD = 0.1  # seconds


@pytest.mark.parametrize("polls", [True, False])
def test_a_message_that_met_nobody_is_said_once(polls: bool) -> None:
    """Its POST is said by the hand-over, or sent when that is done if it comes later; not both."""

    async def test(world: World) -> None:
        chats, story = shared_chats(world)
        tab = await settled(world, world.cookie("a"))
        poll = await tab.poll() if polls else None
        if polls:
            await world.until(lambda: len(chats["a"].asked("poll")) > 1)
        story.clear()
        chats["a"].end()
        said = await tab.post(ASK)
        assert (await said.response()).body.lower() == b"ok"
        await tab.listen(GREETING, poll)
        await world.until(lambda: ("b", BYE) in story)
        await world.breathe()
        messages = [packet for _, packet in story if b"client_message" in packet]
        assert messages == [ASK if polls else AGAIN], story

    run(test, "ab", affinity={"hand_over": "always"})


def test_who_has_the_session_may_greet_for_longer_than_others_are_held() -> None:
    """`affinity.hold` is for the search; an instance that has found the state is not left for another one."""

    async def test(world: World) -> None:
        chats, story = shared_chats(world)
        tab = await settled(world, world.cookie("a"))
        poll = await tab.poll()
        await world.until(lambda: len(chats["a"].asked("poll")) > 1)
        gate = chats["b"].hold("resume")
        chats["a"].end()
        await world.until(lambda: ("b", RESUME) in story)
        await asyncio.sleep(3 * HOLD)
        gate.set()
        await tab.listen(GREETING, poll)
        await world.until(lambda: ("b", BYE) in story)
        assert world.plane.site.hand_overs.counts.results == {(Reason.LOST, Result.DONE): 1}

    run(test, "ab", affinity={"hand_over": "always", "hold": HOLD})
