"""CPU microseconds per unit of work, of each proxy's processes alone; and what idle websockets hold.

Each round does every work on every proxy, one after the other, so that what disturbs the machine disturbs all
of them; a figure is the median of the rounds. The ratios are taken within a round; then their median, with
the lowest and the highest.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import budget, page
from benchmarks.budget import Budget
from benchmarks.measuring import Measured, MeasureError, Nobody, TooSlowError, measure
from benchmarks.peers import OURS, RIVALS, Running, UnavailableError, start

FEW = 8  # browsers, where few do what otherwise thousands do
MANY = 3000
CALM = 1000  # requests a second: every peer sleeps between two of them
FAILED = "failed"


class Work(NamedTuple):
    """A row of the table: the load generator's name for it, units in one measurement, and its words."""

    load: str
    units: int
    words: str
    budget: Budget
    connections: int = 24
    rate: int = 0  # units a second of all connections; 0 for as fast as they go
    browsers: int = 0  # 0 for as many as there are sessions
    is_memory: bool = False  # KiB that the prepared units hold, instead of microseconds that the work takes
    restarts: bool = False  # whether the proxy is started anew when all is prepared


WORKS = {
    "poll": Work("poll", 12_000, f"poll request over keep-alive, {MANY:,} browsers", budget.POLL, MANY),
    "poll_paced": Work("poll", 4800, f"the same, {CALM:,} a second", budget.POLL, MANY, CALM),
    "in_turn": Work(
        "in_turn", 12_000, f"poll and POST in turn over keep-alive, {MANY:,} browsers", budget.POLL, MANY
    ),
    "in_turn_few": Work(
        "in_turn",
        9600,
        f"poll and POST in turn over keep-alive, {FEW} browsers",
        budget.POLL,
        browsers=FEW,
    ),
    "frames": Work(
        "frames", 100_000, "websocket frame of 110 B, 20 streams, saturated", budget.SATURATED, 20
    ),
    "paced50": Work("frames", 2500, "websocket frame, 50 streams of 20 frames/s", budget.PACED[50], 50, 1000),
    "paced500": Work(
        "frames", 25_000, "websocket frame, 500 streams of 20 frames/s", budget.PACED[500], 500, 10_000
    ),
    "paced5000": Work(
        "frames", 200_000, "websocket frame, 5,000 streams of 20 frames/s", budget.PACED[5000], 5000, 100_000
    ),
    "connections": Work(
        "connections", MANY, f"new connection and request, {MANY:,} browsers", budget.CONNECTION
    ),
    "connections_few": Work(
        "connections", 2400, f"new connection and request, {FEW} browsers", budget.CONNECTION, browsers=FEW
    ),
    "connections_restarted": Work(
        "connections",
        MANY,
        f"new connection and request, {MANY:,} browsers, the proxy started anew",
        budget.CONNECTION,
        restarts=True,
    ),
    "websockets": Work("websockets", 1500, "new websocket of a session that polls", budget.WEBSOCKET),
    "websockets_few": Work(
        "websockets",
        720,
        f"new websocket of a session that polls, {FEW} browsers",
        budget.WEBSOCKET,
        browsers=FEW,
    ),
    "announced": Work("announced", 1500, "new websocket without polls, announced", budget.WEBSOCKET),
    "unannounced": Work("unannounced", 1500, "new websocket without polls, not announced", budget.WEBSOCKET),
    "returning": Work(
        "returning",
        1500,
        "websocket without polls of a known session, the proxy started anew",
        budget.WEBSOCKET,
        restarts=True,
    ),
    "upload": Work("upload", 200, "megabyte uploaded, in files of 100 MB", budget.MEGABYTE, 2),
    "download": Work("download", 200, "megabyte downloaded, in files of 100 MB", budget.MEGABYTE, 2),
    "idle": Work("idle", 5000, "KiB of memory per idle websocket, at 5,000", budget.MEMORY, is_memory=True),
}

SHORT = {  # what the README says of some works
    "poll": "a poll",
    "frames": "a streamed frame",
    "connections": "a new connection with its request",
    "websockets": "a new websocket",
    "unannounced": "one whose session nobody has announced",
    "upload": "an uploaded megabyte",
}

Figures = dict[tuple[str, str], list[float]]  # (work, peer) -> microseconds per unit, one a round


class Cost:
    """The measurements of one run; `run` fills it, `lines` and `relative` read it."""

    def __init__(self, names: list[str], peers: list[Running], ports: list[int], folder: Path) -> None:
        self.peers = list(peers)
        self.ports, self.folder = ports, folder  # for the proxies that are started afresh
        self.works = [name for name in WORKS if name in names and _carried(name, ports[0])]
        self.figures: Figures = defaultdict(list)
        self.missing: dict[tuple[str, str], str] = {}  # (work, peer) -> why it has no figure
        self._fresh = 0  # proxies that were started for one measurement

    def run(self, rounds: int) -> bool:
        """Measures; tells whether our own proxy came through."""
        for number in range(rounds):
            print(f"cost, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for name in self.works:
                if number and WORKS[name].is_memory:
                    continue  # it is the same every time
                for peer in self.peers:
                    self._take(name, peer)
        return not any(peer == OURS and why == FAILED for (_, peer), why in self.missing.items())

    def _take(self, name: str, running: Running) -> None:
        peer, work = running.peer.name, WORKS[name]
        if (name, peer) in self.missing:
            return
        try:
            got = self._measure(work, running)
        except TooSlowError as error:
            print(f"{peer}: {name} was not carried, {error}", flush=True)
            self.missing[name, peer] = "not carried"
        except (MeasureError, UnavailableError) as error:
            print(f"{peer}: {name} failed, {error}", flush=True)
            self.missing[name, peer] = FAILED
        else:
            whole = got.held_bytes / 1024 if work.is_memory else got.cpu_us
            self.figures[name, peer].append(whole / got.said[0])

    def _measure(self, work: Work, running: Running) -> Measured:
        """Memory is that of a fresh process: one that has worked has room that it does not give back.

        What is started anew is a fresh one as well, so that the next work finds the others as they were.
        """
        numbers = work.units, work.connections, work.rate, work.browsers
        if not (work.is_memory or work.restarts):
            return measure(running, work.load, running.port, *numbers)
        self._fresh += 1
        with start(running.peer, self.ports, self.folder / f"fresh-{self._fresh}") as fresh:
            between = fresh.restart if work.restarts else None
            return measure(fresh, work.load, fresh.port, *numbers, between=between)

    def lines(self) -> list[str]:
        """The tables; a work that a peer did not come through has no figure of it, and one of none no row."""
        names = [running.peer.name for running in self.peers]
        heads = ["CPU us per"] + [running.title for running in self.peers]
        done = [work for work in self.works if any((work, name) not in self.missing for name in names)]
        rows = [[WORKS[work].words] + [self._cell(work, name) for name in names] for work in done]
        none = [f"No proxy carried: {WORKS[work].words}." for work in self.works if work not in done]
        return [*page.table(heads, rows), "", *([*none, ""] if none else []), *budget.table(self._budgets())]

    def _budgets(self) -> list[budget.Row]:
        """What was asked of ours, and what it is."""
        rows = []
        names = [running.peer.name for running in self.peers]
        for work in self.works:
            best = self._best(work, ["nginx"] if WORKS[work].is_memory else RIVALS)
            if not best:
                continue
            ratios = {name: self._ratios(work, name, best) for name in budget.BUILDS if name in names}
            ratios = {name: each for name, each in ratios.items() if each}
            if ratios:
                title = next(running.title for running in self.peers if running.peer.name == best)
                worse = budget.behind(lambda name, work=work: self._median(work, name), min(ratios))  # type: ignore[misc]
                rows.append(budget.Row(WORKS[work].words, title, WORKS[work].budget, ratios, worse))
        return rows

    def sentence(self) -> str:
        """What ours costs as a multiple of the better of HAProxy and nginx, in words."""
        told: dict[str, list[str]] = defaultdict(list)
        for work in (work for work in SHORT if work in self.works):
            best = self._best(work, RIVALS)
            for name in budget.BUILDS:
                if best and (ratios := self._ratios(work, name, best)):
                    told[name].append(f"{SHORT[work]} {statistics.median(ratios):.2f}")
        said = [f"{budget.BUILDS[name]}, {', '.join(each)}" for name, each in told.items()]
        return f"As a multiple of the better of HAProxy and nginx: {'; '.join(said)}."

    def _median(self, work: str, name: str) -> float | None:
        """None where it came through no round."""
        if (work, name) in self.missing or not self.figures[work, name]:
            return None
        return statistics.median(self.figures[work, name])

    def _best(self, work: str, rivals: list[str]) -> str:
        """The rival with the lowest median, "" if none has one."""
        medians = {name: self._median(work, name) for name in rivals}
        can = {name: median for name, median in medians.items() if median is not None}
        return min(can, key=lambda name: can[name], default="")

    def _ratios(self, work: str, one: str, other: str) -> list[float]:
        """The ratio within each round; none where one of the two has no figure."""
        if self._median(work, one) is None or self._median(work, other) is None:
            return []
        pairs = zip(self.figures[work, one], self.figures[work, other], strict=True)
        return [left / right for left, right in pairs]

    def relative(self) -> dict[str, dict[str, float]]:
        """Each work's costs as ratios to the best of HAProxy and nginx, by the words of the work."""
        names = [running.peer.name for running in self.peers]
        found: dict[str, dict[str, float]] = {}
        for work in self.works:
            if best := self._best(work, RIVALS):
                ratios = {name: self._ratios(work, name, best) for name in names}
                found[WORKS[work].words] = {
                    name: statistics.median(each) for name, each in ratios.items() if each
                }
        return found

    def _cell(self, work: str, name: str) -> str:
        if (work, name) in self.missing:
            return self.missing[work, name]
        return f"{statistics.median(self.figures[work, name]):.1f}"


def _carried(name: str, backend: int) -> bool:
    """Whether the machine carries the rate of a work without any proxy; one that it does not is left out."""
    work = WORKS[name]
    if not work.rate:
        return True
    try:
        measure(Nobody(), work.load, backend, work.units, work.connections, work.rate)
    except TooSlowError as error:
        print(f"{name}: left out, not carried by this machine even without a proxy: {error}", flush=True)
        return False
    return True
