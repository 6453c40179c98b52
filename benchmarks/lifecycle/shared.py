"""The rows of `make bench-lifecycle` where instances share their sessions: conversations outlive them.

Every proxy stands before the same instances, which restore a session that comes to them, whoever brought it.
Ours is measured twice: as it hands clients over, and as it has them connect anew.
"""

import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import page
from benchmarks.lifecycle.peer import Ours, Peer
from benchmarks.lifecycle.talkers import Figures, Talkers
from tests.support.instances import ChainlitInstance, Fleet
from tests.support.sharing import APP

KILLS = 10
ENDS = 3  # instances that end in order, one after the other
RESTARTS = 3  # of the only instance
WITHIN = 10.0  # seconds for an instance to be emptied
STOP = 20.0  # seconds for an instance to end
PATIENT = 30.0  # seconds in which everybody should have an answer again
SETTLE = 2.0  # seconds until each proxy has seen that an instance is back
STREAM = "stream 20 0.1"  # two seconds
ROOT = Path(__file__).resolve().parents[2]


class HandsOver(Ours):
    """Ours, told that sessions are shared, and without a slow start, as the others."""

    sections: ClassVar[dict[str, Any]] = {"sessions": {"shared": True}, "balance": {"slow_start": 0}}


class ConnectsAnew(Ours):
    """The same, but clients have to connect anew."""

    name = "the same, hand_over: never"
    sections: ClassVar[dict[str, Any]] = HandsOver.sections | {"affinity": {"hand_over": "never"}}

    @staticmethod
    def version() -> str:
        """Said by the column beside it."""
        return ""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a work is done."""

    peer: Peer
    fleet: Fleet
    talkers: Talkers

    async def lose(self, name: str, number: signal.Signals) -> None:
        """An instance goes away while everybody asks; all that it had are answered again."""
        instance = self.fleet[name]
        gone = f"pid{instance.pid}"
        victims, since = self.talkers.at(gone), time.time()
        instance.send(number)
        self.talkers.hurry()
        await self.talkers.answered(victims, since, gone, PATIENT)

    async def start(self, instance: ChainlitInstance) -> None:
        """An instance that has ended, or will, runs again."""
        try:
            await asyncio.to_thread(instance.wait, STOP)
        except AssertionError:
            print(f"{instance.name} had to be killed after {STOP:g} s", file=sys.stderr, flush=True)
            instance.kill9()
        instance.launch()
        await asyncio.to_thread(instance.wait_ready)


@dataclass(frozen=True, slots=True)
class SharedRow:
    """One row of the table."""

    name: str
    words: str
    work: Callable[[Stage], Awaitable[None]]
    instances: str = "abc"
    text: str | None = None  # what everybody says


async def killed(stage: Stage) -> None:
    """An instance is killed and started again, one after the other."""
    for at in range(KILLS):
        name = "abc"[at % 3]
        await stage.lose(name, signal.SIGKILL)
        await stage.start(stage.fleet[name])
        await asyncio.sleep(SETTLE)


async def ended(stage: Stage) -> None:
    """An instance ends by SIGTERM and is started again, one after the other."""
    for name in "abc"[:ENDS]:
        await stage.lose(name, signal.SIGTERM)
        await stage.start(stage.fleet[name])
        await asyncio.sleep(SETTLE)


async def rolled_out(stage: Stage) -> None:
    """Each instance in turn is emptied, stopped, started again and put back."""
    for name in "abc":
        instance = stage.fleet[name]
        await stage.peer.take_out(instance, WITHIN)
        instance.send(signal.SIGTERM)
        await stage.start(instance)
        await stage.peer.put_back(instance)
        await asyncio.sleep(SETTLE)


async def alone(stage: Stage) -> None:
    """The only instance is killed, and started at once."""
    for _ in range(RESTARTS):
        instance = stage.fleet["a"]
        gone = f"pid{instance.pid}"
        victims, since = stage.talkers.at(gone), time.time()
        instance.kill9()
        instance.launch()
        stage.talkers.hurry()
        await stage.talkers.answered(victims, since, gone, PATIENT)
        await asyncio.sleep(SETTLE)


SHARED_ROWS = [
    SharedRow("shared-killed", f"one of three instances killed with -9, {KILLS} times", killed),
    SharedRow("shared-ended", f"one of three instances ended by SIGTERM, {ENDS} times", ended),
    SharedRow(
        "shared-rollout",
        f"each of three instances taken out (at most {WITHIN:g} s), stopped, put back; all answers streamed",
        rolled_out,
        text=STREAM,
    ),
    SharedRow(
        "shared-alone", f"the only instance killed with -9 and started at once, {RESTARTS} times", alone, "a"
    ),
]


def sharing_fleet(folder: Path) -> Fleet:
    """Three instances that share their sessions in a file."""
    store = {"SHARE": f"sqlite:///{folder}/sessions.db", "SHARE_FROM": str(ROOT), "PYTHONPATH": str(ROOT)}
    return Fleet(folder, 3, APP, store)


async def measure(kind: type[Peer], row: SharedRow, fleet: Fleet, folder: Path, sessions: int) -> Figures:
    """One work on one proxy."""
    peer = kind([fleet[name] for name in row.instances], folder)
    try:
        peer.start()
        async with Talkers(peer.url, fleet.journal) as talkers:
            await talkers.come(sessions, row.text)
            await row.work(Stage(peer, fleet, talkers))
            return await talkers.count()
    finally:
        peer.stop()


def cells(figures: Figures) -> dict[str, str]:
    """The figures as the table shows them."""

    def times(seconds: list[float]) -> str:
        return f"{statistics.median(seconds):.2f} / {max(seconds):.2f}" if seconds else "-"

    return {
        "sessions whose instance went away": str(figures.victims) if figures.seconds else "-",
        "seconds until their next answer, median / longest": times(figures.seconds),
        "disconnects that clients saw": str(figures.disconnects),
        "questions asked": str(figures.asked),
        "seconds from a question to the next answer, median / longest": times(figures.waits),
        "questions lost in silence": str(figures.silent),
        "questions cut off, and the user told so": str(figures.told),
        "questions handled twice": str(figures.twice),
        "streamed answers with tokens missing or doubled": str(figures.torn),
        "sessions that forgot": str(figures.forgot),
        f"without an answer within {PATIENT:g} s": str(figures.never),
    }


def table(row: SharedRow, columns: dict[str, Figures], taken_on: str) -> str:
    """One work's table: a row for each figure that any proxy has, a column for each proxy."""
    shown = {name: cells(figures) for name, figures in columns.items()}
    rows = [[head, *(column[head] for column in shown.values())] for head in cells(Figures())]
    return "\n".join([row.words, "", taken_on, "", *page.table(["", *shown], page.telling(rows)), "", ""])


def conditions(sessions: int, machine: str) -> str:
    """What the figures were taken on."""
    load = os.getloadavg()[0]
    return f"{sessions} sessions, {datetime.now(UTC):%Y-%m-%d}; {machine}; load {load:.1f}"


def run(
    peers: dict[str, type[Peer]], rows: list[SharedRow], sessions: int, machine: str
) -> Iterator[tuple[str, str]]:
    """Measures everything; the words of each row and its table, as soon as there is one."""
    kinds: dict[str, type[Peer]] = {}
    for name, kind in peers.items():
        kinds |= {name: HandsOver, ConnectsAnew.name: ConnectsAnew} if kind is Ours else {name: kind}
    taken_on = conditions(sessions, machine)
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-"))
    try:
        with sharing_fleet(folder) as fleet:
            for row in rows:
                columns: dict[str, Figures] = {}
                for name, kind in kinds.items():
                    began = time.monotonic()
                    where = folder / f"{row.name}-{len(columns)}"
                    where.mkdir()
                    fleet.heal()
                    columns[name] = asyncio.run(measure(kind, row, fleet, where, sessions))
                    took = time.monotonic() - began
                    print(f"{row.name}: {name} in {took:.0f} s", file=sys.stderr, flush=True)
                yield (
                    row.words,
                    table(row, columns, f"{taken_on}, afterwards {os.getloadavg()[1]:.1f}."),
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
