"""The restart rule, with times as numbers."""

from proxy.replicas.restarts import RestartHistory, RestartRule


def waits(history: RestartHistory, lives: list[float]) -> list[float | None]:
    """What the history says after each of these lives, one following the other."""
    now, said = 0.0, []
    for life in lives:
        history.ready(now)
        now += life
        said.append(history.died(now))
    return said


def test_wait_doubles_up_to_its_limit() -> None:
    """Each death doubles the wait, from half a second up to thirty."""
    assert waits(RestartHistory(RestartRule()), [10.0] * 8) == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_wait_begins_anew_after_a_calm_life() -> None:
    """A life of a minute makes the next wait the first again; a little less does not."""
    assert waits(RestartHistory(RestartRule()), [10, 10, 59.9, 60, 10]) == [0.5, 1, 2, 0.5, 1]


def test_quick_deaths_in_a_row_give_up() -> None:
    """The fifth quick death in a row ends it."""
    assert waits(RestartHistory(RestartRule()), [0.1] * 5) == [0.5, 1, 2, 4, None]


def test_longer_life_between_quick_deaths_is_not_giving_up() -> None:
    """A life that was not quick begins the count of quick deaths anew."""
    assert None not in waits(RestartHistory(RestartRule()), [1, 1, 1, 1, 6] * 4)


def test_death_before_ready_is_quick() -> None:
    """A life in which the replica never answered counts as quick, however long the start took."""
    history = RestartHistory(RestartRule(quick_deaths=2))
    history.ready(0)
    assert history.died(1000) == 0.5
    assert history.died(1050) == 1
    assert history.died(1100) is None


def test_rule_is_an_argument() -> None:
    """Every number of the rule can be another."""
    rule = RestartRule(first=1, longest=3, calm=10, quick=2, quick_deaths=3)
    assert waits(RestartHistory(rule), [5, 5, 5, 10, 1, 1, 1]) == [1, 2, 3, 1, 2, 3, None]
