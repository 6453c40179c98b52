"""Messages of which nobody knows whether their answer has come: the oldest is first, and few are kept."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.untaken import NOTHING, Untaken

MOST, MOST_BYTES = 16, 1 << 18


def answer(untaken: Untaken) -> None:
    """A whole turn is heard."""
    untaken.hear(begins=True)
    untaken.hear(begins=False)


def test_a_turn_answers_the_oldest() -> None:
    """Each turn answers one message, in the order in which they were said; until its end that is kept."""
    untaken = Untaken()
    for packet in (b"42[1]", b"42[2]\n", b"42[3]"):
        untaken.said(packet)
    untaken.hear(begins=True)
    assert (len(untaken), untaken.again()) == (2, [b"42[1,true]", b"42[2]\n", b"42[3]"])
    untaken.hear(begins=True)
    assert (len(untaken), untaken.again()) == (1, [b"42[1,true]", b"42[2,true]", b"42[3]"])
    untaken.hear(begins=False)
    assert (len(untaken), untaken.again()) == (1, [b"42[2,true]", b"42[3]"])


def test_turns_that_nobody_asked_for() -> None:
    """An app may begin a turn of its own, or end one: what is said later is not taken by that."""
    untaken = Untaken()
    untaken.hear(begins=True)
    untaken.said(b"42[1]")
    untaken.hear(begins=False)
    assert untaken.again() == [b"42[1]"]


def test_all_were_taken() -> None:
    """Nothing is left, of its size neither."""
    untaken = Untaken()
    for _ in range(3):
        untaken.said(b"x" * (MOST_BYTES - 1))
        assert len(untaken) == 1
        untaken.went_on([])
        assert not untaken.packets


def test_one_that_is_too_long_is_not_kept() -> None:
    """Nor do those before it stay: they would be said behind it otherwise, or it not at all."""
    untaken = Untaken()
    untaken.said(b"one")
    untaken.said(b"x" * (MOST_BYTES + 1))
    assert not untaken.packets
    untaken.said(b"two")
    assert list(untaken.packets) == [b"two"]
    assert (len(untaken), untaken.missed) == (3, 2)


def test_one_that_could_not_be_read() -> None:
    """As one that is too long to be kept: until a turn answers it nobody can say all of them again."""
    untaken = Untaken()
    untaken.said(b"one")
    untaken.said_too_long()
    untaken.said(b"two")
    assert (list(untaken.packets), untaken.missed, untaken.are_known) == ([b"two"], 2, False)
    untaken.hear(begins=True)
    assert not untaken.are_known
    untaken.hear(begins=True)
    assert (untaken.are_known, untaken.again()) == (True, [])
    untaken.hear(begins=False)
    untaken.hear(begins=False)
    assert (list(untaken.packets), untaken.missed) == ([b"two"], 0)
    untaken.let_go()
    assert (untaken.packets, untaken.missed, untaken.size) == ([], 1, 0)
    untaken.went_on([])
    assert untaken.missed == 0


def test_what_is_being_answered_is_kept() -> None:
    """Where the instance that goes on is lost, too, its answer may be: it was taken, and is said so."""
    untaken = Untaken()
    untaken.said_too_long()
    for packet in (b"42[1]", b"42[2,true]"):
        untaken.said(packet)
    untaken.went_on([b"42[2,true]"])
    assert (len(untaken), untaken.missed, untaken.size) == (0, 0, 10)
    assert untaken.again() == [b"42[2,true,true]"]
    untaken.said(b"42[3]")
    untaken.hear(begins=False)
    assert untaken.again() == [b"42[3]"]
    untaken.let_go()
    assert untaken.size == 0


def test_what_nobody_can_read_is_not_said_again() -> None:
    """An instance never answers what is no JSON: all others at its gate would wait for that."""
    untaken = Untaken()
    good = [b'42["client_message",{"message":{}}]', b'427["edit_message"]']
    for odd in (
        b'42["client_message"',
        b'42["client_message",\xff]',
        b'42["client_message",' + b"[" * 100_000,
    ):
        untaken.said(b'42["client_message"' + odd)
        untaken.said(good[0])
    untaken.said(good[1])
    assert untaken.again() == [good[0]] * 3 + [good[1]]


@given(st.lists(st.one_of(st.integers(0, MOST_BYTES // 3), st.none())))
def test_the_newest_are_kept(story: list[int | None]) -> None:
    """Whatever is said and taken: the newest, to both bounds, in order."""
    untaken, kept, missed = Untaken(), list[bytes](), 0
    for at, size in enumerate(story):
        if size is None:
            untaken.hear(begins=True)
            untaken.hear(begins=False)
            kept, missed = (kept, missed - 1) if missed else (kept[1:], 0)
            continue
        packet = b"%d " % at + b"x" * size
        untaken.said(packet)
        kept.append(packet)
        while len(kept) > MOST or sum(map(len, kept)) > MOST_BYTES:
            kept, missed = kept[1:], missed + 1
        assert (list(untaken.packets), untaken.missed) == (kept, missed)


def test_of_connections_that_are_not_handed_over_nothing_is_kept() -> None:
    """They share one of these, which stays empty."""
    NOTHING.said(b"one")
    NOTHING.said_too_long()
    NOTHING.hear(begins=True)
    assert len(NOTHING) == 0


def test_what_was_said_is_shown_to_nobody() -> None:
    """Logs and the admin API show how many there are."""
    untaken = Untaken()
    untaken.said(b"secret")
    assert repr(untaken) == "<Untaken 1 messages, 0 missed, 0 begun>"


def test_what_another_proxy_says_again() -> None:
    """It takes its place, so that a turn takes the right one, but is not said by this proxy."""
    untaken = Untaken()
    untaken.said(b"42[1]")
    untaken.said_elsewhere()
    untaken.said(b"42[3]")
    assert untaken.again_later(0.0) == [b"42[1]", b"42[3]"]
    answer(untaken)
    answer(untaken)
    assert untaken.again_later(1.0) == [b"42[3]"]


def test_what_was_said_again_a_while_ago() -> None:
    """It was taken, or known: it is not said once more at every hand-over to come."""
    untaken = Untaken()
    untaken.said(b"42[1]")
    assert untaken.again_later(100.0) == untaken.again_later(110.0) == [b"42[1]"]
    untaken.said(b"42[2]")
    answer(untaken)
    assert untaken.again_later(160.0) == [b"42[2]"]
    untaken.said(b"42[3]")
    assert untaken.again_later(200.0) == [b"42[3]"]


def test_what_is_said_again_is_answered_anew() -> None:
    """The turn that was cut off has no end: the first one that is heard is that of a greeting."""
    untaken = Untaken()
    untaken.said(b"42[1]")
    untaken.hear(begins=True)
    assert untaken.again_later(0.0) == [b"42[1]"]
    untaken.hear(begins=False)
    assert untaken.again_later(0.0) == [b"42[1]"]
    answer(untaken)
    assert not untaken.again_later(0.0)
