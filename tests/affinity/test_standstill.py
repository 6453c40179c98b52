"""Time in which the process did not run: when it is noticed, and by whom."""

import pytest

from proxy.affinity.standstill import BEAT, Standstill


@pytest.mark.parametrize(
    ("looks", "total"),
    [
        ((100.0,), 0.0),
        ((100.0, 100.0 + BEAT, 100.0 + 2 * BEAT), 0.0),
        ((100.0, 101.0), 0.0),
        ((100.0, 146.0 + BEAT), 46.0),
        ((100.0, 146.0 + BEAT, 146.0 + BEAT), 46.0),
        ((100.0, 110.0 + BEAT, 110.0 + 2 * BEAT, 115.0 + 3 * BEAT), 15.0),
    ],
)
def test_gaps(looks: tuple[float, ...], total: float) -> None:
    """Where a look comes more than a second late, the process stood still; each gap counts once."""
    standstill = Standstill()
    moved: list[float] = []
    standstill.listen(moved.append)
    seen = [standstill.measure(now) for now in looks]
    assert seen[-1] == standstill.total == pytest.approx(total)
    assert sum(moved) == pytest.approx(total)


def test_clocks_are_moved_before_who_looks_goes_on() -> None:
    """Whoever wakes first after a gap finds every clock moved on."""
    standstill, clocks = Standstill(), {"a": 10.0}

    def move_on(gap: float) -> None:
        clocks["a"] += gap

    standstill.listen(move_on)
    standstill.measure(0.0)
    assert standstill.measure(30.0 + BEAT) == 30.0
    assert clocks == {"a": 40.0}
    assert repr(standstill) == "<Standstill 30.0 s>"
