"""An instance that was away takes new sessions, and none of those that moved away from it."""

import asyncio

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import HEALTH, MakeProxy, ProxyProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

BLIPS = 3


async def assert_stays_away(
    clients: Clients, chats: list[Chat], away: str, fleet: Fleet, proxy: ProxyProcess
) -> None:
    """The chats keep their new instance through blips and calls, and new ones are placed on the old."""
    await eventually(lambda: proxy.health().get(away) == "healthy", 30, f"{away} healthy again")
    for _ in range(BLIPS):
        await each(chats, lambda chat: chat.drop())
        await each(chats, lambda chat: chat.check(fleet.journal))
    assert away not in {chat.home for chat in chats}
    newcomers = await clients.open_until_on(away)
    await each(newcomers, lambda chat: chat.check(fleet.journal))


def test_a_killed_instance_gets_new_sessions_only(fleet: Fleet, proxy: ProxyProcess) -> None:
    """After `kill -9` and a new start, moved sessions stay where they went."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS, on="a")
            moved = [chat for chat in chats if chat.home == "a"]
            fleet["a"].kill9()
            await each(moved, lambda chat: chat.recover())
            fleet["a"].launch()
            await asyncio.to_thread(fleet["a"].wait_ready)
            await assert_stays_away(clients, moved, "a", fleet, proxy)

    asyncio.run(scenario())


@pytest.mark.timeout(300)
def test_a_frozen_instance_does_not_revive_its_stale_sessions(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """An instance that was given up for its silence still holds the sessions that moved; they stay moved."""
    proxy = make_proxy(health=HEALTH | {"timeout": 1, "evict_after": 3})

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS, on="a")
            moved = [chat for chat in chats if chat.home == "a"]
            await each(moved, lambda chat: chat.ask())
            fleet["a"].pause()
            await eventually(lambda: proxy.health().get("a") == "down", 20, "a given up")
            await each(moved, lambda chat: chat.recover(), at_once=len(moved))
            assert "a" not in {chat.home for chat in moved}
            fleet["a"].resume()
            await assert_stays_away(clients, moved, "a", fleet, proxy)

    asyncio.run(scenario())
