"""The commands that show what a running proxy does: what they ask and print."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.views import picture

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


def backend(name: str, **more: Any) -> dict[str, Any]:
    """One backend of an overview."""
    counts = {
        "sessions": 0,
        "turns": 0,
        "requests": 0,
        "frames": 0,
        "cpu_seconds": None,
        "probes": 0,
        "probe_seconds": 0.0,
    }
    return {"name": name, "health": "healthy", "admin_state": "ready", **counts, **more}


def overview(at: float, *backends: dict[str, Any]) -> dict[str, Any]:
    """An overview of a time."""
    return {"version": "1.2.3", "at": at, "backends": list(backends)}


ANSWERS = {
    "/api/where/3f2a9c1e": WHERE,
    "/api/where/pin": {"kind": "pin", "backend": "b", "holds": False, "why": "its pin", "session": None},
    "/api/events": [EVENT],
    "/api/overview": overview(1.0, backend("a")),
}


class Admin(BaseHTTPRequestHandler):
    """A stand-in for the admin API."""

    def do_GET(self) -> None:
        """As BaseHTTPRequestHandler."""
        known = ANSWERS.get(self.path)
        text = json.dumps(known or {"detail": "nobody knows that"})
        if self.path == "/api/stream":
            text = f"retry: 1000\n\n: alive\n\nid: 1\nevent: event\ndata: {json.dumps(EVENT)}\n\n"
        self.send_response(200 if known or self.path == "/api/stream" else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where the stand-in is."""
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
    assert json.loads(call(url, "where", "3f2a9c1e", "--json").stdout) == WHERE


def test_where_nobody_knows(url: str) -> None:
    """What the API says is what the user reads, with status 1."""
    result = call(url, "where", "x/y")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "nobody knows that\n"


def test_events(url: str) -> None:
    """A line each, and the last lines of a replica below it."""
    told = "1970-01-01 00:00:00  a ended with 1\n    boom\n"
    assert call(url, "events").stdout == told
    assert json.loads(call(url, "events", "--json").stdout) == [EVENT]
    for words, wanted in (((), told), (("--json",), json.dumps(EVENT) + "\n")):
        result = call(url, "events", "--follow", *words)
        assert (result.exit_code, result.stdout) == (1, wanted)
        assert result.stderr == f"{url}: the proxy has ended the stream\n"


def test_top_shows_rates() -> None:
    """Rates are of the time between two overviews; a backend that is new has none; bars show shares."""
    before = overview(10.0, backend("a", requests=100, cpu_seconds=2.0, probes=10, probe_seconds=1.0))
    now = overview(
        12.0,
        backend(
            "a", sessions=10, turns=3, requests=150, frames=9, cpu_seconds=2.5, probes=12, probe_seconds=1.01
        ),
        backend("new", sessions=5, requests=7),
    )
    title, _, first, second = picture(before, now).splitlines()
    assert title.endswith("15 sessions")
    assert first.split() == ["a", "healthy", "ready", "#" * 20, "10", "3", "25.0", "4.5", "5.0", "25%"]
    assert second.split() == [
        "new",
        "healthy",
        "ready",
        "#" * 10 + "." * 10,
        "5",
        "0",
        "0.0",
        "0.0",
        "-",
        "-",
    ]


def test_top_as_json(url: str) -> None:
    """One overview as it came."""
    assert json.loads(call(url, "top", "--json").stdout) == ANSWERS["/api/overview"]
