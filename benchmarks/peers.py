"""The proxies under measurement: how each is configured, started and named.

Each runs one worker before the same backends, keeps connections to them alive, adds X-Forwarded-For, pins
sessions in its usual way, writes an access log to a file, and checks health where it can (nginx cannot).
So they do the same work, and a figure of one can be held against that of another. One does less:
configurable-http-proxy has no way to pin; all sessions live on its one target, and it writes no access log.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy import __version__
from tests.js.install import install, node_path

OURS = "proxy"
CHP = "configurable-http-proxy"
NODE = Path(__file__).parent / "js"  # holds the one package that is npm's
START = 15.0  # seconds; our own proxy imports its libraries first
STOP = 10.0

PROXY = """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
backends:
{backends}
health: {{type: http, path: /health, interval: 2}}
log: {{format: json, access: true, level: info}}
"""

HAPROXY = """\
global
    nbthread 1
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    timeout connect 2s
    timeout client 75s
    timeout server 75s
    timeout tunnel 90s
frontend page
    bind 127.0.0.1:{port}
    default_backend chainlit
backend chainlit
    http-reuse always
    cookie SRV insert indirect nocache
    option httpchk GET /health
{backends}
"""

# What every nginx here has in common: its folders, the session in the cookie, and how requests are passed on.
NGINX_SESSION = """\
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_cookie $session {{ default ""; "~X-Chainlit-Session-id=(?<id>[^;]+)" $id; }}
"""
NGINX_PASS = """\
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://chainlit;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $onward;
            proxy_buffering off;
"""
NGINX = (
    """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/access.log;
    keepalive_requests 10000000;
"""
    + NGINX_SESSION
    + """\
    map $http_upgrade $onward {{ default upgrade; "" ""; }}
    upstream chainlit {{
        hash $session consistent;
{backends}
        keepalive 128;
        keepalive_requests 10000000;
    }}
"""
    + NGINX_PASS
    + """\
            proxy_request_buffering off;
            client_max_body_size 0;
            proxy_read_timeout 90s;
        }}
    }}
}}
"""
)


class UnavailableError(Exception):
    """A peer that is not installed, or does not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of proxy."""

    name: str
    template: str
    backend: str  # the line of one backend
    command: Callable[[Path], list[str]]
    version: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Running:
    """A started proxy."""

    peer: Peer
    version: str
    port: int
    pid: int
    seconds: float  # from its start until a backend's answer came through


def ask_version(name: str, flag: str) -> str:
    """The number in the answer to a version flag; Debian keeps both programs in sbin."""
    answer = subprocess.run([program(name), flag], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout + answer.stderr)
    return found[0] if found else "?"


def install_chp() -> str:
    """The version of configurable-http-proxy, installed if it is not; raises UnavailableError without npm."""
    package = NODE / "node_modules" / CHP / "package.json"
    try:
        if not package.exists():
            install(NODE)
        return str(json.loads(package.read_text())["version"])
    except OSError as error:
        raise UnavailableError(str(error)) from None


def chp_command(file: Path) -> list[str]:
    """It is told everything by arguments, and passes all requests to one target: the first backend."""
    port, admin, target, *_ = file.read_text().split()
    command = [node_path(), str(NODE / "node_modules" / CHP / "bin" / CHP)]
    command += ["--ip", "127.0.0.1", "--port", port, "--api-ip", "127.0.0.1", "--api-port", admin]
    return [*command, "--default-target", target, "--keep-alive-timeout", "75000"]


def program(name: str) -> str:
    """Its path; raises UnavailableError where it is not installed."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise UnavailableError(f"{name} is not installed")
    return path


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            OURS,
            PROXY,
            "  - {{name: {name}, url: http://127.0.0.1:{port}}}",
            lambda file: [sys.executable, "-m", "proxy", "serve", "-c", str(file)],
            lambda: __version__,
        ),
        Peer(
            "HAProxy",
            HAPROXY,
            "    server {name} 127.0.0.1:{port} cookie {name} check inter 2s",
            lambda file: [program("haproxy"), "-db", "-f", str(file)],
            lambda: ask_version("haproxy", "-v"),
        ),
        Peer(
            "nginx",
            NGINX,
            "        server 127.0.0.1:{port};",
            lambda file: [program("nginx"), "-p", str(file.parent), "-c", str(file)],
            lambda: ask_version("nginx", "-v"),
        ),
        Peer(
            CHP,
            "{port}\n{admin}\n{backends}\n",
            "http://127.0.0.1:{port}",
            chp_command,
            install_chp,
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


@contextlib.contextmanager
def start(peer: Peer, backends: list[int], folder: Path) -> Iterator[Running]:
    """Runs a proxy in a folder of its own; raises UnavailableError when it cannot be had."""
    version = peer.version()
    port, admin = free_ports(2)
    lines = [peer.backend.format(name=f"b{number}", port=at) for number, at in enumerate(backends)]
    folder.mkdir()
    file = folder / "config"
    file.write_text(peer.template.format(port=port, admin=admin, folder=folder, backends="\n".join(lines)))
    errors = folder / "errors"
    began = time.monotonic()
    with errors.open("wb") as log, (folder / "access.log").open("ab") as access:
        process = subprocess.Popen(peer.command(file), stdin=subprocess.DEVNULL, stdout=access, stderr=log)
    try:
        _wait(process, port, "/health", errors)
        seconds = time.monotonic() - began
        if peer.name == OURS:  # whose admin listener is loaded behind its first answers
            _wait(process, admin, "/healthz", errors)
        yield Running(peer, version, port, process.pid, seconds)
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, errors: Path) -> None:
    """Waits until the proxy answers well."""
    deadline = time.monotonic() + START
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
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
