"""What the tests of the replicas share: apps, supervisors, a scripted `chainlit`, and a look at processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replicas.recorded import Recorded

CLI = """
import http.server, os, runpy, sys, threading

AFTER = []  # what the app wants to happen soon after an answer

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for call in AFTER:
            threading.Timer(0.2, call).start()
    def log_message(self, *args):
        pass

class Group:
    def main(self, args, prog_name):
        port = int(args[args.index("--port") + 1])
        sys.path.insert(0, os.path.dirname(os.path.abspath(args[1])))
        runpy.run_path(args[1], init_globals={"PORT": port, "AFTER": AFTER})
        http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()

cli = Group()
"""
CONFIG = """
import os
from pathlib import Path
APP_ROOT = os.getenv("CHAINLIT_APP_ROOT", os.getcwd())
FILES_DIRECTORY = Path(APP_ROOT) / ".files"
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes an app of this text, in a working directory of its own."""
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def make(text: str) -> Path:
        (folder / "app.py").write_text(text)
        return Path("app.py")

    return make


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Recorded]:
    """Makes a recorded supervisor with a state folder of its own."""

    def make(app: Path, count: int, **settings: Any) -> Recorded:
        return Recorded(app, count, tmp_path / "state", **settings)

    return make


@pytest.fixture
def scripted_chainlit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `chainlit` that runs the app's file and answers HTTP, within 0.1 s; for the children only."""
    package = tmp_path / "lib" / "chainlit"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text("import chainlit.config\n" + CLI)
    (package / "config.py").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package


def _is_alive(pid: int) -> bool:
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # nobody may reap an orphan here


@pytest.fixture
def wait_gone() -> Callable[[list[int], float], list[int]]:
    """Waits at most some seconds for the end of processes that are not ours; returns those that are left."""

    def wait(pids: list[int], seconds: float) -> list[int]:
        deadline = time.monotonic() + seconds
        while (left := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    return wait


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[Path, int], tuple[subprocess.Popen[str], list[int]]]]:
    """Runs a supervisor in a process of its own; returns it and its replicas' process ids, when ready."""
    started: list[subprocess.Popen[str]] = []

    def start(app: Path, count: int) -> tuple[subprocess.Popen[str], list[int]]:
        script = Path(__file__).with_name("supervise.py")
        process = subprocess.Popen(
            [sys.executable, str(script), str(app), str(count), str(tmp_path / "state")],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        return process, [int(process.stdout.readline()) for _ in range(count)]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
