"""`python -m benchmarks`: what this proxy, its peers and no proxy at all cost, side by side.

Six parts, each a Markdown table: CPU time per unit of work (`cost`), the same by TLS and in HTTP/2
(`http2`), what huge pages save (`huge_pages`), the time that is added to a request (`latency`), whether our
own cost stays flat (`growth`), and real Chainlit instances that stream to a hundred users (`answers`).
Exits non-zero if our own proxy does not answer; a peer that is not installed is left out with a line. Our own
is there a second time, compiled, where `--compiled` or the environment variable COMPILED names an interpreter
whose installed package is.
"""

import argparse
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import answers, growth, http2, huge_pages, latency, page
from benchmarks.cost import WORKS, Cost
from benchmarks.measuring import backends
from benchmarks.peers import COMPILED, OURS, PEERS, STICKY, Peer, Running, UnavailableError, installed, start
from benchmarks.picture import draw

BACKENDS = 3
PARTS = ["cost", "http2", "huge_pages", "latency", "growth", "answers"]


def show(part: str, lines: list[str], rounds: int, *, write: bool) -> None:
    """Prints a table, and puts it into the page if told so."""
    lines = [*lines, "", page.taken(rounds)]
    print("", *lines, "", sep="\n", flush=True)
    if write:
        page.put(part, lines)


def asked_for(options: argparse.Namespace) -> list[Peer]:
    """The proxies to be measured; the compiled one stands beside the interpreted."""
    peers = [PEERS[name] for name in options.peers]
    if options.compiled:
        at = next((at + 1 for at, peer in enumerate(peers) if peer.name == OURS), 0)
        peers.insert(at, installed(COMPILED, options.compiled))
    else:
        print(f"{COMPILED}: left out, no --compiled names its interpreter", flush=True)
    return peers


def started(peers: list[Peer], ports: list[int], folder: Path, stack: contextlib.ExitStack) -> list[Running]:
    """The proxies that can be had; they end with the stack."""
    running = []
    for number, peer in enumerate(peers):
        try:
            running.append(stack.enter_context(start(peer, ports, folder / f"peer-{number}")))
        except UnavailableError as error:
            print(f"{peer.name}: left out, {error}", flush=True)
    return running


def run(options: argparse.Namespace) -> int:
    """Measures part after part; returns the exit status."""
    began = time.monotonic()
    failed = False
    asked = asked_for(options)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        if "growth" in options.parts:  # before the others are there
            alone = installed(OURS, options.installed) if options.installed else PEERS[OURS]
            lines = growth.run(folder, options.rounds, alone)
            show("growth", lines, options.rounds, write=options.write)
        if "answers" in options.parts:
            lines = answers.run(asked, folder, options.rounds)
            show("answers", lines, options.rounds, write=options.write)
        ports = stack.enter_context(backends(BACKENDS))
        if "http2" in options.parts:
            lines = http2.run(asked, ports, folder, options.rounds)
            show("http2", lines, options.rounds, write=options.write)
        if "huge_pages" in options.parts:
            lines = huge_pages.run(asked, ports, folder, options.rounds)
            show("huge_pages", lines, options.rounds, write=options.write)
        peers = started(asked, ports, folder, stack)
        if "latency" in options.parts:
            lines = latency.run(peers, ports[0], options.rounds)
            show("latency", lines, options.rounds, write=options.write)
        if "cost" in options.parts:
            cost = Cost(options.works, peers, ports, folder)
            failed = not cost.run(options.rounds) and OURS in options.peers
            show("cost", cost.lines(), options.rounds, write=options.write)
            if options.write and (ratios := cost.relative()):
                page.put("costs", [cost.sentence(), "", page.taken(options.rounds)], page.README)
                page.put_picture(draw(ratios, [running.peer.name for running in peers], OURS))
    print(f"{time.monotonic() - began:.0f} s")
    return int(failed)


def main() -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    usual = [name for name in PEERS if name != STICKY]
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=usual)
    parser.add_argument(
        "--compiled", metavar="PYTHON", default=os.environ.get("COMPILED", ""), help="of the compiled build"
    )
    parser.add_argument(
        "--installed", metavar="PYTHON", default="", help="that has this proxy alone, to be started in growth"
    )
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), help="of the cost")
    parser.add_argument(
        "--write", action="store_true", help="put tables and picture into docs/benchmarks and the README"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started ends with it
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of connections, at every end
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
