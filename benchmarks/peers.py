"""The proxies under measurement: how each is started, told what to do, and named.

Each runs one worker, or one thread, before the same backends, as its configuration in `benchmarks.forms`
says. So they do the same work, and a figure of one can be held against that of another. Our own may be
there twice: as this interpreter runs it, and as another one does whose installed package is compiled.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from benchmarks import forms, packaged
from proxy import __version__

OURS = "proxy"
COMPILED = "proxy, compiled"
RIVALS = ["HAProxy", "HAProxy, newer", "nginx"]  # the best of which our budgets are held against
OTHERS = ["Envoy", "Caddy", "Traefik"]  # that ours is to be ahead of
STICKY = "nginx, newer"  # its wheel is built for size: there to be tried, not for its figures
START = 15.0  # seconds; our own proxy imports its libraries first
STOP = 10.0
RELOADED = 1.0  # seconds until a new worker of nginx has taken over


class UnavailableError(Exception):
    """A peer that is not installed, or does not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of proxy."""

    name: str
    template: str
    backend: str  # the line of one backend
    command: Callable[[Path], list[str]]  # by the file of its configuration
    version: Callable[[], str]  # raises UnavailableError
    title: str = ""  # in tables; "" for its name
    file: str = "config"  # the name of its configuration
    more: tuple[tuple[str, str], ...] = ()  # further files: name and template
    environment: Callable[[Path], dict[str, str]] = lambda _: {}  # by its folder
    holds: str = ""  # by what it holds sessions
    drain: "Callable[[Running, int], None] | None" = None  # has one backend, by its number, take nobody new
    secure: bool = False  # whether it speaks TLS

    @property
    def is_ours(self) -> bool:
        """Whether it is this project's."""
        return self.name in (OURS, COMPILED)


class Running:
    """A started proxy; made by `start`, which ends it."""

    def __init__(self, peer: Peer, version: str, folder: Path) -> None:
        self.peer = peer
        self.version = version
        self.port, self.admin = free_ports(2)
        self.seconds = 0.0  # from its start until a backend's answer came through
        self.backends: list[int] = []  # their ports
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def title(self) -> str:
        """What it is called in a table."""
        return f"{self.peer.title or self.peer.name} {self.version}"

    @property
    def pid(self) -> int:
        """Of its first process; another one after a restart."""
        assert self._process is not None
        return self._process.pid

    def configure(self, backends: list[int]) -> None:
        """Writes its files."""
        self.backends = backends
        self.folder.mkdir()
        lines = [self.peer.backend.format(name=f"b{number}", port=at) for number, at in enumerate(backends)]
        for name, template in ((self.peer.file, self.peer.template), *self.peer.more):
            text = template.format(
                port=self.port, admin=self.admin, folder=self.folder, backends="\n".join(lines)
            )
            (self.folder / name).write_text(text)

    def launch(self) -> None:
        """Starts it, and waits until it answers; raises UnavailableError."""
        peer, folder = self.peer, self.folder
        errors = folder / "errors"
        environment = os.environ | peer.environment(folder)
        began = time.monotonic()
        with errors.open("wb") as log, (folder / "access.log").open("ab") as access:
            self._process = process = subprocess.Popen(
                peer.command(folder / peer.file),
                stdin=subprocess.DEVNULL,
                stdout=access,
                stderr=log,
                env=environment,
            )
        _wait(process, self.port, "/health", errors, secure=peer.secure)
        self.seconds = time.monotonic() - began
        if peer.is_ours:  # whose admin listener is loaded behind its first answers
            _wait(process, self.admin, "/healthz", errors)

    def restart(self) -> None:
        """Ends it and starts it anew, at the same port."""
        self.end()
        self.launch()

    def end(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask_version(name: str, flag: str) -> str:
    """The number in the answer to a version flag; Debian keeps both programs in sbin."""
    answer = subprocess.run([program(name), flag], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout + answer.stderr)
    return found[0] if found else "?"


def program(name: str) -> str:
    """Its path; raises UnavailableError where it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise UnavailableError(f"{name} is not installed")
    return path


def wheel(name: str) -> str:
    """The path of a program that a wheel brings; raises UnavailableError where it is not installed."""
    path = packaged.find(name)
    if path is None:
        raise UnavailableError(f"{packaged.WHEELS[name]} is not installed: make bench-peers")
    return str(path)


def wheel_version(name: str) -> str:
    """Of a program that a wheel brings, which has the same; raises UnavailableError as `wheel`."""
    wheel(name)
    return packaged.WHEELS[name].partition("==")[2]


def _libraries(_: Path) -> dict[str, str]:
    """Those that the wheel of HAProxy brings lie beside its program."""
    return {"LD_LIBRARY_PATH": str(Path(wheel("haproxy")).parent / "lib")}


def _one_thread(folder: Path) -> dict[str, str]:
    """For programs in Go: one thread at a time runs Go, and what they keep is in the folder."""
    return {
        "GOMAXPROCS": "1",
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }


def _drain_ours(running: Running, number: int) -> None:
    url = f"http://127.0.0.1:{running.admin}/api/backends/b{number}/drain"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})):
        pass


def _drain_haproxy(running: Running, number: int) -> None:
    with socket.socket(socket.AF_UNIX) as told:
        told.connect(str(running.folder / "socket"))
        told.sendall(f"set server chainlit/b{number} state drain\n".encode())
        told.recv(1000)


def _drain_nginx(running: Running, number: int) -> None:
    file, port = running.folder / running.peer.file, running.backends[number]
    file.write_text(file.read_text().replace(f":{port};", f":{port} drain;"))
    os.kill(running.pid, signal.SIGHUP)
    time.sleep(RELOADED)


def installed(name: str, python: str) -> Peer:
    """Our own, as the package that is installed for an interpreter; its version raises UnavailableError.

    It has to be a compiled one if it is called so: neither the working directory nor PYTHONPATH may bring
    these sources in.
    """
    alone = {"PYTHONPATH": ""}
    question = "import proxy; print(proxy.__version__, proxy.__path__[0])"

    def version() -> str:
        try:
            answer = subprocess.run(
                [python, "-P", "-c", question],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ | alone,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise UnavailableError(f"no proxy is installed for {python}: {error}") from None
        number, _, folder = answer.stdout.strip().partition(" ")
        is_compiled = any(Path(folder).rglob("*.so"))
        if is_compiled is not (name == COMPILED):
            raise UnavailableError(f"the proxy in {folder} is {'' if is_compiled else 'not '}compiled")
        return number

    return Peer(
        name,
        forms.PROXY,
        OURS_BACKEND,
        lambda file: [python, "-P", "-m", "proxy", "serve", "-c", str(file)],
        version,
        environment=lambda _: alone,
    )


OURS_BACKEND = "  - {{name: {name}, url: http://127.0.0.1:{port}}}"
ENVOY_BACKEND = (
    "        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"
)
HAPROXY_BACKEND = "    server {name} 127.0.0.1:{port} cookie {name}"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            OURS,
            forms.PROXY,
            OURS_BACKEND,
            lambda file: [sys.executable, "-m", "proxy", "serve", "-c", str(file)],
            lambda: __version__,
            holds="sessions",
            drain=_drain_ours,
        ),
        Peer(
            "HAProxy",
            forms.HAPROXY,
            HAPROXY_BACKEND,
            lambda file: [program("haproxy"), "-db", "-f", str(file)],
            lambda: ask_version("haproxy", "-v"),
            holds="own cookie",
            drain=_drain_haproxy,
        ),
        Peer(
            "HAProxy, newer",
            forms.HAPROXY,
            HAPROXY_BACKEND,
            lambda file: [wheel("haproxy"), "-db", "-f", str(file)],
            lambda: wheel_version("haproxy"),
            title="HAProxy",
            environment=_libraries,
            holds="own cookie",
            drain=_drain_haproxy,
        ),
        Peer(
            "nginx",
            forms.NGINX,
            "        server 127.0.0.1:{port};",
            lambda file: [program("nginx"), "-p", str(file.parent), "-c", str(file)],
            lambda: ask_version("nginx", "-v"),
            holds="hash of Chainlit's cookie or of the address",
        ),
        Peer(
            STICKY,
            forms.NGINX_STICKY,
            "        server 127.0.0.1:{port};",
            lambda file: [wheel("nginx"), "-p", str(file.parent), "-c", str(file)],
            lambda: wheel_version("nginx"),
            title="nginx",
            holds="sticky cookie",
            drain=_drain_nginx,
        ),
        Peer(
            "Envoy",
            forms.ENVOY,
            ENVOY_BACKEND,
            lambda file: [
                wheel("envoy"),
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "error",
                "-c",
                str(file),
            ],
            lambda: wheel_version("envoy"),
            file="config.yaml",
            holds="own cookie",
        ),
        Peer(
            "Caddy",
            forms.CADDY,
            "        to 127.0.0.1:{port}",
            lambda file: [wheel("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)],
            lambda: wheel_version("caddy"),
            environment=_one_thread,
            holds="own cookie",
        ),
        Peer(
            "Traefik",
            forms.TRAEFIK,
            "        - url: http://127.0.0.1:{port}",
            lambda file: [wheel("traefik"), f"--configfile={file}"],
            lambda: wheel_version("traefik"),
            file="config.yaml",
            more=(("routes.yaml", forms.TRAEFIK_ROUTES),),
            environment=_one_thread,
            holds="own cookie",
        ),
        Peer(
            "aiohttp",
            "{port}\n{backends}\n",
            "http://127.0.0.1:{port}",
            lambda file: [sys.executable, "-m", "benchmarks.baseline", str(file)],
            lambda: aiohttp.__version__,
        ),
    )
}

# It holds clients without cookies by the sid that it reads in an answer; for `benchmarks.features`.
LEARNING = replace(
    PEERS["HAProxy, newer"],
    name="HAProxy, learning",
    template=forms.HAPROXY_LEARNING,
    holds="own cookie and the sid of the answer's body",
)


@contextlib.contextmanager
def start(peer: Peer, backends: list[int], folder: Path) -> Iterator[Running]:
    """Runs a proxy in a folder of its own; raises UnavailableError when it cannot be had."""
    running = Running(peer, peer.version(), folder)
    try:
        running.configure(backends)
        running.launch()
        yield running
    finally:
        running.end()


def _wait(
    process: subprocess.Popen[bytes], port: int, path: str, errors: Path, *, secure: bool = False
) -> None:
    """Waits until the proxy answers well."""
    deadline = time.monotonic() + START
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1) as plain,
            anybody.wrap_socket(plain) if secure else plain as client,
        ):
            client.sendall(request)
            if client.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.01)
    ended = "it does not answer" if process.poll() is None else f"it ended with {process.returncode}"
    raise UnavailableError(f"{ended}: {errors.read_text(errors='replace')[-2000:].strip()}")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
