"""What a client that polls says to an instance that has gone is said once to the next."""

import pytest

from proxy.wire.engineio import UNKNOWN_SESSION
from tests.dataplane.chat import Transport
from tests.dataplane.shared_chat import AGAIN, ASK, BYE, GREETING, SharedChat, step_of
from tests.dataplane.test_settled_polls import settled
from tests.dataplane.world import World, run


@pytest.mark.parametrize("polls", [True, False])
def test_a_message_that_met_nobody_is_said_once(polls: bool) -> None:
    """Its POST is said by the hand-over, or sent when that is done if it comes later; not both."""

    async def test(world: World) -> None:
        story: list[tuple[str, bytes]] = []
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = SharedChat(backend)
            chat.story = story
        tab = await settled(world, world.cookie("a"))
        poll = await tab.poll() if polls else None
        if polls:
            await world.until(lambda: len(chats["a"].asked("poll")) > 1)
        chats["a"].backend.refuse()
        story.clear()
        for peer in chats["a"].backend.peers:
            peer.reset()
        said = await tab.post(ASK)
        assert (await said.response()).body.lower() == b"ok"
        await tab.listen(GREETING, poll)
        await world.until(lambda: ("b", BYE) in story)
        await world.breathe()
        messages = [packet for _, packet in story if b"client_message" in packet]
        assert messages == [ASK if polls else AGAIN], story

    run(test, "ab", affinity={"hand_over": "always"})


def test_a_pong_among_other_packets() -> None:
    """It is the answer to our ping; the next one, which answers the instance's, does not get lost."""

    async def test(world: World) -> None:
        story: list[tuple[str, bytes]] = []
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = SharedChat(backend)
            chat.story = story
        tab = await settled(world, world.cookie("a"))
        poll = await tab.poll()
        await world.until(lambda: len(chats["a"].asked("poll")) > 1)
        chats["a"].backend.refuse()
        for peer in chats["a"].backend.peers:
            peer.reset()
        await tab.listen(GREETING, poll)
        await world.until(lambda: ("b", BYE) in story)
        for packets in ([b"3", b'42["x"]'], [b"3"]):
            assert (await (await tab.post(*packets)).response()).status == 200
        posts = [request.body for request in chats["b"].asked("post")]
        assert posts[-2:] == [b'3\x1e42["x"]', b"3"]

    run(test, "ab", affinity={"hand_over": "always"})


@pytest.mark.parametrize("size", [200_000, 5_000_000])
def test_an_instance_that_greets_with_much(size: int) -> None:
    """All elements of a thread may come behind the greeting; more than a few megabytes are not kept."""

    async def test(world: World) -> None:
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = Lavish(backend)
            chat.story, chat.size = [], size
        tab = await settled(world, world.cookie("a"))
        chats["a"].backend.refuse()
        for peer in chats["a"].backend.peers:
            peer.reset()
        if size < 1 << 22:
            await tab.listen(b"42" + b"x" * size)
            return
        answer = await (await tab.poll()).response()
        assert (answer.status, answer.body) == (400, UNKNOWN_SESSION)

    run(test, "ab", affinity={"hand_over": "always", "hold": 0.5})


class Lavish(SharedChat):
    """One that says much when it greets."""

    size = 0

    def _hear(self, transport: Transport, packet: bytes) -> None:
        if step_of(packet) == "resume":
            transport.push(b"42" + b"x" * self.size)
        super()._hear(transport, packet)
