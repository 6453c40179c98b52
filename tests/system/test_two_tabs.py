"""Two tabs of one browser live on two instances and share one cookie jar.

Chainlit's cookie names only the newer tab, and our pin cookie only one instance, so neither may decide
where a session that is named otherwise belongs.
"""

import asyncio

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import COOKIE_KINDS, Kind
from tests.support.proxy_process import ProxyProcess
from tests.support.size import IN_FULL

pytestmark = pytest.mark.system

RECONNECTS = 20
CHECK_EVERY = 5


async def open_apart(clients: Clients, kind: Kind) -> tuple[Chat, Chat]:
    """Two tabs of one browser on different instances; the second is opened anew until it is."""
    browser = clients.browser(kind)
    older = await clients.open(kind, browser)
    for _ in range(30):
        newer = await clients.open(kind, browser)
        if newer.home != older.home:
            return older, newer
        await clients.close(newer)
    raise AssertionError("every tab of a browser is placed on the same instance")


@pytest.mark.parametrize("kind", COOKIE_KINDS if IN_FULL else COOKIE_KINDS[::2], ids=str)
def test_both_tabs_keep_their_sessions(fleet: Fleet, proxy: ProxyProcess, kind: Kind) -> None:
    """Through uploads, element fetches, actions and 20 reconnects each, neither tab loses its session."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.1) as clients:
            tabs = await open_apart(clients, kind)
            await each(tabs, lambda tab: tab.check(fleet.journal))
            for turn in range(1, RECONNECTS + 1):
                for tab in tabs if turn % 2 else reversed(tabs):
                    await tab.drop()
                if turn % CHECK_EVERY == 0:
                    await each(tabs, lambda tab: tab.check(fleet.journal))
            for tab in tabs:
                tab.check_unmoved(fleet.journal)
            assert_nothing_refused(tabs)

    asyncio.run(scenario())
