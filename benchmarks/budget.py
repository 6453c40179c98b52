"""What our own proxy may cost, as ratios to the better of HAProxy and nginx, and whether it does.

The interpreted and the compiled build have budgets of their own. A budget that is missed is said to be
missed. A row where ours is dearer than Envoy, Caddy or Traefik names them: it is to be ahead of those
everywhere.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import page
from benchmarks.peers import COMPILED, OTHERS, OURS


class Budget(NamedTuple):
    """Of one kind of work: what a build may cost at most, and what is aimed at."""

    interpreted: float
    compiled: float
    aim: float

    def of(self, name: str) -> float:
        """That of one build."""
        return self.compiled if name == COMPILED else self.interpreted


class Row(NamedTuple):
    """One line of the table."""

    words: str
    best: str  # the title of whom it is held against
    budget: Budget
    ratios: dict[str, list[float]]  # of each build, one a round
    ahead: list[str]  # of the others, those that ours is not ahead of


POLL = Budget(1.4, 1.15, 1.0)
SATURATED = Budget(1.2, 1.0, 0.8)
PACED = {50: Budget(1.3, 1.2, 1.0), 500: Budget(1.2, 1.15, 1.0), 5000: Budget(1.05, 1.0, 1.0)}
CONNECTION = Budget(1.8, 1.4, 1.2)
WEBSOCKET = Budget(2.5, 1.8, 1.5)
MEGABYTE = Budget(1.0, 1.0, 0.6)
MEMORY = Budget(0.5, 0.5, 0.25)  # of nginx's
LATENCY = {"p50": Budget(1.6, 1.3, 1.0), "p99": Budget(1.2, 1.0, 1.0)}  # of what is added, at 100 connections
START_SECONDS = 0.35
IDLE_MIB = 60.0

BUILDS = {OURS: "interpreted", COMPILED: "compiled"}


def spread(ratios: list[float]) -> str:
    """The median of the rounds, with the lowest and the highest."""
    middle = f"{statistics.median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}-{max(ratios):.2f})"


def table(rows: list[Row]) -> list[str]:
    """Each build that was measured with what it may cost and what it costs; then what was missed."""
    builds = [name for name in BUILDS if any(row.ratios.get(name) for row in rows)]
    if not rows or not builds:
        return []
    heads = ["ours", "as a ratio to"]
    for name in builds:
        heads += [f"{BUILDS[name]}, at most", "is"]
    heads += ["aim", "not ahead of"]
    lines, missed = [], 0
    for row in rows:
        cells = [row.words, row.best]
        for name in builds:
            ratios, most = row.ratios.get(name, []), row.budget.of(name)
            over = bool(ratios) and statistics.median(ratios) > most
            missed += over
            cells += [f"{most:g}", f"**{spread(ratios)}**" if over else spread(ratios) if ratios else "-"]
        lines.append([*cells, f"{row.budget.aim:g}", ", ".join(row.ahead) or "-"])
    return [*page.table(heads, lines), "", _word(missed, sum(len(row.ratios) for row in rows))]


def _word(missed: int, all_of_them: int) -> str:
    if not missed:
        return f"All {all_of_them} budgets are kept."
    return f"{missed} of {all_of_them} budgets are missed: in bold."


def behind(median: Callable[[str], float | None], build: str) -> list[str]:
    """Those of Envoy, Caddy and Traefik that a build is not ahead of."""
    own = median(build)
    theirs = {name: median(name) for name in OTHERS}
    return [name for name, cost in theirs.items() if own is not None and cost is not None and cost <= own]
