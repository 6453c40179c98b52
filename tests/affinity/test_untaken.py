"""Messages of which nobody knows whether they were taken: the oldest is taken first, and few are kept."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.untaken import NOTHING, Untaken

MOST, MOST_BYTES = 16, 1 << 18


def answer(untaken: Untaken) -> None:
    """A whole turn is heard."""
    untaken.hear(begins=True)
    untaken.hear(begins=False)


def test_a_turn_takes_the_oldest() -> None:
    """Each turn answers one message, in the order in which they were said; at its end that is done."""
    untaken = Untaken()
    for packet in (b"one", b"two", b"three"):
        untaken.said(packet)
    untaken.hear(begins=True)
    assert list(untaken.packets) == [b"one", b"two", b"three"]
    untaken.hear(begins=False)
    assert list(untaken.packets) == [b"two", b"three"]
    untaken.hear(begins=False)  # a greeting: no turn has begun
    assert len(untaken) == 2


def test_turns_that_nobody_asked_for() -> None:
    """An app may begin a turn of its own: what is said later is not taken by that."""
    untaken = Untaken()
    untaken.hear(begins=True)
    untaken.said(b"one")
    untaken.hear(begins=False)
    assert list(untaken.packets) == [b"one"]


def test_all_were_taken() -> None:
    """Nothing is left, of its size neither."""
    untaken = Untaken()
    for _ in range(3):
        untaken.said(b"x" * (MOST_BYTES - 1))
        assert len(untaken) == 1
        untaken.clear()
        assert not untaken.packets


def test_one_that_is_too_long_is_not_kept() -> None:
    """Nor do those before it stay: they would be said behind it otherwise, or it not at all."""
    untaken = Untaken()
    untaken.said(b"one")
    untaken.said(b"x" * (MOST_BYTES + 1))
    assert not untaken.packets
    untaken.said(b"two")
    assert list(untaken.packets) == [b"two"]


@given(st.lists(st.one_of(st.integers(0, MOST_BYTES // 3), st.none())))
def test_the_newest_are_kept(story: list[int | None]) -> None:
    """Whatever is said and taken: the newest, to both bounds, in order."""
    untaken, kept = Untaken(), list[bytes]()
    for at, size in enumerate(story):
        if size is None:
            answer(untaken)
            kept = kept[1:]
            continue
        packet = b"%d " % at + b"x" * size
        untaken.said(packet)
        kept.append(packet)
        while len(kept) > MOST or sum(map(len, kept)) > MOST_BYTES:
            kept = kept[1:]
        assert list(untaken.packets) == kept


def test_of_connections_that_are_not_handed_over_nothing_is_kept() -> None:
    """They share one of these, which stays empty."""
    NOTHING.said(b"one")
    answer(NOTHING)
    assert len(NOTHING) == 0


def test_what_was_said_is_shown_to_nobody() -> None:
    """Logs and the admin API show how many there are."""
    untaken = Untaken()
    untaken.said(b"secret")
    assert repr(untaken) == "<Untaken 1 messages>"
