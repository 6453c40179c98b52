"""The command line: what it prints, where, and with which exit code."""

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from click.testing import CliRunner, Result

import proxy
from proxy import net
from proxy.build import BUILD
from proxy.cli import main
from proxy.cli.reading import RUN_DEFAULTS
from proxy.config import Address, dump, loads
from proxy.config.fields import key_at

COMMANDS = (
    "run",
    "serve",
    "check",
    "schema",
    "doctor",
    "status",
    "drain",
    "ready",
    "maintenance",
    "rollout",
    "reload",
)
LATE = {"aiohttp", "engineio", "fastapi", "opentelemetry", "prometheus_client", "redis", "rich", "uvicorn"}
BACKENDS = [
    {"name": "a", "url": "http://127.0.0.1:8001", "health": "healthy", "admin_state": "ready"}
    | {"weight": 1.0, "sessions": 3, "tunnels": 2, "pid": 42},
    {"name": "second", "url": "http://127.0.0.1:8002", "health": "down", "admin_state": "drain"}
    | {"weight": 1.0, "sessions": 0, "tunnels": 0, "pid": None, "reason": "silent for 45 s"},
]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Put the root logger back as it was: `serve` and `run` set it up."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def call(*args: str, env: dict[str, str] | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, args, env=env)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file to write a configuration to."""
    return tmp_path / "proxy.yaml"


class Admin(BaseHTTPRequestHandler):
    """A stand-in for the admin API."""

    status = 200
    body: ClassVar[bytes] = b""
    token: ClassVar[str | None] = None
    location: ClassVar[str | None] = None
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer everything the same."""
        self.asked.append(self.path)
        good = self.token is None or self.headers.get("authorization") == f"Bearer {self.token}"
        self.send_response(self.status if good else 401)
        if self.location is not None:
            self.send_header("Location", self.location)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def admin() -> Iterator[tuple[type[Admin], str]]:
    """The stand-in, and its URL."""

    class Fresh(Admin):
        body = json.dumps(BACKENDS).encode()
        asked: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Fresh, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_help_and_version() -> None:
    """Every command is told by --help, and --version tells the version and which build of it runs."""
    text = call("--help").output
    assert all(command in text for command in COMMANDS)
    assert call("--version").output.strip().endswith(f"{proxy.__version__} ({BUILD})")
    assert call("-V").output == call("--version").output
    for command in COMMANDS:
        assert call(command, "-h").exit_code == 0


def test_help_is_short_and_whole() -> None:
    """Every command stands in one group of --help, in one line of 80 characters that is not cut off."""
    text = call("--help").output
    lines = [line for line in text.splitlines() if line.startswith("  ")]
    for name, command in main.all().items():
        (line,) = [line for line in lines if line.split()[0] == name]
        assert len(line) <= 60
        assert not line.endswith("...")
        assert command.name == name
    assert all(f"\n{group}:\n" in text for group in ("Run it", "Look", "Operate", "Examine"))


@pytest.mark.parametrize("args", [["fly"], ["serve"], ["check"], ["run"], ["run", "x.py", "--replicas", "0"]])
def test_wrong_use_exits_2(args: list[str]) -> None:
    """What is not understood exits 2 and says what is."""
    result = call(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_a_line() -> None:
    """What cannot be printed ends the command with status 1, without a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "standard output: No space left on device\n")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_mistakes_exit_2_each_on_a_line(config: Path, command: str) -> None:
    """A bad file: exit 2, and one line for each mistake with its line and key, on standard error."""
    config.write_text(
        "listem: x\nbackends:\n  - {url: ftp://x}\n  - {url: http://127.0.0.1:1, weight: big}\n"
    )
    result = call(command, "-c", str(config))
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line, (number, key) in zip(lines, [(1, "listem"), (3, "url"), (4, "weight")], strict=True):
        assert f"proxy.yaml:{number}:" in line
        assert key in line


@pytest.mark.parametrize("command", ["check", "serve"])
def test_missing_file_and_missing_backends(config: Path, command: str) -> None:
    """A file that is not there, and one without backends, are told in a line."""
    missing = call(command, "-c", str(config))
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
    config.write_text("listen: 127.0.0.1:0\n")
    empty = call(command, "-c", str(config))
    assert (empty.exit_code, "backends" in empty.stderr) == (2, True)


def test_port_that_is_taken(config: Path) -> None:
    """A `serve` exits 2 and names the address when a port is taken, of clients or of the admin listener."""
    with net.bind(Address("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        for listen, admin in ((f"127.0.0.1:{port}", "127.0.0.1:0"), ("127.0.0.1:0", f"127.0.0.1:{port}")):
            config.write_text(
                f"listen: {listen}\nadmin: {{listen: {admin}}}\nbackends: [{{url: http://127.0.0.1:1}}]\n"
            )
            result = call("serve", "-c", str(config))
            assert result.exit_code == 2
            assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in result.stderr


def in_effect(config: Path, text: str) -> Any:
    """What `run` has of a file with this text."""
    config.write_text(text)
    result = call("check", "-c", str(config), "--for", "run", "--print", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    return yaml.safe_load(result.stdout)


@pytest.mark.parametrize(
    ("text", "listen", "access"),
    [
        ("", "127.0.0.1:8000", False),
        ("log: {format: json}", "127.0.0.1:8000", False),
        ("log:\n", "127.0.0.1:8000", False),
        ("health: {path: /chat/health}", "127.0.0.1:8000", False),
        ("log: {access: true}", "127.0.0.1:8000", True),
        ("listen: 0.0.0.0:8000", "0.0.0.0:8000", False),
    ],
)
def test_run_keeps_its_defaults_where_the_file_is_silent(
    config: Path, text: str, listen: str, access: bool
) -> None:
    """Only a key that the file has replaces a default of `run`, also inside a section."""
    told = in_effect(config, text)
    assert (told["listen"], told["log"]["access"]) == (listen, access)
    assert told["admin"]["listen"] == "127.0.0.1:9901"
    assert told["sessions"]["shared"] is True


def test_run_differs_from_the_models_in_nothing_else(config: Path) -> None:
    """An empty file and `run` without one are the same, and the pages name what `run` has otherwise."""
    with_file = in_effect(config, "")
    without = yaml.safe_load(dump(loads("", defaults=RUN_DEFAULTS, changes={"sessions.shared": True})))
    assert with_file == without
    for name, value in RUN_DEFAULTS.items():
        key = key_at(tuple(name.split(".")))
        assert key is not None
        assert f"The default of `run` is {str(value).lower()}." in key.description


def test_replica_needs_chainlit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `run` does, it says so in a line, and makes no folder for an instance that cannot start."""
    monkeypatch.setitem(sys.modules, "chainlit", None)
    state = tmp_path / "state"
    result = call("replica", "app.py", "--sessions", f"sqlite://{tmp_path}/s.db", "--state", str(state))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "pip install 'chainlit>=2.0,<3'" in result.stderr
    assert not state.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--state", ""), "Invalid value for '--state': it must be the name of a folder"),
        (("-c", ""), "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["run", "replica"])
def test_a_variable_without_a_value(command: str, options: tuple[str, ...], told: str) -> None:
    """An empty name is a mistake: not the folder that the command is in, and not the defaults."""
    result = call(command, "app.py", *options)
    assert (result.exit_code, told in result.stderr) == (2, True)


def test_run_takes_no_backends(config: Path) -> None:
    """`run` starts its backends itself: a file that lists some is a mistake."""
    config.write_text("backends: [{url: http://127.0.0.1:8001}]\n")
    result = call("run", "app.py", "-c", str(config))
    assert (result.exit_code, "must not be set for `run`" in result.stderr) == (2, True)


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_run_checks_its_addresses(option: str) -> None:
    """Addresses on the command line are checked like those in a file."""
    result = call("run", "app.py", option, "nonsense")
    assert (result.exit_code, option[2:] in result.stderr) == (2, True)


def test_status_is_a_table(admin: tuple[type[Admin], str]) -> None:
    """Each backend on a line, in columns."""
    result = call("status", "--admin", admin[1] + "/")
    assert result.exit_code == 0
    head, first, second = result.stdout.splitlines()
    assert head.split()[:2] == ["BACKEND", "HEALTH"]
    assert first.split() == ["a", "healthy", "ready", "3", "2", "42", "http://127.0.0.1:8001"]
    assert second.split()[:7] == ["second", "down", "drain", "0", "0", "-", "http://127.0.0.1:8002"]
    assert second.index("silent for 45 s") == head.index("WHY")
    assert first.index("healthy") == second.index("down") == head.index("HEALTH")
    assert admin[0].asked == ["/api/backends"]


def test_status_for_machines(admin: tuple[type[Admin], str]) -> None:
    """--json prints what the API says; the address may come from the environment."""
    result = call("status", "--json", env={"CHAINLIT_PROXY_ADMIN": admin[1]})
    assert (result.exit_code, json.loads(result.stdout)) == (0, BACKENDS)


def test_status_with_a_token(admin: tuple[type[Admin], str]) -> None:
    """The token comes from the option or the environment; without the right one the command says so."""
    admin[0].token = "hunter2"
    good = [call("status", "--admin", admin[1], "--token", "hunter2")]
    good += [call("status", "--admin", admin[1], env={"CHAINLIT_PROXY_TOKEN": "hunter2\n"})]
    assert [result.exit_code for result in good] == [0, 0]
    for words, why in (
        ((), "needs a token: give it with CHAINLIT_PROXY_TOKEN or --token"),
        (("--token", "no"), "this proxy does not accept the token that was given"),
    ):
        result = call("status", "--admin", admin[1], *words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"{admin[1]}: {why}\n"


@pytest.mark.parametrize("token", ["hunter2\nX: y", "hunter2é", "hunter2\x00"])
def test_status_never_prints_the_token(admin: tuple[type[Admin], str], token: str) -> None:
    """A token that cannot be sent is told without being shown."""
    result = call("status", "--admin", admin[1], "--token", token)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert "hunter2" not in result.output


def test_status_sends_the_token_nowhere_else(
    admin: tuple[type[Admin], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment is not used, and a redirect is not followed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert call("status", "--admin", admin[1], "--token", "hunter2").exit_code == 0
        admin[0].status, admin[0].location = 302, url
        result = call("status", "--admin", admin[1], "--token", "hunter2")
        assert (result.exit_code, "no proxy answers there (it answers 302)" in result.stderr) == (1, True)
        with pytest.raises(BlockingIOError):
            other.accept()


@pytest.mark.parametrize("url", ["127.0.0.1", "ftp://x", "file:///etc/passwd", ""])
def test_status_wants_a_url(url: str) -> None:
    """What is neither a URL nor HOST:PORT exits 2."""
    result = call("status", "--admin", url)
    wanted = "--admin or CHAINLIT_PROXY_ADMIN: must be HOST:PORT or a URL"
    assert (result.exit_code, wanted in result.stderr) == (2, True)


def test_status_takes_the_address_as_run_does(admin: tuple[type[Admin], str]) -> None:
    """HOST:PORT stands for a URL."""
    assert call("status", "--admin", admin[1].removeprefix("http://")).exit_code == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:x", "http://[::1", "http://127.0.0.1:1", "http://h.invalid"]
)
def test_status_where_no_proxy_is(url: str) -> None:
    """Where nobody answers the command exits 1 with a line that says where it looked."""
    result = call("status", "--admin", url)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"{url}/api/backends: no proxy answers there" in result.stderr
    assert "urlopen" not in result.stderr
    assert "set it with --admin or CHAINLIT_PROXY_ADMIN" in result.stderr


def test_status_where_something_else_answers(admin: tuple[type[Admin], str]) -> None:
    """Another service, whatever it says, is not taken for a proxy, and the command does not break."""
    for body in (b"", b"<html>", b"{}", b"[1]", b'[{"name": "a"}]', b'"text"', b"null"):
        admin[0].body = body
        result = call("status", "--admin", admin[1])
        assert isinstance(result.exception, SystemExit), (body, result.exception)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "no proxy answers there" in result.stderr
    admin[0].status = 500
    result = call("status", "--admin", admin[1])
    assert (result.exit_code, "answered 500" in result.stderr) == (1, True)


def test_status_where_no_http_is_spoken() -> None:
    """A port that speaks something else is told as such."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                peer.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        result = call("status", "--admin", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, "no proxy answers there" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("serving", LATE | {"proxy.doctor"}),
        ("checking", LATE | {"proxy.doctor", "uvloop", "proxy.replicas"}),
        ("actions", LATE | {"asyncio", "pydantic", "uvloop"}),
        ("doctor", LATE | {"pydantic", "proxy.doctor"}),
    ],
)
def test_what_not_all_need_is_loaded_late(module: str, late: set[str]) -> None:
    """Clients wait for nothing that monitoring, replicas or an option need, and commands not for a proxy."""
    code = f"import sys, proxy.cli.{module}; print(*sorted({late!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
