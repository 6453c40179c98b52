"""Every request of a session reaches the instance that holds it, whatever the client is."""

import asyncio
from itertools import cycle, islice

import pytest

from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import KINDS, Kind
from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.system

CROWD = 200


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_session_of_every_kind_is_whole(fleet: Fleet, proxy: ProxyProcess, kind: Kind) -> None:
    """Messages, uploads, elements, actions and reconnects of a session all happen on one instance."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.1) as clients:
            chats = await clients.open_many([kind] * 4)
            await each(chats, lambda chat: chat.check(fleet.journal))
            await each(chats, lambda chat: chat.drop())
            await each(chats, lambda chat: chat.check(fleet.journal))
            assert_nothing_refused(chats)

    asyncio.run(scenario())


@pytest.mark.timeout(300)
def test_two_hundred_sessions_stay_where_they_are(fleet: Fleet, proxy: ProxyProcess) -> None:
    """With 200 sessions of all kinds open together, none is refused and none meets a foreign instance."""

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD))
            await each(chats, lambda chat: chat.check(fleet.journal))
            assert_nothing_refused(chats)
            places = fleet.journal.places({chat.session for chat in chats})
            assert set(places) == set(fleet.names), f"not spread over all instances: {places}"
            # One more for rounding up, and a browser's six parallel connections, which are not parted.
            assert max(places.values()) <= 1.25 * CROWD / len(fleet.names) + 7, f"unbalanced: {places}"

    asyncio.run(scenario())
