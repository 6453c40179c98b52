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

from .store import is_session_id


class Files(Protocol):
    """Where files are kept; owned by `Sharing`. Raises OSError or StoreDown."""

    async def keep(self, session: str, path: Path, ttl: float) -> bool:
        """Keeps the file at `path`; False if it is too large."""

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        """Puts the kept file of that name to `path`; False if there is none."""

    async def touch(self, session: str, names: list[str], ttl: float) -> list[str]:
        """Lets files live on; returns those that are gone."""

    async def drop(self, session: str, names: list[str]) -> None:
        """Forgets the files of a session."""

    async def sweep(self, ttl: float) -> None:
        """Forgets the files of sessions that have expired, unless that happens by itself."""


class FolderFiles(Files):
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
        return await asyncio.to_thread(self._put, path, self._folder(session) / path.name)

    async def bring(self, session: str, path: Path, ttl: float) -> bool:
        source = self._folder(session) / path.name
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
            try:
                shutil.copyfile(source, half)
                half.replace(target)
            finally:
                half.unlink(missing_ok=True)  # of a disk that is full
        return True

    async def touch(self, session: str, names: list[str], ttl: float) -> list[str]:
        return await asyncio.to_thread(self._touch, self._folder(session), names)

    def _touch(self, folder: Path, names: list[str]) -> list[str]:
        with suppress(FileNotFoundError):
            os.utime(folder)
        return [name for name in names if not (folder / name).exists()]

    async def drop(self, session: str, names: list[str]) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder(session), ignore_errors=True)

    async def sweep(self, ttl: float) -> None:
        await asyncio.to_thread(self._sweep, time.time() - ttl)

    def _sweep(self, oldest: float) -> None:
        for folder in self.root.glob("*"):
            if not is_session_id(folder.name) or folder.is_symlink():
                continue  # not ours
            with suppress(OSError):  # another instance was faster
                if folder.stat().st_mtime < oldest:
                    shutil.rmtree(folder, ignore_errors=True)
