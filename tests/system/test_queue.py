"""Where instances have as many sessions or answers as they may have, the others wait for their turn."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.chat import PATIENCE, Chat
from tests.support.clients import Clients
from tests.support.link import Driver, Event, Kind, Request, Transports
from tests.support.sharing import NOTICE, RunSharing, ending
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PAGE = Kind(Driver.PYTHON, Transports.BOTH)
REAL = Kind(Driver.JS, Transports.BOTH)
PLACE = re.compile(r"You are number (\d+)")
NAVIGATES = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
MakeRun = Callable[..., RunSharing]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Starts the command; it and its replicas end with the test."""
    with ending() as made:

        def make(replicas: int, **balance: int) -> RunSharing:
            made.append(RunSharing(tmp_path, replicas, balance={"slow_start": 0, **balance}))
            made[-1].start()
            return made[-1]

        yield make


class Tab:
    """A chat, and what its user reads of places."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.places: list[int] = []  # as they were told in the chat
        self.notices = 0
        self.lines = 0  # that are shown now
        self._ids: set[str] = set()
        self._listener = chat.link.listener
        chat.link.listener = self._hear

    def _hear(self, event: Event) -> None:
        if event.name in {"new_message", "update_message"} and "output" in event.data:
            self.notices += NOTICE in event.data["output"]
            if found := PLACE.search(event.data["output"]):
                self.places.append(int(found[1]))
                self._ids.add(event.data["id"])
        elif event.name == "delete_message":
            self._ids.discard(event.data["id"])
        self.lines = len(self._ids)
        self._listener(event)

    async def load(self) -> int:
        """Loads the page: the place that it tells, 0 if it is the app's."""
        answer = await self.chat.link.request(Request("GET", "/", None, None, dict(NAVIGATES)))
        found = PLACE.search(answer.body)
        assert answer.status == (503 if found else 200), answer
        return int(found[1]) if found else 0

    async def gets_in(self) -> None:
        """Loads the page again and again until that is the app's, and connects."""
        for _ in range(200):
            if not await self.load():
                await self.chat.open()
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.chat} waits for ever")


def sessions(run: RunSharing) -> int:
    """Those that count."""
    return sum(backend["sessions"] for backend in run.backends().values())


def test_page_loads_wait_for_a_place(make_run: MakeRun) -> None:
    """One session for each of two replicas: the third browser is told its place, and its turn comes."""
    run = make_run(2, most_sessions=1)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            browser = clients.browser(PAGE)
            one, two = Tab(await clients.chat(PAGE, browser)), Tab(await clients.chat(PAGE))
            three, four = Tab(await clients.chat(PAGE)), Tab(await clients.chat(PAGE))
            for tab in (one, two):
                assert await tab.load() == 0
                await tab.chat.open()
            assert one.chat.home != two.chat.home
            assert [await tab.load() for tab in (three, four, three)] == [1, 2, 1]
            stranger = await clients.chat(REAL)  # loads no page
            coming = asyncio.create_task(stranger.open(within=120))
            await eventually(lambda: run.metric("chainlit_proxy_queue_waiting") == 3, PATIENCE, "it waits")
            await two.chat.drop()
            assert (await two.chat.ask()).n == 1, "it goes on"
            anew = Tab(await clients.chat(PAGE, browser))  # the page of the first one is loaded anew
            assert await anew.load() == 0
            await clients.close(one.chat)
            await eventually(lambda: sessions(run) == 1, PATIENCE, "the first one has left")
            assert await three.load() == 1
            await anew.chat.open()
            await clients.close(anew.chat)
            assert await four.load() == 2
            await three.gets_in()
            assert await four.load() == 1
            await clients.close(two.chat)
            await four.gets_in()
            assert {three.chat.home, four.chat.home} == set(run.pids())
            await clients.close(three.chat)
            await coming
            assert run.metric("chainlit_proxy_queue_waiting") == 0
            assert run.metric("chainlit_proxy_queue_total", result="admitted") == 3
            assert run.metric("chainlit_proxy_queue_seconds_count") == 3

    asyncio.run(scenario())


def test_messages_wait_for_their_turn(make_run: MakeRun) -> None:
    """Five users ask one replica that answers one at once: all are told their place, and answered."""
    run = make_run(1, most_answers=1)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            tabs = [Tab(await clients.chat(kind)) for kind in (PAGE, REAL, PAGE, REAL, PAGE)]
            for tab in tabs:
                await tab.chat.open()
            answers, order = [], list[int]()
            for number, tab in enumerate(tabs):
                _, answer = await tab.chat.say("stream 20 0.05")
                answer.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
                answers.append(answer)
                if number:
                    await eventually(lambda tab=tab: tab.places, PATIENCE, "it is told")  # type: ignore[misc]
                else:
                    await eventually(lambda: tabs[0].chat.heard, PATIENCE, "it is answered")
            async with asyncio.timeout(60):
                replies = await asyncio.gather(*answers)
            assert order == [0, 1, 2, 3, 4]
            assert [tab.places for tab in tabs] == [[], [1], [2, 1], [3, 2, 1], [4, 3, 2, 1]]
            await eventually(lambda: not any(tab.lines for tab in tabs), PATIENCE, "nothing is left of it")
            assert [reply.n for reply in replies] == [1] * 5
            for tab, reply in zip(tabs, replies, strict=True):
                assert len(run.journal.entries(tab.chat.session, "message")) == 1, "answered once"
                assert reply.session == tab.chat.session

    asyncio.run(scenario())


def test_messages_that_wait_survive_their_instance(make_run: MakeRun) -> None:
    """The one that was being answered is told of; those that waited are answered by another, once each."""
    run = make_run(2, most_answers=1)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            tabs = [Tab(await clients.chat(PAGE)) for _ in range(6)]
            for tab in tabs:
                await tab.chat.open()
            victim = max(set(run.pids()), key=lambda name: sum(tab.chat.home == name for tab in tabs))
            there = [tab for tab in tabs if tab.chat.home == victim]
            assert len(there) > 1
            await there[0].chat.say("stream 2000 0.05")
            await eventually(lambda: there[0].chat.heard, PATIENCE, "it is answered")
            answers = []
            for tab in there[1:]:
                answers.append((await tab.chat.say())[1])
                await eventually(lambda tab=tab: tab.lines, PATIENCE, "it is told")  # type: ignore[misc]
            await run.kill(victim)
            async with asyncio.timeout(60):
                replies = await asyncio.gather(*answers)
            assert victim not in {reply.instance for reply in replies}
            await eventually(lambda: there[0].notices == 1, PATIENCE, "its user is told")
            await eventually(lambda: not any(tab.lines for tab in there), PATIENCE, "nothing is left of it")
            assert [tab.notices for tab in there[1:]] == [0] * len(answers)
            assert [reply.n for reply in replies] == [1] * len(answers)

    asyncio.run(scenario())
