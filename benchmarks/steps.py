"""The interpreter's steps in some work: `python -m benchmarks.steps WORK [--save FILE] [--against FILE]`.

The works are those of `benchmarks.share`. A step is one bytecode instruction, of our own code or of what it
calls in Python. Their number is the same in each run, so it shows what a change adds to a path where the
clock, on a machine that others use too, does not tell one microsecond in twenty. What C functions cost is not
in it: hold the times of `benchmarks.share` beside it.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.share import WORKS, prepared, without_log
from benchmarks.stage import Loop

UNITS = 200
SHOWN = 25  # functions


class Steps:
    """Counts them by function, while it traces."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        """As the function of `sys.settrace`."""
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            code = frame.f_code
            self.counts[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1
        return self.trace


async def count(name: str) -> dict[str, float]:
    """The steps of one unit of a work, by function; the stage's are left out."""
    steps = Steps()
    async with prepared(name, UNITS) as ready:

        async def do() -> None:
            for unit in ready:
                await unit()

        sys.settrace(steps.trace)  # of what is called from now on
        try:
            await asyncio.create_task(do())
        finally:
            sys.settrace(None)
    ours = ("stage.", "share.", "wire.frame", "wire._mask", "browsers.", "steps.")
    return {name: n / len(ready) for name, n in steps.counts.items() if not name.startswith(ours)}


def main() -> None:
    """Prints how many there are, and where; against another tree's what has changed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--save", type=Path, help="write them to this file")
    parser.add_argument("--against", type=Path, help="a file of another tree, with which they are compared")
    options = parser.parse_args()
    told = without_log()
    with asyncio.Runner(loop_factory=Loop) as runner:
        steps = runner.run(count(options.work))
    if options.save:
        options.save.write_text(json.dumps(steps))
    before: dict[str, float] = json.loads(options.against.read_text()) if options.against else {}
    print(f"{options.work}: {sum(steps.values()):.0f} steps, {sum(before.values()):.0f} before", file=told)
    changed = {name: steps.get(name, 0) - before.get(name, 0) for name in {*steps, *before}}
    for name, more in sorted(changed.items(), key=lambda one: -abs(one[1]))[:SHOWN]:
        if abs(more) >= 1:
            print(f"  {more:+8.1f}  {name}", file=told)


if __name__ == "__main__":
    main()
