"""Three proxies that share their directory behave as one, whichever of them a connection comes to."""

import asyncio
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.balancer import Balancer
from tests.support.chat import Chat, is_lost_session
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS, Identity, Kind, Transports
from tests.support.proxy_process import MakeProxy, ProxyProcess, command
from tests.support.redis_server import RedisServer
from tests.support.size import IN_FULL, in_full
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

ROUNDS = 3
CROWD = 54  # three of each kind
DRAIN = 15  # seconds: an answer under way takes some six of them
# Without cookies a handshake is a guess, which a CONNECT by poll corrects only where all proxies hear of it.
GUESSED = [
    kind
    for kind in KINDS
    if kind.identity is not Identity.COOKIES and kind.transports is not Transports.WEBSOCKET
]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may stop."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill9()


@pytest.fixture
def proxies(make_proxy: MakeProxy, redis_server: RedisServer) -> list[ProxyProcess]:
    """Three that share the directory."""
    return sharing(make_proxy, redis_server)


def sharing(make_proxy: MakeProxy, server: RedisServer) -> list[ProxyProcess]:
    """Three proxies that share through one Redis."""
    affinity = {"secret": "of all three", "directory": {"redis": server.url}}
    return [make_proxy(affinity=affinity) for _ in range(3)]


def ports(proxies: list[ProxyProcess]) -> list[int]:
    """Where they listen."""
    return [int(proxy.url.rpartition(":")[2]) for proxy in proxies]


def assert_none_lost(chats: list[Chat]) -> None:
    """No client was ever told that a session is not known."""
    lost = [
        f"{chat}: {exchange}"
        for chat in chats
        for exchange in chat.link.exchanges
        if is_lost_session(exchange)
    ]
    assert not lost, f"{len(lost)} lost:\n" + "\n".join(lost[:10])


@pytest.mark.parametrize("kind", KINDS if IN_FULL else KINDS[::7], ids=str)
def test_a_session_of_every_kind_is_whole(fleet: Fleet, proxies: list[ProxyProcess], kind: Kind) -> None:
    """Whatever the client is, and whichever proxies its connections come to, its session is in one place."""

    async def scenario() -> None:
        async with Balancer(ports(proxies)) as balancer, Clients(balancer.url, delay=0.1) as clients:
            chats = await clients.open_many([kind] * 6)
            for _ in range(ROUNDS):
                await each(chats, lambda chat: chat.check(fleet.journal))
                await each(chats, lambda chat: chat.drop())
            await each(chats, lambda chat: chat.check(fleet.journal))
            for chat in chats:
                chat.check_unmoved(fleet.journal)
            assert_none_lost(chats)
            assert min(balancer.carried.values()) > 0

    asyncio.run(scenario())


@pytest.mark.timeout(300)
def test_a_killed_proxy_costs_its_connections_only(fleet: Fleet, proxies: list[ProxyProcess]) -> None:
    """Whoever was connected through it is back through another one, in the session that it had."""

    async def come_back(chat: Chat) -> None:
        await chat.resume(within=60)
        await chat.check(fleet.journal)
        chat.check_unmoved(fleet.journal)

    async def scenario() -> None:
        async with Balancer(ports(proxies)) as balancer, Clients(balancer.url) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD))
            await each(chats, Chat.ask)
            for proxy in proxies[:2]:
                proxy.kill9()
                await each(chats, come_back, at_once=30)
                proxy.launch()
                await asyncio.to_thread(proxy.wait_ready)
            # Who has just been started has not heard which guesses were wrong: such a client reconnects.
            assert_none_lost([chat for chat in chats if chat.link.kind not in GUESSED])

    asyncio.run(scenario())


@pytest.mark.timeout(300)
def test_a_backend_is_drained_at_each_of_them(fleet: Fleet, proxies: list[ProxyProcess]) -> None:
    """Whoever is answered there hears all of it, whichever proxies the polls come to, and leaves once."""

    async def answered(chat: Chat) -> None:
        reply = await chat.ask("stream 60 0.1")
        assert len(reply.tokens) == 61, f"{chat}: {reply}"

    async def scenario() -> None:
        async with Balancer(ports(proxies)) as balancer, Clients(balancer.url, delay=0.2) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD), on="a")
            leavers = [chat for chat in chats if chat.home == "a"]
            others = [chat for chat in chats if chat.home != "a"]
            answers = asyncio.create_task(each(leavers[::2], answered, at_once=len(leavers)))
            await eventually(lambda: all(chat.heard for chat in leavers[::2]), 20, "answers under way")
            drain = ("drain", "a", "--wait", "--timeout", str(DRAIN))
            drained = await asyncio.gather(*(command(proxy, *drain) for proxy in proxies))
            await answers
            for status in drained:
                assert status["drain"]["empty"]
                assert status["drain"]["forced"] == 0
                assert status["tunnels"] == 0
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            assert {chat.home for chat in leavers} <= {"b", "c"}
            assert all(chat.connects == 2 for chat in leavers), [chat.story() for chat in leavers][:2]
            await each(leavers, lambda chat: chat.check(fleet.journal))
            assert all(chat.connects == 1 for chat in others), "a session elsewhere was disturbed"

    asyncio.run(scenario())


@in_full
@pytest.mark.timeout(300)
def test_redis_may_stop_and_start_again(
    fleet: Fleet, proxies: list[ProxyProcess], redis_server: RedisServer
) -> None:
    """While it is gone, hangs, or has forgotten all, chats go on, and connections find their sessions.

    Those whose wrong guess cannot be corrected meanwhile find one.
    """

    def up(number: float) -> bool:
        return all(proxy.metric("chainlit_proxy_shared_directory_up") == number for proxy in proxies)

    async def reconnect(chat: Chat) -> None:
        await chat.drop(within=60)
        if chat.link.kind in GUESSED:
            await chat.insist(60)
        else:
            await chat.check(fleet.journal)
            chat.check_unmoved(fleet.journal)

    async def scenario() -> None:
        async with Balancer(ports(proxies)) as balancer, Clients(balancer.url, delay=0.1) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), len(KINDS)))
            for stop, start in (
                (redis_server.kill9, redis_server.start),
                (redis_server.pause, redis_server.resume),
            ):
                stop()
                await eventually(lambda: up(0), 30, "the proxies know that it is gone")
                chats += await clients.open_many(islice(cycle(KINDS), len(KINDS)))
                await each(chats, reconnect)
                start()
                await eventually(lambda: up(1), 30, "it is used again")
                await each(chats, reconnect)
            assert_none_lost(chats)

    asyncio.run(scenario())
