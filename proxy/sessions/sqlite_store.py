"""The embedded store: one SQLite file that the instances of one machine share.

Everything happens in one thread, so that the event loop never waits for the disk. WAL, so that readers and
one writer do not wait for each other; an instance that is killed leaves the file whole.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .store import OPERATION, Claim, StoreDown

T = TypeVar("T")

_SCHEMA = """
create table if not exists sessions (
  id text primary key, owner text not null, fence integer not null,
  state text, turns text, expires real not null
) without rowid
"""
_WRITE = """
insert into sessions values (:id, :owner, :fence, :state, :turns, :expires)
on conflict (id) do update set
  fence = excluded.fence, state = coalesce(excluded.state, state), turns = excluded.turns,
  expires = excluded.expires
where fence <= excluded.fence and owner = excluded.owner
"""


class SqliteStore:
    """See `Store`. The file and its folder are made at the first operation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "sessions")
        self._db: sqlite3.Connection | None = None  # used in the thread only

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does `work` in the thread, as one transaction."""

        def task() -> T:
            db = self._db or self._open()
            with db:
                return work(db)

        try:
            # Twice the time that SQLite itself waits for a lock: what takes longer hangs in the disk.
            future = asyncio.get_running_loop().run_in_executor(self._thread, task)
            return await asyncio.wait_for(future, 2 * OPERATION)
        except (sqlite3.Error, OSError, TimeoutError) as error:
            raise StoreDown(f"{self.path}: {error or 'no answer'}") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=OPERATION, isolation_level="IMMEDIATE")
        try:
            _switch_to_wal(db)
            db.execute("pragma synchronous = normal")
            with db:
                db.execute(_SCHEMA)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    async def claim(self, session: str, owner: str, now: int, ttl: float) -> Claim:
        """See `Store`."""

        def work(db: sqlite3.Connection) -> Claim:
            db.execute("begin immediate")  # the read and the write are one step
            clock = time.time()
            found = db.execute(
                "select owner, fence, state, turns from sessions where id = ? and expires > ?",
                (session, clock),
            ).fetchone()
            if found is None:
                record = (session, owner, now, None, None, clock + ttl)
                db.execute("replace into sessions values (?, ?, ?, ?, ?, ?)", record)
                return Claim(now)
            if found[0] != owner:
                return Claim(0)
            fence = max(found[1] + 1, now)
            db.execute(
                "update sessions set fence = ?, expires = ? where id = ?", (fence, clock + ttl, session)
            )
            return Claim(fence, *found[1:])

        return await self._do(work)

    async def write(
        self, session: str, owner: str, fence: int, state: str | None, turns: str | None, ttl: float
    ) -> bool:
        """See `Store`."""
        record = {"id": session, "owner": owner, "fence": fence, "state": state, "turns": turns}
        record["expires"] = time.time() + ttl
        return await self._do(lambda db: db.execute(_WRITE, record).rowcount > 0)

    async def touch(self, sessions: list[str], ttl: float) -> list[str]:
        """See `Store`."""

        def work(db: sqlite3.Connection) -> list[str]:
            expires = time.time() + ttl
            touch = "update sessions set expires = ? where id = ?"
            return [name for name in sessions if not db.execute(touch, (expires, name)).rowcount]

        return await self._do(work)

    async def delete(self, session: str, fence: int) -> None:
        """See `Store`."""
        await self._do(
            lambda db: db.execute("delete from sessions where id = ? and fence <= ?", (session, fence))
        )

    async def purge(self) -> None:
        """See `Store`."""
        await self._do(lambda db: db.execute("delete from sessions where expires <= ?", (time.time(),)))

    async def ping(self) -> None:
        """See `Store`: a lock that another process holds is noticed, too."""
        await self._do(lambda db: db.execute("begin immediate"))

    async def close(self) -> None:
        """See `Store`."""
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)


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
