"""The commands that tell a running proxy something: what they ask, print and return."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main


class Admin(BaseHTTPRequestHandler):
    """A stand-in for the admin API: answers each request with the next of its script."""

    script: ClassVar[list[tuple[int, Any]]] = []
    asked: ClassVar[list[tuple[str, Any]]] = []

    def do_GET(self) -> None:
        """As BaseHTTPRequestHandler."""
        size = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.asked.append((f"{self.command} {self.path}", body))
        status, answer = self.script.pop(0)
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET  # noqa: N815 - named by the library

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def admin() -> Iterator[type[Admin]]:
    """The stand-in; commands find it by the environment."""

    class Fresh(Admin):
        script: ClassVar[list[tuple[int, Any]]] = []
        asked: ClassVar[list[tuple[str, Any]]] = []
        url: ClassVar[str] = ""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Fresh.url = f"http://127.0.0.1:{server.server_port}"
    yield Fresh
    server.shutdown()
    thread.join()
    server.server_close()


def call(admin: type[Admin], *args: str) -> Result:
    """Run a command against the stand-in."""
    return CliRunner().invoke(main, args, env={"CHAINLIT_PROXY_ADMIN": vars(admin)["url"]})


def backend(state: str = "drain", **drain: Any) -> dict[str, Any]:
    """What the API says of a backend."""
    told = {"seconds_left": 9.0, "sent_away": 0, "forced": 0, "empty": False, **drain}
    return {"name": "a", "admin_state": state, "sessions": 4, "tunnels": 3, "drain": told if drain else None}


@pytest.mark.parametrize("wish", ["ready", "maintenance"])
def test_a_wish_is_told_and_what_is_so_printed(admin: type[Admin], wish: str) -> None:
    """One POST; the answer in a line, or as it came."""
    for words in ((), ("--json",)):
        admin.script.append((200, backend(wish)))
        result = call(admin, wish, "a", *words)
        assert result.exit_code == 0, result.output
        if words:
            assert json.loads(result.stdout) == backend(wish)
        else:
            assert result.stdout == f"a is set to {wish}, 4 sessions\n"
    assert admin.asked == [(f"POST /api/backends/a/{wish}", {})] * 2


def test_drain_does_not_wait_unless_asked(admin: type[Admin]) -> None:
    """Without --wait it returns at once, and hands the time on."""
    admin.script.append((200, backend(sent_away=0)))
    result = call(admin, "drain", "a?b", "--timeout", "7")
    assert (result.exit_code, result.stdout) == (0, "a is set to drain, 4 sessions\n")
    assert admin.asked == [("POST /api/backends/a%3Fb/drain", {"timeout": 7.0})]


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1m30s", 90), ("2h", 7200), ("1e1", 10)])
def test_a_time_may_have_units(admin: type[Admin], text: str, seconds: float) -> None:
    """As in the configuration."""
    admin.script.append((200, backend(sent_away=0)))
    assert call(admin, "drain", "a", "--timeout", text).exit_code == 0
    assert admin.asked == [("POST /api/backends/a/drain", {"timeout": seconds})]


def test_drain_waits_for_the_end(admin: type[Admin]) -> None:
    """With --wait it asks until the backend is empty, and says what became of its sessions."""
    admin.script += [
        (200, backend(sent_away=0)),
        (200, backend(sent_away=3)),
        (200, backend(sent_away=3, forced=1, empty=True)),
    ]
    result = call(admin, "drain", "a", "--wait")
    assert result.exit_code == 0
    assert result.stdout == "a is drained: 4 sessions moved, 1 of them in the middle of an answer\n"
    assert [asked for asked, _ in admin.asked] == ["POST /api/backends/a/drain"] + ["GET /api/backends/a"] * 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (backend("ready"), "a is set to ready: the drain was ended"),
        (backend(seconds_left=-31.0), "a still has 4 sessions and 3 tunnels"),
    ],
)
def test_drain_that_does_not_end_well(admin: type[Admin], answer: Any, told: str) -> None:
    """If somebody takes it back, or it does not come to an end, the command exits 1 and says so."""
    admin.script += [(200, backend(sent_away=0)), (200, answer)]
    result = call(admin, "drain", "a", "--wait")
    assert (result.exit_code, result.stderr) == (1, told + "\n")


@pytest.mark.parametrize("status", [404, 410], ids=["of older releases", "gone"])
def test_drain_of_one_that_leaves_the_fleet(admin: type[Admin], status: int) -> None:
    """One that is no more configured leaves when it is empty: that is the end that was waited for."""
    admin.script += [
        (200, backend(sent_away=3) | {"leaving": True}),
        (status, {"detail": "there is no backend"}),
    ]
    result = call(admin, "drain", "a", "--wait")
    assert (result.exit_code, result.stdout) == (0, "a is drained: 3 sessions moved\n")


def test_drain_of_one_that_has_left_the_fleet(admin: type[Admin]) -> None:
    """One that is taken out by others while it drains has not been seen empty: exit 1, with the reason."""
    admin.script += [(200, backend(sent_away=3)), (410, {"detail": "there is no backend"})]
    result = call(admin, "drain", "a", "--wait")
    assert (result.exit_code, result.stderr) == (1, "a has left the fleet: the drain was ended\n")


@pytest.mark.parametrize(("wish", "body"), [("drain", {"timeout": None}), ("maintenance", {})])
def test_force(admin: type[Admin], wish: str, body: dict[str, Any]) -> None:
    """The last backend is refused in the words of the API; --force is handed on, and nothing without it."""
    admin.script.append((409, {"detail": "a is the only backend: say --force"}))
    refused = call(admin, wish, "a")
    assert (refused.exit_code, refused.stderr) == (1, "a is the only backend: say --force\n")
    admin.script.append((200, backend(wish)))
    assert call(admin, wish, "a", "--force").exit_code == 0
    assert [told for _, told in admin.asked] == [body, body | {"force": True}]


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is interrupted."""

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)


@pytest.mark.usefixtures("ctrl_c")
def test_who_stops_waiting_is_told_what_goes_on(admin: type[Admin]) -> None:
    """Ctrl-C ends the command and not what it has begun: it says so, with the status of an interrupt."""
    admin.script.append((200, backend(sent_away=0)))
    done = call(admin, "drain", "a", "--wait")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == ("stopped waiting: a goes on draining; `chainlit-proxy ready a` takes it back\n")
    admin.script.append((202, rolling("running")))
    done = call(admin, "rollout", "--wait")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == (
        "stopped waiting: the rollout goes on; `chainlit-proxy rollout --wait` waits for it again\n"
    )


def test_a_refusal_is_repeated(admin: type[Admin]) -> None:
    """What the API says of a mistake is what the user reads."""
    admin.script.append((404, {"detail": "there is no backend 'x'; there are: a, b"}))
    result = call(admin, "drain", "x")
    assert result.exit_code == 1
    assert result.stderr == "there is no backend 'x'; there are: a, b\n"


@pytest.mark.parametrize("url", ["http://user:s3cret@127.0.0.1:9901", "redis://:s3cret@127.0.0.1:6379"])
def test_a_password_in_the_address_is_not_repeated(admin: type[Admin], url: str) -> None:
    """It is no way to give a token, and nobody who looks on shall read it."""
    result = call(admin, "status", "--admin", url)
    assert (result.exit_code, "must hold no password" in result.stderr) == (2, True)
    assert "s3cret" not in result.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e400", "-1", "x", "5x", ""])
@pytest.mark.parametrize("command", [("drain", "a"), ("rollout",)])
def test_a_time_that_is_none(admin: type[Admin], command: tuple[str, ...], seconds: str) -> None:
    """It is a mistake of the command line, and the proxy is not asked."""
    result = call(admin, *command, "--timeout", seconds)
    assert (result.exit_code, admin.asked) == (2, [])
    assert "Invalid value for '--timeout': must be a duration such as 30s, 5m" in result.stderr


@pytest.mark.parametrize("answer", [{}, [], None, [1], "text", {"backends": []}])
@pytest.mark.parametrize(
    "command",
    [
        ("drain", "a"),
        ("reload",),
        ("rollout", "--wait"),
        ("where", "x"),
        ("events",),
        ("top",),
        ("top", "--json"),
    ],
)
def test_something_else_answers(admin: type[Admin], command: tuple[str, ...], answer: Any) -> None:
    """Another service, whatever it says, is not taken for a proxy, and no command breaks at it."""
    if command == ("events",) and answer == []:
        return  # nothing has happened
    admin.script.append((200, answer))
    result = call(admin, *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no proxy answers there (its answer is not from this API)" in result.stderr


@pytest.mark.parametrize(
    ("status", "answer"),
    [(404, {"detail": "Not Found"}), (405, {"detail": "Method Not Allowed"}), (501, None)],
)
def test_the_address_of_clients(admin: type[Admin], status: int, answer: Any) -> None:
    """A command that meets an app, and not the admin listener, says where it has looked."""
    admin.script.append((status, answer))
    result = call(admin, "drain", "a")
    assert result.exit_code == 1
    assert f"/api/backends/a/drain: no proxy answers there (it answers {status})" in result.stderr


def test_a_rollout_whose_proxy_was_started_again(admin: type[Admin]) -> None:
    """Nobody knows how it ended: exit 1, and no word of success."""
    idle = {"state": "idle", "phase": None, "done": 0, "total": 0, "reason": ""}
    admin.script += [(202, idle | {"state": "running", "total": 2}), (200, idle)]
    result = call(admin, "rollout", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "the proxy has been started again: it knows of no rollout\n"


def reloaded(**more: Any) -> dict[str, Any]:
    """What the API says of a reload."""
    return {"applied": True, "at": 1.0, "problems": [], "changes": [], "restart": [], **more}


@pytest.mark.parametrize(
    ("status", "answer", "code", "out", "err"),
    [
        (200, reloaded(), 0, "changed: nothing\n", ""),
        (200, reloaded(changes=["limits", "log"]), 0, "changed: limits, log\n", ""),
        (
            200,
            reloaded(changes=["reuse_port"], restart=["reuse_port"]),
            0,
            "changed: reuse_port\nreuse_port: takes effect when the proxy is started again\n",
            "",
        ),
        (
            409,
            reloaded(applied=False, problems=["p.yaml:1: x", "p.yaml:2: y"]),
            2,
            "",
            "p.yaml:1: x\np.yaml:2: y\n",
        ),
    ],
)
def test_reload(admin: type[Admin], status: int, answer: Any, code: int, out: str, err: str) -> None:
    """It says what changed; a bad file is told line by line, with status 2."""
    admin.script.append((status, answer))
    result = call(admin, "reload")
    assert (result.exit_code, result.stdout, result.stderr) == (code, out, err)
    admin.script.append((status, answer))
    result = call(admin, "reload", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (code, answer)


def rolling(state: str, done: int = 0, **more: Any) -> dict[str, Any]:
    """What the API says of a rollout."""
    return {
        "state": state,
        "phase": None,
        "done": done,
        "total": 2,
        "old": "",
        "new": "",
        "reason": "",
        **more,
    }


def test_rollout(admin: type[Admin]) -> None:
    """It begins one; with --wait it returns when that is done."""
    admin.script.append((202, rolling("running")))
    assert call(admin, "rollout").stdout == "rollout running: 0 of 2 replicas are new\n"
    admin.script += [(202, rolling("running")), (200, rolling("running", 1)), (200, rolling("done", 2))]
    result = call(admin, "rollout", "--wait", "--timeout", "5")
    assert (result.exit_code, result.stdout) == (0, "rollout done: 2 of 2 replicas are new\n")
    assert admin.asked[1:] == [("POST /api/rollout", {"timeout": 5.0})] + [("GET /api/rollout", None)] * 2


def test_rollout_waits_for_the_one_that_runs(admin: type[Admin]) -> None:
    """With --wait it joins that, and says so; without, and where none runs, the refusal is told."""
    refusal = (409, {"detail": "a rollout is running: 1 of 2 are replaced"})
    admin.script += [refusal, (200, rolling("running", 1)), (200, rolling("done", 2))]
    done = call(admin, "rollout", "--wait")
    assert (done.exit_code, done.stdout) == (0, "rollout done: 2 of 2 replicas are new\n")
    assert done.stderr == "a rollout is running already: waiting for its end\n"
    admin.script.append(refusal)
    done = call(admin, "rollout")
    assert (done.exit_code, done.stderr) == (1, f"{refusal[1]['detail']}\n")
    admin.script += [(409, {"detail": "the proxy is about to end"}), (200, rolling("idle"))]
    done = call(admin, "rollout", "--wait")
    assert (done.exit_code, done.stderr) == (1, "the proxy is about to end\n")
    assert admin.script == []


def test_rollout_that_fails(admin: type[Admin]) -> None:
    """Its reason is told, with status 1."""
    admin.script += [(202, rolling("running")), (200, rolling("failed", 1, reason="replica-4 ended with 1"))]
    result = call(admin, "rollout", "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rollout failed after 1 of 2 replicas: replica-4 ended with 1\n"


def test_reload_by_a_signal() -> None:
    """With --pid no admin listener is asked: the process gets SIGHUP. One that is not there is a failure."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        done = CliRunner().invoke(main, ["reload", "--pid", str(os.getpid())])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (done.exit_code, done.output, heard) == (0, "", [signal.SIGHUP])
    done = CliRunner().invoke(main, ["reload", "--pid", str(2**22 + 1)])
    assert (done.exit_code, "No such process" in done.output) == (1, True)


def test_a_quiet_check_prints_nothing_but_mistakes(tmp_path: Path) -> None:
    """For a service manager, whose journal need not hold the configuration at each reload."""
    config = tmp_path / "proxy.yaml"
    config.write_text("backends: [{url: 'http://127.0.0.1:8001'}]")
    done = CliRunner().invoke(main, ["check", "--quiet", "-c", str(config)])
    assert (done.exit_code, done.output) == (0, "")
    config.write_text("listne: x")
    done = CliRunner().invoke(main, ["check", "--quiet", "-c", str(config)])
    assert (done.exit_code, "listne" in done.output) == (2, True)
