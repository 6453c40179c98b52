"""Backends come and go; no live session of a backend that stays is moved."""

import asyncio
from itertools import chain

import pytest

from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy, ProxyProcess, config_for
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


async def restart_with(proxy: ProxyProcess, fleet: Fleet, names: str) -> None:
    """Stops the proxy and starts it with these backends."""
    await asyncio.to_thread(proxy.stop)
    proxy.config["backends"] = config_for(fleet[name] for name in names)["backends"]
    proxy.launch()
    await asyncio.to_thread(proxy.wait_ready)


def test_a_third_backend_and_away_again(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Restarted with two, three and two backends, the proxy moves only the sessions of the one that goes."""
    proxy = make_proxy("ab")  # an idle poll would hold up the end for 25 s

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.5) as clients:
            chats = await clients.open_many(chain(KINDS, KINDS))
            await each(chats, lambda chat: chat.ask())
            await restart_with(proxy, fleet, "abc")
            await each(chats, lambda chat: chat.resume(within=60))
            newcomers = await clients.open_many(KINDS)
            await each(newcomers, lambda chat: chat.ask())
            leavers = [chat for chat in newcomers if chat.home == "c"]
            assert leavers, "the third backend got no session"
            stayers = [chat for chat in chats + newcomers if chat.home != "c"]
            await restart_with(proxy, fleet, "ab")
            await each(stayers, lambda chat: chat.resume(within=60))
            await each(stayers, lambda chat: chat.check(fleet.journal))
            for chat in stayers:
                chat.check_unmoved(fleet.journal)
            await each(leavers, lambda chat: chat.recover())
            await each(leavers, lambda chat: chat.check(fleet.journal))

    asyncio.run(scenario())


def test_a_configured_backend_comes_up_and_goes_down(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """The third instance starts and dies under the running proxy; the sessions of the others see nothing."""
    fleet["c"].kill9()
    proxy = make_proxy()

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            fleet["c"].launch()
            await asyncio.to_thread(fleet["c"].wait_ready)
            await eventually(lambda: proxy.health().get("c") == "healthy", 20, "c healthy")
            newcomers = await clients.open_until_on("c")
            assert all(chat.connects == 1 for chat in chats), "a session was disturbed by the new backend"
            await each(chats, lambda chat: chat.drop())
            stayers = [chat for chat in chats + newcomers if chat.home != "c"]
            connects = {chat: chat.connects for chat in stayers}
            fleet["c"].kill9()
            await eventually(lambda: proxy.health().get("c") == "down", 20, "c down")
            await each(stayers, lambda chat: chat.check(fleet.journal))
            assert {chat: chat.connects for chat in stayers} == connects, "a session elsewhere was disturbed"
            for chat in stayers:
                chat.check_unmoved(fleet.journal)

    asyncio.run(scenario())
