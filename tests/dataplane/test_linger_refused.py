"""What was collected for a session is its client's: whoever is refused by its instance gets none of it."""

import pytest

from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.test_linger import CONNECTED, collected, first, lingering, lose, tokens
from tests.dataplane.world import World, run

REFUSED = b'44{"message":"authorization failed"}'  # chainlit/socket.py, restore_existing_session


@pytest.mark.parametrize("how", ["behind", "at once", "websocket"])
def test_one_who_was_refused_gets_nothing_of_a_session(how: str) -> None:
    """Who names a session of another user, and then one of his own, connects; the owner gets the rest."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        await lose(world, socket)
        for packet in tokens(0, 2):
            old.push(packet)
        await collected(world, 2)
        instances["a"].refused.add("session-S")
        theirs, own = connect_packet("session-S"), connect_packet("session-T")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(theirs, *([own] if how == "at once" else []))).response()
        await tab.listen(REFUSED)
        if how == "websocket":
            stranger = await tab.socket()
            stranger.say(b"2probe")
            assert await stranger.hear() == b"3probe"
            stranger.say(b"5", own, b'42["hi"]')
            heard = [await stranger.hear() for _ in range(2)]
        else:
            await (await tab.post(*([own] if how == "behind" else []), b'42["hi"]')).response()
            await tab.listen(b'42["echo","a"]')
            heard = tab.got[1:]
        assert heard == [CONNECTED, b'42["echo","a"]']
        assert lingering(world) == 1

    run(test, "ab")
