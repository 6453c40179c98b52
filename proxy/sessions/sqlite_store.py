"""The embedded store: one SQLite file that the instances of one machine share, and only their user reads.

Everything happens in one thread, so that the event loop never waits for the disk. WAL, so that readers and
one writer do not wait for each other; an instance that is killed leaves the file whole. One that was removed
is a store that has forgotten everything: all instances go on in the next one.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from .patience import within
from .store import OPERATION, SLOWEST, Claim, Outcome, Store, StoreDown, Write, why, writer_of

T = TypeVar("T")

_SCHEMA = """
create table if not exists records (
  id text primary key, owner text not null, fence integer not null, token text not null, writer text not null,
  number integer not null, state text, turns text, expires real not null
) without rowid
"""
_FOUND = "select owner, fence, number, token from records where id = ?"
_CLAIM = """
insert into records values (?, ?, ?, ?, '', ?, null, null, ?) on conflict (id) do update set
  writer = iif(token = excluded.token or writer = '', writer, writer || '+'),
  fence = excluded.fence, token = excluded.token, number = excluded.number, expires = excluded.expires
"""
_WRITE = """
insert into records values (:id, :owner, :fence, :token, :token, :number, :state, :turns, :expires)
on conflict (id) do update set
  fence = max(fence, :fence), token = :token, writer = :token, number = :number, turns = :turns,
  state = iif(:keeps, state, :state), expires = :expires
"""


class SqliteStore(Store):
    """The file and its folder are made at the first operation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "sessions")
        self._db: sqlite3.Connection | None = None  # used in the thread only
        self._opened = (0, 0)  # which file that is

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    async def _do(self, work: Callable[[sqlite3.Connection, float], T], size: int = 0) -> T:
        """Does `work` in the thread, as one transaction that takes the lock first and knows the time."""

        def task() -> T:
            db = self._db
            if db is not None and _file(self.path) != self._opened:  # removed, and perhaps made anew
                db.close()
                db = self._db = None
            db = db or self._open()
            with db:
                db.execute("begin immediate")
                return work(db, time.time())

        try:
            # More than the time that SQLite itself waits for a lock: what takes longer hangs in the disk.
            future = asyncio.get_running_loop().run_in_executor(self._thread, task)
            async with within(1.5 * OPERATION + size / SLOWEST):
                return await future
        except (sqlite3.Error, OSError) as error:  # a TimeoutError is one
            raise StoreDown(f"{self.path}: {why(error)}") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):  # made by an earlier release, or by hand
            with suppress(FileNotFoundError, PermissionError):
                Path(f"{self.path}{suffix}").chmod(0o600)
        db = sqlite3.connect(self.path, timeout=OPERATION, isolation_level=None)
        try:
            _switch_to_wal(db)
            db.execute("pragma synchronous = normal")
            db.execute(_SCHEMA)
        except BaseException:
            db.close()
            raise
        self._db, self._opened = db, _file(self.path) or (0, 0)
        return db

    async def claim(
        self, session: str, owner: str, token: str, now: int, ttl: float, after: int = 0
    ) -> Claim:
        def work(db: sqlite3.Connection, clock: float) -> Claim:
            has, fence, last, claimer = _find(db, session, clock) or (owner, 0, 0, "")
            if has != owner:
                return Claim(0)
            if claimer != token:
                fence, last = max(fence + 1, now), after
            db.execute(_CLAIM, (session, owner, fence, token, last, clock + ttl))
            left = "select writer, state, turns from records where id = ?"
            text, state, turns = db.execute(left, (session,)).fetchone()
            writer, taken = writer_of(text)
            return Claim(fence, claimer == token, writer, state, turns, taken)

        return await self._do(work)

    async def write(self, session: str, owner: str, token: str, write: Write, ttl: float) -> Outcome:
        def work(db: sqlite3.Connection, clock: float) -> Outcome:
            found = _find(db, session, clock)
            has, fence, last, claimer = found or (owner, 0, 0, token)
            if has != owner or (fence > write.fence and claimer != token):
                return Outcome.REFUSED
            if last > write.number and claimer == token:
                return Outcome.WRITTEN
            record = {"id": session, "owner": owner, "token": token, "expires": clock + ttl}
            record |= {"fence": write.fence, "number": write.number, "turns": write.turns}
            db.execute(_WRITE, record | {"state": write.state or None, "keeps": write.state is None})
            return Outcome.WRITTEN if found else Outcome.ANEW

        return await self._do(work, len(write.state or ""))

    async def touch(self, sessions: dict[str, int], token: str, ttl: float) -> list[str]:
        def work(db: sqlite3.Connection, clock: float) -> list[str]:
            db.execute("delete from records where expires <= ?", (clock,))
            touch = "update records set expires = ? where id = ? and number >= ? and token = ?"
            records = ((clock + ttl, name, number, token) for name, number in sessions.items())
            return [record[1] for record in records if not db.execute(touch, record).rowcount]

        return await self._do(work)

    async def ping(self) -> None:
        nothing = "replace into records values ('', '', 0, '', '', 0, null, null, 0)"
        await self._do(lambda db, _: db.execute(nothing))  # a lock that another process holds is noticed, too

    async def rest(self) -> None:
        def task() -> None:
            db, self._db = self._db, None
            if db is not None:
                db.close()  # which removes its other files, if nobody else has them open

        await asyncio.get_running_loop().run_in_executor(self._thread, task)

    async def close(self) -> None:
        await self.rest()
        self._thread.shutdown(wait=False)


def _find(db: sqlite3.Connection, session: str, clock: float) -> Any:
    """The record, which is removed if it has expired."""
    db.execute("delete from records where id = ? and expires <= ?", (session, clock))
    return db.execute(_FOUND, (session,)).fetchone()


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None: there is none."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """The first of all instances changes the file; SQLite does not wait while another one does it."""
    deadline = time.monotonic() + OPERATION
    while True:
        try:
            db.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
