"""Short forms of `make soak`: load with faults, bodies larger than memory, and a crowd of slow clients."""

from pathlib import Path

import pytest

from tests.soak import faults, slow_heads, transfers
from tests.support.size import in_full

pytestmark = [pytest.mark.system, pytest.mark.alone]

GIB = 1 << 30
HEAD = 2.0  # seconds


@in_full
def test_load_with_faults(tmp_path: Path) -> None:
    """Instances are killed, stopped and restarted under 300 tabs: all come back, nobody gets another's."""
    outcome = faults.run(tmp_path, tabs=300, seconds=8, seed=3, until_expired=False)
    outcome.check()
    assert outcome.faults.total() >= 3, outcome
    assert sum(outcome.report["losses"].values()) > 0, outcome  # else nobody was hit


def test_bodies_larger_than_memory_pass(tmp_path: Path) -> None:
    """2 GiB up, down, and down to a client that stops reading: the proxy grows by less than 8 MiB."""
    for transfer in transfers.run(tmp_path, 2 * GIB):
        transfer.check()


def test_slow_heads_are_refused_beside_normal_requests(tmp_path: Path) -> None:
    """A thousand clients that never finish a head are told 408 in time, and others are answered meanwhile."""
    delay = slow_heads.run(tmp_path, slow=1000, requests=200, head=HEAD, rounds=1)
    delay.check_refusals(HEAD)
