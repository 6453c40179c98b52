"""`python -m benchmarks`: what polls, frames and connections cost the proxy, HAProxy, nginx and aiohttp.

Prints a Markdown table of CPU microseconds per unit of work, of the proxy's processes alone. Each round
measures every work on every proxy, one after the other, so that what disturbs the machine disturbs all of
them; a figure is the median of the rounds, with the lowest and the highest. The ratios are taken within a
round, then their median. Exits non-zero if our own proxy does not answer; a peer that is not installed is
left out with a line.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.cpu import cpu_ns, resident_bytes
from benchmarks.peers import PEERS, Running, UnavailableError, start

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks" / "cpu.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
OURS = "proxy"
TIMEOUT = 60.0  # seconds for one measurement; they take about one
BACKENDS = 3


class Work(NamedTuple):
    """A row of the table: the load generator's name for it, units in one measurement, and its words."""

    name: str
    units: int
    words: str
    is_memory: bool = False  # KiB that the prepared units hold, instead of microseconds that the work takes


WORKS = [
    Work("poll", 19_200, "poll request over keep-alive (GET and POST in turn)"),
    Work("frames", 150_000, "websocket frame of 110 B, 20 streams, saturated"),
    Work("paced", 3750, "websocket frame of 110 B, 50 streams of 50 frames/s"),
    Work("connections", 4800, "new connection and request"),
    Work("websockets", 1200, "new websocket (upgrade, probe, a frame each way, close)"),
    Work("idle", 2000, "KiB of memory per idle websocket", is_memory=True),
]

Figures = dict[tuple[str, str], list[float]]  # (work, peer) -> microseconds per unit, one a round


class MeasureError(Exception):
    """A load generator that did not get its answers."""


def measure(work: Work, running: Running) -> float:
    """CPU microseconds of the proxy per unit of the work, or KiB."""
    held = resident_bytes(running.pid)
    command = [sys.executable, "-m", "benchmarks.load", work.name, str(running.port), str(work.units)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            if load.stdout.readline() != "ready\n":
                raise MeasureError(load.communicate(timeout=TIMEOUT)[1].strip())
            held = resident_bytes(running.pid) - held
            before = cpu_ns(running.pid)
            out, err = load.communicate("go\n", timeout=TIMEOUT)
            after = cpu_ns(running.pid)
        except subprocess.TimeoutExpired:
            raise MeasureError(f"{work.name}: no end after {TIMEOUT:.0f} s") from None
        finally:
            load.kill()
    if load.returncode:
        raise MeasureError(err.strip())
    return held / int(out) / 1024 if work.is_memory else (after - before) / int(out) / 1000


@contextlib.contextmanager
def backends(count: int) -> Iterator[list[int]]:
    """The ports of as many stand-ins for Chainlit."""
    command = [sys.executable, "-m", "benchmarks.backend", str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def run(names: list[str], works: list[Work], rounds: int, *, write: bool) -> int:
    """Measures, prints the table, and into the page if told so; returns the exit status."""
    figures: Figures = defaultdict(list)
    status = 0
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        ports = stack.enter_context(backends(BACKENDS))
        peers = []
        for name in names:
            try:
                peers.append(stack.enter_context(start(PEERS[name], ports, folder / name)))
            except UnavailableError as error:
                print(f"{name}: left out, {error}", flush=True)
                status |= name == OURS
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for work in works:
                for peer in list(peers):
                    try:
                        figures[work.name, peer.peer.name].append(measure(work, peer))
                    except MeasureError as error:
                        print(f"{peer.peer.name}: left out, {error}", flush=True)
                        peers.remove(peer)
                        status |= peer.peer.name == OURS
        lines = table(figures, works, peers)
    lines += ["", f"{rounds} rounds, {time.strftime('%Y-%m-%d')}; {_machine()}."]
    print("", *lines, f"{time.monotonic() - began:.0f} s", sep="\n")
    if write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text("\n".join((before + BEGIN, "", *lines, "", END + after)))
    return status


def table(figures: Figures, works: list[Work], peers: list[Running]) -> list[str]:
    """The lines of the Markdown table, of the peers that came through all rounds."""
    names = [running.peer.name for running in peers]
    rivals = [name for name in names if name != OURS] if OURS in names else []
    heads = [f"{running.peer.name} {running.version}" for running in peers]
    heads += [f"{OURS} / {name}" for name in rivals]
    lines = [
        f"| CPU us per | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for work in works:
        cells = []
        for name in names:
            got = figures[work.name, name]
            cells.append(f"{statistics.median(got):.1f} ({min(got):.1f}-{max(got):.1f})")
        for name in rivals:
            pairs = zip(figures[work.name, OURS], figures[work.name, name], strict=True)
            cells.append(f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}")
        lines.append(f"| {work.words} | {' | '.join(cells)} |")
    return lines


def _machine() -> str:
    """What the figures were taken on."""
    system = f"{platform.system()} {platform.release()}"
    return f"Python {platform.python_version()}, {system}, {os.cpu_count()} cores"


def main() -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--works", nargs="+", choices=[work.name for work in WORKS], default=None)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks/cpu.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started ends with it
    works = [work for work in WORKS if options.works is None or work.name in options.works]
    return run(options.peers, works, options.rounds, write=options.write)


if __name__ == "__main__":
    sys.exit(main())
