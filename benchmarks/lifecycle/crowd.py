"""The people of `make bench-lifecycle`: sessions that talk all the time, strangers that come, and a count.

A guest is a tab over python-socketio, by polling and then websocket, with cookies. It asks, now and then
for a streamed answer, and uploads a file now and then. It is *cut off* when its connection is lost or an
answer does not come, and *usable* again with the next answer. What happened is counted from `watch` on.
"""

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import repeat
from typing import Self

import aiohttp

from tests.support.chat import Chat
from tests.support.clients import Clients
from tests.support.link import SOCKET_PATH, Driver, Event, Exchange, Kind, Transports
from tests.support.python_link import PythonLink

KIND = Kind(Driver.PYTHON, Transports.BOTH)
ROUNDS = 30  # questions a second, of all guests together: what two cores bear beside instances and proxy
PATIENT = 5.0  # seconds that a guest waits for an answer
STREAM = "stream 10 0.1"
STRANGERS = 4
STRANGE = 0.05  # seconds between two visits of one of them
LOOK = 0.1  # seconds between two looks whether all guests are through
CONNECTION = "Cannot connect to host"  # what aiohttp says of a refused one


@dataclass(slots=True)
class Figures:
    """What was counted in one row for one proxy."""

    refused: int = 0  # connections
    failed: int = 0  # requests: answered with an error, or not at all
    unanswered: int = 0  # questions
    lost: int = 0  # sessions that forgot what they were told
    seconds: list[float] = field(default_factory=list)  # until usable, of those that were and are
    offline: list[float] = field(default_factory=list)  # seconds from a lost connection to the next
    answer: str = ""  # what became of the long one
    never: int = 0  # sessions that were not usable at the end
    closes: Counter[str] = field(default_factory=Counter)  # websocket close codes
    processes: int = 0  # of the proxy, at the end

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def p99(self) -> float:
        """Of the seconds: the highest but one per cent."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))] if self.seconds else 0.0


class Guest:
    """One session; made by the crowd."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._greetings = 1  # how often `on_chat_start` had run
        self.known = 0  # the count of its messages that its instance told last
        self.rounds = 0  # questions that were answered since `watch`
        self.cut_at: float | None = None  # set while it is cut off
        self.figures = Figures()
        self.lost = False
        self._lost_at: float | None = None  # set while it has no connection
        self._cut = asyncio.Event()
        self._ready = asyncio.Event()  # set while its instance has answered the newest connect
        self._ready.set()
        self._take = chat.link.listener
        chat.link.listener = self._hear

    def watch(self) -> None:
        """Counts from now on."""
        self.figures = Figures()
        self._greetings = len(self.chat.greetings)
        self.rounds, self.lost, self.cut_at = 0, False, None
        self.chat.link.exchanges.clear()

    def _hear(self, event: Event) -> None:
        if event.name == "disconnect":
            self.figures.closes[self._close_code()] += 1
            self._is_cut_off(event.t)
            self._lost_at = self._lost_at or event.t
            self._cut.set()
        elif event.name == "connect" and self._lost_at is not None:
            self.figures.offline.append(event.t - self._lost_at)
            self._lost_at = None
        self._take(event)
        if self.chat.ready:
            self._ready.set()
        else:
            self._ready.clear()

    def _close_code(self) -> str:
        assert isinstance(self.chat.link, PythonLink)
        websocket = self.chat.link._sio.eio.ws  # noqa: SLF001 - the library does not tell it otherwise
        return str(getattr(websocket, "close_code", None) or "none")

    def _is_cut_off(self, since: float) -> None:
        if self.cut_at is None:
            self.cut_at = since

    async def talk(self, pause: Callable[[], float], since: Callable[[], float | None]) -> None:
        """Talks for ever. Times run from when it was cut off, or from `since`, if that tells of an event."""
        while True:
            await self._ready.wait()
            began = time.time()
            if await self._ask():
                if self.cut_at is not None:
                    self.figures.seconds.append(time.time() - (since() or self.cut_at))
                    self.cut_at = None
                if self.rounds % 3 == 0:
                    with contextlib.suppress(AssertionError):  # it is among the exchanges
                        await self.chat.upload("something")
                self.rounds += 1
                with contextlib.suppress(TimeoutError):  # who is cut off does not wait any longer
                    async with asyncio.timeout(pause() * random.uniform(0.5, 1.5)):
                        await self._cut.wait()
            else:
                self.figures.unanswered += 1
                self._is_cut_off(began)

    async def _ask(self) -> bool:
        """Asks once; False if the connection was lost or the time was over before the answer."""
        self._cut.clear()
        text = STREAM if random.random() < 0.2 else "say"
        asking = asyncio.create_task(self.chat.ask(text, within=PATIENT))
        cut = asyncio.create_task(self._cut.wait())
        try:
            await asyncio.wait({asking, cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.cancel()
            if not asking.done():
                asking.cancel()
        if not asking.done() or asking.exception() is not None:
            return False
        reply = asking.result()
        self.lost |= reply.n <= self.known or len(self.chat.greetings) > self._greetings
        self.known = reply.n
        return True


class Crowd:
    """All guests and strangers of one row; `async with` closes them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.guests: list[Guest] = []
        self.since: float | None = None  # the event from which times run; None: from each cut
        self._visits = Figures()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._clients = await self._stack.enter_async_context(Clients(self.url))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def come(self, count: int) -> None:
        """Opens the sessions, and has everybody begin."""
        chats = await self._clients.open_many(repeat(KIND, count))
        self.guests = [Guest(chat) for chat in chats]
        pause = count / ROUNDS
        for guest in self.guests:
            self._tasks.append(asyncio.create_task(guest.talk(lambda: pause, lambda: self.since)))
        self._tasks += [asyncio.create_task(self._visit()) for _ in range(STRANGERS)]
        await asyncio.sleep(pause)

    def watch(self) -> None:
        """Counts from now on."""
        self._visits = Figures()
        for guest in self.guests:
            guest.watch()

    @contextlib.asynccontextmanager
    async def long_answer(self, seconds: int) -> AsyncIterator[None]:
        """One more session is streamed an answer for so long, beside what the block does."""
        chat = await self._clients.open(KIND)
        asking = asyncio.create_task(chat.ask(f"stream {seconds * 4} 0.25", within=2.0 * seconds))
        try:
            await asyncio.sleep(1)
            yield
            await asyncio.wait([asking])
            self._visits.answer = "cut off" if asking.exception() else "whole"
        finally:
            asking.cancel()

    async def through(self, patience: float) -> None:
        """Returns when every guest had two more answers and nobody is cut off, or after `patience`."""
        wanted = {guest: guest.rounds + 2 for guest in self.guests}
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if all(guest.rounds >= rounds and guest.cut_at is None for guest, rounds in wanted.items()):
                return
            await asyncio.sleep(LOOK)

    def count(self) -> Figures:
        """All that was counted since `watch`."""
        total = self._visits
        for guest in self.guests:
            own = guest.figures
            total.unanswered += own.unanswered
            total.closes += own.closes
            total.offline += own.offline
            total.never += guest.cut_at is not None
            total.lost += guest.lost
            if own.seconds:
                total.seconds.append(max(own.seconds))
            for exchange in guest.chat.link.exchanges:
                if exchange.status == 0 and CONNECTION in exchange.body:
                    total.refused += 1
                else:
                    total.failed += _is_failure(exchange)
        return total

    async def _visit(self) -> None:
        """A stranger comes with a new connection each time."""
        timeout = aiohttp.ClientTimeout(total=PATIENT)
        while True:
            async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
                try:
                    async with http.get(f"{self.url}/project/translations") as response:
                        await response.read()
                        self._visits.failed += response.status >= 400
                except aiohttp.ClientConnectorError:
                    self._visits.refused += 1
                except (aiohttp.ClientError, TimeoutError):
                    self._visits.failed += 1
            await asyncio.sleep(STRANGE)


def _is_failure(exchange: Exchange) -> bool:
    """Whether a request failed. By 400 Engine.IO sends its client to connect anew: that is no failure."""
    if SOCKET_PATH in exchange.path:
        return exchange.status == 0 or exchange.status >= 500
    return exchange.status == 0 or exchange.status >= 400
