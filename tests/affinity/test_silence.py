"""When nothing of a session is on its way."""

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from proxy.affinity.session import Session
from proxy.affinity.silence import ANSWERED, ENDED, TAKEN, is_silent
from proxy.affinity.untaken import Untaken

ASK = b'42["client_message",{"message":{"id":"m"}}]'
SHORT = ENDED / 2


def connected() -> Session:
    """A session whose client has been greeted."""
    session = Directory(10, 3600.0).assign("session-S", Backend("a", "127.0.0.1", 8001), 0.0)
    session.came(0.0)
    session.hear(0.0, begins=False)
    return session


def silent_after(seconds: float, spoke_at: float, session: Session | None, untaken: Untaken) -> bool:
    """Whether it is silent so many seconds after the last word, and was not shortly before."""
    last = max(spoke_at, session.ended_at if session else 0.0) + seconds
    before = is_silent(last - SHORT, spoke_at, session, untaken)
    return is_silent(last, spoke_at, session, untaken) and not before


def test_what_was_said_may_begin_a_turn() -> None:
    """So a second is waited; ten while a message was not taken, in a session or before there is one."""
    untaken, session = Untaken(), connected()
    assert silent_after(ANSWERED, 5.0, session, untaken)
    assert silent_after(ANSWERED, 5.0, None, untaken)
    untaken.said(ASK)
    assert silent_after(TAKEN, 5.0, session, untaken)


def test_the_end_of_a_turn_is_the_last_word() -> None:
    """A moment later its session is at rest: its client has asked for nothing else."""
    untaken, session = Untaken(), connected()
    untaken.said(ASK)
    session.says()
    for told in (session.hear, lambda _now, *, begins: untaken.hear(begins=begins)):
        told(6.0, begins=True)
        told(8.0, begins=False)
    assert silent_after(ENDED, 5.0, session, untaken)
    assert silent_after(ENDED, 8.0, session, untaken)
    assert silent_after(ANSWERED, 8.1, session, untaken), "something was said behind it"


@pytest.mark.parametrize("what", ["a word", "a message", "nested", "the greeting"])
def test_an_end_that_is_not_the_last_word(what: str) -> None:
    """The client may have asked for more, or the turn of another message goes on."""
    untaken, session = Untaken(), connected()
    session.says()
    session.hear(6.0, begins=True)
    if what == "a word":  # such as the answer to a question of the app
        session.says()
    elif what == "a message":  # which is being answered
        untaken.said(ASK)
        untaken.hear(begins=True)
    elif what == "nested":  # such as a change of settings
        session.says()
        session.hear(7.0, begins=True)
    else:
        session.came(7.0)
        session.hear(7.5, begins=False)
        assert silent_after(ANSWERED, 7.0, session, untaken)
        return
    session.hear(8.0, begins=False)
    assert silent_after(ANSWERED, 5.0, session, untaken)


def test_the_next_turn_counts_by_itself() -> None:
    """What a client has added to one turn is forgotten with the next."""
    untaken, session = Untaken(), connected()
    for began, adds, seconds in ((6.0, True, ANSWERED), (16.0, False, ENDED)):
        session.says()
        session.hear(began, begins=True)
        if adds:
            session.says()
        session.hear(began + 1, begins=False)
        assert silent_after(seconds, began, session, untaken)
