"""A client's network drops in the middle of an answer, and no word of it is lost."""

import asyncio
import contextlib

import pytest

from tests.support.chat import Chat, Reply
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import Driver, Identity, Kind, Transports
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.python_link import PythonLink
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

GAP = 5.0  # seconds until the client connects again
TOKENS = 200
PAUSE = 0.05  # seconds between two of them
BEFORE = 40  # tokens until the network drops
KINDS = [
    Kind(driver, transports, Identity.COOKIES)
    for driver in Driver
    for transports in (Transports.BOTH, Transports.WEBSOCKET)
]


async def in_an_answer(chat: Chat) -> asyncio.Task[Reply]:
    """Ask, and wait until some has come over a websocket: an answer to a poll is lost with the client."""
    answer = asyncio.create_task(chat.ask(f"stream {TOKENS} {PAUSE}", within=40))
    await eventually(lambda: chat.heard >= BEFORE and chat.transport == "websocket", 30, "some tokens")
    return answer


def numbers(reply: Reply) -> list[int]:
    """Of its tokens."""
    return [int(word[1:]) for word in "".join(reply.tokens).split() if word.startswith("t")]


def test_every_token_arrives_once_and_in_order(fleet: Fleet, proxy: ProxyProcess) -> None:
    """200 tokens, of which a hundred are said while the client is away; clients of all kinds at once."""

    async def is_away(chat: Chat) -> None:
        answer = await in_an_answer(chat)
        await chat.drop()
        assert not answer.done()
        assert numbers(await answer) == list(range(TOKENS))
        assert chat.connects == 2
        await chat.check(fleet.journal)
        chat.check_unmoved(fleet.journal)

    async def scenario() -> None:
        async with Clients(proxy.url, delay=GAP) as clients:
            chats = await clients.open_many(KINDS)
            await each(chats, is_away)
            assert proxy.metric("chainlit_proxy_lingers_resumed_total") == len(chats)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_none_is_lost_that_a_busy_proxy_sends_too_late(fleet: Fleet, proxy: ProxyProcess, kind: Kind) -> None:
    """The network fails while the proxy has no time to notice: what it sends then has reached nobody."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=1) as clients:
            chat = await clients.open(kind)
            answer = await in_an_answer(chat)
            before = chat.connects
            proxy.pause()
            await asyncio.sleep(10 * PAUSE)  # so many tokens wait for it
            await chat.link.cut()
            await eventually(lambda: chat.losses, 10, "the loss")
            proxy.resume()
            await chat.back(before)
            assert numbers(await answer) == list(range(TOKENS))
            assert proxy.metric("chainlit_proxy_unacknowledged_messages_total") > 0

    asyncio.run(scenario())


def test_none_is_lost_in_a_network_that_is_gone(fleet: Fleet, proxy: ProxyProcess) -> None:
    """A phone leaves its wireless network: nobody tells the proxy, which speaks on into the void."""

    async def leaves(chat: Chat) -> None:
        answer = await in_an_answer(chat)
        assert isinstance(chat.link, PythonLink)
        with contextlib.ExitStack() as stack:
            for sock in chat.link.vanish():
                stack.enter_context(sock)
            await asyncio.sleep(2)  # until its system tells the page
            await chat.drop()
            assert numbers(await answer) == list(range(TOKENS))
            await chat.check(fleet.journal)

    async def scenario() -> None:
        async with Clients(proxy.url, delay=1) as clients:
            chats = await clients.open_many(kind for kind in KINDS if kind.driver is Driver.PYTHON)
            await each(chats, leaves)

    asyncio.run(scenario())


def test_without_it_they_are_lost(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """What Chainlit does by itself: the same with `linger: 0` misses what was said meanwhile."""
    proxy = make_proxy(affinity={"linger": 0})

    async def scenario() -> None:
        async with Clients(proxy.url, delay=GAP) as clients:
            chat = await clients.open(KINDS[0])
            answer = asyncio.create_task(chat.ask(f"stream {TOKENS} {PAUSE}", within=40))
            await asyncio.sleep(2)
            await chat.drop()
            reply = await answer
            assert len("".join(reply.tokens).split()) < TOKENS - 20

    asyncio.run(scenario())


def test_one_who_never_returns_is_given_up(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """After the time the instance is told that its client has left, and the proxy keeps nothing."""
    proxy = make_proxy(affinity={"linger": 2})

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chat = await clients.open(KINDS[1])
            await chat.ask()
            assert isinstance(chat.link, PythonLink)
            await chat.link.abandon()
            await eventually(lambda: proxy.metric("chainlit_proxy_lingers_total") == 1, 5, "it is waited for")
            assert not fleet.journal.entries(chat.session, "end")
            await eventually(lambda: fleet.journal.entries(chat.session, "end"), 10, "the app hears of it")
            assert proxy.metric("chainlit_proxy_lingering_sessions") == 0
            await eventually(lambda: proxy.backends()[str(chat.home)]["tunnels"] == 0, 5, "nothing is kept")

    asyncio.run(scenario())
