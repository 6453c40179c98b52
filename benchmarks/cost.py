"""CPU microseconds per unit of work, of each proxy's processes alone; and what idle websockets hold.

Each round does every work on every proxy, one after the other, so that what disturbs the machine disturbs all
of them; a figure is the median of the rounds, with the lowest and the highest. The ratios are taken within a
round, then their median.
"""

import contextlib
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import page
from benchmarks.measuring import Measured, MeasureError, TooSlowError, measure
from benchmarks.peers import OURS, Running, UnavailableError, start

RIVALS = ["HAProxy", "nginx"]  # the better of which our budgets are held against


class Work(NamedTuple):
    """A row of the table: the load generator's name for it, units in one measurement, and its words."""

    load: str
    units: int
    words: str
    budget: float  # what ours may cost, as a ratio to the better rival; memory: to nginx
    connections: int = 24
    rate: int = 0  # units a second of all connections; 0 for as fast as they go
    is_memory: bool = False  # KiB that the prepared units hold, instead of microseconds that the work takes


WORKS = {
    "poll": Work("poll", 9600, "poll request over keep-alive (GET and POST in turn)", 1.2),
    "frames": Work("frames", 100_000, "websocket frame of 110 B, 20 streams, saturated", 1.0, 20),
    "paced50": Work("frames", 2500, "websocket frame, 50 streams of 20 frames/s", 1.0, 50, 1000),
    "paced500": Work("frames", 25_000, "websocket frame, 500 streams of 20 frames/s", 1.0, 500, 10_000),
    "paced5000": Work("frames", 200_000, "websocket frame, 5,000 streams of 20 frames/s", 1.0, 5000, 100_000),
    "connections": Work("connections", 2400, "new connection and request", 1.5),
    "websockets": Work("websockets", 720, "new websocket (upgrade, probe, a frame each way, close)", 2.0),
    "upload": Work("upload", 200, "megabyte uploaded, in files of 100 MB", 1.0, 2),
    "download": Work("download", 200, "megabyte downloaded, in files of 100 MB", 1.0, 2),
    "idle": Work("idle", 5000, "KiB of memory per idle websocket, at 5,000", 1.0, is_memory=True),
}

Figures = dict[tuple[str, str], list[float]]  # (work, peer) -> microseconds per unit, one a round


class Cost:
    """The measurements of one run; `run` fills it, `lines` and `relative` read it."""

    def __init__(self, names: list[str], peers: list[Running], ports: list[int], folder: Path) -> None:
        self.peers = list(peers)
        self.ports, self.folder = ports, folder  # for the proxies that are started afresh
        self.works = [name for name in WORKS if name in names and _carried(name, ports[0])]
        self.figures: Figures = defaultdict(list)
        self.too_slow: set[tuple[str, str]] = set()

    def run(self, rounds: int) -> bool:
        """Measures; tells whether our own proxy came through."""
        for number in range(rounds):
            print(f"cost, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for name in self.works:
                if number and WORKS[name].is_memory:
                    continue  # it is the same every time
                for peer in list(self.peers):
                    self._take(name, peer)
        return any(running.peer.name == OURS for running in self.peers)

    def _take(self, name: str, running: Running) -> None:
        peer, work = running.peer.name, WORKS[name]
        if (name, peer) in self.too_slow:
            return
        try:
            got = self._measure(work, running)
        except TooSlowError as error:
            print(f"{peer}: {name} was not carried, {error}", flush=True)
            self.too_slow.add((name, peer))
        except (MeasureError, UnavailableError) as error:
            print(f"{peer}: left out, {error}", flush=True)
            self.peers.remove(running)
        else:
            whole = got.held_bytes / 1024 if work.is_memory else got.cpu_us
            self.figures[name, peer].append(whole / got.said[0])

    def _measure(self, work: Work, running: Running) -> Measured:
        """Memory is that of a fresh process: one that has worked has room that it does not give back."""
        with contextlib.ExitStack() as stack:
            if work.is_memory:
                folder = self.folder / f"{running.peer.name}-{work.load}"
                running = stack.enter_context(start(running.peer, self.ports, folder))
            return measure(running.pid, work.load, running.port, work.units, work.connections, work.rate)

    def lines(self) -> list[str]:
        """The table, of the peers that came through all rounds."""
        names = [running.peer.name for running in self.peers]
        rivals = [name for name in names if name != OURS] if OURS in names else []
        heads = ["CPU us per"] + [f"{running.peer.name} {running.version}" for running in self.peers]
        heads += [f"{OURS} / {name}" for name in rivals]
        rows = []
        for work in self.works:
            row = [WORKS[work].words] + [self._cell(work, name) for name in names]
            rows.append(row + [self._spread(work, name) for name in rivals])
        return [*page.table(heads, rows), "", *self._budgets()]

    def _budgets(self) -> list[str]:
        """What was asked of ours, and what it is."""
        rows = []
        for work in self.works:
            best = self._best(work, ["nginx"] if WORKS[work].is_memory else RIVALS)
            if best and self._ratios(work, OURS, best):
                rows.append([WORKS[work].words, best, f"{WORKS[work].budget:.1f}", self._spread(work, best)])
        return page.table([OURS, "as a ratio to", "at most", "is"], rows) if rows else []

    def _best(self, work: str, rivals: list[str] = RIVALS) -> str:
        """The rival with the lowest median, "" if none has one."""
        names = [running.peer.name for running in self.peers if running.peer.name in rivals]
        can = [name for name in names if (work, name) not in self.too_slow and self.figures[work, name]]
        return min(can, key=lambda name: statistics.median(self.figures[work, name]), default="")

    def _ratios(self, work: str, one: str, other: str) -> list[float]:
        """The ratio within each round; none where one of the two has no figure."""
        if {(work, one), (work, other)} & self.too_slow:
            return []
        pairs = zip(self.figures[work, one], self.figures[work, other], strict=True)
        return [left / right for left, right in pairs]

    def _spread(self, work: str, other: str) -> str:
        """Ours to another's: the median of the rounds, with the lowest and the highest."""
        ratios = self._ratios(work, OURS, other)
        if not ratios:
            return "-"
        middle = f"{statistics.median(ratios):.2f}"
        return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}-{max(ratios):.2f})"

    def relative(self) -> dict[str, dict[str, float]]:
        """Each work's costs as ratios to the better of HAProxy and nginx, by the words of the work."""
        names = [running.peer.name for running in self.peers]
        found: dict[str, dict[str, float]] = {}
        for work in self.works:
            if best := self._best(work):
                ratios = {name: self._ratios(work, name, best) for name in names}
                found[WORKS[work].words] = {
                    name: statistics.median(each) for name, each in ratios.items() if each
                }
        return found

    def _cell(self, work: str, name: str) -> str:
        if (work, name) in self.too_slow:
            return "not carried"
        got = self.figures[work, name]
        if WORKS[work].is_memory:
            return f"{got[0]:.1f}"
        return f"{statistics.median(got):.1f} ({min(got):.1f}-{max(got):.1f})"


def _carried(name: str, backend: int) -> bool:
    """Whether the machine carries the rate of a work without any proxy; one that it does not is left out."""
    work = WORKS[name]
    if not work.rate:
        return True
    try:
        measure(os.getpid(), work.load, backend, work.units, work.connections, work.rate)
    except TooSlowError as error:
        print(f"{name}: left out, not carried by this machine even without a proxy: {error}", flush=True)
        return False
    return True
