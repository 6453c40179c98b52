"""How many backends are wanted: up at once, down after a while, and less carried where loops were late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.wanted import Capacity, Load, Wanted

FIGURES = Capacity(answers=50, sessions=2000, spare=1, calm=120.0)


def wanted(answers: int, sessions: int, capacity: Capacity = FIGURES) -> int:
    """What is wanted at once."""
    return Wanted(capacity).look(Load(answers, sessions, 1), 0.0).count


@pytest.mark.parametrize(
    ("answers", "sessions", "count"),
    [(0, 0, 1), (0, 1, 2), (1, 1, 2), (50, 0, 2), (51, 0, 3), (100, 2000, 4), (25, 1000, 2), (0, 8000, 5)],
)
def test_work_is_added_up_and_one_is_to_spare(answers: int, sessions: int, count: int) -> None:
    """Answers and sessions are parts of one backend; nobody needs one to spare where nobody is."""
    assert wanted(answers, sessions) == count


def test_more_at_once_fewer_after_a_while() -> None:
    """A peak counts at the next look, and for `calm` seconds after the last one that needed so many."""
    rule = Wanted(FIGURES)
    assert rule.look(Load(10, 10, 2), 0.0).count == 2
    assert rule.look(Load(120, 120, 2), 1.0).count == 4
    assert rule.look(Load(70, 70, 4), 61.0).count == 4
    need = rule.look(Load(10, 10, 4), 120.0)
    assert (need.count, "2 would be enough" in need.reason) == (4, True)
    assert rule.look(Load(10, 10, 4), 121.0).count == 3  # what was needed at 61
    assert rule.look(Load(10, 10, 3), 181.0).count == 2


def test_a_load_at_the_edge_does_not_flap() -> None:
    """Fewer are wanted only if a tenth of what they carry is left over."""
    rule = Wanted(FIGURES)
    assert rule.look(Load(51, 0, 3), 0.0).count == 3
    for at in range(1, 1000):
        assert rule.look(Load(49 + at % 3, 0, 3), float(at)).count == 3
    counts = [rule.look(Load(44, 0, 3), 1000.0 + at).count for at in range(130)]
    assert counts[0] == 3
    assert counts[-1] == 2


def test_late_loops_teach_what_one_carries() -> None:
    """Where loops are late more are wanted, after a while still more; an hour later that is forgotten."""
    rule = Wanted(FIGURES)
    late = ("a", "b")
    assert rule.look(Load(10, 10, 2), 0.0).count == 2
    assert rule.look(Load(10, 10, 2, late), 1.0).count == 4  # three for the work, and one to spare
    assert rule.look(Load(10, 10, 4, late), 20.0).count == 4, "the new ones have no time to help"
    assert rule.look(Load(10, 10, 4, late), 31.0).count == 6
    assert "late now: a, b" in rule.look(Load(10, 10, 4, late), 32.0).reason
    many = tuple(f"b{number}" for number in range(200))
    assert "late now: b0, b1, b2, b3, b4 and 195 more" in rule.look(Load(10, 10, 400, many), 33.0).reason
    assert rule.look(Load(10, 10, 6), 3000.0).count == 6, "the load is as it was when they were late"
    assert rule.look(Load(10, 10, 6), 3700.0).count == 2


def test_one_late_loop_of_many_is_its_own_trouble() -> None:
    """Neither does a loop that is late while nobody is there call for another backend."""
    rule = Wanted(FIGURES)
    assert rule.look(Load(10, 10, 3, ("a",)), 0.0).count == 2
    assert rule.look(Load(0, 0, 1, ("a",)), 1.0).count == 2  # held
    assert rule.carries == 1.0


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9000), st.floats(0, 60)), max_size=40))
def test_it_is_never_too_few(steps: list[tuple[int, int, float]]) -> None:
    """Whatever came before, there are as many as the load needs, and no more than were ever needed."""
    rule, now, most = Wanted(FIGURES), 0.0, 1
    for answers, sessions, pause in steps:
        now += pause
        alone = wanted(answers, sessions)
        most = max(most, alone)
        assert alone <= rule.look(Load(answers, sessions, 3), now).count <= most
