"""Waiting for something outside this process: ask again until it is so, within a bound.

The bound is that of a machine with a core for everybody. What a busy one is late is added, up to `MOST` times
the bound in all: who waits for an event loses nothing by it, and what never comes is told a little later.
"""

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.02  # between two questions
MOST = 4  # times as long may something take on a busy machine


What = Callable[[], str] | str
"""What is waited for, or a function that tells it when the waiting was in vain."""


def machine_late() -> float:
    """Seconds in which somebody had to wait for a core since it started; 0 if it does not tell."""
    try:
        pressure = Path("/proc/pressure/cpu").read_text()
        times = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    waited = int(pressure.split("total=", 1)[1].split()[0]) / 1e6
    stolen = int(times[8]) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)  # by the host's other machines
    return waited + stolen


class Stopwatch:
    """How long something takes, for a promise: what the machine is late is not the fault of who gave it."""

    def __init__(self) -> None:
        self._began, self._late = monotonic(), machine_late()

    def __repr__(self) -> str:
        return f"<Stopwatch {self.seconds:.2f} s, and {self.late:.2f} s of the machine>"

    @property
    def late(self) -> float:
        """Seconds in which somebody had to wait for a core since it was started."""
        return machine_late() - self._late

    @property
    def seconds(self) -> float:
        """Those since it was started, without these."""
        return self.own(monotonic() - self._began)

    def own(self, seconds: float) -> float:
        """What is left of so many since it was started; no machine is more than `MOST` times late."""
        return max(seconds - self.late, seconds / MOST)


class Bound:
    """So many seconds from now, and what the machine is late meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._began, self._late = seconds, monotonic(), machine_late()

    def __repr__(self) -> str:
        return f"<Bound {self._seconds:g} s, {self.left:.1f} s left>"

    @property
    def left(self) -> float:
        """Seconds; 0 when it is over."""
        left = self._began + self._seconds - monotonic()
        if left <= 0:
            left += min(machine_late() - self._late, (MOST - 1) * self._seconds)
        return max(0.0, left)


def wait_until(question: Callable[[], T], within: float, what: What) -> T:
    """Asks again and again until the answer is true; the answer. AssertionError when the bound is over."""
    bound = Bound(within)
    while not (answer := question()):
        assert bound.left, _in_vain(within, what)
        sleep(PAUSE)
    return answer


async def eventually(question: Callable[[], T], within: float, what: What, pause: float = PAUSE) -> T:
    """The same without holding up the event loop."""
    bound = Bound(within)
    while not (answer := question()):
        assert bound.left, _in_vain(within, what)
        await asyncio.sleep(pause)
    return answer


async def one_of(awaited: Collection[asyncio.Future[Any]], within: float) -> None:
    """Returns when one of them is done, or the bound is over."""
    bound = Bound(within)
    while not any(future.done() for future in awaited) and (left := bound.left):
        await asyncio.wait(awaited, timeout=left, return_when=asyncio.FIRST_COMPLETED)


def _in_vain(within: float, what: What) -> str:
    return f"not within {within:g} s: {what if isinstance(what, str) else what()}"
