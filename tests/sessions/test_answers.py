"""Messages wait for their turn where an instance answers so many at once only, and their chats say so."""

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from proxy.sessions.answers import PLACE, TOO_MANY, Answers, PageLine, line_id
from proxy.sessions.metrics import Counts
from tests.support.waiting import eventually


class Chat:
    """What is said in one, as Line; and how its message fares."""

    def __init__(self, answers: Answers, name: str = "") -> None:
        self.answers = answers
        self.name = name or f"chat-{id(self)}"
        self.shown: list[str] = []  # "" where it was taken back
        self.task: asyncio.Task[None] | None = None
        self.ends = asyncio.Event()
        self.answered: bool | None = None

    async def show(self, text: str) -> None:
        """As Line."""
        await asyncio.sleep(0)
        self.shown.append(text)

    async def take_back(self) -> None:
        """As Line."""
        self.shown.append("")

    def ask(self) -> "Chat":
        """Its user says something."""
        self.task = asyncio.create_task(self._answer())
        return self

    async def _answer(self) -> None:
        self.answered = await self.answers.begin(self.name, self)
        if self.answered:
            try:
                await self.ends.wait()
            finally:
                self.answers.end()

    @property
    def place(self) -> int:
        """What was told last, 0 where that is none."""
        last = self.shown[-1] if self.shown else ""
        return next((n for n in range(1, 100) if last == PLACE.format(number=n)), 0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """In an event loop of its own, in which nothing is left."""

    async def main() -> None:
        await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def asked(answers: Answers, count: int) -> list[Chat]:
    """So many ask, one after the other, and are told."""
    chats = []
    for _ in range(count):
        chats.append(Chat(answers).ask())
        await asyncio.sleep(0.01)
    return chats


async def over(*chats: Chat) -> None:
    """Their answers end."""
    for chat in chats:
        chat.ends.set()
    await asyncio.gather(*(chat.task for chat in chats if chat.task), return_exceptions=True)


def test_the_next_waits_for_its_turn() -> None:
    """First come, first served; each is told its place, also when it changes, until it is its turn."""

    async def test() -> None:
        answers = Answers(1, 10, counts := Counts())
        chats = await asked(answers, 4)
        assert [chat.place for chat in chats] == [0, 1, 2, 3]
        assert (counts.answers, counts.queue_waiting) == (1, 3)
        await over(chats[0])
        await eventually(lambda: [chat.place for chat in chats[1:]] == [0, 1, 2], 5, "they are told")
        assert chats[1].shown == [PLACE.format(number=1), ""]
        for chat in chats[1:]:
            await eventually(lambda chat=chat: chat.answered, 5, "its turn")  # type: ignore[misc]
            await over(chat)
        assert (counts.answers, counts.queue_waiting, counts.queue_admitted) == (0, 0, 3)
        assert counts.queue_seconds > 0
        assert chats[0].shown == []

    run(test)


def test_who_is_stopped_gives_its_place_up() -> None:
    """Whether it waits, has just got its turn, or is being answered."""

    async def test() -> None:
        answers = Answers(1, 10, counts := Counts())
        first, second, third, fourth = await asked(answers, 4)
        assert second.task
        second.task.cancel()
        await asyncio.gather(second.task, return_exceptions=True)
        assert second.shown[-1] == ""
        assert counts.queue_given_up == 1
        answers.end()  # the turn of the third, which does not know it yet
        assert third.task
        third.task.cancel()
        await asyncio.gather(third.task, return_exceptions=True)
        await eventually(lambda: fourth.answered, 5, "its turn")
        counts.answers += 1  # that was ended above
        await over(first, fourth)
        assert (counts.answers, counts.queue_waiting, counts.queue_given_up) == (0, 0, 2)

    run(test)


def test_too_many_are_told_so() -> None:
    """In all, and of one chat; nothing is dropped without a word."""

    async def test() -> None:
        answers = Answers(1, 6, counts := Counts())
        first = Chat(answers).ask()
        await asyncio.sleep(0)
        hog = [Chat(answers, "hog").ask() for _ in range(5)]
        await asyncio.sleep(0.01)
        assert [chat.place for chat in hog] == [1, 2, 3, 4, 0]
        assert (hog[4].shown, hog[4].answered) == ([TOO_MANY], False)
        others = await asked(answers, 3)
        assert [chat.place for chat in others] == [5, 6, 0]
        assert others[2].shown == [TOO_MANY]
        assert counts.queue_turned_away == 2
        await over(first, *hog, *others)
        assert counts.answers == 0

    run(test)


@given(st.lists(st.sampled_from(["ask", "end", "stop"]), max_size=40), st.integers(1, 3))
def test_nobody_is_lost_and_nobody_passed(story: list[str], most: int) -> None:
    """Whoever asks, ends and is stopped: no more than `most` at once, in their order, none for ever."""

    async def test() -> None:
        counts = Counts()
        answers = Answers(most, 1000, counts)
        chats: list[Chat] = []
        began: list[Chat] = []
        for number, word in enumerate(story):
            running = [chat for chat in chats if chat.answered and not chat.ends.is_set()]
            if word == "ask":
                chats.append(Chat(answers).ask())
            elif word == "end" and running:
                running[0].ends.set()
            elif word == "stop" and chats:
                task = chats[number % len(chats)].task
                assert task
                task.cancel()
            for _ in range(6):
                await asyncio.sleep(0)
            assert counts.answers <= most
            began += [chat for chat in chats if chat.answered and chat not in began]
        assert began == sorted(began, key=chats.index)
        await over(*chats)
        assert (counts.answers, counts.queue_waiting) == (0, 0)

    run(test)


def test_the_page_shows_one_line() -> None:
    """It is changed in its place; a page that cannot be told does not keep its message from its turn."""

    class Emitter:
        def __init__(self) -> None:
            self.sent: list[tuple[str, str]] = []

        async def send_step(self, step: dict[str, str]) -> None:
            self.sent.append(("new", step["output"]))

        async def update_step(self, step: dict[str, str]) -> None:
            self.sent.append(("update", step["output"]))
            raise ConnectionError("it is gone")

        async def delete_step(self, step: dict[str, str]) -> None:
            self.sent.append(("delete", step["id"]))

    async def test() -> None:
        line = PageLine(emitter := Emitter(), line_id("message"), lambda: {"type": "system_message"})
        await line.take_back()
        await line.show("2")
        await line.show("1")
        await line.take_back()
        await line.take_back(anyway=True)
        gone = ("delete", line_id("message"))
        assert emitter.sent == [("new", "2"), ("update", "1"), gone, gone]
        assert line_id("message") != line_id("other")

    run(test)
