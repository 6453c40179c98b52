"""What a user can put right is told at once: where, what, and with an exit code that scripts can read."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import free_port
from tests.support.proxy_process import COMMAND, ROOT

pytestmark = pytest.mark.system

BAD_USE = 2
GOOD = """\
listen: 127.0.0.1:{listen}
admin: {{listen: 127.0.0.1:{admin}}}
backends:
  - {{name: a, url: http://127.0.0.1:{backend}}}
"""

# The text, and for each mistake the line and the key that its message must name.
MISTAKES = {
    "unknown key": ("backends: [{url: http://h:1}]\nheatlh: {interval: 1}\n", [(2, "heatlh")]),
    "unknown nested key": (
        "backends: [{url: http://h:1}]\nhealth:\n  interval: 1\n  intervall: 2\n",
        [(4, "health.intervall")],
    ),
    "wrong type": ("backends:\n  - name: a\n    url: http://h:1\n    weight: heavy\n", [(4, "weight")]),
    "wrong value": ("health: {type: ping}\nbackends: [{url: http://h:1}]\n", [(1, "health.type")]),
    "bad address": ("listen: 127.0.0.1:nowhere\nbackends: [{url: http://h:1}]\n", [(1, "listen")]),
    "bad URL": ("backends:\n  - name: a\n    url: ftp://h:1\n", [(3, "url")]),
    "duplicate backend": (
        "backends:\n  - {name: a, url: http://h:1}\n  - {name: a, url: http://h:2}\n",
        [(3, "name")],
    ),
    "no backend": ("listen: 127.0.0.1:8000\nbackends: []\n", [(2, "backends")]),
    "no backends at all": ("listen: 127.0.0.1:8000\n", [(1, "backends")]),
    "undefined variable": (
        "backends: [{url: http://h:1}]\nadmin:\n  token: ${TOKEN_THAT_NOBODY_SET}\n",
        [(3, "admin.token")],
    ),
    "not YAML": ("listen: 127.0.0.1:8000\nbackends: [\n", [(3, "YAML")]),
    "several at once": (
        "listne: 127.0.0.1:8000\nbackends:\n  - {name: a}\nhealth: {fall: many}\n",
        [(1, "listne"), (3, "url"), (4, "health.fall")],
    ),
}


def run(*arguments: str, within: float = 20, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=within,
        env=environment,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_is_one_line_that_names_its_place(tmp_path: Path, command: str, case: str) -> None:
    """A bad file ends with exit code 2 and one line per mistake, with the file's line and the key."""
    text, places = MISTAKES[case]
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    done = run(command, "-c", str(file))
    assert done.returncode == BAD_USE, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(places), done.stderr
    for told, (line, key) in zip(lines, places, strict=True):
        assert f"proxy.yaml:{line}:" in told
        assert key in told


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_missing_file_is_named(tmp_path: Path, command: str) -> None:
    """A file that is not there ends with exit code 2 and one line."""
    done = run(command, "-c", str(tmp_path / "absent.yaml"))
    assert done.returncode == BAD_USE
    assert len(done.stderr.splitlines()) == 1
    assert "absent.yaml" in done.stderr


def test_a_good_file_is_checked_and_shown(tmp_path: Path) -> None:
    """`check` says that it is right and ends with 0, and opens no port; it prints what it is asked to."""
    file = tmp_path / "proxy.yaml"
    file.write_text(GOOD.format(listen=free_port(), admin=free_port(), backend=1))
    done = run("check", "--print", "-c", str(file))
    assert done.returncode == 0, done.stderr
    assert "is valid: 1 backend" in done.stderr
    assert "evict_after" in done.stdout


@pytest.mark.parametrize("taken", ["listen", "admin"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, taken: str) -> None:
    """`serve` on a port that another process has ends with exit code 2 and one line that names it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ports = {"listen": free_port(), "admin": free_port(), "backend": 1} | {taken: port}
        file = tmp_path / "proxy.yaml"
        file.write_text(GOOD.format(**ports))
        done = run("serve", "-c", str(file))
    assert done.returncode == BAD_USE, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(port) in done.stderr


def run_app(app: Path) -> subprocess.CompletedProcess[str]:
    """`run` for an app that cannot start."""
    listen = ["--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    return run("run", app.name, "--replicas", "2", *listen, within=30, cwd=app.parent)


def test_an_app_that_does_not_import_shows_its_traceback(tmp_path: Path) -> None:
    """`run` ends at once, with Chainlit's own traceback, shown once, and an exit code that is not 0."""
    app = tmp_path / "app.py"
    app.write_text("import chainlit as cl\nimport a_module_that_does_not_exist\n")
    done = run_app(app)
    told = done.stdout + done.stderr
    assert done.returncode not in {0, -9}, told
    assert "Traceback (most recent call last)" in told
    assert told.count("No module named 'a_module_that_does_not_exist'") == 1, told


def test_an_app_that_is_not_there_is_named(tmp_path: Path) -> None:
    """`run` of a missing file ends with exit code 2 and names it."""
    done = run_app(tmp_path / "absent.py")
    assert done.returncode == BAD_USE, done.stdout + done.stderr
    assert "absent.py" in done.stderr
