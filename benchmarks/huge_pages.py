"""What huge pages save: this proxy as `pip install` gives it, and with the environment of image and unit.

Python's objects lie wherever there was room, and a proxy of thousands of browsers touches all of its memory.
With pages of 4 KiB the processor looks up the place of nearly each, in a virtual machine twice over.
"""

import dataclasses
import re
import statistics
import sys
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import page
from benchmarks.cost import WORKS
from benchmarks.cpu import resident_bytes
from benchmarks.measuring import measure
from benchmarks.peers import COMPILED, OURS, Peer, Running, start

MEASURED = ["poll", "in_turn_few", "connections", "websockets", "frames"]
SERVICE = page.ROOT / "deploy" / "systemd" / "chainlit-proxy.service"
_LINE = re.compile(r"^Environment=(PYTHONMALLOC|GLIBC_TUNABLES)=(\S+)$", re.MULTILINE)


def environment() -> dict[str, str]:
    """What the unit sets, which is what the image sets as well."""
    return dict(_LINE.findall(SERVICE.read_text()))


def run(peers: list[Peer], ports: list[int], folder: Path, rounds: int) -> list[str]:
    """Measures our own builds, without and with them in turn; the lines of the table."""
    found: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        running: dict[tuple[str, bool], Running] = {}
        for peer in (peer for peer in peers if peer.is_ours):
            for huge in (False, True):
                own = dataclasses.replace(peer, environment=partial(_with_them, peer)) if huge else peer
                at = folder / f"pages-{peer.name}-{huge}"
                running[peer.name, huge] = stack.enter_context(start(own, ports, at))
        for number in range(rounds):
            print(f"huge pages, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for name in MEASURED:
                work = WORKS[name]
                for (build, is_huge), proxy in running.items():
                    numbers = work.units, work.connections, work.rate, work.browsers
                    got = measure(proxy, work.load, proxy.port, *numbers)
                    found[name, build, is_huge].append(got.cpu_us / got.said[0])
        held = {key: resident_bytes(proxy.pid) / 2**20 for key, proxy in running.items()}
    builds = [name for name in (OURS, COMPILED) if (name, True) in running]
    heads = ["CPU saved for a", *builds]
    rows = []
    for name in MEASURED:
        cells = [WORKS[name].words]
        for build in builds:
            before, after = found[name, build, False], found[name, build, True]
            saved = [1 - b / a for a, b in zip(before, after, strict=True)]
            cells.append(_percent(saved))
        rows.append(cells)
    held_by = [f"{held[build, False]:.0f} / {held[build, True]:.0f}" for build in builds]
    return page.table(heads, [*rows, ["MiB of memory behind all that, without / with", *held_by]])


def _with_them(peer: Peer, folder: Path) -> dict[str, str]:
    return peer.environment(folder) | environment()


def _percent(saved: list[float]) -> str:
    middle, low, high = (round(100 * part) for part in (statistics.median(saved), min(saved), max(saved)))
    return f"{middle} % ({low} to {high})"
