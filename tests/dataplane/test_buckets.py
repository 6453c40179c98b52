"""Token buckets: their arithmetic, and that their table stays small."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.buckets import Buckets


def taken(buckets: Buckets, client: str, now: float, tries: int) -> int:
    """How many of some tries at one moment get a token."""
    return sum(buckets.take(client, now) == 0 for _ in range(tries))


def test_a_full_bucket_is_a_burst() -> None:
    """A client nobody knows has a burst's tokens, then as many as come per second."""
    buckets = Buckets(10, 5)
    assert taken(buckets, "a", 100.0, 20) == 5
    assert taken(buckets, "a", 100.25, 20) == 2
    assert taken(buckets, "a", 1000.0, 20) == 5


def test_the_wait_is_told() -> None:
    """A refused client is told when there is a token; waiting so long gets it one."""
    buckets = Buckets(0.5, 1)
    assert buckets.take("a", 10.0) == 0
    wait = buckets.take("a", 10.5)
    assert wait == pytest.approx(1.5, rel=1e-4)
    assert buckets.take("a", 10.5 + wait + 1e-6) == 0


def test_clients_have_their_own() -> None:
    """What one client takes, another keeps."""
    buckets = Buckets(1, 1)
    assert (taken(buckets, "a", 1.0, 3), taken(buckets, "b", 1.0, 3)) == (1, 1)


def test_refusals_take_nothing() -> None:
    """A client that goes on trying is not kept out for longer."""
    buckets = Buckets(1, 1)
    assert taken(buckets, "a", 1.0, 1000) == 1
    assert buckets.take("a", 2.0) == 0


def test_a_token_that_is_given_back_was_never_taken() -> None:
    """Also of a client that is not remembered any more: then its bucket is full."""
    buckets = Buckets(1, 2)
    for _ in range(10):
        assert buckets.take("a", 1.0) == 0
        buckets.give_back("a")
    assert taken(buckets, "a", 1.0, 5) == 2
    buckets.give_back("b")
    assert taken(buckets, "b", 1.0, 5) == 2


def test_the_table_is_bounded() -> None:
    """Of more clients than it holds, those that were not seen for longest are forgotten."""
    buckets = Buckets(1, 1, most=3)
    for client in "abc":
        buckets.take(client, 1.0)
    assert buckets.take("a", 1.0) > 0  # seen again: "b" is the oldest now
    assert buckets.take("d", 1.0) == 0
    assert len(buckets) == 3
    assert (buckets.take("a", 1.0) > 0, buckets.take("b", 1.0)) == (True, 0)


def test_full_buckets_are_swept() -> None:
    """A client whose bucket is full again need not be remembered; others are."""
    buckets = Buckets(1, 10)
    buckets.take("a", 1.0)
    for _ in range(5):
        buckets.take("b", 1.0)
    buckets.sweep(3.0)
    assert len(buckets) == 1
    buckets.sweep(6.0)
    assert len(buckets) == 0


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.integers(0, 400), max_size=100),
)
def test_no_client_gets_more_than_its_rate(rate: int, burst: int, steps: list[int]) -> None:
    """In any span of time a client gets at most the burst and what came in since."""
    buckets = Buckets(rate, burst)
    now = 0.0
    got: deque[float] = deque()
    for step in steps:
        now += step / 1000
        if buckets.take("a", now) == 0:
            got.append(now)
    for first, start in enumerate(got):
        for last in range(first, len(got)):
            assert last - first + 1 <= burst + rate * (got[last] - start) + 1e-3
