"""What the Tab key offers, in real shells."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from proxy.cli import main
from proxy.cli.completion import NAME, VARIABLE
from tests.support.shells import SHELLS, Shell

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Admin(BaseHTTPRequestHandler):
    """A stand-in for the admin API, which asks for a token."""

    def do_GET(self) -> None:
        """As BaseHTTPRequestHandler."""
        good = self.headers["authorization"] == "Bearer hunter2" and self.path == "/api/backends"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(json.dumps([{"name": name} for name in ("chat-a", "chat-b", "other")]).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """An environment in which commands find the stand-in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Admin)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    admin = f"127.0.0.1:{server.server_port}"
    yield {"PATH": PATH, "CHAINLIT_PROXY_ADMIN": admin, "CHAINLIT_PROXY_TOKEN": "hunter2"}
    server.shutdown()
    thread.join()
    server.server_close()


def in_bash(env: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last word, after `completion bash` was read."""
    asking = """
eval "$(chainlit-proxy completion bash)"
COMP_WORDS=(chainlit-proxy "$@"); COMP_CWORD=$#
_chainlit_proxy_completion chainlit-proxy
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", asking, "bash", *words],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "rror" not in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["dr"], ["drain"]),
        (["drain", "--w"], ["--wait"]),
        (["drain", "chat"], ["chat-a", "chat-b"]),
        (["maintenance", "o"], ["other"]),
        (["sessions", "--backend", "chat-b"], ["chat-b"]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_bash(env: dict[str, str], words: list[str], offered: list[str]) -> None:
    """Commands, the names of the backends of the proxy that is meant, and what an argument may be."""
    assert in_bash(env, *words) == offered


@pytest.mark.parametrize("words", [["serve", "-c", "x"], ["serve", "x"], ["check", "-c", "x"], ["run", "x"]])
def test_files(words: list[str]) -> None:
    """Where a file is meant the shell is told so, and offers those that there are."""
    *before, incomplete = words
    (item,) = ShellComplete(main, {}, NAME, VARIABLE).get_completions(before, incomplete)
    assert item.type == "file"


def test_a_proxy_that_does_not_answer() -> None:
    """Nobody waits for names: they are left out after 0.3 seconds, and no word of it is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        admin = f"127.0.0.1:{server.getsockname()[1]}"
        completion = ShellComplete(main, {}, NAME, VARIABLE)
        began = time.monotonic()
        assert completion.get_completions(["drain", "--admin", admin], "") == []
        assert 0.2 < time.monotonic() - began < 5
    assert completion.get_completions(["drain", "--admin", "no/such"], "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_installed_files(shell: str, env: dict[str, str], tmp_path: Path) -> None:
    """Each shell finds its file of deploy/completion by itself, and offers what is meant at each Tab."""
    with Shell(shell, tmp_path, env) as screen:
        screen.complete("chainlit-proxy main", "maintenance")
        screen.complete("chainlit-proxy drain --t", "--timeout", "--token")
        screen.complete("chainlit-proxy drain chat", "chat-a", "chat-b")


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell: str, tmp_path: Path) -> None:
    """Each shell understands its script."""
    script = tmp_path / "script"
    done = subprocess.run(["chainlit-proxy", "completion", shell], env=os.environ | {"PATH": PATH},
                          capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert VARIABLE in done.stdout
    script.write_text(done.stdout)
    assert subprocess.run([shell, "-n", str(script)], capture_output=True, check=True).stderr == b""


def test_every_name_of_a_backend_is_completed() -> None:
    """No command asks for the name of a backend without offering those that there are."""
    for command in main.all().values():
        for parameter in command.params:
            if isinstance(parameter, click.Argument) and parameter.metavar == "NAME":
                assert parameter._custom_shell_complete is not None, command.name
