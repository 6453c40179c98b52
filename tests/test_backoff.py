"""The pauses between attempts that fail."""

from proxy.backoff import SPREAD, Backoff


def test_pauses_grow_to_a_limit_and_begin_anew() -> None:
    """Each is twice the one before."""
    backoff = Backoff(1, 6)
    assert [backoff.pause() for _ in range(5)] == [1, 2, 4, 6, 6]
    assert repr(backoff) == "<Backoff next 6 s>"
    backoff.reset()
    assert backoff.pause() == 1


def test_pauses_differ_where_several_try() -> None:
    """By a share of each, so that proxies do not come in step; what they grow from is not spread."""
    backoff = Backoff(1, 8, SPREAD)
    for expected in (1, 2, 4, 8, 8):
        assert expected * 0.8 <= backoff.pause() <= expected * 1.2
    assert len({Backoff(1, 8, SPREAD).pause() for _ in range(20)}) > 1
