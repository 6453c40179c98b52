"""A backend is emptied, and nobody's answer is cut off for it."""

import asyncio
from itertools import cycle, islice

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy, ProxyProcess, command
from tests.support.size import sized
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CROWD = sized(100, in_full=300)
TIME = 30  # seconds for a drain: an answer under way takes some six of them


async def crowd(clients: Clients) -> list[Chat]:
    """Sessions of all kinds on all backends, each of which has been used."""
    chats = await clients.open_many(islice(cycle(KINDS), CROWD), on="a")
    await each(chats, lambda chat: chat.ask())
    return chats


def test_a_drain_waits_for_answers_and_disturbs_nobody_else(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Who is answered hears all of it; all leave, once, for other backends; the others see nothing."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await crowd(clients)
            leavers = [chat for chat in chats if chat.home == "a"]
            others = [chat for chat in chats if chat.home != "a"]
            answers = [asyncio.create_task(chat.ask("stream 60 0.1")) for chat in leavers[::4]]
            await eventually(
                lambda: proxy.metric("chainlit_proxy_backend_turns", backend="a") == len(answers),
                20,
                "answers under way",
            )
            drained = await command(proxy, "drain", "a", "--wait", "--timeout", str(TIME))
            for answer in answers:
                reply = await answer
                assert len(reply.tokens) == 61, reply
            assert drained["drain"]["empty"]
            assert drained["drain"]["forced"] == 0
            assert (drained["sessions"], drained["tunnels"]) == (0, 0)
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            assert {chat.home for chat in leavers} <= {"b", "c"}
            assert all(chat.connects == 2 for chat in leavers), [chat.story() for chat in leavers][:2]
            await each(leavers, lambda chat: chat.check(fleet.journal))
            assert all(chat.connects == 1 for chat in others), "a session elsewhere was disturbed"
            assert_nothing_refused(others)

    asyncio.run(scenario())


def test_sessions_go_on_where_they_are_until_it_is_time(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Long before the deadline a drained backend only gets nobody new; its own use it as ever."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS, on="a")
            await command(proxy, "drain", "a", "--timeout", "600")
            stayers = [chat for chat in chats if chat.home == "a"]
            await each(stayers, lambda chat: chat.drop())
            await each(stayers, lambda chat: chat.check(fleet.journal))
            for chat in stayers:
                chat.check_unmoved(fleet.journal)
            newcomers = await clients.open_many(KINDS)
            assert "a" not in {chat.home for chat in newcomers}
            ready = await command(proxy, "ready", "a")
            assert (ready["admin_state"], ready["drain"]) == ("ready", None)
            await clients.open_until_on("a")

    asyncio.run(scenario())


def test_maintenance_takes_a_backend_out_at_once(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Its sessions are elsewhere within a moment, though it lives and is healthy."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS, on="a")
            leavers = [chat for chat in chats if chat.home == "a"]
            await command(proxy, "maintenance", "a")
            await eventually(
                lambda: (proxy.backends()["a"]["sessions"], proxy.backends()["a"]["tunnels"]) == (0, 0),
                5,
                "nobody left",
            )
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            assert {chat.home for chat in leavers} <= {"b", "c"}
            assert proxy.health()["a"] == "healthy"

    asyncio.run(scenario())


def test_a_deadline_is_kept_by_force(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """An answer that is longer than the drain may take is cut off, and the drain says so."""
    proxy = make_proxy("ab")

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_until_on("a")
            chat = chats[-1]
            answer = asyncio.create_task(chat.ask("stream 300 0.1", within=5))
            await eventually(
                lambda: proxy.metric("chainlit_proxy_backend_turns", backend="a") == 1, 10, "answer"
            )
            drained = await command(proxy, "drain", "a", "--wait", "--timeout", "2")
            assert drained["drain"]["forced"] == 1
            await asyncio.wait([answer])
            assert answer.exception() is not None
            await chat.recover()
            assert chat.home == "b"

    asyncio.run(scenario())
