"""Ordinary users of an app whose sessions are shared: their conversations outlive instances and stores.

What a conversation must know is what its client saw to an end: a turn is finished when the page is told so,
and from then on nobody may forget it, whoever answers. Nobody is greeted twice, no message is handled twice,
and no answer is somebody else's. What may be noticed is said by whoever does harm: `Talks.harms` names the
instance whose connections and running turns are lost, and `Talks.forgets` is for when an instance and the
store that would have known are lost at once.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

from tests.hostile.chats import PATIENCE, Living
from tests.support.chat import Chat, Reply
from tests.support.clients import Clients
from tests.support.journal import Entry, Journal
from tests.support.link import KINDS, Event
from tests.support.sharing import NOTICE
from tests.support.waiting import eventually

LOST = 6.0  # seconds after which a word is said again: longer than an instance waits for its store
MOMENT = 0.1  # seconds
AFTER_A_LOSS = 2.0  # seconds in which an answer still comes over the next connection


class Ground(Protocol):
    """Where conversations take place."""

    @property
    def journal(self) -> Journal:
        """What the instances wrote down."""
        ...

    def tell(self, text: str) -> None:
        """Write down what happens."""
        ...


class Forgot(AssertionError):  # noqa: N818 - as in "it forgot"
    """A conversation does not know what it has to know."""


class Talk(Living):
    """One conversation and what it must know; owned by `Talks`."""

    pause = 1.0

    def __init__(self, chat: Chat, chance: random.Random) -> None:
        super().__init__(chat, chance)
        self.finished: list[str] = []  # its messages whose turns were seen to end, in order
        self.files: set[str] = set()  # what was uploaded in these
        self.told = 0  # the app's count at the end of the last of them
        self.greeted = len(chat.greetings)
        self.notices = 0
        self.anew = 0  # times that it knew nothing any more
        self.last: Reply | None = None
        self.known: list[str] = []  # the messages that it knew when it last answered
        self.may_forget = False
        self.is_cut = False  # whether its own network failed in this round
        self._before = (
            0.0,
            0,
            0,
        )  # when the last of them ended, and what `finished` and `told` were until then
        self._ends = 0  # turns whose ends were told on this connection
        self._answered: dict[str, int] = {}  # of each answer: how many ends had been told before it
        self._begun: Reply | None = None  # the first answer of this life
        self._listener = chat.link.listener
        chat.link.listener = self._hear
        self._ways: list[Callable[[], Awaitable[object]]] = [
            self._say, self._stream, self._stream, self._press, self._upload, self._read_again,
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"<Talk {self.chat!r} told {self.told}, {len(self.finished)} finished>"

    def _hear(self, event: Event) -> None:
        if event.name == "new_message":
            if NOTICE in event.data["output"]:
                self.notices += 1
                self._take_back()
            if reply := Reply.parse(event.data["output"]):
                self._answered[reply.nonce] = self._ends
        if event.name == "connect":
            self._ends = 0
        if event.name == "task_end":
            self._ends += 1
        self._listener(event)

    async def use(self) -> None:
        """One thing that users do, then a word, which has to be answered in the end."""
        try:
            await self.chance.choice(self._ways)()
        except Forgot:
            raise
        except AssertionError as error:
            self.failures.append(f"{error}"[:600])
        await self._insist()
        self.answers += 1

    async def _insist(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            await eventually(lambda: self.chat.ready, PATIENCE, lambda: f"{self}: {self.chat.story()}")
            try:
                await self._turn("say", within=LOST)
                return
            except Forgot:
                raise
            except AssertionError:
                if loop.time() > deadline:
                    raise

    async def _turn(self, text: str, files: tuple[str, ...] = (), within: float = PATIENCE) -> Reply:
        """A turn to its end, if that is seen: it is not waited for when it was lost with its instance.

        Its client has connected anew then, or was told while it was handed over.
        """
        before, was_ready, told = self.chat.connects, self.chat.ready, self.notices
        asking = asyncio.create_task(self.chat.ask(text, files, within))
        try:
            while not asking.done() and self.chat.connects == before and self.notices == told:
                await asyncio.wait([asking], timeout=MOMENT)
            await asyncio.wait([asking], timeout=AFTER_A_LOSS)
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
        if asking.cancelled():
            raise AssertionError("an answer was lost with its instance")
        reply = asking.result()
        ends = self._answered.pop(reply.nonce)
        self._check(reply)
        if was_ready and self.chat.connects == before:
            await eventually(
                lambda: self._ends > ends or self.chat.connects != before,
                within,
                lambda: f"{self} sees the end of its turn: {self.chat.story()}",
            )
            if self.chat.connects == before:
                self._before = (time.monotonic(), len(self.finished), self.told)
                self.finished.append(reply.nonce)
                self.told = reply.n
        return reply

    def _take_back(self) -> None:
        """What looked like the end of the last turn was that of a hand-over."""
        ended, finished, told = self._before
        if time.monotonic() - ended < MOMENT and len(self.finished) == finished + 1:
            self.finished.pop()
            self.told = told

    def _check(self, reply: Reply) -> None:
        """It is an answer to this conversation, which knows all that was finished."""
        assert reply.session == self.chat.session, f"{self}: an answer to {reply.session}"
        self.known = known = [part[1:] for part in reply.fields["context"].split("/") if part[0] == "u"]
        double = [nonce for nonce, count in Counter(known).items() if count > 1]
        assert not double, f"{self}: handled twice: {double}"
        missing = [nonce for nonce in self.finished if nonce not in known]
        is_less = reply.n <= self.told or missing
        if (is_less or len(self.chat.greetings) > self.greeted) and self.may_forget:
            self._begin_anew()
        elif is_less:
            raise Forgot(
                f"{self} forgot {missing}, n={reply.n} at {reply.instance}, knows {known}:"
                f" {self.chat.story()}"
            )
        self._begun = self._begun or reply
        for name in ("first", "thread"):
            expected, found = self._begun.fields[name], reply.fields[name]
            if expected != found:
                raise Forgot(f"{self} has another {name}: {found}, not {expected}")
        self.home, self.last = reply.instance, reply

    def _begin_anew(self) -> None:
        self.finished, self.files, self.told, self._begun = [], set(), 0, None
        self.greeted = len(self.chat.greetings)
        self.anew += 1

    async def _say(self) -> None:
        await self._turn("say")

    async def _stream(self) -> None:
        await self._turn("stream 40 0.03")

    async def _press(self) -> None:
        reply = await self.chat.action()
        self._check(reply)
        self.told = reply.n

    async def _upload(self) -> None:
        text = f"file-of-{self.chat.session[:8]}-{len(self.files)}"
        key = await self.chat.upload(text)
        before, anew = len(self.finished), self.anew
        reply = await self._turn("say", files=(key,))
        assert reply.fields["read"] == text, reply.fields["read"]
        if len(self.finished) > before and self.anew == anew and not self.may_forget:
            self.files.add(text)

    async def _read_again(self) -> None:
        """Every file of a finished turn can still be read."""
        reply, anew = await self._turn("elements"), self.anew
        missing = self.files - set(reply.fields["read"].split("+"))
        if missing and anew == self.anew:
            raise Forgot(f"{self} misses the files {sorted(missing)}: {reply.fields['read']}")

    def losses(self) -> int:
        """How often it lost its connection."""
        return sum(event.name == "disconnect" for event in self.chat.events)


class Talks:
    """All conversations of a run; `async with`."""

    def __init__(self, ground: Ground, clients: Clients, seed: int) -> None:
        self.ground, self.clients = ground, clients
        self.chance = random.Random(seed)
        self.talks: list[Talk] = []
        self._hurry = asyncio.Event()  # wakes all of them
        self._living: dict[Talk, asyncio.Task[None]] = {}
        self._before: dict[Talk, tuple[str, int, int, int]] = {}  # home, notices, losses, greetings
        self._began = 0.0  # when the round did, in seconds since the epoch
        self._harmed: Counter[str] = Counter()
        self._is_everybody = False
        self.may_forget = False

    async def __aenter__(self) -> Self:
        """All begin."""
        chats = await self.clients.open_many(KINDS[::2], at_once=4)
        self.talks = [self._talk(chat) for chat in chats]
        self._living = {talk: asyncio.create_task(talk.live(self._hurry)) for talk in self.talks}
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._living.values():
            task.cancel()
        await asyncio.gather(*self._living.values(), return_exceptions=True)

    def _talk(self, chat: Chat) -> Talk:
        return Talk(chat, random.Random(self.chance.getrandbits(64)))

    def begin(self) -> None:
        """A round begins, in which nobody may notice anything yet."""
        self._harmed.clear()
        self._is_everybody = self.may_forget = False
        self._began = time.time()
        for talk in self.talks:
            talk.failures.clear()
            talk.may_forget = talk.is_cut = False
            self._before[talk] = (talk.home, talk.notices, talk.losses(), len(talk.chat.greetings))

    def harms(self, *homes: str) -> None:
        """The instances that call themselves so lose what they are at; without a name, all may."""
        self._harmed.update(homes)
        self._is_everybody = self._is_everybody or not homes

    def forgets(self) -> None:
        """Whoever is harmed may begin anew, or where the store was when it was lost."""
        self.may_forget = True
        for talk in self.talks:
            talk.may_forget = True
            talk.files.clear()

    async def cut(self, part: float = 0.5) -> None:
        """The networks of so many of them fail for a moment: they come back to where they were."""
        cut = self.chance.sample(self.talks, round(part * len(self.talks)))
        for talk in cut:
            talk.is_cut = True
        await asyncio.gather(*(talk.chat.link.cut() for talk in cut))

    async def settled(self) -> None:
        """Wait until everybody was answered something that was asked after now."""
        for talk in self.talks:
            talk.goal = talk.answers + 2  # the first may be under way already

        self._hurry.set()
        self._hurry.clear()
        await eventually(
            lambda: not self.silent(),
            PATIENCE * 3,
            lambda: "; ".join(f"{talk} {talk.chat.story()}" for talk in self.silent()),
        )

    def silent(self) -> list[Talk]:
        """Who still has to be answered; raises what ended a conversation."""
        for task in self._living.values():
            if task.done():
                task.result()
        return [talk for talk in self.talks if talk.answers < talk.goal]

    def judge(self) -> None:
        """AssertionError if anybody noticed more than may be, or an instance did something twice."""
        handled = self.ground.journal.entries(kind="message")
        faults = [
            f"{talk} {fault}"
            for talk in self.talks
            for fault in self._faults(
                talk, [entry for entry in handled if entry.session == talk.chat.session]
            )
        ]
        assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:12])

    def _faults(self, talk: Talk, handled: list[Entry]) -> list[str]:
        home, notices, losses, greetings = self._before[talk]
        is_harmed = self._is_everybody or self._harmed[home] or self._harmed[talk.home]
        counts = Counter(entry.details["nonce"] for entry in handled)
        faults = [f"{nonce} was handled {count} times" for nonce, count in counts.items() if count > 1]
        if not is_harmed and talk.last:
            fresh = [entry.details["nonce"] for entry in handled if entry.t > self._began]
            fresh = fresh[: fresh.index(talk.last.nonce)] if talk.last.nonce in fresh else []
            lost = [nonce for nonce in fresh if nonce not in talk.known]
            faults += [f"lost its turns {lost}"] if lost else []
        if len(talk.chat.greetings) > greetings and not self.may_forget:
            faults.append(f"was greeted again: {talk.chat.greetings[-2:]} {talk.chat.story()}")
        if talk.notices > notices and not is_harmed:
            faults.append("was told that an answer was cut off")
        if talk.home != home and not is_harmed:
            faults.append(f"moved from {home}")
        if not is_harmed and not talk.is_cut:
            faults += talk.failures
            if talk.losses() > losses:
                faults.append(f"lost its connection: {talk.chat.story()}")
        return faults

    async def newcomer(self) -> None:
        """Somebody opens a new tab, uses it and closes it; where an instance is harmed, tries again."""
        kind = self.chance.choice(KINDS)
        while True:
            chat = await self.clients.chat(kind)
            try:
                await chat.open(PATIENCE)
                talk = self._talk(chat)
                talk.may_forget = self.may_forget
                for _ in range(2):
                    await talk.use()
                return
            except Forgot:
                raise
            except AssertionError:
                if not self._harmed and not self._is_everybody:
                    raise
            finally:
                await self.clients.close(chat)
