"""Listeners that a service manager opened, handed over as systemd does it."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.proxy_process import COMMAND, ProxyProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

ACTIVATE = Path(__file__).parents[1] / "support/activate.py"


class Manager:
    """Holds sockets over the life of the processes that it starts."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def listen(self, family: int, where: Any) -> socket.socket:
        """One more socket, as a `.socket` unit opens it."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(64)
        self.sockets.append(sock)
        return sock

    def hand_over(self, proxy: ProxyProcess) -> ProxyProcess:
        """Have a proxy that was not started yet begin with these sockets."""
        numbers = [sock.fileno() for sock in self.sockets]
        names = ":".join("http" for _ in numbers)
        proxy.pass_fds = numbers
        proxy.command = [sys.executable, str(ACTIVATE), ",".join(map(str, numbers)), names, *proxy.command]
        return proxy


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A service manager without sockets yet."""
    manager = Manager()
    yield manager
    for sock in manager.sockets:
        sock.close()


def proxy_on(folder: Path, *listen: str) -> ProxyProcess:
    """A proxy that has these listeners, and a backend that nobody answers at."""
    config = {
        "listen": listen[0],
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "backends": [{"name": "a", "url": f"http://127.0.0.1:{free_port()}"}],
        "health": {"interval": 0.2, "timeout": 0.5},
        "affinity": {"hold": 0},
    }
    proxy = ProxyProcess(config, folder)
    config["listen"] = list(listen)
    return proxy


@contextlib.contextmanager
def running(proxy: ProxyProcess) -> Iterator[None]:
    """The proxy answers; at the end it is asked to leave."""
    proxy.launch()
    try:
        wait_until(lambda: http_status(f"{proxy.admin}/healthz") == 200, 20, proxy.tail)
        yield
        assert proxy.stop(signal.SIGTERM, 20) == 0, proxy.tail()
    finally:
        proxy.kill9()
        print(proxy.tail())


def test_a_restart_refuses_nobody(manager: Manager, tmp_path: Path) -> None:
    """Who connects while no proxy runs is answered by the next one: the socket stays with its manager."""
    sock = manager.listen(socket.AF_INET, ("127.0.0.1", 0))
    host, port = sock.getsockname()
    proxy = manager.hand_over(proxy_on(tmp_path, f"{host}:{port}"))
    with running(proxy):
        assert http_status(f"http://{host}:{port}/") == 503
    with socket.create_connection((host, port), timeout=20) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
        with running(proxy):
            assert waiting.recv(12) == b"HTTP/1.1 503"


def test_each_address_finds_its_own_socket(manager: Manager, tmp_path: Path) -> None:
    """Sockets of both families, on a path, and one of our own serve side by side, in any order."""
    path = str(tmp_path / "proxy.sock")
    manager.listen(socket.AF_UNIX, path)
    port6 = manager.listen(socket.AF_INET6, ("::", 0)).getsockname()[1]
    port4 = manager.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
    own = free_port()
    listen = [f"127.0.0.1:{port4}", f"127.0.0.1:{own}", f"unix:{path}", f"0.0.0.0:{port6}"]
    with running(manager.hand_over(proxy_on(tmp_path, *listen))):
        for port in (port4, port6, own):
            assert http_status(f"http://127.0.0.1:{port}/") == 503
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 503"


def test_a_reload_gives_an_address_up_and_takes_it_again(manager: Manager, tmp_path: Path) -> None:
    """A socket that was handed over can come back: the manager has it all the while."""
    host, port = manager.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()
    proxy = manager.hand_over(proxy_on(tmp_path, f"{host}:{port}"))
    listen = proxy.config["listen"]
    other = f"127.0.0.1:{free_port()}"
    with running(proxy):
        for addresses in ([other], listen):
            proxy.config["listen"] = addresses
            proxy.file.write_text(yaml.safe_dump(proxy.config))
            proxy.post("/api/reload")
            assert http_status(f"http://{addresses[0]}/") == 503
        assert http_status(f"http://{other}/") == 0


def test_the_admin_listener_may_be_handed_over(manager: Manager, tmp_path: Path) -> None:
    """`admin.listen` finds its socket as the others do."""
    host, port = manager.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()
    proxy = proxy_on(tmp_path, f"127.0.0.1:{free_port()}")
    proxy.config["admin"]["listen"] = f"{host}:{port}"
    proxy.admin = f"http://{host}:{port}"
    with running(manager.hand_over(proxy)), urllib.request.urlopen(f"{proxy.admin}/healthz") as answer:
        assert answer.status == 200


def test_a_socket_that_nobody_wants_is_a_mistake(manager: Manager, tmp_path: Path) -> None:
    """Clients would wait there for ever: the proxy says so, and which addresses it has."""
    host, port = manager.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()
    other = f"127.0.0.1:{free_port()}"
    proxy = manager.hand_over(proxy_on(tmp_path, other))
    proxy.launch()
    assert proxy.wait(20) == 2
    expected = f"a socket on {host}:{port} was handed over, but the configuration names only {other}, "
    assert expected in proxy.tail()


def test_variables_for_another_process_mean_nothing(tmp_path: Path) -> None:
    """What a parent was told is not ours: only `LISTEN_PID` with our own id counts."""
    proxy = proxy_on(tmp_path, f"127.0.0.1:{free_port()}")
    proxy.env = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
    with running(proxy):
        assert http_status(f"{proxy.url}/") == 503


def test_what_is_no_listener_is_refused(tmp_path: Path) -> None:
    """A descriptor that is a file, or a socket that does not listen, ends the start with a line about it."""
    proxy = proxy_on(tmp_path, f"127.0.0.1:{free_port()}")
    proxy.file.write_text(yaml.safe_dump(proxy.config))
    with socket.socket() as unfit:
        command = [sys.executable, str(ACTIVATE), str(unfit.fileno()), "http", *COMMAND]
        done = subprocess.run(
            [*command, "serve", "-c", str(proxy.file)],
            pass_fds=[unfit.fileno()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == 2
    assert (
        "the socket handed over as descriptor 3 cannot be used: not a stream socket that listens"
        in done.stderr
    )


def test_a_restart_under_load_resets_nobody(manager: Manager, tmp_path: Path) -> None:
    """A connection that was accepted just before the end is asked what it wants, and answered."""
    host, port = manager.listen(socket.AF_INET, ("127.0.0.1", 0)).getsockname()
    folder = tmp_path / "next"
    folder.mkdir()
    proxies = [manager.hand_over(proxy_on(where, f"{host}:{port}")) for where in (tmp_path, folder)]
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                with socket.create_connection((host, port), timeout=30) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
                    answers.append(client.recv(12).decode())
            except OSError as error:
                answers.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for proxy in proxies * 3:
            with running(proxy):
                seen = len(answers)
                wait_until(lambda seen=seen: len(answers) > seen + 100, 20, "answers")  # type: ignore[misc]
        with running(proxies[0]):
            over.set()
            for thread in threads:
                thread.join()
    finally:
        over.set()
    assert set(answers) == {"HTTP/1.1 503"}
