"""What runs inside a replica's process: `chainlit run`, with files of its own.

It is run by its path and with `python -P`, and nothing here imports the rest of the package by its name: the
app must find its own modules, also one named `proxy`, as under plain `chainlit run`.
Everything this project touches inside Chainlit is in `give_own_files` and `run_chainlit`, and for shared
sessions in `proxy/sessions`, which is loaded as `chainlit_proxy` loads it for apps, by its path and under a
name of its own; that also has clients wait for an app that blocks. Chainlit keeps uploads in `.files` of the
app's root and removes that folder when it stops, so instances that share a root would delete each other's
files: each replica gets a files directory of its own, and nothing else changes.
"""

import argparse
import atexit
import importlib
import importlib.util
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOR_APPS = Path(__file__).absolute().parents[2] / "chainlit_proxy" / "__init__.py"
KEEPER = Path(__file__).with_name("keeper.py")
SHARING = "_CHAINLIT_PROXY_SHARING"  # variable with how sessions are shared; others can read a command line
_COPIED = (".chainlit", "chainlit*.md")  # what Chainlit adds to, or reads only where it really is


def give_own_files(files: Path) -> None:
    """Makes `files` Chainlit's files directory. Exits if this Chainlit does not keep it where we know.

    `chainlit.config` names the directory, `chainlit.server` takes the name from there when it is imported
    (by the `run` command, not before) and `chainlit.session` at each call.
    """
    config = importlib.import_module("chainlit.config")
    old = getattr(config, "FILES_DIRECTORY", None)
    if not isinstance(old, Path) or "chainlit.server" in sys.modules:
        sys.exit("this release of Chainlit keeps uploads where instances cannot have their own")
    files.mkdir(mode=0o700, exist_ok=True)
    for name, module in list(sys.modules.items()):
        if name.startswith("chainlit.") and vars(module).get("FILES_DIRECTORY") is old:
            vars(module)["FILES_DIRECTORY"] = files


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


def load_sessions() -> Any:
    """The package `proxy.sessions`, as an app gets it that imports `chainlit_proxy`; loaded once.

    The module `chainlit_proxy` itself is left to the app, which may have one of its own.
    """
    return _load("_chainlit_proxy", FOR_APPS)._sessions()  # noqa: SLF001 - one place knows where it is


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share_sessions(status: Path | None) -> None:
    """Has sessions shared if the environment says how; the file `status` then says whether they are."""
    if told := os.environ.pop(SHARING, ""):  # it may hold a password: not for what the app starts
        _load("_chainlit_proxy_keeper", KEEPER).forget({SHARING})
        sessions = load_sessions()
        sessions.share_from_start(sessions.SharingSettings.from_text(told), status)


def run_chainlit(given: argparse.Namespace) -> None:
    """Calls Chainlit's command line in this process, with files of its own. Does not return."""
    arguments: list[str] = given.chainlit
    state: Path = given.state.absolute()
    if given.temporary:
        atexit.register(_remove_own, state, os.getpid())  # where Chainlit ends before it serves
    else:
        shutil.rmtree(state, ignore_errors=True)  # what an earlier life of this replica left
        state.mkdir(mode=0o700, parents=True)
    sys.argv = ["chainlit", *arguments]  # what an app that looks sees under plain `chainlit run`
    if not os.access(_real_root(), os.W_OK):
        copy_root(state / "root")
        os.environ["CHAINLIT_APP_ROOT"] = str(state / "root")  # read when Chainlit is imported
    cli = import_cli()
    load_sessions().keep_clients()
    # Chainlit removes its files directory in the end and leaves no time for more.
    give_own_files(state if given.temporary else state / "files")
    share_sessions(None if given.temporary else state / "sharing")
    if given.supervised:
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
    parser.add_argument("--supervised", action="store_true", help="it is a replica of `run`")
    parser.add_argument("--state", type=Path, required=True, help="a folder for this replica alone")
    parser.add_argument("--temporary", action="store_true", help="the folder is there, and goes in the end")
    parser.add_argument("--lock", type=int, help="file descriptor that keeps the folder from others")
    parser.add_argument("chainlit", nargs=argparse.REMAINDER, help="arguments of the command `chainlit`")
    given = parser.parse_args()
    if given.lock is not None:
        os.set_inheritable(given.lock, False)
        os.register_at_fork(after_in_child=lambda: _close(given.lock))  # the lock is this process's alone
    run_chainlit(given)


if __name__ == "__main__":
    main()
