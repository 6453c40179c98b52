"""The state folder of `run`, and that of an instance started by hand: named, the user's or temporary.

Whoever has a folder holds a lock on it, through a descriptor that `exec` and keepers are handed and that the
end of a process releases, however it ends. So two cannot have one folder, and what is left of one that was
killed can be told from what is in use.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

log = logging.getLogger("proxy.replicas")

NAME = "chainlit-proxy"
PREFIX = f"{NAME}-replica-"
RUN_PREFIX = f"{NAME}-run-"
# Of `run` when all of its folders were temporary; nobody locked those.
_OLD = re.compile(rf"{NAME}-[a-z0-9_]{{8}}")
_PATIENCE = 3.0  # seconds that a folder is waited for: what a killed `run` had started ends a moment later
_PAUSE = 0.05  # seconds between two tries


class FolderError(Exception):
    """The folder cannot be used; the text says why, and what to do."""


class _InUseError(Exception):
    """Somebody else has it."""


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """A folder that is locked."""

    path: Path
    lock: int  # the descriptor that holds the lock; it outlives `exec`
    temporary: bool


def named(path: Path, source: str = "--state") -> OwnFolder:
    """Takes the folder `path`, which is made where it is missing. Raises FolderError."""
    try:
        return _take(path)
    except OSError as error:
        raise FolderError(f"{source}: {path}: {error.strerror}; name a folder that can be written") from None
    except _InUseError:
        raise FolderError(f"{source}: {path}: another instance uses this folder; give each its own") from None


def of_run(given: Path | None, app: Path, environ: Mapping[str, str] = os.environ) -> OwnFolder:
    """The folder of `run`: the one that is `given`, that of its service, or the user's for this app.

    Where the user can have none it is a temporary one, and the log says so. Raises FolderError.
    """
    with suppress(OSError):  # there may be no place for temporary files
        _remove_leftovers(Path(tempfile.gettempdir()))
    if given is not None:
        return named(given)
    if service := environ.get("STATE_DIRECTORY"):  # of systemd, which lists all of StateDirectory=
        return named(Path(service.partition(":")[0]), "STATE_DIRECTORY")
    path = user_folder(app)
    try:
        if not path.is_absolute():
            raise FileNotFoundError(None, "this user has no home")
        own = _take(path)
        with suppress(PermissionError):  # not ours, but ours to use
            path.chmod(0o700)
    except _InUseError:
        raise FolderError(
            f"another `run` of {app} uses its state folder {path}: "
            "stop it, or name another folder for this one with --state"
        ) from None
    except OSError as error:
        log.warning(
            "sessions and uploads will be lost when this process ends: %s: %s; name a folder that can be "
            "written with --state",
            path,
            error.strerror,
        )
        return temporary(RUN_PREFIX)
    return own


def user_folder(app: Path) -> Path:
    """Where the state of an app is kept for this user: one folder for each path."""
    path = app.resolve()
    mark = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
    return platformdirs.user_state_path(NAME, appauthor=False) / f"{path.parent.name}-{path.stem}-{mark}"


def temporary(prefix: str = PREFIX) -> OwnFolder:
    """Makes a temporary folder, and removes those that killed instances left. Raises FolderError."""
    try:
        _remove_leftovers(Path(tempfile.gettempdir()))
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix))
            with suppress(FileNotFoundError):
                lock = _lock(path)
                if lock is not None and path.exists():  # else taken for a leftover before it was locked
                    return OwnFolder(path, lock, temporary=True)
    except OSError as error:
        raise FolderError(
            f"no temporary folder can be made: {error.strerror}; name a folder with --state"
        ) from None


def _take(path: Path) -> OwnFolder:
    """Makes a folder where it is missing, and locks it. Raises OSError and _InUseError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + _PATIENCE
    while (lock := _lock(path.resolve())) is None:  # systemd's StateDirectory= may be a link
        if time.monotonic() > deadline:
            raise _InUseError
        time.sleep(_PAUSE)
    if not os.access(path, os.W_OK | os.X_OK):
        os.close(lock)
        raise PermissionError(None, "it cannot be written")
    return OwnFolder(path, lock, temporary=False)


def _remove_leftovers(temp: Path) -> None:
    """Removes what instances that were killed have left in the folder for temporary files."""
    for path in [*temp.glob(f"{PREFIX}*"), *temp.glob(f"{RUN_PREFIX}*")]:
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
    old = [path for path in temp.glob(f"{NAME}-*") if _OLD.fullmatch(path.name)]
    used = _command_lines() if old else b""
    for path in old if used else ():
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and os.fsencode(path) not in used:
                shutil.rmtree(path, ignore_errors=True)


def _command_lines() -> bytes:
    """Those of all processes, which name the folder of a replica; empty where they cannot be read."""
    lines = bytearray()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines += path.read_bytes()
    return bytes(lines)


def _lock(path: Path) -> int | None:
    """Locks a folder; None if somebody else has it. Raises OSError."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    os.set_inheritable(lock, True)
    return lock
