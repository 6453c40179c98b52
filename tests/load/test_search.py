"""How many users an app carries: found by few trials, and confirmed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.load.search import Search


def found(capacity: int, most: int, first: int = 4) -> Search:
    """A search over an app that carries exactly so many."""
    search = Search(min(first, most), most)
    for _ in range(60):
        if search.confirmed is not None:
            return search
        search.tell(search.next <= capacity)
    raise AssertionError(f"no end: {search}")


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_what_is_carried_is_found_and_confirmed(capacity: int, most: int) -> None:
    """Never more than is carried, within a tenth of it, and the last trial was a confirmation of it."""
    search = found(capacity, most)
    assert search.confirmed is not None
    real = min(capacity, most)
    assert 0.9 * real - 1 <= search.confirmed <= real
    if search.confirmed:
        assert search.trials[-1] == (search.confirmed, True)
        assert search.trials.count((search.confirmed, True)) >= 2


def test_it_is_found_in_few_trials() -> None:
    """Steps grow with the number."""
    assert len(found(1000, 5000).trials) < 22
    assert len(found(16, 200).trials) < 12


def test_what_is_not_confirmed_is_not_told() -> None:
    """A lucky trial is followed by a smaller number, which has to be carried again."""
    search = Search(4, 100)
    search.tell(True)
    while not search.is_confirming:
        search.tell(search.next <= 20)
    lucky = search.next
    search.tell(False)
    assert search.next == lucky, "once each way: a third trial decides"
    search.tell(False)
    assert search.next < lucky
    while search.confirmed is None:
        search.tell(search.next <= 15)
    assert search.confirmed <= 15


def test_one_bad_trial_costs_nothing() -> None:
    """A number that was too much once, by what the trial before it had left behind, is tried again."""
    for bad in range(12):
        search = Search(4, 1000)
        while search.confirmed is None:
            search.tell(search.next <= 200 and len(search.trials) != bad)
        assert search.confirmed > 170, (bad, search.trials)


@pytest.mark.parametrize("most", [1, 2, 4, 100])
def test_nobody_is_carried(most: int) -> None:
    """One user is tried before that is said."""
    search = found(0, most)
    assert search.confirmed == 0
    assert search.trials[-1] == (1, False)
