"""The units of deploy/systemd under a real systemd, the first process of a container, by `make images`.

The files are used as they are, but for the port, since the container has the machine's network.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.deploy import stand_ins
from tests.deploy.engine import Engine
from tests.deploy.test_systemd import MOST_EXPOSED, SERVICE, SOCKET
from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif("IMAGES" not in os.environ, reason="builds images, see `make images`"),
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

# What a first process needs to start others in groups of their own.
BOOT: tuple[str, ...] = (
    *("--cap-add", "SYS_ADMIN", "--network", "host", "--env", "container=docker"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
)
PORT = re.compile(r"^ListenStream=(?:[\d.]+:)?(\d+)$", re.MULTILINE)
HELD = 2.0  # seconds that nobody may have to wait for longer while the service is restarted
BACKEND = """
from http.server import *
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", {port}), H).serve_forever()
"""


class Booted:
    """A machine with systemd, the proxy and its units in it; owned by the fixture."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self.port, self._admin, self._backend = free_port(), free_port(), free_port()
        self.admin = f"http://127.0.0.1:{self._admin}"
        self.configure()
        volumes = ("--volume", f"{folder}:/etc/chainlit-proxy:ro")
        self.id = engine("run", "--detach", "--label", engine.label, *BOOT, *volumes, image)
        wait_until(self._up, 60, lambda: self.sh("systemctl list-units --failed; systemctl list-jobs"))
        for file in (SOCKET, SERVICE):
            text = PORT.sub(f"ListenStream=127.0.0.1:{self.port}", file.read_text(encoding="utf-8"))
            engine("exec", "-i", self.id, "tee", f"/etc/systemd/system/{file.name}", data=text.encode())
        backend = BACKEND.format(port=self._backend)
        engine("exec", "--detach", self.id, "python3", "-c", backend)
        self.sh("systemctl daemon-reload")

    def configure(self, more: str = "") -> None:
        """Write the proxy's file as an editor does."""
        self._folder.chmod(0o755)
        new = self._folder / "new"
        new.write_text(
            f"listen: 127.0.0.1:{self.port}\nadmin: {{listen: '127.0.0.1:{self._admin}'}}\n"
            f"backends: [{{name: a, url: 'http://127.0.0.1:{self._backend}'}}]\n{more}"
        )
        new.replace(self._folder / "proxy.yaml")

    def _up(self) -> bool:
        return self.sh("systemctl is-system-running || true") in {"running", "degraded"}

    def sh(self, line: str) -> str:
        """What a line of the shell prints."""
        return self._engine("exec", self.id, "sh", "-c", line)

    def show(self, name: str, unit: str = SERVICE.name) -> str:
        """A property of a unit."""
        return self.sh(f"systemctl show --value --property={name} {unit}")

    def journal(self) -> str:
        """What the service said."""
        return self.sh(f"journalctl --no-pager --output=cat --unit={SERVICE.name} | tail -60")

    def told(self, words: str) -> bool:
        """Whether the service said so."""
        return words in self.journal()

    def start(self) -> None:
        """Both units, as the page says, and wait until the proxy takes requests."""
        self.sh(f"systemctl start {SOCKET.name} {SERVICE.name}")
        self.serves()

    def serves(self) -> None:
        """Wait until a request comes through."""
        wait_until(lambda: http_status(f"http://127.0.0.1:{self.port}/") == 200, 30, self.journal)

    def stop(self) -> None:
        """Both units, as the page says."""
        self.sh(f"systemctl stop {SOCKET.name} {SERVICE.name}; systemctl reset-failed")

    def end(self) -> None:
        """Remove the machine."""
        print(self.journal())
        self._engine("rm", "--force", self.id)


@pytest.fixture(scope="module")
def machine(engine: Engine, proxy_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """It is booted once for all tests here."""
    base = stand_ins.python(engine)
    steps = stand_ins.OF_SYSTEMD.format(proxy=proxy_image, base=base)
    machine = Booted(engine, engine.build("systemd", dockerfile=steps), tmp_path_factory.mktemp("etc"))
    yield machine
    machine.end()


@pytest.fixture
def booted(machine: Booted) -> Iterator[Booted]:
    """Both units are stopped before and after, and the file is right."""
    machine.configure()
    machine.stop()
    yield machine
    machine.stop()


class Load:
    """Asks for a page again and again, each time anew; who was refused and how long each answer took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.took: list[float] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
                    answer = client.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    self.failed.append(repr(answer[:60]))
            except OSError as error:
                self.failed.append(repr(error))
            self.took.append(time.monotonic() - began)
            time.sleep(0.005)


def test_the_service_starts_and_is_well(booted: Booted) -> None:
    """It runs as a user of its own, not as root, with a socket that systemd holds, and is confined."""
    booted.start()
    assert booted.show("ActiveState") == booted.show("ActiveState", SOCKET.name) == "active"
    pid = booted.show("MainPID")
    status = booted.sh(f"cat /proc/{pid}/status")
    assert re.search(r"^Uid:\s+(?!0\b)\d+", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    exposure = booted.sh(f"systemd-analyze security --no-pager {SERVICE.name} | tail -1")
    (level,) = re.findall(r"([\d.]+) (?:OK|SAFE|MEDIUM|EXPOSED)", exposure)
    print(exposure)
    assert float(level) * 10 <= MOST_EXPOSED


def test_a_client_starts_it(booted: Booted) -> None:
    """With the socket alone the first client has the proxy started, and is answered."""
    booted.sh(f"systemctl start {SOCKET.name}")
    assert booted.show("ActiveState") == "inactive"
    assert http_status(f"http://127.0.0.1:{booted.port}/", timeout=20) in {200, 503}
    assert booted.show("ActiveState") == "active"
    booted.serves()


def test_a_reload_is_the_same_process(booted: Booted) -> None:
    """`systemctl reload` reads the file again, needs no other program; a mistake changes nothing."""
    booted.start()
    pid = booted.show("MainPID")
    for more, told in (("log: {level: debug}\n", "log"), ("lgo: {}\n", "lgo")):
        booted.configure(more)
        # The status of a reload with a mistake may be either; the service goes on in both.
        booted.sh(f"systemctl reload {SERVICE.name} || true")
        wait_until(partial(booted.told, told), 20, booted.journal)
        assert booted.show("ActiveState") == "active"
        assert booted.show("MainPID") == pid
    booted.serves()


def test_a_restart_refuses_and_holds_nobody(booted: Booted) -> None:
    """Under load everybody is answered, and nobody waits for more than two seconds."""
    booted.start()
    with Load(booted.port) as load:
        for _ in range(3):
            booted.sh(f"systemctl restart {SERVICE.name}")
            booted.serves()
    print(f"{len(load.took)} requests, the longest took {max(load.took):.2f} s")
    assert load.failed == []
    assert max(load.took) < HELD


def test_a_mistake_in_the_file_closes_no_port(booted: Booted) -> None:
    """A restart with a bad file: a client that comes meanwhile waits, and is served once it is mended."""
    booted.start()
    booted.configure("lgo: {}\n")
    booted.sh(f"systemctl restart --no-block {SERVICE.name}")
    wait_until(lambda: "lgo" in booted.journal(), 30, booted.journal)
    with socket.create_connection(("127.0.0.1", booted.port), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n")
        wait_until(lambda: int(booted.show("NRestarts")) >= 7, 60, booted.journal)
        assert booted.show("ActiveState", SOCKET.name) == "active"
        booted.configure()
        assert client.recv(12).startswith(b"HTTP/1.1 ")
    booted.serves()


def test_stopping_is_stopping(booted: Booted) -> None:
    """Both units stopped: a client is refused and wakes nobody."""
    booted.start()
    booted.stop()
    assert http_status(f"http://127.0.0.1:{booted.port}/") == 0
    assert booted.show("ActiveState") == booted.show("ActiveState", SOCKET.name) == "inactive"
