"""Instances that share their sessions behind two proxies that share their directory: nobody disconnects.

Each request of a client that polls comes to the other proxy than the one before.
"""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions.conftest import redis_server
from tests.support.balancer import Balancer
from tests.support.clients import Clients, each
from tests.support.journal import Journal
from tests.support.link import Driver, Kind, Transports
from tests.support.proxy_process import ProxyProcess, command, config_for
from tests.support.redis_server import RedisServer
from tests.support.sharing import Conversation, Instance
from tests.support.waiting import eventually

__all__ = ["redis_server"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

POLLS = [Kind(driver, Transports.POLLING) for driver in Driver]
ALL = [*POLLS, Kind(Driver.PYTHON, Transports.WEBSOCKET), Kind(Driver.JS, Transports.BOTH)]
CROWD = 16
HEALTH = {"interval": 0.5, "timeout": 1, "fall": 2, "rise": 1, "evict_after": 2}


class Several:
    """Instances and the proxies before them; owned by the fixture."""

    def __init__(self, folder: Path, store: str) -> None:
        self.instances = [Instance(name, folder, store) for name in "abc"]
        self.journal = Journal(folder / "journal.jsonl")
        for instance in self.instances:
            instance.launch()
        for instance in self.instances:
            instance.wait_ready()
        affinity = {"secret": "of both", "directory": {"redis": store}}
        sessions = {"shared": True}
        self.proxies = [
            ProxyProcess(
                config_for(self.instances, health=HEALTH, affinity=affinity, sessions=sessions),  # type: ignore[arg-type]
                folder,
                f"proxy{number}",
            )
            for number in range(2)
        ]
        for proxy in self.proxies:
            proxy.start()
            proxy.wait_health({instance.name: "healthy" for instance in self.instances})

    @property
    def ports(self) -> list[int]:
        """Where the proxies listen."""
        return [int(proxy.url.rpartition(":")[2]) for proxy in self.proxies]

    def home(self, talk: Conversation) -> Instance:
        """The instance of the last answer."""
        assert talk.last
        pid = int(talk.last.instance.removeprefix("pid"))
        return next(each for each in self.instances if each.running and each.pid == pid)

    def total(self, name: str, **labels: str) -> float:
        """A metric of all proxies."""
        return sum(proxy.metric(name, **labels) for proxy in self.proxies)

    def end(self) -> None:
        """Ends everything and shows the logs."""
        for process in [*self.proxies, *self.instances]:
            process.resume()
            process.kill9()
            print(process.tail(80))


@pytest.fixture
def several(tmp_path: Path, redis_server: RedisServer) -> Iterator[Several]:
    """Three instances, two proxies, one Redis."""
    made = Several(tmp_path, redis_server.url)
    yield made
    made.end()


def lost(talk: Conversation) -> int:
    """How often its client has seen its connection end."""
    return sum(event.name in {"disconnect", "connect_error"} for event in talk.chat.events)


async def opened(clients: Clients, kinds: list[Kind], count: int) -> list[Conversation]:
    """So many conversations, each of which has had a turn."""
    talks = [
        Conversation(await clients.chat(kind)) for kind in itertools.islice(itertools.cycle(kinds), count)
    ]
    of = {talk.chat: talk for talk in talks}
    await each(of, lambda chat: of[chat].open())
    await each(of, lambda chat: of[chat].turn())
    return talks


async def turns(talks: list[Conversation], text: str = "say") -> None:
    """All of them have a turn at once, each answer of which tells that nothing was forgotten."""
    of = {talk.chat: talk for talk in talks}
    await each(of, lambda chat: of[chat].turn(text), at_once=len(talks))


def busiest(several: Several, talks: list[Conversation]) -> Instance:
    """The instance with most of the conversations."""
    return max(several.instances, key=lambda each: sum(several.home(t) is each for t in talks))


def check(several: Several, talks: list[Conversation]) -> None:
    """Every message ran once, every session began once, and nobody was disconnected."""
    for talk in talks:
        talk.check_starts(several.journal)
        ran = [entry.details["nonce"] for entry in several.journal.entries(talk.chat.session, "message")]
        assert len(ran) == len(set(ran)) == talk.turns, f"{talk}: {ran}"
    disturbed = [talk for talk in talks if lost(talk)]
    assert not disturbed, "\n".join(f"{talk}: {talk.chat.story()}" for talk in disturbed[:4])


def test_a_killed_instance_disconnects_nobody(several: Several) -> None:
    """At rest or with a message just said: it is answered once, at another instance."""

    async def scenario() -> None:
        async with Balancer(several.ports, each_request=True) as balancer, Clients(balancer.url) as clients:
            talks = await opened(clients, ALL, CROWD)
            await turns(talks, "stream 5")
            busiest(several, talks).kill9()
            await turns(talks)
            await turns(talks, "stream 20 0.01")
            victim = busiest(several, talks)
            there = [talk for talk in talks if several.home(talk) is victim]
            asking = asyncio.create_task(turns(talks))
            await asyncio.sleep(0)
            victim.kill9()
            await asking
            await turns(talks, "stream 20 0.01")
            assert len(there) >= CROWD // 4
            check(several, talks)
            assert sum(talk.notices for talk in talks) == 0
            assert several.total("chainlit_proxy_hand_overs_total", result="done") >= len(there)

    asyncio.run(scenario())


def test_a_drained_instance_disconnects_nobody(several: Several) -> None:
    """Ordered at both proxies at once, and each session moves once."""

    async def scenario() -> None:
        async with Balancer(several.ports, each_request=True) as balancer, Clients(balancer.url) as clients:
            talks = await opened(clients, ALL, CROWD)
            victim = busiest(several, talks)
            leavers = [talk for talk in talks if several.home(talk) is victim]
            drain = ("drain", victim.name, "--wait", "--timeout", "20")
            drained = await asyncio.gather(*(command(proxy, *drain) for proxy in several.proxies))
            assert all(status["drain"]["empty"] and not status["drain"]["forced"] for status in drained)
            await turns(talks)
            await turns(talks, "stream 20 0.01")
            assert all(several.home(talk) is not victim for talk in leavers)
            went = several.total("chainlit_proxy_hand_overs_total", reason="sent_away")
            assert went == len(leavers), "each once"
            check(several, talks)

    asyncio.run(scenario())


def test_who_has_seen_the_connect_may_be_gone(several: Several) -> None:
    """Then its clients are told to connect anew, and their sessions go on."""

    async def scenario() -> None:
        async with Balancer(several.ports, each_request=True) as balancer, Clients(balancer.url) as clients:
            talks = await opened(clients, POLLS, 6)
            gone = several.proxies[0]
            gone.kill9()
            gone.launch()
            await asyncio.to_thread(gone.wait_ready)
            await eventually(
                lambda: gone.metric("chainlit_proxy_shared_directory_up") == 1, 20, "it shares again"
            )
            before = {talk.chat: talk.chat.asked for talk in talks}
            busiest(several, talks).kill9()
            await each(before, lambda chat: chat.go_on(), at_once=len(before))
            for talk in talks:
                talk.check_starts(several.journal)

    asyncio.run(scenario())
