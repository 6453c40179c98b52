"""An instance that is frozen accepts connections and answers none."""

import asyncio
import time
from collections import Counter
from itertools import cycle, islice

import pytest

from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import JS_KINDS, KINDS
from tests.support.proxy_process import MakeProxy
from tests.support.size import sized
from tests.support.waiting import Stopwatch, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

WORKS_AGAIN = 6.0  # seconds, of which the page itself waits up to 1.5
LATE = 0.5  # seconds that a busy machine may add
RECONNECT = (
    0.02  # seconds of two cores that one client and its instance take: with a hundred at once it counts
)
CROWD = sized(len(JS_KINDS), in_full=300)


@pytest.mark.alone
def test_it_is_degraded_soon_and_its_users_move_after_evict_after(
    fleet: Fleet, make_proxy: MakeProxy
) -> None:
    """Nobody new is placed there after `fall` intervals; with `evict_after: 4` its users work within 6 s."""
    rules = {"interval": 1, "timeout": 1, "fall": 3, "rise": 2, "evict_after": 4}
    proxy = make_proxy(health=rules)

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(JS_KINDS), CROWD), on="a")
            victims = [chat for chat in chats if chat.home == "a"]
            others = [chat for chat in chats if chat.home != "a"]
            fleet["a"].pause()
            frozen, watch = time.time(), Stopwatch()
            await eventually(lambda: proxy.health().get("a") == "degraded", 10, "degraded")
            assert watch.seconds < 3 + LATE, "fall x interval"
            assert all(chat.connects == 1 for chat in victims), "who is pinned is kept for now"
            newcomers = await clients.open_many(KINDS[:4])
            assert "a" not in {chat.home for chat in newcomers}
            await each(victims, lambda chat: chat.recover(), at_once=len(victims))
            took = sorted(watch.own(chat.ready_at - frozen) for chat in victims)
            assert took[-1] < WORKS_AGAIN + LATE + RECONNECT * len(victims), (took, watch)
            assert all(chat.connects == 1 for chat in others)

    asyncio.run(scenario())


def test_one_that_flaps_does_not_bounce_its_users(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Killed and started again and again, an instance loses its users once; they stay where they went."""
    proxy = make_proxy(health={"interval": 0.5, "timeout": 3, "fall": 3, "rise": 1})

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            for _ in range(3):
                fleet["a"].kill9()
                await eventually(lambda: proxy.health().get("a") == "down", 20, "down")
                await each(chats, lambda chat: chat.recover(), at_once=len(chats))
                fleet["a"].launch()
                await asyncio.to_thread(fleet["a"].wait_ready)
                await eventually(lambda: proxy.health().get("a") == "healthy", 30, "healthy")
            greetings = Counter(len(chat.greetings) for chat in chats)
            assert set(greetings) <= {1, 2}, "moved more than once"
            await each(chats, lambda chat: chat.check(fleet.journal))

    asyncio.run(scenario())


def test_one_that_came_back_gets_its_share_slowly(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """For `slow_start` seconds a returned backend gets few of the new sessions."""
    proxy = make_proxy(balance={"slow_start": 600})

    async def scenario() -> None:
        fleet["a"].kill9()
        await eventually(lambda: proxy.health().get("a") == "down", 20, "down")
        fleet["a"].launch()
        await asyncio.to_thread(fleet["a"].wait_ready)
        await eventually(lambda: proxy.health().get("a") == "healthy", 30, "healthy")
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS * 3)
            places = Counter(chat.home for chat in chats)
            assert places["a"] < len(chats) / 6, places
            assert min(places["b"], places["c"]) > len(chats) / 6, places

    asyncio.run(scenario())
