"""The commands that show what a running proxy does: what they ask and print."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.views import _told

LAST = 3  # number of the last event that the stand-in's stream tells
EVENT = {"id": 1, "at": 0.0, "kind": "replica", "backend": "a", "text": "ended with 1", "lines": ["boom"]}
SESSION = {
    "id": "3f2a9c1e",
    "backend": "b",
    "evidence": "session",
    "located": False,
    "since": 0.0,
    "open": 2,
    "answering": True,
    "sent_away": False,
    "moves": [{"at": 0.0, "origin": "a", "target": "b", "reason": "down"}],
}
WHERE = {"kind": "session", "backend": "b", "holds": True, "why": "the hash chose", "session": SESSION}
HEALTHY = {"name": "a", "url": "http://127.0.0.1:8001", "health": "healthy", "admin_state": "ready"} | {
    "sessions": 3, "tunnels": 2, "pid": None, "reason": "", "since": 0.0, "takes_sessions": True
}  # fmt: skip
DOWN = HEALTHY | {"name": "b", "health": "down", "reason": "refused", "takes_sessions": False}
ANNOUNCED = SESSION | {"id": "77777777", "backend": None, "open": 0, "answering": False}
ANSWERS: dict[str, Any] = {
    "/api/where/3f2a9c1e": WHERE,
    "/api/where/pin": {"kind": "pin", "backend": "b", "holds": False, "why": "its pin", "session": None},
    "/api/events": [EVENT],
    "/api/overview": {"version": "1.2.3", "at": 1.0, "backends": []},
    "/api/sessions?offset=0&limit=100": {"total": 3, "sessions": [SESSION, ANNOUNCED]},
    "/api/sessions?offset=2&limit=98": {"total": 3, "sessions": [SESSION]},
    "/api/sessions?offset=3&limit=97": {"total": 3, "sessions": []},
    "/api/sessions?offset=0&limit=2&backend=a%2Fb": {"total": 3, "sessions": [SESSION, ANNOUNCED]},
    "/api/sessions?offset=9&limit=100": {"total": 3, "sessions": []},
}


class Admin(BaseHTTPRequestHandler):
    """A stand-in for the admin API."""

    away: ClassVar[list[int]] = []  # behind which events nobody may follow yet, the first time
    foreign: ClassVar[bool] = False  # whether it is another service, which answers in HTML

    def do_GET(self) -> None:
        """As BaseHTTPRequestHandler."""
        known = ANSWERS.get(self.path)
        text = json.dumps({"detail": "nobody knows that"} if known is None else known)
        status = 404 if known is None else 200
        if self.path == "/api/stream":
            status, text = self.stream(int(self.headers["last-event-id"]))
        self.send_response(status)
        if self.path == "/api/stream" and not self.foreign:
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self, seen: int) -> tuple[int, str]:
        """The events that are newer, one a time; when there are no more nobody may follow."""
        if seen in self.away:
            self.away.remove(seen)
            return 503, json.dumps({"detail": "the proxy ends"})
        if seen >= LAST:
            return 403, json.dumps({"detail": "nobody may follow any more"})
        told = json.dumps(EVENT | {"id": seen + 1})
        return 200, f"retry: 1000\n\n: alive\n\nid: {seen + 1}\nevent: event\ndata: {told}\n\n"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where the stand-in is."""
    Admin.away[:] = [1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Admin)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def clock_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are printed as they are anywhere."""
    monkeypatch.setattr("time.localtime", __import__("time").gmtime)


def call(url: str, *args: str) -> Result:
    """Run a command against the stand-in."""
    return CliRunner().invoke(main, args, env={"CHAINLIT_PROXY_ADMIN": url})


def test_where(url: str) -> None:
    """Backend, why, since when and the moves, a line each."""
    result = call(url, "where", "3f2a9c1e")
    assert result.stdout.splitlines() == [
        "session at b: the hash chose",
        "since 1970-01-01 00:00:00, 2 connections, its app is answering",
        "1970-01-01 00:00:00  a -> b  down",
    ]
    told = "pin at b, and moves when it is next heard of: its pin\n"
    assert call(url, "where", "pin").stdout == told
    assert call(url, "where").stdout == call(url, "sessions").stdout
    assert json.loads(call(url, "where", "3f2a9c1e", "--json").stdout) == WHERE


def test_where_nobody_knows(url: str) -> None:
    """What the API says is what the user reads, with status 1."""
    result = call(url, "where", "x?y")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "nobody knows that\n"


def test_events(url: str) -> None:
    """A line each, and the last lines of a replica below it."""
    told = "1970-01-01 00:00:00  a ended with 1\n    boom\n"
    assert call(url, "events").stdout == told
    assert json.loads(call(url, "events", "--json").stdout) == [EVENT]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_events_are_followed_over_restarts(
    url: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stream ends it is asked for again behind what was seen; what is refused for good ends it."""
    monkeypatch.setattr("proxy.cli.views._AGAIN", 0.01)
    result = call(url, "events", "--follow", *words)
    told = [json.dumps(EVENT | {"id": number}) for number in range(1, LAST + 1)]
    if not words:
        told = ["1970-01-01 00:00:00  a ended with 1", "    boom"] * LAST
    assert (result.exit_code, result.stdout.splitlines()) == (1, told)
    lost, again = "connection lost, trying again", "connected again"
    assert result.stderr.splitlines() == [*[lost, again] * (LAST - 1), lost, "nobody may follow any more"]


def test_events_of_all() -> None:
    """What is about no backend is told by its kind, unless the text says it itself."""
    event = EVENT | {"backend": "", "lines": []}
    assert _told(event | {"kind": "reload", "text": "applied: log"}).endswith("  reload: applied: log")
    assert _told(event | {"kind": "backend", "text": "no backend"}).endswith("00  no backend")


@pytest.mark.parametrize(("states", "code"), [((HEALTHY, DOWN), 0), ((DOWN,), 1), ((), 1)])
def test_status_as_a_check(
    url: str, states: tuple[dict[str, Any], ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --check status 1 tells that no backend takes new sessions; the table is the same."""
    monkeypatch.setitem(ANSWERS, "/api/backends", list(states))
    plain, checked = call(url, "status"), call(url, "status", "--check")
    assert (plain.exit_code, checked.exit_code) == (0, code)
    assert plain.stdout == checked.stdout
    assert checked.stderr == ("no backend takes new sessions\n" if code else "")


def test_status_says_why(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of a verdict and how long it has been so, for who is not healthy."""
    down = DOWN | {"since": time.time() - 185}
    never = down | {"name": "c", "reason": ""}
    monkeypatch.setitem(ANSWERS, "/api/backends", [HEALTHY, down, never])
    head, *lines = call(url, "status").stdout.splitlines()
    place = head.index("WHY")
    assert [line[place:] for line in lines] == ["", "refused, 3m", "not probed yet, 3m"]


def test_sessions(url: str) -> None:
    """A line each, page by page; what is left out is told, and with --json the number of all."""
    head, *lines = call(url, "sessions").stdout.splitlines()
    assert head.split() == ["SESSION", "BACKEND", "SINCE", "CONNECTIONS", "STATE"]
    first = ["3f2a9c1e", "b", "1970-01-01", "00:00:00", "2", "answering"]
    announced = ["77777777", "-", "1970-01-01", "00:00:00", "0", "not", "connected"]
    assert [line.split() for line in lines] == [first, announced, first]
    some = call(url, "sessions", "--backend", "a/b", "--limit", "2")
    assert len(some.stdout.splitlines()) == 3
    assert some.stderr == "1 to 2 of 3: go on with --offset 2\n"
    told = json.loads(call(url, "sessions", "--json").stdout)
    assert (told["total"], len(told["sessions"])) == (3, 3)
    assert call(url, "sessions", "--offset", "9").stdout == "no more sessions: there are 3\n"


def test_top_as_json(url: str) -> None:
    """One overview as it came."""
    assert json.loads(call(url, "top", "--json").stdout) == ANSWERS["/api/overview"]


def test_nobody_follows_another_service(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is no stream of events ends the command: it is not waited for."""
    monkeypatch.setattr(Admin, "foreign", True)
    result = call(url, "events", "--follow")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "/api/stream: no proxy answers there (its answer is not from this API)" in result.stderr


@pytest.mark.parametrize("args", [("where", ""), ("where", "a/b"), ("ready", ""), ("drain", "a/b")])
def test_what_is_no_name_is_told(url: str, args: tuple[str, str]) -> None:
    """As of a variable that is empty: the proxy is not asked for an address that it does not have."""
    result = call(url, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f'(got "{args[1]}")' in result.stderr


def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read for as long as an answer may take, and not for as long as it goes on."""
    monkeypatch.setattr("proxy.cli.client._LARGEST", 10_000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def go_on() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
                while True:
                    peer.sendall(b"1," * 500)

        thread = threading.Thread(target=go_on)
        thread.start()
        result = call(f"http://127.0.0.1:{server.getsockname()[1]}", "status")
        thread.join()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no proxy answers there (its answer does not end)" in result.stderr
