"""Keeps the live sessions of one instance in the store, and takes over those of others.

The asyncio side of `machine`: asks the store, in order for each session. A session is written when a turn has
ended, and when something changed between turns. Whatever the store does, a chat goes on. Three things fail
apart: a file that cannot be kept costs itself; so does a state that a store which works does not take, and
the older one is removed; while the store is down nobody waits for it, and when it is back what lives is
written. Knows nothing of Chainlit: `hooks` hands it a `Chat` for each session.
"""

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .files import Files
from .live import PATIENCE, Chat, Connection, Live, Running, now_ms
from .machine import MOST_TAKEN, Found, Standing
from .metrics import Counts
from .patience import wait, within
from .store import OPERATION, Outcome, Store, StoreDown, Write, is_session_id, why

DEBOUNCE = 0.05  # seconds in which changes outside of turns become one write
FIRST_RETRY, LAST_RETRY = 0.5, 5.0  # seconds between two questions whether the store is back
STEADY = 30.0  # seconds that a store has to be up before the next outage is asked about as often again
ROUND = 60.0  # seconds between two rounds of housekeeping, at most

log = logging.getLogger("chainlit_proxy.sessions")
T = TypeVar("T")


class Sharing:
    """Made once for a process, by `hooks`."""

    def __init__(
        self, store: Store, files: Files, ttl: Callable[[], float], tell: Callable[[str], object] = str
    ) -> None:
        """`tell` is told why the store is down, and "" when it is back."""
        self.counts = Counts()
        self._store, self._files, self._ttl, self._tell = store, files, ttl, tell
        self._token = uuid.uuid4().hex
        self._numbers = itertools.count(1)  # of writes: one that is late does not come over a newer one
        self._live: dict[str, Live] = {}
        self._has_answered = False  # ever
        self._delay, self._up_since = FIRST_RETRY, 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._housekeeping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Sharing {self._store!r} {len(self._live)} sessions up: {self.counts.store_up}>"

    async def connect(self, chat: Chat, *, new: bool) -> Connection:
        """A client connected; `new` if Chainlit did not have the session."""
        if not is_session_id(chat.id):
            raise ValueError("no session id")
        self._housekeeping = self._housekeeping or asyncio.create_task(self._keep_house())
        if (live := self._live.get(chat.id)) is None or new:
            old, live = live, Live(self._token, chat=chat)
            if old is not None:
                old.replaced(live)
                live.lock = old.lock
            self._live[chat.id] = live
        live.chat, live.connected, since = chat, True, now_ms()
        stays = not new and live.standing not in (Standing.LOST, Standing.OVER)
        connection = live.connection = Connection(self, live)
        try:
            async with within(PATIENCE), live.lock:
                connection.found = await self._claim(live, since)
        except TimeoutError:
            live.unanswered(since)
        connection.goes_on = stays and connection.found is None
        return connection

    def forget(self, live: Live) -> None:
        """Knows nothing of it any more, and writes nothing of it."""
        if self._live.get(live.chat.id) is live:
            del self._live[live.chat.id]
        if live.timer is not None:
            live.timer.cancel()
        live.connected, live.standing = False, Standing.LOST

    async def bring(self, session: str, paths: list[Path]) -> None:
        """Puts a session's files where this instance has them; what cannot be had in time is left out."""

        async def in_time() -> None:
            async with within(PATIENCE):
                for path in paths:
                    if await self._apart(self._files.bring(session, path, self._ttl())):
                        self._live[session].files[path.name] = True

        await self._apart(in_time())

    def turn(self, session: str, record: Any = None, *, greets: bool = False) -> Running:
        """A turn that has not begun; whoever takes the session over in its middle finds `record`."""
        return Running(self, self._live.get(session), record, greets=greets)

    def changed(self, session: str) -> None:
        """Something happened outside of turns; during one it is written with that."""
        if (live := self._live.get(session)) and live.timer is None:
            live.timer = asyncio.get_running_loop().call_later(DEBOUNCE, self.begin_save, live)

    def take_down(self, live: Live) -> None:
        """Takes the state down, unless a turn is half way through it."""
        if live.is_settled:
            try:
                live.state, dropped = live.chat.state()
                live.warned, self.counts.dropped_values = False, self.counts.dropped_values + dropped
            except Exception as reason:  # Unstorable, or what an app's own objects raise
                self._give_up(live, why(reason))

    def _give_up(self, live: Live, reason: str) -> None:
        """The whole session cannot be stored, and what is there is older: it must not be restored."""
        live.state = ""
        self.counts.unstorable += 1
        if not live.warned:
            log.warning("a session is not shared any more, its stored state is removed: %s", reason)
        live.warned = True

    def begin_save(self, live: Live, *, anyway: bool = False) -> asyncio.Task[None]:
        """Takes the state down, unless a turn runs, and has written what the store does not have."""
        if live.timer is not None:
            live.timer.cancel()  # this is what it would do
        live.timer = None
        self.take_down(live)
        return self._spawn(self._save(live, anyway=anyway))

    async def save(self, live: Live, *, anyway: bool = False) -> None:
        """As `begin_save`; returns when it is written, or has taken too long to wait for."""
        await wait(self.begin_save(live, anyway=anyway), PATIENCE)

    async def _save(self, live: Live, *, anyway: bool = False) -> None:
        """Writes what is not in the store yet, or in any case."""
        async with live.lock:
            while True:
                # Perhaps since a write was refused although its client is here.
                if live.must_claim and await self._claim(live, live.since or now_ms()):
                    live.overtaken()
                    self._overtaken(live)
                if (write := live.due(next(self._numbers), anyway=anyway)) is None:
                    break
                if not await self._put(live, write) and write.state and self.counts.store_up:
                    self._give_up(live, f"the store does not take its {len(write.state)} characters")
                elif not live.must_claim:
                    break
            if live.is_done and self._live.get(live.chat.id) is live:
                del self._live[live.chat.id]

    async def _put(self, live: Live, write: Write) -> bool:
        """Writes and does what follows; False if the store failed it."""
        session, owner, before, known = live.chat.id, live.chat.owner, live.standing, live.saved
        if write.state and self.counts.store_up:
            if live.filing is None or live.filing.done():
                live.filing = self._spawn(self._keep_files(live))
            await wait(live.filing, OPERATION)  # so that they are there with the state
        # One that is over stays as long, without a state: it refuses what others still have of it.
        outcome = await self._ask(partial(self._store.write, session, owner, self._token, write, self._ttl()))
        live.wrote(write, outcome)
        if outcome in (Outcome.WRITTEN, Outcome.ANEW):
            self.counts.writes += 1
            if before is Standing.OVER:
                await self._apart(self._files.drop(session, sorted(live.files)))
        if outcome is Outcome.ANEW and known is not None:
            self._spawn(self._renew())  # what was there of the others is gone, too
        if live.standing is Standing.LOST is not before:
            self._overtaken(live)
        return outcome is not None

    def _overtaken(self, live: Live) -> None:
        self.counts.overtaken += 1
        log.info("a session has a newer connection at another instance: its copy here has ended")
        live.chat.abandon()
        if live.connected:  # a client that is here after all would be heard by nobody any more
            self._spawn(live.chat.let_go())

    async def _keep_files(self, live: Live) -> None:
        """Keeps what is not kept yet; what cannot be costs itself, and is tried again with the next state."""
        tried: set[str] = set()
        while new := [p for p in live.chat.files() if p.name not in tried and not live.files.get(p.name)]:
            tried.add(new[0].name)
            try:
                size = new[0].stat().st_size
                kept = await self._files.keep(live.chat.id, new[0], self._ttl())
                reason = "" if kept else f"its {size} bytes are too many"
            except (StoreDown, OSError) as error:
                reason = why(error)
            if reason and new[0].name not in live.files:
                self.counts.dropped_values += 1
                log.warning("a file is not shared: %s", reason)
            live.files[new[0].name] = not reason

    async def _apart(self, work: Awaitable[T]) -> T | None:
        """Does what concerns files only; None if that fails."""
        try:
            return await work
        except (StoreDown, OSError, ValueError) as error:  # a TimeoutError, or no name of a file, is one
            log.warning("shared files could not be read or written: %s", why(error))
            return None

    async def _claim(self, live: Live, since: int) -> Found | None:
        """Asks whose the session is, for a client that came then; returns what is to be restored.

        Under the lock.
        """
        session, owner, now = live.chat.id, live.chat.owner, live.since or since
        claimer = (session, owner, self._token, now, self._ttl(), next(self._numbers))
        claim = await self._ask(partial(self._store.claim, *claimer))
        if claim is None:
            live.unanswered(since)
            return None
        found = live.answered(claim)
        if live.standing is Standing.REFUSED:
            self.counts.refused += 1
            log.warning("a session was not restored: it belongs to another user")
        if found is not None and live.taken > MOST_TAKEN:
            log.error("a session was not restored: %d instances died while they restored it", live.taken - 1)
        return found

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What the store answers; None if it is down, or fails this twice although it works."""
        for _ in range(2):
            if not self.counts.store_up:
                break
            try:
                answer = await work()
            except StoreDown as error:
                await self._failed(error)
            else:
                if not self._has_answered:
                    self._has_answered = True
                    self._tell("")
                return answer
        return None

    async def _failed(self, error: StoreDown) -> None:
        """Asks whether the store failed, or what it was asked; if the store, nobody waits for it any more."""
        self.counts.store_errors += 1
        try:
            await self._store.ping()
        except StoreDown:
            if self.counts.store_up:
                self.counts.store_up = False
                log.error("sessions are not shared, the store is down: %s", error)  # noqa: TRY400
                self._tell(str(error))
                self._spawn(self._await_store())

    async def _await_store(self) -> None:
        since = time.monotonic()
        if since - self._up_since > STEADY:
            self._delay = FIRST_RETRY
        while not self.counts.store_up:
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, LAST_RETRY)
            try:
                await self._store.ping()
                self.counts.store_up = True
            except StoreDown:
                self.counts.store_errors += 1
        self._up_since = time.monotonic()
        self._tell("")
        behind = [live for live in self._live.values() if live.behind]
        log.warning(
            "the store is back after %.1f s, sessions to write: %d", self._up_since - since, len(behind)
        )
        for live in behind:
            await self.begin_save(live)
        await self._renew()

    async def _keep_house(self) -> None:
        """Lets what is connected live on, forgets what is not."""
        while True:
            await asyncio.sleep(min(ROUND, self._ttl() / 3))
            for name, live in list(self._live.items()):
                if not live.connected and not live.chat.is_alive() and live.standing is not Standing.OVER:
                    del self._live[name]
            await self._renew()

    async def _renew(self) -> None:
        """Has the store keep what is ours, and writes again what it has lost."""
        ttl = self._ttl()
        ours = {live.chat.id: live for live in self._live.values() if live.connected}
        known = {name: live.number for name, live in ours.items() if live.standing is Standing.CLAIMED}
        lost = set(await self._ask(partial(self._store.touch, known, self._token, ttl)) or ())
        for name, live in ours.items():
            kept = sorted(file for file, is_kept in live.files.items() if is_kept)
            for gone in await self._apart(self._files.touch(name, kept, ttl)) or ():
                live.files[gone] = False  # until it is kept again, with the state
                lost.add(name)
        for name in lost & known.keys():
            ours[name].missing()
            await self.begin_save(ours[name], anyway=True)
        await self._apart(self._files.sweep(ttl))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a session could not be written", exc_info=error)
