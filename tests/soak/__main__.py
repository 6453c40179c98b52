"""`python -m tests.soak`: the long runs, each with its figures; the status is 1 if a promise was not kept.

About seven minutes. Timings are of this machine and what else it does; `make test` has the short forms,
without timings.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.soak import faults, slow_heads, transfers

GIB = 1 << 30
HEAD = 10.0  # seconds, the default of timeouts.head


def load_with_faults(folder: Path, seed: int) -> None:
    """Two thousand tabs, a minute of faults."""
    outcome = faults.run(folder, tabs=2000, seconds=60, seed=seed, until_expired=True)
    print(outcome, flush=True)
    outcome.check()


def bounded_memory(folder: Path, _seed: int) -> None:
    """2 GiB up, down, and down with a pause."""
    for transfer in transfers.run(folder, 2 * GIB):
        print(transfer, flush=True)
        transfer.check()


def slow_clients(folder: Path, _seed: int) -> None:
    """A thousand slow heads beside normal requests."""
    delay = slow_heads.run(folder, slow=1000, requests=2000, head=HEAD, rounds=5)
    print(delay, flush=True)
    delay.check_refusals(HEAD)
    delay.check()


def main() -> int:
    """Run all, or those that are named; a seed for the faults is made, and printed."""
    seed = time.time_ns() & 0xFFFFFF
    runs = {run.__name__: run for run in (load_with_faults, bounded_memory, slow_clients)}
    failed = 0
    for name in sys.argv[1:] or runs:
        print(f"{name}, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                runs[name](Path(folder), seed)
            except AssertionError as error:
                failed += 1
                print(f"FAILED: {error}", flush=True)
    print(f"{len(sys.argv[1:] or runs) - failed} kept, {failed} broken")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
