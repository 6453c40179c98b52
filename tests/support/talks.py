"""Conversations whose instances come and go while their clients are not to notice.

A `Talk` says messages and keeps what became of each: answered, or its user was told. What the apps ran is
compared with that at the end: nothing twice, and nothing that was said is lost in silence.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any

from tests.support.chat import PATIENCE, Chat, Reply
from tests.support.clients import Clients, each
from tests.support.journal import Journal
from tests.support.link import COOKIE_KINDS, KINDS, Kind
from tests.support.sharing import Conversation
from tests.support.waiting import Stopwatch, eventually, one_of

# Every library with every choice of transports before those that differ only in what they tell of themselves.
MIX = [*COOKIE_KINDS, *(kind for kind in KINDS if kind not in COOKIE_KINDS)]


class Talk(Conversation):
    """A conversation, and what became of all that was said in it."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(chat)
        self.said: list[str] = []  # messages, by their nonce
        self.answered = 0
        self.unanswered = 0  # messages whose user was told that the answer was cut off
        self.at = ""  # the instance of the newest answer

    async def open(self) -> None:
        """As a conversation."""
        await super().open()
        self.at = str(self.chat.home)

    async def say(self, text: str = "say", within: float = PATIENCE) -> Reply | None:
        """Says something until it is answered, or its user is told that it will not be: None."""
        self.told.clear()
        nonce, answer = await self.chat.say(text)
        self.said.append(nonce)
        told = asyncio.ensure_future(self.told.wait())
        either: set[asyncio.Future[Any]] = {answer, told}
        await one_of(either, within)
        told.cancel()
        assert answer.done() or self.told.is_set(), (
            f"{self}: {nonce} was lost in silence: {self.chat.story()}"
        )
        if not answer.done():
            self.unanswered += 1
            return None
        reply = answer.result()
        self.answered += 1
        self.last, self.at = reply, reply.instance
        return reply

    async def go_on(self, over: asyncio.Event, pause: float = 0.1) -> None:
        """Says something again and again, with pauses of about so many seconds, until it is over."""
        while not over.is_set():
            await self.say()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    def check_never_away(self) -> None:
        """Its client has not noticed anything, and was greeted once."""
        seen = [event.name for event in self.chat.events if event.name != "connect"]
        assert not seen, f"{self}: {self.chat.story()}"
        assert len(self.chat.greetings) == 1, f"{self} was greeted again: {self.chat.greetings}"
        refused = [exchange for exchange in self.chat.refused() if "socket.io" in exchange.path]
        assert not refused, f"{self}: {refused[:3]}"


def check_once(journal: Journal, talks: Iterable[Talk]) -> None:
    """No message was given to an app twice, and each session began once."""
    runs = Counter(entry.details["nonce"] for entry in journal.entries(kind="message"))
    starts = Counter(entry.session for entry in journal.entries(kind="start"))
    for talk in talks:
        twice = [nonce for nonce in talk.said if runs[nonce] > 1]
        assert not twice, f"{talk}: run twice: {twice}"
        ran = sum(runs[nonce] for nonce in talk.said)
        assert ran >= talk.answered, f"{talk}: {ran} of {len(talk.said)} ran, {talk.answered} were answered"
        assert starts[talk.chat.session] == 1, f"{talk} began {starts[talk.chat.session]} times"


async def talks_of(
    clients: Clients,
    kinds: Iterable[Kind],
    prepare: Callable[[Talk], Coroutine[Any, Any, None]] | None = None,
) -> list[Talk]:
    """Open conversations, one of each kind, with a turn each; `prepare` is done before they are opened."""
    talks = {talk.chat: talk for talk in [Talk(await clients.chat(kind)) for kind in kinds]}

    async def begin(talk: Talk) -> None:
        if prepare is not None:
            await prepare(talk)
        await talk.open()
        await talk.turn()

    await each(talks, lambda chat: begin(talks[chat]))
    return list(talks.values())


@asynccontextmanager
async def unnoticed(url: str, journal: Journal, count: int = len(COOKIE_KINDS)) -> AsyncIterator[list[Talk]]:
    """So many conversations; whatever happens to them, no client notices it and all go on at the end."""
    async with Clients(url) as clients:
        talks = await talks_of(clients, islice(cycle(MIX), count))
        yield talks
        await together(talk.say() for talk in talks)
        for talk in talks:
            talk.check_never_away()
        check_once(journal, talks)


async def together(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Does all at once; one AssertionError that tells of all that failed."""
    results = await asyncio.gather(*work, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    assert not failed, f"{len(failed)} of {len(results)} failed:\n" + "\n".join(map(repr, failed[:6]))
    return list(results)


async def stream(talks: Sequence[Talk], text: str) -> list[asyncio.Task[Reply | None]]:
    """All say this, to which answers are streamed; as soon as each has heard some of it."""
    heard = {talk.chat: talk.tokens for talk in talks}
    asking = [asyncio.create_task(talk.say(text, within=60)) for talk in talks]
    await eventually(
        lambda: all(talk.tokens > heard[talk.chat] + 2 for talk in talks), PATIENCE, "all are answered"
    )
    return asking


def most_used(talks: Iterable[Talk]) -> str:
    """The instance that has most of them."""
    return Counter(talk.at for talk in talks).most_common(1)[0][0]


def fairly_used(talks: Sequence[Talk]) -> str:
    """The instance that has about a third of them: after some kills one may have them all."""
    return min(Counter(talk.at for talk in talks).items(), key=lambda at: abs(at[1] - len(talks) / 3))[0]


async def next_answers(talks: Iterable[Talk], since: Stopwatch) -> list[float]:
    """All say something at once; after how many seconds of it each was answered, the shortest first."""

    async def one(talk: Talk) -> float:
        while await talk.say() is None:  # it was told so, and asks again
            pass
        return since.seconds

    return sorted(await together(one(talk) for talk in talks))
