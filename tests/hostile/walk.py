"""A random walk over all hostile actions: rounds drawn by a seed, for a time.

`make hostile SECONDS=300` walks for so long, another way each time. HOSTILE_SEED walks a walk again: the
rounds are the same, though what happens at the same time in a round is not. Among the other tests it is a
short walk, always the same, so that a change is judged by what it changes.
"""

import os
import time
from pathlib import Path
from random import Random

from tests.hostile.day import day
from tests.hostile.plan import at_random

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "25"))
_DRAWN = time.time_ns() % 1_000_000 if "HOSTILE_SECONDS" in os.environ else 1
SEED = int(os.environ.get("HOSTILE_SEED", "0")) or _DRAWN


async def walk(folder: Path, seconds: float, seed: int) -> None:
    """Begin rounds until the time is over."""
    print(f"HOSTILE_SEED={seed}")
    chance = Random(seed)
    async with day(folder, seed) as hostile:
        ends = time.monotonic() + seconds
        for planned in at_random(chance):
            await hostile.round(planned.upset, planned.others, chance.randrange(1 << 32))
            if time.monotonic() > ends:
                break
        await hostile.leave()
