"""Uploaded files and elements beyond the instance that took them.

Chainlit reads files from the instance's own folder, and removes that when it stops. So each file is kept a
second time: as a hard link in a shared folder where that is on the same disk, which costs nothing, else as a
copy there or in the store, up to a limit. An instance that takes a session over brings them to its own
folder. Names on disk are Chainlit's: a random id and an extension. The name of a session's folder is its id,
which comes from the client: nothing is touched for one that is not a session id.
"""

import asyncio
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .ids import is_session_id
from .redis_store import RedisStore


class Files(Protocol):
    """Where files are kept; owned by `Sharing`. Raises OSError or StoreDown."""

    async def keep(self, session: str, path: Path, ttl: float) -> bool:
        """Keeps the file at `path`; False if it is too large."""

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        """Puts the kept file of that name to `path`; False if there is none."""

    async def touch(self, session: str, names: list[str], ttl: float) -> None:
        """Lets files live on."""

    async def drop(self, session: str, names: list[str]) -> None:
        """Forgets the files of a session."""

    async def sweep(self, ttl: float) -> None:
        """Forgets the files of sessions that have expired."""


class FolderFiles:
    """A folder that all instances reach; one folder for each session below it."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self._limit = root, limit

    def __repr__(self) -> str:
        return f"<FolderFiles {self.root}>"

    def _folder(self, session: str) -> Path:
        if not is_session_id(session):
            raise ValueError("no session id")
        return self.root / session

    async def keep(self, session: str, path: Path, ttl: float) -> bool:
        """See `Files`."""
        return await asyncio.to_thread(self._put, path, self._folder(session) / _name(path))

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        """See `Files`."""
        source = self._folder(session) / _name(path)
        return await asyncio.to_thread(lambda: source.is_file() and self._put(source, path, limited=False))

    def _put(self, source: Path, target: Path, *, limited: bool = True) -> bool:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            return True
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without links
            if limited and source.stat().st_size > self._limit:
                return False
            half = target.with_name(f"{target.name}.{os.getpid()}")
            shutil.copyfile(source, half)
            half.replace(target)
        return True

    async def touch(self, session: str, names: list[str], ttl: float) -> None:
        """See `Files`: the folder's own time tells."""
        with suppress(FileNotFoundError):
            os.utime(self._folder(session))

    async def drop(self, session: str, names: list[str]) -> None:
        """See `Files`."""
        await asyncio.to_thread(shutil.rmtree, self._folder(session), ignore_errors=True)

    async def sweep(self, ttl: float) -> None:
        """See `Files`."""
        await asyncio.to_thread(self._sweep, time.time() - ttl)

    def _sweep(self, oldest: float) -> None:
        for folder in self.root.glob("*"):
            if not is_session_id(folder.name) or folder.is_symlink():
                continue  # not ours
            with suppress(OSError):  # another instance was faster
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)


def _name(path: Path) -> str:
    if path.name in ("", ".."):
        raise ValueError("no name of a file")
    return path.name


class StoreFiles:
    """The store itself, where instances share no folder."""

    def __init__(self, store: RedisStore, limit: int) -> None:
        self._store, self._limit = store, limit

    def __repr__(self) -> str:
        return f"<StoreFiles {self._store!r}>"

    async def keep(self, session: str, path: Path, ttl: float) -> bool:
        """See `Files`."""
        data = await asyncio.to_thread(self._read, path)
        if data is None:
            return False
        await self._store.put_file(f"{session}:{path.name}", data, ttl)
        return True

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        """See `Files`."""
        data = await self._store.get_file(f"{session}:{path.name}", ttl)
        if data is None:
            return False
        await asyncio.to_thread(self._write, path, data)
        return True

    def _read(self, path: Path) -> bytes | None:
        return None if path.stat().st_size > self._limit else path.read_bytes()

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(data)

    async def touch(self, session: str, names: list[str], ttl: float) -> None:
        """See `Files`."""
        if names:
            await self._store.touch_files([f"{session}:{name}" for name in names], ttl)

    async def drop(self, session: str, names: list[str]) -> None:
        """See `Files`."""
        await self._store.drop_files([f"{session}:{name}" for name in names])

    async def sweep(self, ttl: float) -> None:
        """See `Files`: the store forgets by itself."""
