"""An instance that is lost between the head of an answer to a poll and its body."""

import pytest

from proxy.dataplane.connection import Connection
from tests.dataplane.peers import Message, Peer
from tests.dataplane.shared_chat import ASK, GREETING, SharedChat
from tests.dataplane.test_settled_polls import settled
from tests.dataplane.world import World, run


def has_head(connection: Connection) -> bool:
    """Whether the head of an answer has come for it."""
    exchange = connection.exchange
    return exchange is not None and bool(exchange.status or exchange._early)


@pytest.mark.parametrize("says", [True, False])
def test_an_instance_that_dies_behind_a_head(says: bool) -> None:
    """Head and body leave an instance by two calls of the kernel: between them nothing has been said."""

    async def test(world: World) -> None:
        story: list[tuple[str, bytes]] = []
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = Curt(backend)
            chat.story = story
        tab = await settled(world, world.cookie("a"))
        chats["a"].cuts = "post" if says else "poll"
        asked = await (tab.post(ASK) if says else tab.poll())
        await world.until(lambda: any(map(has_head, world.plane.connections)))
        chats["a"].backend.refuse()
        for peer in chats["a"].backend.peers:
            peer.reset()
        if says:
            assert (await asked.response()).body.lower() == b"ok"
        await tab.listen(GREETING, None if says else asked)

    run(test, "ab", affinity={"hand_over": "always"})


class Curt(SharedChat):
    """One that answers requests of a kind with a head, and no more."""

    cuts = ""

    async def _answer(self, peer: Peer, request: Message) -> None:
        if self.kind(request) == self.cuts:
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        else:
            await super()._answer(peer, request)
