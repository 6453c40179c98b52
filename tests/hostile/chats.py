"""Ordinary users: twenty chats that go on all day, and newcomers, who notice what was done to them at most.

A chat whose instance nobody has touched notices nothing: no lost connection, no failed request, no new
greeting. One whose instance was harmed may notice that harm, and no more.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Self

from tests.hostile.site import Harm, Site
from tests.support.chat import Chat, Reply
from tests.support.clients import Clients, each
from tests.support.link import KINDS, Kind, Transports
from tests.support.waiting import eventually

CROWD = 20
PATIENCE = 45.0  # seconds for one answer, whatever happens meanwhile
MOMENT = 0.1  # seconds
AFTER_A_LOSS = 2.0  # seconds in which an answer still comes over the next connection
LONG = 5.0  # likewise, of one that takes its time
ON_ITS_WAY = 2  # tokens that were sent to a client and not read when its network failed
DELAY = 0.3  # seconds until a client connects anew


@dataclass
class Seen:
    """How a chat stood when a round began, or what it noticed in it."""

    home: str = ""
    moves: int = 0
    losses: int = 0
    exchanges: int = 0
    failures: list[str] = field(default_factory=list)


class Living:
    """One chat and the loop that uses it."""

    pause = 1.5  # seconds between two doings of one user

    def __init__(self, chat: Chat, chance: random.Random) -> None:
        self.chat = chat
        self.chance = chance
        self.answers = 0
        self.goal = 0  # answers; until then it does not pause
        self.home = chat.home or ""  # who answered last
        self.failures: list[str] = []  # what did not work at the first try, in this round

    async def live(self, hurry: asyncio.Event) -> None:
        """Use the session until cancelled; AssertionError if it does not answer any more."""
        while True:
            await self.use()
            if self.answers < self.goal:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), self.pause * self.chance.uniform(0.5, 1.5))

    async def use(self) -> None:
        """One thing that users do, then a word, which has to be answered in the end."""
        raise NotImplementedError


class User(Living):
    """One whose session may begin anew; owned by the crowd."""

    def __init__(self, site: Site, chat: Chat, chance: random.Random) -> None:
        super().__init__(chat, chance)
        self.site = site
        self.moves = 0  # times that its session began anew, or went on elsewhere
        self._told = 0  # the app's count of its messages, when it was last asked
        self._greeted = len(chat.greetings)  # then
        self.absences: list[list[float]] = []  # from when to when it lost its connection by itself
        self._ways: list[Callable[[], Awaitable[object]]] = [
            self._say, self._say, self._stream, self._fetch, self._upload, self.chat.action,
        ]  # fmt: skip
        if may_blink(chat.link.kind):
            self._ways.append(self._comes_back)

    async def use(self) -> None:
        """One thing that users do, then a word, which has to be answered in the end."""
        try:
            await self.chance.choice(self._ways)()
        except AssertionError as error:
            self.failures.append(f"{time.time():.2f} {error}"[:600])
        reply = await self.chat.insist(PATIENCE)
        greeted = len(self.chat.greetings)
        # An instance that had the session before goes on with what it knew, and greets nobody.
        if reply.instance != self.home or (greeted != self._greeted and reply.n <= self._told):
            self.moves += 1
        else:
            assert reply.n > self._told, f"{self.chat} forgot: {self.chat.story()}"
        self.home, self._told, self._greeted = reply.instance, reply.n, greeted
        self.answers += 1

    async def _patiently(self, asking: Coroutine[Any, Any, Reply], after: float = AFTER_A_LOSS) -> Reply:
        """The answer, however late; but it is not waited for when it was lost with its connection."""
        before = self.chat.connects
        task = asyncio.create_task(asking)
        while not task.done() and self.chat.connects == before:
            await asyncio.wait([task], timeout=MOMENT)
        await asyncio.wait([task], timeout=after)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            raise AssertionError("an answer was lost with its connection")
        return task.result()

    async def _say(self) -> None:
        await self._patiently(self.chat.ask(within=PATIENCE))

    async def _fetch(self) -> None:
        if self.home == self.chat.home:  # else its greeting's file is elsewhere
            await self.chat.fetch()

    async def _stream(self) -> None:
        reply = await self._patiently(self.chat.ask("stream 20 0.03", within=PATIENCE))
        assert len(reply.tokens) == 21, f"{len(reply.tokens)} of 21 tokens came"

    async def _blink(self) -> None:
        """Its own network fails in the middle of an answer, of which nothing is missing in the end."""
        asking = asyncio.create_task(self._patiently(self.chat.ask("stream 40 0.03", within=PATIENCE), LONG))
        heard = self.chat.heard
        # One that still polls loses what is in the answer to its poll.
        await eventually(
            lambda: (self.chat.heard > heard + 4 and self.chat.transport == "websocket") or asking.done(),
            PATIENCE,
            "tokens over a websocket",
        )
        self.absences.append([time.time() - MOMENT, math.inf])
        try:
            await self.chat.drop()
        finally:
            reply = await asking
            self.absences[-1][1] = time.time()
        is_whole = len(reply.tokens) >= 41 - ON_ITS_WAY
        assert is_whole or self.site.may_miss, f"{len(reply.tokens)} of 41 tokens came"

    async def _comes_back(self) -> None:
        """The same; its way back may begin at the other instance, and wait there if that is harmed."""
        try:
            await self._blink()
        except AssertionError:
            if max(self.site.harm.values()) < Harm.POLLS and not self.site.may_miss:
                raise

    async def _upload(self) -> None:
        text = f"file-of-{self.chat.session}"
        key = await self.chat.upload(text)
        reply = await self._patiently(self.chat.ask(files=(key,), within=PATIENCE))
        assert reply.fields["files"] == text

    def now(self) -> Seen:
        """How it stands."""
        losses = sum(
            event.name == "disconnect"
            and not any(began <= event.t <= ended for began, ended in self.absences)
            for event in self.chat.events
        )
        return Seen(self.home, self.moves, losses, len(self.chat.link.exchanges))

    def judge(self, before: Seen, harm: dict[str, Harm]) -> list[str]:
        """What it noticed and should not have, by what was done to its instance."""
        now, allowed = self.now(), harm[before.home]
        faults = []
        if now.moves > before.moves + (allowed >= Harm.SESSIONS):
            faults.append(f"lost its session: {self.chat.story()}")
        may_lose = Harm.CONNECTIONS if self.chat.link.kind.transports is Transports.WEBSOCKET else Harm.POLLS
        if now.losses > before.losses and allowed < may_lose:
            faults.append(f"lost its connection: {self.chat.story()}\n  by itself: {self.absences[-4:]}")
        if allowed < Harm.POLLS:
            fresh = self.chat.link.exchanges[before.exchanges :]
            faults += [f"was refused: {exchange}" for exchange in fresh if exchange.status >= 400]
            faults += self.failures
        return [f"{self.chat} {fault}" for fault in faults]


class Crowd:
    """All users of a run."""

    def __init__(self, site: Site, clients: Clients, seed: int) -> None:
        self.site = site
        self.clients = clients
        self.chance = random.Random(seed)
        self.users: list[User] = []
        self._hurry = asyncio.Event()  # wakes all of them
        self._before: dict[User, Seen] = {}
        self._living: dict[User, asyncio.Task[None]] = {}
        site.lap = self.settled

    def _user(self, chat: Chat) -> User:
        return User(self.site, chat, random.Random(self.chance.getrandbits(64)))

    async def __aenter__(self) -> Self:
        """Twenty users of all kinds, at both instances, begin."""
        chats = await self.clients.open_many(islice(cycle(KINDS), CROWD))
        await each(chats, lambda chat: chat.fetch())  # whoever is cut before that never hears of its file
        assert {chat.home for chat in chats} == set(self.site.fleet.names)
        self.users = [self._user(chat) for chat in chats]
        self._living = {user: asyncio.create_task(user.live(self._hurry)) for user in self.users}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """All close their tabs."""
        while living := [task for task in self._living.values() if not task.done()]:
            for task in living:  # again: `wait_for` loses a cancellation that comes with its result
                task.cancel()
            await asyncio.wait(living, timeout=1)
        await asyncio.gather(*(self.clients.close(user.chat) for user in self.users))
        self.users, self._living = [], {}

    def begin(self) -> None:
        """A round begins."""
        for user in self.users:
            user.failures.clear()
        self._before = {user: user.now() for user in self.users}

    async def settled(self) -> None:
        """Wait until everybody was answered something that was asked after now."""
        for user in self.users:
            user.goal = user.answers + 2  # the first may be under way already

        def silent() -> list[User]:
            for task in self._living.values():
                if task.done():
                    task.result()  # raises what ended it
            return [user for user in self.users if user.answers < user.goal]

        self._hurry.set()
        self._hurry.clear()
        await eventually(
            lambda: not silent(),
            PATIENCE * 3,
            lambda: "; ".join(f"{user.chat} {user.chat.story()}" for user in silent()),
        )

    def judge(self) -> None:
        """AssertionError unless everybody noticed what was done to the own instance at most."""
        faults = [fault for user in self.users for fault in user.judge(self._before[user], self.site.harm)]
        assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:12])

    async def newcomer(self) -> None:
        """Somebody opens a new tab, uses it and closes it; where an instance was harmed, tries again."""
        kind = self.chance.choice(KINDS)
        while True:
            chat = await self.clients.chat(kind)
            try:
                await chat.open(PATIENCE)
                user = self._user(chat)
                for _ in range(2):
                    await user.use()
                return
            except AssertionError:
                if max(self.site.harm.values()) < Harm.POLLS:
                    raise
            finally:
                await self.clients.close(chat)


def may_blink(kind: Kind) -> bool:
    """Whether what its app says while it is away is kept for such a client; of one that polls it is lost."""
    return kind.transports is not Transports.POLLING
