"""What each proxy adds to the time of a poll, at 100 and 1,000 kept connections.

One request is under way at a time, at a modest rate, so that no queue decides. Each round asks directly and
through every proxy, one after the other; what is added is the difference to the direct connection of the same
round, and a figure is the median of the rounds, with the lowest and the highest.
"""

import statistics
import sys
from collections import defaultdict

from benchmarks import budget, page
from benchmarks.measuring import MeasureError, Nobody, Process, measure
from benchmarks.peers import RIVALS, Running

CONNECTIONS = [100, 1000]
BUDGETED = 100  # connections
PARTS = ["p50", "p99"]
COLUMNS = [*((0, count) for count in CONNECTIONS), (1, BUDGETED)]  # a part and connections
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
            times[DIRECT, connections].append(_take(Nobody(), backend, connections))
            for running in list(peers):
                name = running.peer.name
                try:
                    times[name, connections].append(_take(running, running.port, connections))
                except MeasureError as error:
                    print(f"{name}: no latency, {error}", flush=True)
                    peers.remove(running)
    return _table(times, peers)


def _take(process: Process, port: int, connections: int) -> tuple[float, float]:
    median, tail = measure(process, "latency", port, REQUESTS, connections, RATE).said
    return median, tail


def _table(times: Times, peers: list[Running]) -> list[str]:
    heads = [f"{PARTS[at]}, {count:,} connections" for at, count in COLUMNS]
    rows = [[f"{DIRECT}, the whole time", *_cells(times)]]
    rows += [[running.title, *_cells(times, running.peer.name)] for running in peers]
    table = page.table(["us that are added by", *heads], rows)
    return [*table, "", *budget.table(_budgets(times, peers))]


def _budgets(times: Times, peers: list[Running]) -> list[budget.Row]:
    """What ours may add, as a ratio to the better of HAProxy and nginx."""
    titles = {running.peer.name: running.title for running in peers}
    rows = []
    for at, part in enumerate(PARTS):
        added = {name: _added(times, BUDGETED, name, at) for name in titles}
        medians = {name: statistics.median(each) for name, each in added.items()}
        best = min((name for name in RIVALS if name in medians), key=lambda name: medians[name], default="")
        ours = [name for name in budget.BUILDS if name in medians]
        if not best or not ours or min(added[best]) <= 0:  # the machine was busier without a proxy
            continue
        ratios = {name: [a / b for a, b in zip(added[name], added[best], strict=True)] for name in ours}
        worse = budget.behind(medians.get, ours[0])
        words = f"{part} that is added, {BUDGETED} connections"
        rows.append(budget.Row(words, titles[best], budget.LATENCY[part], ratios, worse))
    return rows


def _added(times: Times, connections: int, name: str, at: int) -> list[float]:
    """What a proxy adds in each round; without a name the direct connection's own time."""
    base = [pair[at] for pair in times[DIRECT, connections]]
    took = [pair[at] for pair in times[name, connections]] if name else base
    return [one - other for one, other in zip(took, base, strict=True)] if name else base


def _cells(times: Times, name: str = "") -> list[str]:
    """Of a proxy what it adds, without a name the direct connection's own time."""
    cells = []
    for at, count in COLUMNS:
        got = _added(times, count, name, at)
        spread = f" ({min(got):.0f}-{max(got):.0f})" if len(got) > 1 else ""
        cells.append(f"{statistics.median(got):.0f}{spread}")
    return cells
