"""What each proxy adds to the time of a poll, at 10, 100 and 1,000 kept connections.

One request is under way at a time, at a modest rate, so that no queue decides. Each round asks directly and
through every proxy, one after the other; what is added is the difference to the direct connection of the same
round, and a figure is the median of the rounds, with the lowest and the highest.
"""

import os
import statistics
import sys
from collections import defaultdict

from benchmarks import page
from benchmarks.measuring import MeasureError, measure
from benchmarks.peers import Running

CONNECTIONS = [10, 100, 1000]
RATE = 500  # requests a second
REQUESTS = 1500
DIRECT = "no proxy"

Times = dict[
    tuple[str, int], list[tuple[float, float]]
]  # (peer, connections) -> p50 and p99, in microseconds


def run(peers: list[Running], backend: int, rounds: int) -> list[str]:
    """Measures; the lines of the table, of the peers that came through all rounds."""
    times: Times = defaultdict(list)
    peers = list(peers)
    for number in range(rounds):
        print(f"latency, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for connections in CONNECTIONS:
            times[DIRECT, connections].append(_take(os.getpid(), backend, connections))
            for running in list(peers):
                name = running.peer.name
                try:
                    times[name, connections].append(_take(running.pid, running.port, connections))
                except MeasureError as error:
                    print(f"{name}: no latency, {error}", flush=True)
                    peers.remove(running)
    return _table(times, peers)


def _take(pid: int, port: int, connections: int) -> tuple[float, float]:
    median, tail = measure(pid, "latency", port, REQUESTS, connections, RATE).said
    return median, tail


def _table(times: Times, peers: list[Running]) -> list[str]:
    heads = [f"{word}, {count:,} connections" for count in CONNECTIONS for word in ("p50", "p99")]
    rows = [[f"{DIRECT}, the whole time", *(cell for count in CONNECTIONS for cell in _cells(times, count))]]
    for running in peers:
        name = running.peer.name
        cells = [cell for count in CONNECTIONS for cell in _cells(times, count, name)]
        rows.append([f"{name} {running.version}", *cells])
    return page.table(["us that are added by", *heads], rows)


def _cells(times: Times, connections: int, name: str = "") -> list[str]:
    """p50 and p99: of a proxy what it adds, without a name the direct connection's own."""
    direct = times[DIRECT, connections]
    cells = []
    for at in range(2):
        base = [pair[at] for pair in direct]
        took = [pair[at] for pair in times[name, connections]] if name else base
        got = [one - other for one, other in zip(took, base, strict=True)] if name else base
        cells.append(f"{statistics.median(got):.0f} ({min(got):.0f}-{max(got):.0f})")
    return cells
