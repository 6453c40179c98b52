"""How many messages this instance answers at once: the others wait for their turn, and their chats say so.

First come, first served; a turn ends with the app's `on_message`. Who is told to stop, or whose session goes
on elsewhere, gives its place up. What is said in the chat is for the page alone: no message of the chat, and
in no data layer. Its id follows from that of the message, so that an instance which takes the session over
can take it back.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from .metrics import Counts

log = logging.getLogger("chainlit_proxy.sessions")

PLACE = "You are number {number}. Your message will be answered as soon as there is room."
TOO_MANY = "Too many messages are waiting for an answer. Please try again in a moment."
SETTLES = 0.25  # seconds in which changes of many places become one
PER_SESSION = 4  # messages that wait in one chat: its page sends one at a time

_IDS = uuid.UUID("1b7f2f0e-8f0c-4b0e-9d5f-5a1e5f1c9a11")


def line_id(message: str) -> str:
    """The id of what is said while a message waits."""
    return str(uuid.uuid5(_IDS, message))


class Line(Protocol):
    """What is said in the chat of one message."""

    async def show(self, text: str) -> None:
        """Say it, in place of what was said before."""

    async def take_back(self) -> None:
        """It is said no more."""


class _Ticket:
    """A message that waits."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.since = time.monotonic()
        self.number = 0
        self.has_turn = False
        self.news = asyncio.Event()  # set when one of these two has changed


class Answers:
    """Made once for a process, by `Turns`."""

    def __init__(self, most: int, most_waiting: int, counts: Counts) -> None:
        """At most so many at once, and so many that wait."""
        self._most, self._most_waiting, self._counts = most, most_waiting, counts
        self._line: dict[_Ticket, None] = {}  # oldest first
        self._of: Counter[str] = Counter()  # those that wait, by session
        self._renumbering: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Answers {self._counts.answers} of {self._most}, {len(self._line)} wait>"

    async def begin(self, session: str, line: Line) -> bool:
        """Returns when it is its turn: `end` has to follow. False: too many wait."""
        if self._counts.answers < self._most and not self._line:
            self._counts.answers += 1
            return True
        if len(self._line) >= self._most_waiting or self._of[session] >= PER_SESSION:
            self._counts.queue_turned_away += 1
            await line.show(TOO_MANY)
            return False
        ticket = _Ticket(session)
        self._of[session] += 1
        self._line[ticket] = None
        self._number()
        try:
            while not ticket.has_turn:
                ticket.news.clear()
                await line.show(PLACE.format(number=ticket.number))
                await ticket.news.wait()
            await line.take_back()
        except BaseException:
            self._counts.queue_given_up += 1
            if ticket.has_turn:
                self.end()
            else:
                self._leave(ticket)
            await line.take_back()
            raise
        self._counts.queue_admitted += 1
        self._counts.queue_seconds += time.monotonic() - ticket.since
        return True

    def end(self) -> None:
        """An answer has ended: it is the turn of the next."""
        self._counts.answers -= 1
        while self._line and self._counts.answers < self._most:
            ticket = next(iter(self._line))
            self._leave(ticket)
            self._counts.answers += 1
            ticket.has_turn = True
            ticket.news.set()

    def _leave(self, ticket: _Ticket) -> None:
        del self._line[ticket]
        self._of -= Counter((ticket.session,))
        self._counts.queue_waiting = len(self._line)
        if self._line and self._renumbering is None:
            self._renumbering = asyncio.get_running_loop().call_later(SETTLES, self._number)

    def _number(self) -> None:
        self._renumbering = None
        self._counts.queue_waiting = len(self._line)
        for number, ticket in enumerate(self._line, 1):
            if ticket.number != number:
                ticket.number = number
                ticket.news.set()


class PageLine:
    """As Line, on the page of a session of Chainlit."""

    def __init__(self, emitter: Any, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """`emitter` is Chainlit's; `make` makes what it sends, but for its id (`name`) and the text."""
        self._emitter, self._name, self._make = emitter, name, make
        self._step: dict[str, Any] | None = None  # set when it was said first
        self._is_shown = False

    async def show(self, text: str) -> None:
        """As Line."""
        if self._step is None:
            self._step = self._make()
        shown, self._is_shown = self._is_shown, True
        await self._tell("update_step" if shown else "send_step", self._step | {"output": text})

    async def take_back(self, *, anyway: bool = False) -> None:
        """As Line; `anyway`: another instance may have said it."""
        if self._is_shown or anyway:
            self._is_shown = False
            await self._tell("delete_step", self._step or {})

    async def _tell(self, event: str, step: dict[str, Any]) -> None:
        try:
            await getattr(self._emitter, event)(step | {"id": self._name})
        except Exception:  # it waits all the same
            log.exception("the place of a message could not be told")
