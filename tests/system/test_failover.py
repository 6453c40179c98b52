"""One of three instances is killed under load."""

import asyncio
import random
import statistics
import time
from contextlib import suppress
from itertools import cycle, islice

import aiohttp
import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import JS_KINDS, Driver, Kind, Transports
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import Stopwatch

pytestmark = pytest.mark.system

CLIENTS = 60
MEDIAN, P99 = 1.5, 3.0  # seconds; Socket.IO's own first retry waits 0.5 to 1.5 s
PAUSE = 1.0  # between two messages of one client
NEWCOMERS = 12


class Load:
    """Every client says something again and again, and a stranger asks for the page."""

    def __init__(self, url: str, chats: list[Chat]) -> None:
        self.url, self.chats = url, chats
        self.visits: list[tuple[float, int]] = []  # when each of its requests began, and its status or 0
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Runs until `stop`; an AssertionError tells of the first unanswered message."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._visit())
            for chat in self.chats:
                tasks.create_task(self._talk(chat))

    def stop(self) -> None:
        """Lets everybody finish what is under way."""
        self._over.set()

    async def _talk(self, chat: Chat) -> None:
        while not self._over.is_set():
            await chat.ask(within=15)
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))

    async def _visit(self) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            while not self._over.is_set():
                # A user agent of its own each time, so that the visits go to all instances.
                headers = {"user-agent": f"visitor {len(self.visits)}"}
                began, status = time.time(), 0
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.url}/project/translations", headers=headers) as response:
                        await response.read()
                        status = response.status
                self.visits.append((began, status))
                await asyncio.sleep(0.02)


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_only_the_clients_of_the_killed_instance_notice(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Its clients have a working session within about a second; the others' sessions see nothing."""

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(JS_KINDS), CLIENTS), on="a", each_has=CLIENTS // 6)
            victims = [chat for chat in chats if chat.home == "a"]
            others = [chat for chat in chats if chat.home != "a"]

            load = Load(proxy.url, others)
            running = asyncio.create_task(load.run())
            await each(victims, lambda chat: chat.ask())
            fleet["a"].kill9()
            killed, watch = time.time(), Stopwatch()
            newcomers = await clients.open_many(islice(cycle(JS_KINDS), NEWCOMERS))
            await each(victims, lambda chat: chat.recover(), at_once=len(victims))
            took = sorted(watch.own(chat.ready_at - killed) for chat in victims)
            load.stop()
            await running

            assert took[0] > 0, "a victim did not notice"
            assert statistics.median(took) < MEDIAN, f"seconds until usable: {took}, {watch}"
            assert took[int(0.99 * len(took))] < P99, f"seconds until usable: {took}, {watch}"
            await each(victims + newcomers, lambda chat: chat.check(fleet.journal))

            assert_nothing_refused(others + newcomers)
            assert all(chat.connects == 1 for chat in others), "a session elsewhere was disturbed"
            for chat in others:
                chat.check_unmoved(fleet.journal)
            bad = [exchange for chat in victims for exchange in chat.refused() if exchange.status >= 500]
            assert not bad, f"victims saw {bad[:5]}"
            # What the instance had heard when it died is said to no other one.
            assert {status for began, status in load.visits if began > killed} == {200}
            assert {status for _, status in load.visits} <= {200, 502}

    asyncio.run(scenario())


@pytest.mark.parametrize("driver", Driver, ids=lambda driver: driver.value)
def test_an_answer_cut_short_is_asked_again(fleet: Fleet, proxy: ProxyProcess, driver: Driver) -> None:
    """A client whose instance dies in the middle of an answer asks again elsewhere, on every transport."""

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(Kind(driver, transports) for transports in Transports)
            streams = [asyncio.create_task(chat.ask("stream 100 0.05", within=3)) for chat in chats]
            await asyncio.sleep(0.5)
            for name in "ab":
                fleet[name].kill9()
            await asyncio.gather(*streams, return_exceptions=True)
            await each(chats, lambda chat: chat.recover())
            await each(chats, lambda chat: chat.check(fleet.journal))
            assert {chat.home for chat in chats} == {"c"}

    asyncio.run(scenario())
