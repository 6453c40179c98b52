"""What a service manager is told, by systemd's protocol on a socket of the test's own (sd_notify(3))."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.service_manager import ServiceManager
from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess

pytestmark = pytest.mark.system


class Manager:
    """Hears what it is told; its socket has a name on the disk, or an abstract one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self.socket.settimeout(20)
        self.alive = 0  # signs of life

    def hears(self) -> dict[str, str]:
        """The next words, without signs of life."""
        while True:
            words = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            if words != {"WATCHDOG": "1"}:
                return words
            self.alive += 1


@pytest.fixture(params=["disk", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """One of each kind."""
    name = str(tmp_path / "notify") if request.param == "disk" else f"@notify-{os.getpid()}-{free_port()}"
    made = Manager(name)
    yield made
    made.socket.close()


@pytest.fixture
def proxy(manager: Manager, tmp_path: Path) -> Iterator[ProxyProcess]:
    """A proxy that it starts."""
    config = {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "backends": [{"name": "a", "url": f"http://127.0.0.1:{free_port()}"}],
        "affinity": {"hold": 0},
    }
    made = ProxyProcess(config, tmp_path)
    made.env = {**made.env, "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "150000"}
    made.launch()
    yield made
    made.kill9()
    print(made.tail())


def test_a_life_as_its_manager_hears_it(manager: Manager, proxy: ProxyProcess) -> None:
    """It serves when it says so; a reload begins and ends, also a refused one; the end is announced."""
    told = manager.hears()
    assert (told["READY"], told["STATUS"]) == ("1", f"listening on {proxy.url}")
    assert http_status(proxy.url) == 503
    proxy.send(signal.SIGHUP)
    told = manager.hears()
    assert told["RELOADING"] == "1"
    assert int(told["MONOTONIC_USEC"]) > 0
    assert manager.hears() == {"READY": "1", "STATUS": f"listening on {proxy.url}"}
    proxy.file.write_text("listne: x")
    proxy.send(signal.SIGHUP)
    assert manager.hears()["RELOADING"] == "1"
    assert manager.hears()["STATUS"].endswith("the changed configuration is not used")
    alive = manager.alive
    while manager.alive < alive + 3:
        assert manager.socket.recv(4096) == b"WATCHDOG=1"
        manager.alive += 1
    proxy.send(signal.SIGTERM)
    assert manager.hears() == {"STOPPING": "1", "STATUS": "leaving"}
    assert proxy.wait(20) == 0


def test_a_reload_before_the_start_is_no_start(manager: Manager, tmp_path: Path) -> None:
    """It is ready when clients are served, and not because the file was read again while it waited."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {
            "listen": f"127.0.0.1:{free_port()}",
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "backends": [{"name": "a", "url": f"http://127.0.0.1:{silent.getsockname()[1]}"}],
            "health": {"timeout": 3},
        }
        proxy = ProxyProcess(config, tmp_path)
        proxy.env = {**proxy.env, "NOTIFY_SOCKET": manager.name}
        proxy.launch()
        try:
            probe, _ = silent.accept()  # the first one: it runs, and waits for the answer
            with probe:
                proxy.send(signal.SIGHUP)
                told = manager.hears()
            assert (told.get("READY"), told.get("STATUS")) == ("1", f"listening on {proxy.url}")
        finally:
            proxy.kill9()


def test_a_proxy_that_cannot_start_is_never_ready(manager: Manager, tmp_path: Path) -> None:
    """A mistake in the file ends it before it has said anything, by which the manager knows."""
    proxy = ProxyProcess({"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}, "x": 1}, tmp_path)
    proxy.env = {**proxy.env, "NOTIFY_SOCKET": manager.name}
    proxy.launch()
    assert proxy.wait(20) == 2
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.socket.recv(4096)


def test_what_is_for_this_process_is_not_handed_on() -> None:
    """Replicas do not speak for the proxy; signs of life are for the process that was asked for them."""
    mine = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    assert ServiceManager(mine).beat == 1.0
    assert mine == {"A": "b"}
    assert ServiceManager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).beat is None
    assert ServiceManager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "\u00b2"}).beat is None
    assert ServiceManager({}).beat is None


def test_a_manager_that_has_gone_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells that it was not told."""
    ServiceManager({"NOTIFY_SOCKET": "/nowhere/at/all"}).ready("x")
    assert "was not told READY=1" in caplog.text
