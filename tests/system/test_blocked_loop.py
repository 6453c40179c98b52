"""An app that blocks its event loop is slow, not dead."""

import asyncio
import os
import signal
import time
from itertools import islice

import aiohttp
import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import COOKIE_KINDS, KINDS, Driver, Kind, Transports
from tests.support.proxy_process import MakeProxy
from tests.support.run_command import RunCommand
from tests.support.size import IN_FULL, sized
from tests.support.waiting import Stopwatch, eventually

pytestmark = pytest.mark.system

BLOCK = 15.0
HEALTH = {"interval": 0.5, "timeout": 0.5, "fall": 2, "rise": 2}
NEWCOMERS = 9

# Where clients give up after 4 s without a ping, 12 s stand for the 120 that it takes with Chainlit's 45.
PINGS = "" if IN_FULL else "2 2"
LONG = sized(12, in_full=120)  # seconds
EVICT = sized(20, in_full=180)
PATIENT = "health: {interval: 0.5, timeout: 0.5, fall: 2, rise: 2, evict_after: %d}\n"
CALLERS = [Kind(Driver.PYTHON, Transports.WEBSOCKET), Kind(Driver.JS, Transports.POLLING)]


@pytest.mark.timeout(300)
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


# No probe fails within the test, so it is the visitors who feel the block.
CALM = {"interval": 60, "timeout": 30}
FELT = 1.0  # seconds
TURNS = "chainlit_proxy_backend_turns"


@pytest.mark.timeout(300)
def test_a_block_is_felt_before_a_probe_has_failed(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """A second after an app has blocked its loop new visitors are placed elsewhere; only the first wait."""
    proxy = make_proxy(health=CALM)

    async def scenario() -> None:
        async with Clients(proxy.url) as clients, aiohttp.ClientSession() as visitors:

            async def visit(at: int) -> int:
                path = "/ws/socket.io/?EIO=4&transport=polling"
                agent = {"User-Agent": f"visitor {at}"}
                async with visitors.get(f"{proxy.url}{path}", headers=agent) as answer:
                    return answer.status

            chat = await clients.open(COOKIE_KINDS[0])
            blocked, end = str(chat.home), time.monotonic() + BLOCK
            blocking = asyncio.create_task(chat.ask(f"block {BLOCK}", within=BLOCK + 20))
            await eventually(lambda: fleet.journal.entries(chat.session, "block"), 10, "blocked")
            began = time.monotonic()
            crowd = [asyncio.create_task(visit(at)) for at in range(30)]
            await eventually(lambda: proxy.backends()[blocked]["unanswered"] > 0, 5, "somebody waits for it")
            await asyncio.sleep(max(0.6, began + FELT - time.monotonic()))

            late = asyncio.gather(*(visit(at) for at in range(100, 200)))
            assert set(await asyncio.wait_for(late, end - time.monotonic())) == {200}
            newcomers = await clients.open_many(islice(COOKIE_KINDS, 4))
            assert time.monotonic() < end, "they were not placed while the instance was blocked"
            assert blocked not in {newcomer.home for newcomer in newcomers}
            assert proxy.health()[blocked] == "healthy", "a probe has failed"
            assert not all(visitor.done() for visitor in crowd)

            assert (await blocking).instance == blocked
            assert set(await asyncio.gather(*crowd)) == {200}
            await eventually(lambda: proxy.backends()[blocked]["unanswered"] == 0, 5, "nobody waits for it")

    asyncio.run(scenario())


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The instances have these."""
    monkeypatch.setenv("PINGS", PINGS)


async def open_at_one(command: RunCommand, clients: Clients, kinds: list[Kind]) -> tuple[list[Chat], str]:
    """A chat of each kind, all at one instance; its name."""
    (name, here), (other, _) = ((b["name"], b["pid"]) for b in command.backends().values())
    command.post(f"/api/backends/{other}/maintenance")
    chats = await clients.open_many(kinds)
    command.post(f"/api/backends/{other}/ready")
    assert {chat.home for chat in chats} == {f"pid{here}"}
    return chats, name


@pytest.mark.timeout(LONG + 180)
@pytest.mark.usefixtures("pings")
@pytest.mark.parametrize("command", [PATIENT % EVICT], indirect=True, ids=["patient"])
@pytest.mark.parametrize("kind", CALLERS, ids=str)
def test_a_call_that_blocks_its_app_loses_nobody(kind: Kind, command: RunCommand) -> None:
    """For longer than clients wait for a ping and shorter than `evict_after`: the answer comes, all stay."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            (caller, *bystanders), blocked = await open_at_one(command, clients, [kind, *COOKIE_KINDS])
            chats = [caller, *bystanders]
            await each(chats, lambda chat: chat.ask())
            end = time.monotonic() + LONG
            calling = asyncio.create_task(caller.ask(f"block {LONG}", within=LONG + 20))
            await eventually(lambda: command.health().get(blocked) == "degraded", 10, "degraded")
            newcomers = await clients.open_many(COOKIE_KINDS)
            assert time.monotonic() < end
            assert caller.home not in {chat.home for chat in newcomers}
            assert (await calling).instance == caller.home
            assert time.monotonic() >= end
            await each(chats, lambda chat: chat.ask())
            await asyncio.sleep(sum(map(float, PINGS.split())))  # the next ping, and its answer, are in time
            await each(chats, lambda chat: chat.check(command.journal))
            for chat in chats + newcomers:
                assert [event.name for event in chat.events] == ["connect"], chat.story()
                chat.check_unmoved(command.journal)
            assert_nothing_refused(chats + newcomers)

    asyncio.run(scenario())


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("pings")
@pytest.mark.parametrize("command", [PATIENT % 8], indirect=True, ids=["patient"])
def test_one_that_hangs_for_good_is_given_up(command: RunCommand) -> None:
    """Its clients wait for it for `evict_after` seconds, and no longer."""

    async def scenario() -> None:
        async with Clients(command.url) as clients:
            chats, hanging = await open_at_one(command, clients, COOKIE_KINDS)
            await each(chats, lambda chat: chat.ask())
            # An answer is read before its turn has ended, and is stored by then.
            await eventually(lambda: not command.metric(TURNS, backend=hanging), 20, "all turns ended")
            here = int(command.backends()[hanging]["pid"])
            os.kill(here, signal.SIGSTOP)
            stopped, watch = time.monotonic(), Stopwatch()
            await eventually(lambda: command.health()[hanging] == "down", 20, "down")
            assert time.monotonic() - stopped > 7
            assert watch.seconds < 10, watch  # from the last probe that it answered
            early = [event for chat in chats for event in chat.events if event.name != "connect"]
            assert not [event for event in early if event.t < time.time() - 1], "it was waited for"
            for chat in chats:
                assert (await chat.go_on()).instance != f"pid{here}"

    asyncio.run(scenario())
