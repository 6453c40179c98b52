import pytest

from proxy.affinity.pace import HANDED_OVER_PER_SECOND, PER_SECOND, Pace, time_for

TICK = 0.25


def gone(waiting: int, seconds: float, deadline: float, per_second: float = PER_SECOND) -> int:
    """How many of those that wait have gone after so many seconds."""
    pace, now, left = Pace(0.0, per_second), 0.0, waiting
    while now < seconds:
        now += TICK
        left -= pace.allow(left, now, deadline)
    return waiting - left


def test_nobody_waits_for_a_far_deadline() -> None:
    """With time enough they go at the common pace."""
    assert gone(1000, 2.0, 300.0) == pytest.approx(2.0 * PER_SECOND, abs=2)
    assert gone(1000, time_for(1000) + TICK, 300.0) == 1000


def test_those_that_are_handed_over_go_faster() -> None:
    """Half a second in which a hundred are at rest at once, between two questions, is enough for all."""
    assert gone(100, 0.5 + TICK, 300.0, HANDED_OVER_PER_SECOND) == 100


@pytest.mark.parametrize("deadline", [1.0, 2.0, 5.0])
def test_all_have_gone_by_the_deadline(deadline: float) -> None:
    """When they are too many for the common pace they are spread evenly over the time there is."""
    assert gone(3000, deadline + TICK, deadline) == 3000
    assert gone(3000, deadline / 2, deadline) <= 3000 * 0.6


def test_after_the_deadline_all_may_go() -> None:
    """Who comes back after it is sent away at once."""
    pace = Pace(0.0)
    assert pace.allow(40, 10.0, 5.0) == 40


def test_never_more_than_wait() -> None:
    """A long rest gathers no more leave than there are sessions."""
    pace = Pace(0.0)
    assert pace.allow(3, 100.0, 300.0) == 3
    assert pace.allow(0, 200.0, 300.0) == 0
    assert pace.allow(500, 200.0, 300.0) == 0
