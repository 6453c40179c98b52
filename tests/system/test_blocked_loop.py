"""An app that blocks its event loop is slow, not dead."""

import asyncio
import time
from itertools import islice

import pytest

from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

BLOCK = 15.0
HEALTH = {"interval": 0.5, "timeout": 0.5, "fall": 2, "rise": 2}
NEWCOMERS = 9


@pytest.mark.timeout(180)
def test_users_of_a_blocked_instance_keep_their_sessions(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """They get their answers when the block ends; meanwhile nobody new is placed there."""
    proxy = make_proxy(health=HEALTH)

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS)
            blocked = chats[0].home
            assert blocked
            residents = [chat for chat in chats if chat.home == blocked]
            blocker, *neighbours = residents
            await each(residents, lambda chat: chat.ask())

            end = time.monotonic() + BLOCK
            blocking = asyncio.create_task(blocker.ask(f"block {BLOCK}", within=BLOCK + 20))
            await eventually(lambda: fleet.journal.entries(blocker.session, "block"), 10, "blocked")
            waiting = [asyncio.create_task(chat.ask(within=BLOCK + 20)) for chat in neighbours]
            uploading = asyncio.create_task(blocker.upload("while-it-is-blocked"))
            await eventually(lambda: proxy.health().get(blocked) == "degraded", 10, "degraded")
            newcomers = await clients.open_many(islice(KINDS, NEWCOMERS))
            assert time.monotonic() < end, "the newcomers were not placed while the instance was blocked"
            assert blocked not in {chat.home for chat in newcomers}

            assert (await blocking).instance == blocked
            assert {reply.instance for reply in await asyncio.gather(*waiting)} <= {blocked}
            key = await uploading
            reply = await blocker.ask(files=(key,))
            assert reply.fields["files"] == "while-it-is-blocked"
            assert all(chat.connects == 1 for chat in chats), "a connection was lost"
            await eventually(lambda: proxy.health().get(blocked) == "healthy", 20, "healthy again")
            await each(chats + newcomers, lambda chat: chat.check(fleet.journal))
            for chat in chats + newcomers:
                chat.check_unmoved(fleet.journal)
            assert_nothing_refused(chats + newcomers)

    asyncio.run(scenario())
