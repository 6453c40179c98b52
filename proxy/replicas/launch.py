"""What runs inside a replica's process: `chainlit run`, tied to the life of the supervisor if there is one.

The supervisor runs this file by its path and with `python -P`, and nothing here imports the rest of the
package by its name: the app must find its own modules, also one named `proxy`, as under plain `chainlit run`.
Everything this project touches inside Chainlit is in `give_own_files` and `run_chainlit`, and for shared
sessions in `proxy/sessions`, which is loaded by its path under a name of its own. Chainlit keeps
uploads in `.files` of the app's root and removes that folder when it stops, so instances that share a root
would delete each other's files: each replica gets a files directory of its own, and nothing else changes.
"""

import argparse
import atexit
import ctypes
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

SESSIONS = Path(__file__).parents[1] / "sessions" / "__init__.py"
SHARING = "_CHAINLIT_PROXY_SHARING"  # variable with how sessions are shared; others can read a command line
SESSIONS_NAME = "_chainlit_proxy_sessions"  # also known to `proxy/sessions/codecs.py`
GRACE = 3.0  # seconds between SIGTERM and SIGKILL when the supervisor is gone; nobody is served any more
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LINKED = (".chainlit", "public", "chainlit*.md")  # what Chainlit reads from its root, beside `.files`
_COPIED = (".chainlit", "chainlit*.md")  # of it, what it adds to, or reads only where it really is


def tie_to_supervisor(pid: int, lifeline: int) -> None:
    """Makes this process end when the supervisor does.

    `lifeline` is the reading end of a pipe whose other end only the supervisor holds. A thread waits for its
    end of file. Linux also kills the process itself, which reaches one that is stopped (SIGSTOP), too; that
    is asked for first and the parent looked at afterwards, as it may have died in between.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != pid:
        sys.exit("the supervisor has gone")
    os.set_inheritable(lifeline, False)  # processes that the app starts have no part in this
    threading.Thread(target=_die_at_eof, args=(lifeline,), name="lifeline", daemon=True).start()


def _die_at_eof(lifeline: int) -> None:
    """Waits for the supervisor's end, then ends this process and what it started."""
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def give_own_files(files: Path) -> bool:
    """Makes `files` Chainlit's files directory; False if this Chainlit does not keep it where we know.

    `chainlit.config` names the directory, `chainlit.server` takes the name from there when it is imported
    (by the `run` command, not before) and `chainlit.session` at each call.
    """
    config = importlib.import_module("chainlit.config")
    old = getattr(config, "FILES_DIRECTORY", None)
    if not isinstance(old, Path) or "chainlit.server" in sys.modules:
        return False
    files.mkdir(mode=0o700, exist_ok=True)
    for name, module in list(sys.modules.items()):
        if name.startswith("chainlit.") and vars(module).get("FILES_DIRECTORY") is old:
            vars(module)["FILES_DIRECTORY"] = files
    return True


def import_cli() -> Any:
    """Chainlit's command line, without the empty `.files` that importing it makes in the app's root.

    Only a `.files` that was made since is removed: by this import, or by that of a replica that starts
    now and does not need it either. One that was there before may be in use.
    """
    began = time.time()
    try:
        cli = importlib.import_module("chainlit.cli").cli
    except FileExistsError:  # another replica removed it in the midst of `mkdir(exist_ok=True)`
        cli = importlib.import_module("chainlit.cli").cli
    made = _real_root() / ".files"
    with suppress(OSError):
        if made.lstat().st_mtime >= began:
            made.rmdir()
    return cli


def _real_root() -> Path:
    return Path(os.environ.get("CHAINLIT_APP_ROOT") or Path.cwd())


def link_root(root: Path) -> None:
    """Makes a root of links to the real one, which can be written."""
    real = _real_root()
    (real / ".chainlit").mkdir(exist_ok=True)
    root.mkdir(mode=0o700)
    for pattern in _LINKED:
        for entry in real.glob(pattern):
            (root / entry.name).symlink_to(entry.resolve())


def copy_root(root: Path) -> None:
    """Makes a root for an app whose own cannot be written, as in an image that is read-only.

    Chainlit adds its defaults to `.chainlit` when it is imported, and takes translated texts only from
    within the root: those are copies. Everything else is a link, for an app that looks below `APP_ROOT`.
    """
    real = _real_root().absolute()
    root.mkdir(mode=0o700)
    copied = {entry for pattern in _COPIED for entry in real.glob(pattern)}
    for entry in real.iterdir():
        if entry in copied:
            _copy(entry, root / entry.name)
        elif entry.name != ".files":
            (root / entry.name).symlink_to(entry)


def _copy(source: Path, target: Path) -> None:
    """Copies files and folders, but not that they cannot be written."""
    if source.is_dir():
        target.mkdir(mode=0o700)
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
    elif source.is_file():
        shutil.copyfile(source, target)


def restart_in_own_root(root: Path, *inherited: int) -> None:
    """The other way to own files: begins again in a Chainlit root of its own, made from the real one.

    Costs what the first does not: the app sees another `APP_ROOT`.
    """
    os.environ["CHAINLIT_APP_ROOT"] = str(root)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # our own command line again


def load_sessions() -> Any:
    """The package `proxy.sessions`, under a name that no app has."""
    spec = importlib.util.spec_from_file_location(
        SESSIONS_NAME, SESSIONS, submodule_search_locations=[str(SESSIONS.parent)]
    )
    assert spec
    assert spec.loader
    sessions = sys.modules[SESSIONS_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sessions)
    return sessions


def share_sessions(status: Path | None) -> None:
    """Has sessions shared if the environment says how; the file `status` then says whether they are."""
    if told := os.environ.pop(SHARING, ""):  # it may hold a password: not for what the app starts
        sessions = load_sessions()
        sessions.share_from_start(sessions.SharingSettings.from_text(told), status)


def run_chainlit(given: argparse.Namespace) -> None:
    """Calls Chainlit's command line in this process, with files of its own. Does not return."""
    arguments: list[str] = given.chainlit
    state: Path = given.state.absolute()
    if given.temporary:
        atexit.register(_remove_own, state, os.getpid())  # where Chainlit ends before it serves
    sys.argv = ["chainlit", *arguments]  # what an app that looks sees under plain `chainlit run`
    root = state / "root"
    inherited = [descriptor for descriptor in (given.lifeline, given.lock) if descriptor is not None]
    in_own_root = os.environ.get("CHAINLIT_APP_ROOT") == str(root)
    if not in_own_root:
        if not given.temporary:
            shutil.rmtree(state, ignore_errors=True)  # what an earlier life of this replica left
            state.mkdir(mode=0o700, parents=True)
        if not os.access(_real_root(), os.W_OK):
            copy_root(root)
            restart_in_own_root(root, *inherited)
    cli = import_cli()
    # Chainlit removes its files directory in the end and leaves no time for more.
    if not give_own_files(state if given.temporary else state / "files") and not in_own_root:
        sys.stdout.write("This Chainlit keeps uploads elsewhere: it gets a root of links for itself.\n")
        sys.stdout.flush()
        link_root(root)
        restart_in_own_root(root, *inherited)
    share_sessions(None if given.temporary else state / "sharing")
    if given.supervisor is not None:
        # The proxy ends TLS; a certificate named in the environment or in `.env` is not for this port.
        os.environ.pop("CHAINLIT_SSL_CERT", None)
        os.environ.pop("CHAINLIT_SSL_KEY", None)
    cli.main(args=arguments, prog_name="chainlit")


def _close(descriptor: int) -> None:
    with suppress(OSError):  # the app has closed all
        os.close(descriptor)


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a process that the app forked
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Reads the half of the command line that is ours; what follows it is Chainlit's."""
    parser = argparse.ArgumentParser(prog="proxy.replicas.launch", description="Starts one replica.")
    parser.add_argument("--supervisor", type=int, help="its process id, where there is one")
    parser.add_argument("--lifeline", type=int, help="file descriptor to wait on, with a supervisor")
    parser.add_argument("--state", type=Path, required=True, help="a folder for this replica alone")
    parser.add_argument("--temporary", action="store_true", help="the folder is there, and goes in the end")
    parser.add_argument("--lock", type=int, help="file descriptor that keeps the folder from others")
    parser.add_argument("chainlit", nargs=argparse.REMAINDER, help="arguments of the command `chainlit`")
    given = parser.parse_args()
    if given.supervisor is not None:
        tie_to_supervisor(given.supervisor, given.lifeline)
    if given.lock is not None:
        os.set_inheritable(given.lock, False)
        os.register_at_fork(after_in_child=lambda: _close(given.lock))  # the lock is this process's alone
    run_chainlit(given)


if __name__ == "__main__":
    main()
