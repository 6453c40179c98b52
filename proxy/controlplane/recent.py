"""What happened in the last minutes, for those who look: the differences of what is counted since the start.

Nothing is counted for it: every few seconds the counts are copied, and the oldest copies are dropped. So
requests pay nothing, and it is as exact as the histograms are: a percentile lies between two of their bounds,
and is taken to lie there as if all values between these were equally frequent.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import monotonic
from typing import TypeVar

from proxy.borders import Border, Where

STEP = 10.0  # seconds between two copies
SPAN = 300.0  # seconds that are looked back
_NONE: Sequence[int] = ()
_Key = TypeVar("_Key", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class Times:
    """One kind of durations, counted since the start."""

    bounds: Sequence[float]  # seconds; the upper ends of the buckets but for the last, which has none
    by_backend: Mapping[str, Sequence[int]]  # how many fell into each; by name, "" where there is none


@dataclass(frozen=True, slots=True)
class Counted:
    """All that is counted since the start, at one moment."""

    times: Mapping[str, Times] = field(default_factory=dict)  # by what was measured
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by group, and what in that
    troubles: Mapping[str, int] = field(default_factory=dict)  # what went wrong at each backend, by name


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took."""

    count: int
    p50: float  # seconds
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Lately:
    """What was found at the last look."""

    seconds: float = 0.0  # how far it looks back
    times: Mapping[str, Percentiles] = field(default_factory=dict)  # of all backends, by what was measured
    by_backend: Mapping[str, Mapping[str, Percentiles]] = field(default_factory=dict)  # what, then whose
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)  # what has happened, as in Counted
    troubles: Mapping[str, int] = field(default_factory=dict)


class Recent:
    """Made by the composition root, which runs it."""

    def __init__(self, count: Callable[[], Counted]) -> None:
        """`count` copies what is counted."""
        self._count = count
        self._past: deque[tuple[float, Counted]] = deque(maxlen=round(SPAN / STEP) + 1)
        self.lately = Lately()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            with Border(Where.CONTROL):
                self.look(monotonic())
            await asyncio.sleep(STEP)

    def look(self, now: float) -> Lately:
        """Compare with the oldest copy that is kept."""
        counted = self._count()
        self._past.append((now, counted))
        at, before = self._past[0]
        times, by_backend = {}, {}
        for what, measured in counted.times.items():
            old = before.times.get(what)
            fresh = {
                name: _since(counts, old.by_backend.get(name, _NONE) if old else _NONE)
                for name, counts in measured.by_backend.items()
            }
            everyone = [sum(column) for column in zip(*fresh.values(), strict=True)]
            times[what] = percentiles(measured.bounds, everyone)
            by_backend[what] = {
                name: percentiles(measured.bounds, counts) for name, counts in fresh.items() if any(counts)
            }
        self.lately = Lately(
            now - at,
            times,
            by_backend,
            _differences(counted.counts, before.counts),
            _differences(counted.troubles, before.troubles),
        )
        return self.lately

    def __repr__(self) -> str:
        return f"<Recent {self.lately.seconds:.0f} s>"


def percentiles(bounds: Sequence[float], counts: Sequence[int]) -> Percentiles:
    """Those of a histogram; what is above the last bound is taken for that bound."""
    p50, p95, p99 = (_quantile(bounds, counts, share) for share in (0.5, 0.95, 0.99))
    return Percentiles(sum(counts), p50, p95, p99)


def _quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    wanted = share * sum(counts)
    if not wanted:
        return 0.0
    for at, reached in enumerate(accumulate(counts[: len(bounds)])):
        if reached >= wanted:
            low = bounds[at - 1] if at else 0.0
            return low + (bounds[at] - low) * (1 - (reached - wanted) / counts[at])
    return bounds[-1]


def _since(now: Sequence[int], before: Sequence[int]) -> Sequence[int]:
    """What was added; a backend that had left and came back begins anew."""
    if not before or sum(now) < sum(before):
        return now
    return [new - old for new, old in zip(now, before, strict=True)]


def _differences(now: Mapping[_Key, int], before: Mapping[_Key, int]) -> dict[_Key, int]:
    fresh = {}
    for key, count in now.items():
        old = before.get(key, 0)
        if added := count - old if count >= old else count:
            fresh[key] = added
    return fresh
