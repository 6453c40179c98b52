"""CPU microseconds per request by TLS, in HTTP/2 and beside it in HTTP/1.1, of each proxy's processes alone.

Asked by h2load, which is nobody's own client, with the fields of a browser. Each proxy has the same pair of
EC keys. As in `cost` each round does every work on every proxy, and a figure is the median of the rounds.
"""

import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks import page
from benchmarks.browsers import Browser
from benchmarks.cpu import cpu_ns
from benchmarks.measuring import TIMEOUT, MeasureError
from benchmarks.peers import COMPILED, OURS, Peer, Running, UnavailableError, program

_OURS = ("log: {{", "tls: {{cert: {folder}/pair.crt, key: {folder}/pair.key}}\nlog: {{")
_HAPROXY = ("bind 127.0.0.1:{port}", "bind 127.0.0.1:{port} ssl crt {folder}/pair.pem alpn h2,http/1.1")
SECURE = {  # what of the configuration of each becomes what
    OURS: _OURS,
    COMPILED: _OURS,
    "HAProxy": _HAPROXY,
    "HAProxy, newer": _HAPROXY,
    "nginx": (
        "listen 127.0.0.1:{port};",
        """listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {folder}/pair.crt;
        ssl_certificate_key {folder}/pair.key;""",
    ),
    "Caddy": (
        "http://:{port} {{",
        "https://127.0.0.1:{port} {{\n    tls {folder}/pair.crt {folder}/pair.key",
    ),
}


class Work(NamedTuple):
    """A row of the table, and what h2load is told for it."""

    words: str
    units: int
    told: tuple[str, ...]


WORKS = (
    Work("request in HTTP/2, 20 connections with 10 at once", 20_000, ("-c20", "-m10")),
    Work("request in HTTP/1.1 by TLS, 24 connections", 20_000, ("--h1", "-c24")),
    Work("new connection by TLS and a request in HTTP/2", 500, ("-c500", "-m1")),
    Work("new connection by TLS and a request in HTTP/1.1", 500, ("--h1", "-c500")),
)


def secure(peer: Peer) -> Peer:
    """The same proxy with TLS; its pair is in its folder."""
    before, after = SECURE[peer.name]
    return replace(peer, template=peer.template.replace(before, after), secure=True)


@contextmanager
def start(peer: Peer, backends: list[int], folder: Path) -> Iterator[Running]:
    """Runs it; raises UnavailableError when it cannot be had."""
    running = Running(secure(peer), peer.version(), folder)
    try:
        running.configure(backends)
        certificate, key = folder / "pair.crt", folder / "pair.key"
        ask = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=127.0.0.1"
        command = [program("openssl"), *ask.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "pair.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
        running.launch()
        yield running
    finally:
        running.end()


def run(asked: list[Peer], ports: list[int], folder: Path, rounds: int) -> list[str]:
    """Measures; the lines of the table, of the proxies that can be had."""
    figures: dict[tuple[Work, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        peers = []
        for number, peer in enumerate(each for each in asked if each.name in SECURE):
            try:
                peers.append(stack.enter_context(start(peer, ports, folder / f"secure-{number}")))
            except UnavailableError as error:
                print(f"{peer.name}: left out of HTTP/2, {error}", flush=True)
        for number in range(rounds):
            print(f"HTTP/2, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for work in WORKS:
                for running in peers:
                    try:
                        figures[work, running.peer.name].append(measure(running, work))
                    except MeasureError as error:
                        print(f"{running.peer.name}: {work.words} failed, {error}", flush=True)
        heads = ["CPU us per", *[running.title for running in peers]]
        rows = [[work.words, *[_cell(figures[work, each.peer.name]) for each in peers]] for work in WORKS]
    return page.table(heads, rows)


def measure(running: Running, work: Work) -> float:
    """Has h2load do it; CPU microseconds of the proxy for each request. Raises MeasureError."""
    head = Browser(0, f"127.0.0.1:{running.port}").get(b"/health").decode().split("\r\n")[1:-2]
    fields = [f"-H{line}" for line in head if not line.lower().startswith(("host:", "connection:"))]
    command = [program("h2load"), f"-n{work.units}", *work.told, *fields]
    began = cpu_ns(running.pid)
    try:
        done = subprocess.run(
            [*command, f"https://127.0.0.1:{running.port}/health"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeasureError(f"no end after {TIMEOUT:.0f} s") from None
    took = cpu_ns(running.pid) - began
    if not re.search(rf"status codes: {work.units} 2xx", done.stdout):
        raise MeasureError(f"{done.stdout[-600:]}{done.stderr[-300:]}")
    return took / 1000 / work.units


def _cell(got: list[float]) -> str:
    if not got:
        return "failed"
    return f"{statistics.median(got):.1f}"
