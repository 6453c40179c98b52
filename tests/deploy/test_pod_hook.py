"""What the hook of a pod does where a proxy cannot be told: it says so, and asks again."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy.cli import hook as module
from proxy.cli import main
from tests.deploy.scripted_admin import Proxy
from tests.support.processes import free_port

SERVICE = "chainlit-proxy-admin"
EMPTY: dict[str, Any] = {"admin_state": "drain", "drain": {"empty": True}}
BUSY: dict[str, Any] = {"admin_state": "drain", "drain": {"empty": False}}


class Hook:
    """The command as a pod calls it, with less patience."""

    def __init__(self, folder: Path) -> None:
        self.log, self.token = folder / "log", folder / "token"
        self.log.touch()
        self.token.write_text("t\n")
        self.port, self.output = 0, ""

    def run(self, wish: str, seconds: float = 0.6) -> int:
        """Its status."""
        at = ["--proxies", f"{SERVICE}:{self.port}", "--token-file", str(self.token)]
        done = CliRunner().invoke(main, ["hook", wish, *at, "--name", "chat-0", "--timeout", str(seconds)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        self.output = done.output
        return done.exit_code

    def said(self) -> str:
        """What stands in the log of the container."""
        return self.log.read_text(encoding="utf-8")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hook:
    """A pod's."""
    made = Hook(tmp_path)
    less = {"LOG": str(made.log), "LOOK": 0.05, "LATE": 0.0, "GONE": 0.2, "BACK": 0.5}
    for name, value in less.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    return made


MakeProxy = Callable[..., Proxy]


@pytest.fixture
def make_proxy(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> Iterator[MakeProxy]:
    """Makes a proxy, which is what the service's name leads to."""
    made: list[Proxy] = []

    def make(answers: Callable[[str], tuple[int, dict[str, Any]]], *where: Any) -> Proxy:
        made.append(Proxy(answers, *where))
        hook.port = made[-1].server.server_port
        lead_to(monkeypatch)
        return made[-1]

    yield make
    for proxy in made:
        proxy.server.shutdown()
        proxy.thread.join()
        proxy.server.server_close()


def lead_to(
    monkeypatch: pytest.MonkeyPatch, *failures: OSError, addresses: Sequence[str] = ("127.0.0.1",)
) -> None:
    """The service's name leads to addresses of this machine, once it has failed so often."""
    real, left = socket.getaddrinfo, list(failures)

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host != SERVICE:
            return real(host, port, *args, **options)
        if left:
            raise left.pop()
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_question_that_fails_is_asked_again(hook: Hook, make_proxy: MakeProxy) -> None:
    """One 503 is no end of a drain: it goes on until the pod is empty, and the log tells of it."""
    answers = iter([(503, {}), (200, BUSY), (200, BUSY), (503, {}), (200, BUSY), (200, EMPTY)])
    proxy = make_proxy(lambda _: next(answers))
    assert hook.run("drain", 5.0) == 0
    assert next(answers, None) is None
    assert proxy.asked.count("POST /api/backends/chat-0/drain") == 2
    assert ": 503, " in hook.said()


def test_the_token_goes_to_no_other_address(hook: Hook, make_proxy: MakeProxy) -> None:
    """A redirect is told like any other answer that is of no use, and nobody follows it."""
    other = make_proxy(lambda _: (200, EMPTY))
    make_proxy(lambda _: (302, {"location": f"http://127.0.0.1:{other.server.server_port}/"}))
    assert hook.run("drain") == 1
    assert other.given == []
    assert ": 302, " in hook.said()


def test_a_name_that_does_not_resolve_is_asked_again(
    hook: Hook, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of DNS does not mean that there is no proxy."""
    proxy = make_proxy(lambda _: (200, EMPTY))
    lead_to(monkeypatch, socket.gaierror(-3, "try again"))
    assert hook.run("drain", 5.0) == 0
    assert proxy.asked
    assert f"{SERVICE}: try again" in hook.said()


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "the token is wrong"), (403, "the token is good for"), (500, "Internal Server Error")],
)
def test_a_proxy_that_refuses_is_said(hook: Hook, make_proxy: MakeProxy, status: int, why: str) -> None:
    """Without a drain the pod has its whole time, then the hook fails and Kubernetes makes an event of it."""
    proxy = make_proxy(lambda _: (status, {}))
    assert hook.run("drain") == 1
    assert len(proxy.asked) > 1
    first, *rest = hook.said().splitlines()
    assert f"/api/backends/chat-0/drain: {status}, {why}" in first
    assert [line.count("not all proxies say that it is empty") for line in rest] == [1], "once is enough"


def test_a_proxy_that_tells_nothing_of_a_drain_did_not_say_empty(hook: Hook, make_proxy: MakeProxy) -> None:
    """It was restarted, or the drain was taken back: it is told again, and is not done."""
    answers = iter([(200, {}), (200, {"admin_state": "ready", "drain": None}), (200, {}), (200, EMPTY)])
    proxy = make_proxy(lambda _: next(answers))
    assert hook.run("drain", 5.0) == 0
    assert proxy.asked.count("POST /api/backends/chat-0/drain") == 2


def test_a_pod_that_nobody_knows_is_a_failure(hook: Hook, make_proxy: MakeProxy) -> None:
    """A proxy without this pod holds none of its sessions, but if all say so the name may be wrong."""
    make_proxy(lambda _: (404, {}))
    assert hook.run("drain", 60.0) == 1
    assert "404, it does not know this instance" in hook.said()
    assert "none knows of it" in hook.said()


@pytest.mark.parametrize("known", [True, False], ids=["while it drains", "before the first question"])
def test_a_pod_that_has_left_is_empty(hook: Hook, make_proxy: MakeProxy, known: bool) -> None:
    """One that discovery finds no more leaves when it is empty: that was waited for, and nothing failed."""
    answers = iter([(200, {}), (200, BUSY)] if known else [])
    make_proxy(lambda _: next(answers, (410, {})))
    assert hook.run("drain", 60.0) == 0
    assert hook.said() == ""
    assert hook.run("taken") == 1
    assert "410, this instance has left its backends" in hook.output


def test_a_proxy_that_goes_with_sessions_is_waited_for(
    hook: Hook, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients are on their way to the others, which say that there is nobody until they have come."""
    monkeypatch.setattr(module, "GONE", 2.0)
    make_proxy(lambda _: (200, EMPTY))
    other = make_proxy(lambda _: (200, BUSY), "127.0.0.2", hook.port)
    addresses = ["127.0.0.1", "127.0.0.2"]
    lead_to(monkeypatch, addresses=addresses)
    went: list[float] = []

    def go() -> None:
        addresses.remove("127.0.0.2")
        went.append(time.monotonic())

    threading.Timer(0.5, go).start()
    assert hook.run("drain", 60.0) == 0
    assert time.monotonic() - went[0] >= module.GONE
    assert other.asked.count("POST /api/backends/chat-0/drain") == 1


def test_a_proxy_that_has_ended_is_not_waited_for_long(
    hook: Hook, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody listens for a while there are no sessions, though DNS still names it: the others count."""
    proxy = make_proxy(lambda _: (200, EMPTY))
    lead_to(monkeypatch, addresses=("127.0.0.1", "127.0.0.2"))
    assert hook.run("drain", 60.0) == 0
    assert "Connection refused" in hook.said()
    assert proxy.asked.count("POST /api/backends/chat-0/drain") == 1


def test_nobody_at_all_is_a_failure(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy has said that the pod is empty."""
    hook.port = free_port()
    lead_to(monkeypatch)
    assert hook.run("drain", 60.0) == 1
    assert "no proxy says that it is empty" in hook.said()


def test_all_are_asked_at_once(hook: Hook, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some proxies that do not answer take no more time than one."""
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    addresses = tuple(f"127.0.0.{last}" for last in range(2, 8))
    with contextlib.ExitStack() as stack:
        port = free_port()
        for address in addresses:  # they accept, and say nothing
            stack.enter_context(socket.create_server((address, port)))
        hook.port = port
        lead_to(monkeypatch, addresses=addresses)
        began = time.monotonic()
        assert hook.run("drain", 0.0) == 1
        assert time.monotonic() - began < 0.5 * len(addresses)
    assert all(f"//{address}:" in hook.said() for address in addresses)


def test_a_pod_that_does_not_become_empty_is_a_failure(hook: Hook, make_proxy: MakeProxy) -> None:
    """All were told, and yet nobody has said that it is empty."""
    make_proxy(lambda _: (200, BUSY))
    assert hook.run("drain") == 1
    assert "the time is up, and not all proxies say that it is empty: sessions are left" in hook.said()


def test_one_in_maintenance_is_empty(hook: Hook, make_proxy: MakeProxy) -> None:
    """An operator has moved its sessions already, and a drain changes nothing of that wish."""
    make_proxy(lambda _: (200, {"admin_state": "maintenance", "drain": None}))
    assert hook.run("drain", 5.0) == 0


def test_the_token_is_read_for_each_question(hook: Hook, make_proxy: MakeProxy) -> None:
    """A Secret that is mounted changes while the pod runs; one that cannot be read is asked for again."""
    hook.token.unlink()

    def answer(_method: str) -> tuple[int, dict[str, Any]]:
        if proxy.given[-1] == "Bearer new":
            return 200, EMPTY
        hook.token.write_text("new")
        return 401, {}

    proxy = make_proxy(answer)
    threading.Timer(0.2, hook.token.write_text, ["old"]).start()
    assert hook.run("drain", 5.0) == 0
    assert proxy.given == ["Bearer old", "Bearer new", "Bearer new"]
    assert f"--token-file {hook.token}: " in hook.said()


def test_a_token_that_cannot_be_sent_is_not_said(hook: Hook, make_proxy: MakeProxy) -> None:
    """A file that holds two is a mistake that the log tells of, without what it holds."""
    proxy = make_proxy(lambda _: (200, EMPTY))
    hook.token.write_text("hunter22\nhunter23\n")
    assert hook.run("drain") == 1
    assert "must hold one token" in hook.said()
    assert "hunter2" not in hook.said()
    assert not proxy.asked


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"HTTP/1.1 200 OK\r\n\r\n7", b"220 mail\r\n"],
    ids=["cut", "number", "mail"],
)
def test_an_answer_that_is_none_is_asked_for_again(
    hook: Hook, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """A proxy that ends while it answers is no end of the hook: the pod would be stopped at once."""
    made = make_proxy(lambda _: (200, EMPTY))
    handler, first = made.server.RequestHandlerClass, iter([True])
    whole = handler.handle  # type: ignore[attr-defined]

    def handle(self: BaseHTTPRequestHandler) -> None:
        if not next(first, False):
            whole(self)
            return
        self.connection.recv(1 << 16)
        self.connection.sendall(answer)

    monkeypatch.setattr(handler, "handle", handle)
    assert hook.run("drain", 5.0) == 0
    assert "/drain: " in hook.said()


def test_a_name_that_is_none_is_said(hook: Hook) -> None:
    """It fails with a reason, as one that does not resolve."""
    done = CliRunner().invoke(main, ["hook", "drain", "--proxies", "a..b:9901", "--timeout", "0"])
    assert done.exit_code == 1
    assert "a..b: " in hook.said()


@pytest.mark.parametrize(
    "proxies", ["127.0.0.1:\u00b2", "127.0.0.1:99999", "https://127.0.0.1:9901", "a@b:1"]
)
def test_what_is_no_address_is_refused(hook: Hook, proxies: str) -> None:
    """At once, and nobody is asked."""
    done = CliRunner().invoke(main, ["hook", "drain", "--proxies", proxies, "--timeout", "0"])
    assert (done.exit_code, "must be HOST:PORT" in done.output, hook.said()) == (2, True, "")


def test_ready_is_said_again(hook: Hook, make_proxy: MakeProxy) -> None:
    """A new pod's first words may be lost. It never fails: Kubernetes would end the container."""
    answers: Iterator[tuple[int, dict[str, Any]]] = iter([(503, {}), (200, {})])
    proxy = make_proxy(lambda _: next(answers))
    assert hook.run("ready") == 0
    assert proxy.asked == ["POST /api/backends/chat-0/ready"] * 2
    make_proxy(lambda _: (401, {}))
    assert hook.run("ready") == 0
    assert "the token is wrong" in hook.said()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ((200, {"health": "healthy", "admin_state": "ready", "drain": None}), ""),
        ((200, {"health": "healthy", "admin_state": "maintenance", "drain": None}), ""),
        ((200, {"health": "healthy", "drain": {"until_restart": False, "empty": True}}), ""),
        (
            (200, {"health": "healthy", "drain": {"until_restart": True, "empty": True}}),
            "it drains until it is back",
        ),
        ((200, {"health": "degraded", "reason": "503"}), "degraded: 503"),
        ((200, {"health": "degraded", "reason": ""}), "degraded: not probed yet"),
        ((404, {}), "404, it does not know this instance"),
        ((410, {}), "410, this instance has left"),
        ((401, {}), "401, the token is wrong"),
        ((503, {}), ""),
    ],
)
def test_a_pod_is_taken_unless_a_proxy_says_otherwise(
    hook: Hook, make_proxy: MakeProxy, told: tuple[int, Any], why: str
) -> None:
    """What an operator wished of it is no reason to stop an update, and who fails says nothing."""
    make_proxy(lambda _: told)
    assert hook.run("taken") == (1 if why else 0)
    assert why in hook.output
    assert hook.said() == "", "a probe speaks to its caller, not into the log of the container"


def test_a_pod_without_proxies_is_taken(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its readiness is no reason to be stuck where there is nobody who could take it."""
    hook.port = free_port()
    lead_to(monkeypatch)
    assert hook.run("taken") == 0
    lead_to(monkeypatch, socket.gaierror(-3, "try again"))
    assert hook.run("taken") == 0


def test_an_address_that_is_none(hook: Hook) -> None:
    """It is said what is expected."""
    done = CliRunner().invoke(main, ["hook", "drain", "--proxies", "nowhere"])
    assert (done.exit_code, "must be HOST:PORT" in done.output) == (2, True)
