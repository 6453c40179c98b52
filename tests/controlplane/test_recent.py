"""What happened in the last minutes, from counts that only grow."""

import pytest

from proxy.controlplane.recent import SPAN, STEP, Counted, Recent, Times, percentiles

BOUNDS = (1.0, 2.0, 4.0)


def test_only_what_is_new_counts() -> None:
    """What was counted before the window has left; what began within it counts whole."""
    counts = {("limit", "idle"): 5}
    recent = Recent(lambda: Counted({}, dict(counts), {"a": counts["limit", "idle"]}))
    assert recent.look(0.0).counts == {}
    counts["limit", "idle"] = 7
    counts["held", "back"] = 1
    lately = recent.look(10.0)
    assert (lately.counts, lately.troubles) == ({("limit", "idle"): 2, ("held", "back"): 1}, {"a": 2})
    assert lately.seconds == 10.0


def test_it_is_bounded() -> None:
    """However long the proxy runs it looks back so far and no farther."""
    ticks = iter(range(10_000))
    recent = Recent(lambda: Counted({}, {("move", "down"): next(ticks)}))
    for step in range(1000):
        lately = recent.look(step * STEP)
    assert lately.seconds == SPAN
    assert lately.counts == {("move", "down"): SPAN / STEP}
    assert len(recent._past) == SPAN / STEP + 1


def test_percentiles_of_all_and_of_each() -> None:
    """Those of the window alone, for all backends together and for each that had any."""
    by_backend = {"a": [100, 0, 0, 0], "b": [0, 0, 0, 0]}
    recent = Recent(lambda: Counted({"prompt": Times(BOUNDS, {n: list(c) for n, c in by_backend.items()})}))
    recent.look(0.0)
    by_backend["a"] = [110, 0, 0, 0]
    by_backend["c"] = [0, 0, 10, 0]  # it has come since
    lately = recent.look(10.0)
    assert lately.times["prompt"].count == 20
    assert lately.times["prompt"].p50 == 1.0
    assert 2.0 < lately.times["prompt"].p95 <= 4.0
    assert set(lately.by_backend["prompt"]) == {"a", "c"}
    assert lately.by_backend["prompt"]["c"].p50 == 3.0


def test_a_backend_that_came_back_begins_anew() -> None:
    """Its counts were forgotten when it had left: there are no negative ones."""
    by_backend = {"a": [100, 0, 0, 0]}
    troubles = {"a": 9}
    recent = Recent(lambda: Counted({"prompt": Times(BOUNDS, dict(by_backend))}, {}, dict(troubles)))
    recent.look(0.0)
    by_backend["a"], troubles["a"] = [0, 3, 0, 0], 1
    lately = recent.look(10.0)
    assert lately.times["prompt"].count == 3
    assert lately.troubles == {"a": 1}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 0, 0, 0], (0, 0.0, 0.0)),
        ([1, 0, 0, 0], (1, 0.5, 0.99)),
        ([0, 100, 0, 0], (100, 1.5, 1.99)),
        ([50, 0, 50, 0], (100, 1.0, 3.96)),
        ([0, 0, 0, 7], (7, 4.0, 4.0)),  # beyond the last bound nobody knows how far
    ],
)
def test_percentiles(counts: list[int], expected: tuple[float, ...]) -> None:
    """They lie within the bucket in which their share of all is reached, and never beyond the last bound."""
    found = percentiles(BOUNDS, counts)
    assert (found.count, found.p50, found.p99) == pytest.approx(expected)
