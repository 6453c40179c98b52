"""A client's network drops in the middle of an answer, and no word of it is lost."""

import asyncio

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients
from tests.support.instances import Fleet
from tests.support.link import Driver, Identity, Kind, Transports
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.python_link import PythonLink
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

GAP = 5.0  # seconds until the client connects again
TOKENS = 200
PAUSE = 0.05  # seconds between two of them
BEFORE = 40  # tokens until the network drops
KINDS = [
    Kind(driver, transports, Identity.COOKIES)
    for driver in Driver
    for transports in (Transports.BOTH, Transports.WEBSOCKET)
]


async def some_tokens(chat: Chat) -> None:
    """Wait into the answer; to the pause behind a token, where the client can be cut then.

    What is sent to a client in the very moment in which it is lost is lost with it.
    """
    if isinstance(chat.link, PythonLink):
        async with asyncio.timeout(30):
            while chat.heard < BEFORE:  # noqa: ASYNC110  # at once, not in a later turn of the loop
                await asyncio.sleep(0.002)
    else:
        await asyncio.sleep(BEFORE * PAUSE)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_token_arrives_once_and_in_order(fleet: Fleet, proxy: ProxyProcess, kind: Kind) -> None:
    """200 tokens, of which a hundred are said while the client is away."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=GAP) as clients:
            chat = await clients.open(kind)
            answer = asyncio.create_task(chat.ask(f"stream {TOKENS} {PAUSE}", within=40))
            await some_tokens(chat)
            await chat.drop()
            assert not answer.done()
            reply = await answer
            said = "".join(reply.tokens).split()[:TOKENS]
            assert said == [f"t{number}" for number in range(TOKENS)]
            assert chat.connects == 2
            assert proxy.metric("chainlit_proxy_lingers_resumed_total") == 1
            await chat.check(fleet.journal)
            chat.check_unmoved(fleet.journal)

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
