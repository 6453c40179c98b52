"""The proxy's memory is a cache: after a restart every session is found again where it lives."""

import asyncio
import signal
from itertools import cycle, islice

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy
from tests.support.size import sized

pytestmark = pytest.mark.system

CONVERSATIONS = sized(100, in_full=300)
TRIED = 5  # one in so many is used in every way there is: that takes a second of two cores
MESSAGES = 2


@pytest.mark.timeout(240)
def test_every_conversation_goes_on_after_a_restart(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Stopped or killed and started again, the proxy brings every client back to their own sessions."""
    proxy = make_proxy()

    async def speak(chat: Chat) -> None:
        for _ in range(MESSAGES):
            await chat.ask()

    async def come_back(chat: Chat) -> None:
        await chat.resume(within=60)
        chat.check_unmoved(fleet.journal)

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CONVERSATIONS))
            await each(chats, speak)
            for number in (signal.SIGTERM, signal.SIGKILL):
                await asyncio.to_thread(proxy.stop, number)
                proxy.launch()
                await each(chats, come_back, at_once=CONVERSATIONS)
                await each(chats[::TRIED], lambda chat: chat.check(fleet.journal))

    asyncio.run(scenario())
