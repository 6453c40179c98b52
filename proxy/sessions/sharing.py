"""Keeps the live sessions of one instance in the store, and takes over those of others.

Rules: a session is written when a turn has ended, and when something changed between turns; while a turn runs
its beginning is recorded, not its half-done state. Whatever the store does, a chat goes on: while it is down
nothing is shared, and when it is back everything live is written. A write that the store refuses, because a
newer connection is at another instance, ends this instance's copy. Knows nothing of Chainlit: `hooks` hands
it a `Chat` for each session.
"""

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .codecs import Unstorable
from .files import Files
from .ids import is_session_id
from .metrics import Counts
from .store import Claim, Store, StoreDown

DEBOUNCE = 0.05  # seconds in which changes outside of turns become one write
FIRST_RETRY, LAST_RETRY = 0.5, 5.0  # seconds between two questions whether the store is back
ROUND = 60.0  # seconds between two rounds of housekeeping, at most

log = logging.getLogger("chainlit_proxy.sessions")


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

    def is_alive(self) -> bool:
        """Whether Chainlit still has it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What another instance left of a session."""

    state: str | None
    turns: list[Any]  # that were under way


@dataclass(slots=True)
class Live:
    """A session of this instance; owned by `Sharing`. Its lock orders what goes to the store."""

    chat: Chat
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    fence: int = 0  # 0 until the store was asked for it
    state: str | None = None  # what is to be written; set when a turn ends, None when it has been
    saved: int | None = None  # hash of the state that is in the store
    noted: str | None = None  # the turns that are in the store
    kept: set[str] = field(default_factory=set)  # names of the files that were kept, or are too large
    turns: dict[int, Any] = field(default_factory=dict)  # under way; those that are empty are not stored
    connected: bool = True
    lost: bool = False  # somebody else has it; nothing is written any more
    behind: bool = False  # the store was down when something was to be written
    timer: asyncio.TimerHandle | None = None


class Sharing:
    """Made once for a process, by `share`."""

    def __init__(self, store: Store, files: Files, ttl: Callable[[], float]) -> None:
        self.counts = Counts()
        self._store, self._files, self._ttl = store, files, ttl
        self._live: dict[str, Live] = {}
        self._down = ""  # why the store is down
        self._tokens = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._housekeeping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Sharing {self._store!r} {len(self._live)} sessions{' down: ' * bool(self._down)}{self._down}>"
        )

    async def connected(self, chat: Chat, *, new: bool) -> Found | None:
        """A client connected; `new` if Chainlit did not have the session. Returns what to restore."""
        if not is_session_id(chat.id):
            raise ValueError("no session id")
        self._start_housekeeping()
        live = self._live.get(chat.id)
        unshared = live is not None and live.fence == 0 and not new  # served here while the store was down
        if live is None or new:
            live = self._live[chat.id] = Live(chat)
        live.chat, live.connected = chat, True
        async with live.lock:
            before = 0 if live.lost else live.fence
            claim = await self._claim(live)
            if claim is None or live.lost or unshared or before == claim.previous:
                return None
            live.turns.clear()  # of an older copy here
            live.state = None
            live.saved = None if claim.state is None else hash(claim.state)
            live.noted = claim.turns
            turns = json.loads(claim.turns) if claim.turns else []
            return Found(claim.state, turns) if claim.state is not None or turns else None

    async def bring(self, session: str, paths: list[Path]) -> None:
        """Puts a session's files where this instance has them; what cannot be had is left out."""
        live = self._live[session]
        for path in paths:
            try:
                if await self._files.bring(session, path, self._ttl()):
                    live.kept.add(path.name)
            except (StoreDown, OSError) as error:
                log.warning("a file of a session could not be brought here: %s", error)

    async def begin(self, session: str, turn: Any) -> int:
        """A turn begins; whoever takes the session over before `end` finds `turn`. Returns its token."""
        live = self._live.get(session)
        if live is None:
            return 0
        if live.saved is None and live.state is None:
            self._look(live)  # nobody has written anything yet: the state before the turn is what there is
        token = self.hold(session, turn)
        await self._save(live)
        return token

    def hold(self, session: str, turn: Any = None) -> int:
        """As `begin`, without telling the store; until `end` no state is written."""
        token = next(self._tokens)
        if live := self._live.get(session):
            live.turns[token] = turn
        return token

    def end(self, session: str, token: int) -> None:
        """The turn has ended: its outcome is written at once."""
        live = self._live.get(session)
        if live is not None and token in live.turns:
            del live.turns[token]
            self._look(live)  # now: the next turn may begin before the store is asked
            self._spawn(self._save(live))

    async def finish(self, session: str) -> None:
        """As `end` for the only turn, or after a change between turns; returns when it is written."""
        live = self._live.get(session)
        if live is not None and len(live.turns) <= 1:
            live.turns.clear()
            self._look(live)
            await self._save(live)

    def changed(self, session: str) -> None:
        """Something happened outside of turns; during one it is written with that."""
        live = self._live.get(session)
        if live is not None and live.timer is None:
            live.timer = asyncio.get_running_loop().call_later(DEBOUNCE, self._settle, live)

    def _settle(self, live: Live) -> None:
        live.timer = None
        if not live.turns:
            self._look(live)
            self._spawn(self._save(live))

    async def leaving(self, session: str) -> bool:
        """A connection ends; returns whether the session is still ours."""
        live = self._live.get(session)
        if live is None:
            return True
        self._look(live)
        await self._save(live, anyway=True)  # the answer tells whose it is
        return not live.lost

    async def left(self, session: str, *, over: bool) -> None:
        """The connection has ended; `over` if the session has, too."""
        live = self._live.get(session)
        if live is None:
            return
        live.connected = False
        if live.lost or over:
            del self._live[session]
        if over and not live.lost:
            await self._forget(live)
        elif not live.lost:
            self._look(live)
            await self._save(live)

    async def _forget(self, live: Live) -> None:
        async with live.lock:
            try:
                if not self._down:
                    await self._store.delete(live.chat.id, live.fence)
                    await self._files.drop(live.chat.id, sorted(live.kept))
            except (StoreDown, OSError) as error:
                self._failed(error)

    def _look(self, live: Live) -> None:
        """Takes the state down, unless a turn is half way through it."""
        if live.turns or live.lost:
            return
        try:
            live.state, dropped = live.chat.state()
            self.counts.dropped_values += dropped
        except Unstorable as reason:
            log.warning("a session is not shared: %s", reason)

    async def _save(self, live: Live, *, anyway: bool = False) -> None:
        """Writes what is not in the store yet, or in any case."""
        async with live.lock:
            if live.lost:
                return
            if self._down or (live.fence == 0 and await self._claim(live) is None):
                live.behind = True
                return
            if not live.lost:
                try:
                    await self._write(live, anyway)
                except (StoreDown, OSError) as error:
                    live.behind = True
                    self._failed(error)

    async def _write(self, live: Live, anyway: bool) -> None:
        """As `_save`, under the lock and while the store is up."""
        state = live.state
        if state is not None and hash(state) == live.saved and not anyway:
            state = live.state = None
        stored = [turn for turn in live.turns.values() if turn]
        turns = json.dumps(stored) if stored else None
        if state is None and turns == live.noted and not anyway:
            return
        if state is not None:
            await self._keep_files(live)
        session, owner = live.chat.id, live.chat.owner
        if not await self._store.write(session, owner, live.fence, state, turns, self._ttl()):
            self._lose(live)
            return
        self.counts.writes += 1
        live.behind, live.noted = False, turns
        if state is not None:
            live.saved = hash(state)
            if live.state is state:  # no turn has ended meanwhile
                live.state = None

    async def _keep_files(self, live: Live) -> None:
        for path in live.chat.files():
            if path.name not in live.kept and path.is_file():
                kept = await self._files.keep(live.chat.id, path, self._ttl())
                live.kept.add(path.name)  # not tried again
                if not kept:
                    self.counts.dropped_values += 1
                    log.warning("a file of %d bytes is not shared: it is too large", path.stat().st_size)

    async def _claim(self, live: Live) -> Claim | None:
        """Takes the session over; None if the store is down. Under the lock."""
        if self._down:
            live.behind = True
            return None
        try:
            now = int(time.time() * 1000)
            claim = await self._store.claim(live.chat.id, live.chat.owner, now, self._ttl())
        except StoreDown as error:
            live.behind = True
            self._failed(error)
            return None
        live.fence = claim.fence
        live.lost = not claim.fence
        if live.lost:
            self.counts.refused += 1
            log.warning("a session was not restored: it belongs to another user")
        return claim

    def _lose(self, live: Live) -> None:
        live.lost = True
        self.counts.overtaken += 1
        log.info("a session has a newer connection at another instance: its copy here has ended")
        live.chat.abandon()

    def _failed(self, error: Exception) -> None:
        """The store did not do what it should: from now on nobody waits for it."""
        self.counts.store_errors += 1
        if not self._down:
            self._down = str(error)
            self.counts.store_up = False
            log.error("sessions are not shared, the store is down: %s", error)
            self._spawn(self._await_store())

    async def _await_store(self) -> None:
        since, delay = time.monotonic(), FIRST_RETRY
        while self._down:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY)
            try:
                await self._store.ping()
                self._down = ""
            except StoreDown:
                self.counts.store_errors += 1
        self.counts.store_up = True
        behind = [live for live in self._live.values() if live.behind and (live.fence or live.connected)]
        log.warning(
            "the store is back after %.1f s, %d sessions are written", time.monotonic() - since, len(behind)
        )
        for live in behind:
            await self._save(live)

    def _start_housekeeping(self) -> None:
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(self._keep_house())

    async def _keep_house(self) -> None:
        """Lets what is connected live on, forgets what is not."""
        while True:
            await asyncio.sleep(min(ROUND, self._ttl() / 3))
            for name, live in list(self._live.items()):
                if not live.connected and not live.chat.is_alive():
                    del self._live[name]
            if not self._down:
                try:
                    await self._renew()
                except (StoreDown, OSError) as error:
                    self._failed(error)

    async def _renew(self) -> None:
        ttl = self._ttl()
        ours = {name: live for name, live in self._live.items() if live.connected and not live.lost}
        for name in await self._store.touch(list(ours), ttl):
            ours[name].saved = None  # the store has lost it
            self._look(ours[name])
            await self._save(ours[name], anyway=True)
        for name, live in ours.items():
            await self._files.touch(name, sorted(live.kept), ttl)
        await self._store.purge()
        await self._files.sweep(ttl)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a session could not be written", exc_info=error)
