"""The folder that an instance started by hand has for itself: one that is named, or a temporary one.

Whoever has a folder holds a lock on it, through a descriptor that `exec` hands on and that the end of the
process releases, however it ends. So two instances cannot have one folder, and what is left of an instance
that was killed can be told from what is in use.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "chainlit-proxy-replica-"


class FolderError(Exception):
    """The folder cannot be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """A folder that is locked."""

    path: Path
    lock: int  # the descriptor that holds the lock; it outlives `exec`
    temporary: bool


def named(path: Path) -> OwnFolder:
    """Takes the folder `path`, which is made where it is missing. Raises FolderError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(path.resolve())  # systemd's StateDirectory= may be a link
    except OSError as error:
        raise FolderError(f"--state: {path}: {error.strerror}; name a folder that can be written") from None
    if lock is None:
        raise FolderError(f"--state: {path}: another instance uses this folder; give each its own")
    return OwnFolder(path, lock, temporary=False)


def temporary() -> OwnFolder:
    """Makes a temporary folder, and removes those that killed instances left. Raises FolderError."""
    try:
        _remove_leftovers(Path(tempfile.gettempdir()))
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX))
            with suppress(FileNotFoundError):
                lock = _lock(path)
                if lock is not None and path.exists():  # else taken for a leftover before it was locked
                    return OwnFolder(path, lock, temporary=True)
    except OSError as error:
        raise FolderError(
            f"no temporary folder can be made: {error.strerror}; name a folder with --state"
        ) from None


def _remove_leftovers(temp: Path) -> None:
    for path in temp.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _lock(path: Path) -> int | None:
    """Locks a folder; None if somebody else has it. Raises OSError."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.set_inheritable(lock, True)
    return lock
