"""What the hook of a pod does where a proxy cannot be told: it says so, and asks again."""

import importlib.util
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.test_kubernetes import BASE
from tests.support.processes import free_port

SERVICE = "chainlit-proxy-admin"
EMPTY: dict[str, Any] = {"admin_state": "drain", "drain": {"empty": True}}
BUSY: dict[str, Any] = {"admin_state": "drain", "drain": {"empty": False}}


class Proxy:
    """An admin listener: `answers` gives the status and the body for a method."""

    def __init__(self, answers: Callable[[str], tuple[int, dict[str, Any]]]) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append(f"{self.command} {self.path}")
                status, told = answers(self.command)
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815 - as BaseHTTPRequestHandler calls them

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as it is in a pod, with less patience."""
    spec = importlib.util.spec_from_file_location("drain", BASE / "drain.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "log").touch()
    for name, value in {
        "LOG": str(tmp_path / "log"),
        "LOOK": 0.05,
        "LATE": 0.0,
        "GONE": 0.2,
        "BACK": 0.5,
    }.items():
        monkeypatch.setattr(module, name, value)
    for name, text in {"ADMIN_TOKEN": "t", "POD_NAME": "chat-0", "DRAIN_SECONDS": "0.6"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["drain.py", "drain"])
    return module


MakeProxy = Callable[[Callable[[str], tuple[int, dict[str, Any]]]], Proxy]


@pytest.fixture
def make_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeProxy]:
    """Makes a proxy, which is what the service's name leads to."""
    made: list[Proxy] = []

    def make(answers: Callable[[str], tuple[int, dict[str, Any]]]) -> Proxy:
        made.append(Proxy(answers))
        lead_to(monkeypatch, made[-1].server.server_port)
        return made[-1]

    yield make
    for proxy in made:
        proxy.server.shutdown()
        proxy.thread.join()
        proxy.server.server_close()


def lead_to(monkeypatch: pytest.MonkeyPatch, port: int, *failures: OSError) -> None:
    """The service's name leads to a port of this machine, once it has failed so often."""
    real, left = socket.getaddrinfo, list(failures)

    def resolve(host: Any, *args: Any, **options: Any) -> list[Any]:
        if host != SERVICE:
            return real(host, *args, **options)
        if left:
            raise left.pop()
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setenv("PROXY_ADMIN", f"{SERVICE}:{port}")


def said(tmp_path: Path) -> str:
    """What stands in the log of the container."""
    return (tmp_path / "log").read_text(encoding="utf-8")


def test_a_question_that_fails_is_asked_again(
    hook: ModuleType, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """One 503 is no end of a drain: it goes on until the pod is empty, and the log tells of it."""
    answers = iter([(503, {}), (200, BUSY), (200, BUSY), (503, {}), (200, BUSY), (200, EMPTY)])
    proxy = make_proxy(lambda _: next(answers))
    assert hook.main() == 0
    assert next(answers, None) is None
    assert proxy.asked.count("POST /api/backends/chat-0/drain") == 2
    assert ": 503, " in said(tmp_path)


def test_a_name_that_does_not_resolve_is_asked_again(
    hook: ModuleType, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A failure of DNS does not mean that there is no proxy."""
    proxy = make_proxy(lambda _: (200, EMPTY))
    lead_to(monkeypatch, proxy.server.server_port, socket.gaierror(-3, "try again"))
    assert hook.main() == 0
    assert proxy.asked
    assert f"{SERVICE}: try again" in said(tmp_path)


@pytest.mark.parametrize(
    ("status", "why"), [(401, "the token is wrong"), (403, "Forbidden"), (500, "Internal Server Error")]
)
def test_a_proxy_that_refuses_is_said(
    hook: ModuleType, make_proxy: MakeProxy, tmp_path: Path, status: int, why: str
) -> None:
    """Without a drain the pod has its whole time, then the hook fails and Kubernetes makes an event of it."""
    proxy = make_proxy(lambda _: (status, {}))
    assert hook.main() == 1
    assert len(proxy.asked) > 3
    assert f"/api/backends/chat-0/drain: {status}, {why}" in said(tmp_path)
    assert said(tmp_path).count(f": {status}, ") == 1, "once is enough"
    assert "not all proxies were told" in said(tmp_path)


def test_a_proxy_without_this_pod_holds_nothing(
    hook: ModuleType, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """No session of it can be there: it is said, and not waited for."""
    proxy = make_proxy(lambda _: (404, {}))
    assert hook.main() == 0
    assert len(proxy.asked) == 1
    assert "404, it does not know this pod" in said(tmp_path)


def test_a_proxy_that_has_ended_is_not_waited_for_long(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where nobody listens for a while there are no sessions, though DNS still names it."""
    monkeypatch.setenv("DRAIN_SECONDS", "60")
    lead_to(monkeypatch, free_port())
    assert hook.main() == 0
    assert "Connection refused" in said(tmp_path)


def test_a_drain_that_takes_too_long_is_no_failure(
    hook: ModuleType, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """All were told, and moved what was left when the time was up."""
    make_proxy(lambda _: (200, BUSY))
    assert hook.main() == 0
    assert "the time is up\n" in said(tmp_path)


def test_ready_is_said_again(
    hook: ModuleType, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A new pod's first words may be lost: a pod that stays drained would get nobody. It never fails."""
    answers: Iterator[tuple[int, dict[str, Any]]] = iter([(503, {}), (200, {})])
    monkeypatch.setattr("sys.argv", ["drain.py", "ready"])
    proxy = make_proxy(lambda _: next(answers))
    assert hook.main() == 0
    assert proxy.asked == ["POST /api/backends/chat-0/ready"] * 2
    make_proxy(lambda _: (401, {}))
    assert hook.main() == 0
    assert "the token is wrong" in said(tmp_path)
