"""Whether our own cost stays flat: per request and per frame, over connections and over backends.

At most 24 requests are under way and 5,000 frames a second come however many connections there are; only what
the proxy holds grows. With it the seconds of the start, until a backend's answer has come
through, and the memory of the proxy once its admin listener answers too: of one that is installed alone, if
there is one, since libraries look for others that happen to be there.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks import budget, page
from benchmarks.cpu import resident_bytes
from benchmarks.measuring import backends, measure
from benchmarks.peers import OURS, PEERS, Peer, start

CONNECTIONS = [10, 100, 1000, 5000]
BACKENDS = [2, 200]
FEW_BACKENDS, FEW_CONNECTIONS = BACKENDS[0], 100  # of the other row
REQUESTS, FRAMES = 9600, 10_000  # at least
EACH = 10  # of both at least on each connection
RATE = 5000  # frames a second, all together

Figures = dict[tuple[int, int, str], list[float]]  # (backends, connections, what) -> one a round
REQUEST, FRAME, SECONDS, MEMORY = "request", "frame", "seconds", "memory"


def run(folder: Path, rounds: int, alone: Peer) -> list[str]:
    """Measures; the lines of both tables. `alone` is the proxy that is started."""
    figures: Figures = defaultdict(list)
    for number in range(rounds):
        print(f"growth, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for count in BACKENDS:
            sizes = CONNECTIONS if count == FEW_BACKENDS else [FEW_CONNECTIONS]
            _take(figures, folder / f"growth-{number}-{count}", count, sizes)
            _start(figures, folder / f"start-{number}-{count}", count, alone)
    return [*_grown(figures), "", *_started(figures)]


def _take(figures: Figures, folder: Path, count: int, sizes: list[int]) -> None:
    """What a proxy before so many backends costs at some numbers of connections."""
    with backends(count) as ports, start(PEERS[OURS], ports, folder) as running:
        for size in sizes:
            polls = measure(running, "poll", running.port, max(REQUESTS, EACH * size), size)
            figures[count, size, REQUEST].append(polls.cpu_us / polls.said[0])
            frames = measure(running, "frames", running.port, max(FRAMES, EACH * size), size, RATE)
            figures[count, size, FRAME].append(frames.cpu_us / frames.said[0])


def _start(figures: Figures, folder: Path, count: int, alone: Peer) -> None:
    """A fresh proxy before so many backends."""
    with backends(count) as ports, start(alone, ports, folder) as running:
        figures[count, 0, SECONDS].append(running.seconds)
        figures[count, 0, MEMORY].append(resident_bytes(running.pid) / 2**20)


def _grown(figures: Figures) -> list[str]:
    places = [(FEW_BACKENDS, size) for size in CONNECTIONS]
    places += [(count, FEW_CONNECTIONS) for count in BACKENDS if count != FEW_BACKENDS]
    rows = []
    for count, size in places:
        cells = [_cell(figures[count, size, what], 1) for what in (REQUEST, FRAME)]
        rows.append([f"{size:,} connections, {count} backends", *cells])
    return page.table(["CPU us of this proxy", "a poll request", "a websocket frame"], rows)


def _started(figures: Figures) -> list[str]:
    rows = []
    for count in BACKENDS:
        seconds, memory = figures[count, 0, SECONDS], figures[count, 0, MEMORY]
        rows.append([f"{count} backends", _cell(seconds, 2), _cell(memory, 1)])
    heads = ["start", "seconds until the first answer", "MiB of memory of the idle proxy"]
    return [*page.table(heads, rows), "", _kept(figures)]


def _kept(figures: Figures) -> str:
    """Whether the start and the idle proxy are within their budgets, before few backends."""
    words = []
    limits = (
        (SECONDS, budget.START_SECONDS, "s", "A start"),
        (MEMORY, budget.IDLE_MIB, "MiB", "An idle proxy"),
    )
    for what, most, unit, name in limits:
        is_over = statistics.median(figures[FEW_BACKENDS, 0, what]) > most
        words.append(f"{name} may take {most:g} {unit}: {'**missed**' if is_over else 'kept'}.")
    return " ".join(words)


def _cell(got: list[float], places: int) -> str:
    spread = f" ({min(got):.{places}f}-{max(got):.{places}f})" if len(got) > 1 else ""
    return f"{statistics.median(got):.{places}f}{spread}"
