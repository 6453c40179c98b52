"""One session at this instance: its chat, its connections, its turns.

What happens to them is told to the machine of the session (`machine`), and what follows is done by their
keeper: `sharing`, which makes them.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .machine import Copy, Found, Standing, Turn
from .patience import wait
from .store import OPERATION

PATIENCE = 4 * OPERATION  # seconds that a client waits for us, whatever there is to be written


class Chat(Protocol):
    """One session in this process; made by `hooks`."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def owner(self) -> str:
        """Who may have it."""

    def state(self) -> tuple[str, int]:
        """Its state as text, and how many values that leaves out. Raises Unstorable."""

    def files(self) -> list[Path]:
        """Its files on this instance's disk."""

    def abandon(self) -> None:
        """Ends what runs in it: another instance has it."""

    async def let_go(self) -> None:
        """Has its client connect anew."""

    def is_alive(self) -> bool:
        """Whether Chainlit still has it."""


@dataclass(eq=False, kw_only=True)
class Live(Copy):
    """A session of this instance; owned by `Sharing`. Its lock orders what goes to the store."""

    chat: Chat
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    welcoming: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: "Connection | None" = None  # the newest
    files: dict[str, bool] = field(default_factory=dict)  # by name: whether it is kept, or was warned of
    filing: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None
    warned: bool = False  # that it cannot be stored


class Keeper(Protocol):
    """What a connection and a turn need of `Sharing`."""

    def take_down(self, live: Live) -> None:
        """Takes the state down, unless a turn is half way through it."""

    def begin_save(self, live: Live) -> "asyncio.Task[None]":
        """Takes the state down, and has written what the store does not have."""

    def forget(self, live: Live) -> None:
        """Knows nothing of it any more, and writes nothing of it."""

    async def save(self, live: Live, *, anyway: bool = False) -> None:
        """As `begin_save`; returns when it is written, or has taken too long to wait for."""


@dataclass(eq=False)
class Connection:
    """One connection of a client; made by `Sharing.connect`. An older one changes nothing."""

    _keeper: Keeper
    _live: Live
    found: Found | None = None  # what is to be restored
    goes_on: bool = False  # whether the session has been here all along, and nobody else has it

    @property
    def welcoming(self) -> asyncio.Lock:
        """Held while the client is greeted: what it says next waits for that."""
        return self._live.welcoming

    @property
    def in_turn(self) -> bool:
        """Whether something of the session is under way here."""
        return bool(self._live.turns)

    def discard(self) -> None:
        """What was found cannot be restored: the chat begins anew, and its user hears of the turns only."""
        if self.found is not None:
            self._live.untold = Found(None, self.found.turns)

    def hello(self) -> Found | None:
        """The client said hello; returns what was found, once. Its turns stay in the record until `told`."""
        return self._live.hello()

    def told(self, turn: Any = None) -> None:
        """The client was told of a turn that was found, or that is begun now; None: of everything."""
        self._live.told(turn)

    def survived(self) -> None:
        """What was found is restored, and did no harm."""
        if self._live.survived():
            self._keeper.begin_save(self._live)

    def refuse(self) -> None:
        """It is not taken after all: nothing is written, so the next one finds what this one found."""
        if self._live.connection is self:
            self._keeper.forget(self._live)

    async def leaving(self) -> bool:
        """It ends; returns whether the session is still ours."""
        if self._live.connection is self:
            await self._keeper.save(self._live, anyway=True)  # the answer tells whose it is
        return self._live.standing is not Standing.LOST

    async def left(self, *, over: bool) -> None:
        """It has ended; `over` if the session has, too."""
        if self._live.connection is self:
            self._live.connection = None
            self._live.left(over=over)
            await self._keeper.save(self._live)


class Running(Turn):
    """A turn; made by `Sharing.turn`. `async with` begins it, and ends it when its outcome is stored."""

    has_ended = False
    _saving: "asyncio.Task[None] | None" = None

    def __init__(self, keeper: Keeper, live: Live | None, record: Any, *, greets: bool) -> None:
        super().__init__(_text(record), greets)
        self._keeper, self._live, self._record = keeper, live, record

    @property
    def is_tried(self) -> bool:
        """Whether another instance has recorded it before."""
        return bool(self._record and self._record.get("tries"))

    async def begin(self) -> bool:
        """Begins it and records that; False if another instance has the session: it must not run here."""
        if (live := self._live) is None or self in live.turns:
            return True
        self._take_down_before(live)
        live.turns.append(self)
        goes_on = await self._recorded(live)
        if goes_on and live.turns == [self] and live.noted is not None and live.saved is None:
            live.turns.clear()
            self._take_down_before(live)  # the store had forgotten it, as its answer told
            live.turns.append(self)
            goes_on = await self._recorded(live)
        return goes_on

    def _take_down_before(self, live: Live) -> None:
        """Where the store does not have what was before the turn, it is written with it."""
        if self.text is not None and live.saved is None and live.state is None:
            self._keeper.take_down(live)

    async def calls(self) -> bool:
        """The app is called next, and that is recorded: who takes the session over does not call it, too.

        False as for `begin`.
        """
        if (live := self._live) is None or self not in live.turns or self._record is None:
            return True
        self._record = {**self._record, "begun": True}
        self.text = _text(self._record)
        return await self._recorded(live)

    async def _recorded(self, live: Live) -> bool:
        if self.text is not None:
            await self._keeper.save(live)
        if live.standing is Standing.LOST:
            self.end()
            return False
        return True

    def end(self, *_: Any) -> None:
        """Ends it, once. Its outcome is taken down now: the next may begin before the store is asked."""
        self.has_ended = True
        if self._live is not None and self._live.end(self):
            self._saving = self._keeper.begin_save(self._live)

    async def __aenter__(self) -> "Running | None":
        return self if await self.begin() else None

    async def __aexit__(self, *_: object) -> None:
        self.end()
        if self._saving is not None:
            await wait(self._saving, PATIENCE)


def _text(record: Any) -> str | None:
    return None if record is None else json.dumps(record, default=repr)


def now_ms() -> int:
    """The time in milliseconds, as fences count it."""
    return int(time.time() * 1000)
