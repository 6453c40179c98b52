"""Who talks in the rows of shared sessions: clients of two libraries and three ways to connect, and a count.

A talker asks again and again and keeps every question, so that in the end each was answered, was told to be
cut off, or was lost in silence: nobody said anything. How often the app was called for one, the journal of
the instances says. Where an instance is killed, everybody asks at that moment.
"""

import asyncio
import contextlib
import itertools
import random
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from tests.support.chat import Chat, Reply
from tests.support.clients import Clients
from tests.support.journal import Entry, Journal
from tests.support.link import Driver, Event, Kind, Transports
from tests.support.sharing import NOTICE

# As Chainlit's page connects, most of them; the others are what firewalls and scripts make of it.
SHARES = {Transports.BOTH: 3, Transports.WEBSOCKET: 1, Transports.POLLING: 1}
KINDS = [Kind(driver, way) for way, share in SHARES.items() for _ in range(share) for driver in Driver]
PATIENT = 8.0  # seconds without an answer after which a user asks again
EVER = 600.0  # seconds; a question is never given up before the count
PAUSE = 2.0  # seconds from an answer to the next question, give or take half of it
AT_LAST = 6.0  # seconds in which what is still to be answered may be
FEW = 10  # disconnects that are told of one by one
LOOK = 0.1  # seconds between two looks whether all were answered


@dataclass(slots=True)
class Question:
    """One of a talker."""

    asked_at: float  # seconds since the epoch
    answer: asyncio.Task[Reply]
    told: bool = False  # that its answer was cut off

    @property
    def reply(self) -> Reply | None:
        """The answer, if it came."""
        return self.answer.result() if self.answer.done() and not self.answer.exception() else None


@dataclass(slots=True)
class Figures:
    """What was counted in one row for one proxy."""

    victims: int = 0  # sessions whose instance went away, each time
    seconds: list[float] = field(default_factory=list)  # until their next answer
    waits: list[float] = field(default_factory=list)  # from each question to the next answer
    disconnects: int = 0
    asked: int = 0
    silent: int = 0  # questions that were neither answered nor told to be cut off
    told: int = 0
    twice: int = 0  # questions for which the app was called more than once
    torn: int = 0  # streamed answers with tokens missing or doubled
    forgot: int = 0  # sessions
    never: int = 0  # sessions without an answer in the end


class Talker:
    """One session; made by the crowd."""

    def __init__(self, chat: Chat, text: str | None) -> None:
        """`text` is what it always says; None: it says something short, and now and then has it streamed."""
        self.chat = chat
        self.at = chat.home  # the instance that answered last
        self.answered: list[tuple[float, float, str]] = []  # when it was asked and answered, and by whom
        self.questions: list[Question] = []
        self.disconnects = 0
        self.figures = Figures()
        self.pauses = PAUSE
        self._text = text
        self._known = 0  # the count of its messages that was told last
        self._is_brief = False
        self._since: float | None = None  # the first question since the last answer
        self._cut, self._hurry, self._ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._ready.set()
        self._take = chat.link.listener
        chat.link.listener = self._hear

    def hurry(self) -> None:
        """Asks now, for something short, until it has an answer."""
        self._hurry.set()
        self._is_brief = True

    def _hear(self, event: Event) -> None:
        if event.name == "disconnect":
            self.disconnects += 1
            self._cut.set()
        if event.name == "new_message" and NOTICE in event.data["output"]:
            for question in self.questions:
                question.told = True
            self._known = max(0, self._known - 1)  # its answer may have come before the turn had ended
            self._cut.set()
        self._take(event)
        if self.chat.ready:
            self._ready.set()
        else:
            self._ready.clear()

    async def talk(self) -> None:
        """Talks for ever."""
        while True:
            await self._ready.wait()
            await self._ask()
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pauses * random.uniform(0.5, 1.5)):
                    await self._hurry.wait()

    async def _ask(self) -> None:
        self._cut.clear()
        streams = not self._is_brief and random.random() < 0.2
        text = self._text or ("stream 10 0.1" if streams else "say")
        question = Question(time.time(), asyncio.create_task(self.chat.ask(text, within=EVER)))
        question.answer.add_done_callback(partial(self._hear_answer, question.asked_at))
        self.questions.append(question)
        self._since = self._since or question.asked_at
        cut = asyncio.create_task(self._cut.wait())
        await asyncio.wait({question.answer, cut}, timeout=PATIENT, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()

    def _hear_answer(self, asked_at: float, answer: asyncio.Task[Reply]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        now, reply = time.time(), answer.result()
        self.at = reply.instance
        self._is_brief = False
        self.answered.append((asked_at, now, reply.instance))
        if self._since is not None:
            self.figures.waits.append(now - self._since)
            self._since = None
        if reply.n <= self._known or len(self.chat.greetings) > 1:
            self.figures.forgot = 1
            told = (
                f"n={reply.n} after {self._known}, greeted by {[one.instance for one in self.chat.greetings]}"
            )
            print(f"{now:.3f} {self.chat} forgot: {told}", file=sys.stderr, flush=True)
        self._known = reply.n
        words = "".join(reply.tokens).partition(" instance=")[0].split()
        self.figures.torn += bool(words) and words != [f"t{i}" for i in range(len(words))]

    def next_answer(self, since: float, gone: str) -> float | None:
        """Seconds until an answer that was asked for later, or is somebody else's; None: none came."""
        told = (
            at - since for asked, at, by in self.answered if at >= since and (asked >= since or by != gone)
        )
        return next(told, None)


class Talkers:
    """All of one row; `async with` closes them."""

    def __init__(self, url: str, journal: Journal) -> None:
        self.url, self.journal = url, journal
        self.all: list[Talker] = []
        self._total = Figures()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._clients = await self._stack.enter_async_context(Clients(self.url))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hush()
        await self._stack.aclose()

    async def come(self, count: int, text: str | None) -> None:
        """Opens the sessions, and has everybody talk."""
        chats = await self._clients.open_many(itertools.islice(itertools.cycle(KINDS), count))
        self.all = [Talker(chat, text) for chat in chats]
        self._tasks = [asyncio.create_task(talker.talk()) for talker in self.all]
        await asyncio.sleep(2 * PAUSE)

    def at(self, instance: str) -> list[Talker]:
        """Those whom an instance answered last."""
        return [talker for talker in self.all if talker.at == instance]

    def hurry(self) -> None:
        """Everybody asks now."""
        for talker in self.all:
            talker.hurry()

    async def answered(self, victims: list[Talker], since: float, gone: str, within: float) -> None:
        """Waits until the victims have had an answer since then, and keeps how long that took."""
        deadline = time.monotonic() + within
        waiting = list(victims)
        while waiting and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
            waiting = [one for one in waiting if one.next_answer(since, gone) is None]
        took = [one.next_answer(since, gone) for one in victims]
        self._total.victims += len(victims)
        self._total.seconds += [within if seconds is None else seconds for seconds in took]
        self._total.never += took.count(None)

    async def _hush(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        asked = [question.answer for talker in self.all for question in talker.questions]
        for answer in asked:
            answer.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def count(self) -> Figures:
        """Nobody asks any more; all that was counted."""
        for task in self._tasks:
            task.cancel()
        open_ = [q.answer for one in self.all for q in one.questions if not q.answer.done()]
        if open_:
            await asyncio.wait(open_, timeout=AT_LAST)
        total = self._total
        for talker in self.all:
            own = talker.figures
            total.disconnects += talker.disconnects
            total.waits += own.waits
            total.torn += own.torn
            total.forgot += own.forgot
            total.asked += len(talker.questions)
            unanswered = [one for one in talker.questions if not one.answer.done() or one.reply is None]
            total.told += sum(one.told for one in unanswered)
            total.silent += sum(not one.told for one in unanswered)
        total.twice = self._count_twice()
        self._tell_disconnects()
        return total

    def _tell_disconnects(self) -> None:
        """Standard error has who was disconnected, where that is rare."""
        lost = {
            one.chat: [event.t for event in one.chat.events if event.name != "connect"] for one in self.all
        }
        if sum(map(len, lost.values())) <= FEW:
            for chat, times in lost.items():
                if times:
                    print(f"disconnected, {chat}: {times}", file=sys.stderr, flush=True)

    def _count_twice(self) -> int:
        """For how many questions the app was called more than once; standard error has which."""
        kinds = {talker.chat.session: talker.chat.link.kind for talker in self.all}
        calls: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.journal.entries(kind="message"):
            if entry.session in kinds:
                calls.setdefault((entry.session, entry.details["nonce"]), []).append(entry)
        twice = {asked: entries for asked, entries in calls.items() if len(entries) > 1}
        for (session, _), entries in twice.items():
            told = [f"{entry.t:.3f} {entry.instance}" for entry in entries]
            print(f"handled twice, {kinds[session]} {session}: {told}", file=sys.stderr, flush=True)
        return len(twice)
