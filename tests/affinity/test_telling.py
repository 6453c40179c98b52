"""What proxies tell each other of sessions: the newest word wins, in whatever order the words come."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.telling import Entry, entry_of, learn
from tests.affinity.making import backend_of, router_of

NAMES = st.text("abcXYZ0189._:-", min_size=1, max_size=63)
UNIX = 1_700_000_000.0


@given(st.builds(Entry, st.integers(0, 2**53), NAMES, st.lists(NAMES).map(tuple), st.booleans()))
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    """Whatever the names of the backends are."""
    assert Entry.parse(str(entry)) == entry


@pytest.mark.parametrize(
    "text", ["", "1 a ,", "1 a , here", "-1 a , stays", "x a , stays", "1 a , stays more", "1  a , stays"]
)
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    """Another version of the proxy may write otherwise."""
    assert Entry.parse(text) is None


def test_every_order_leads_to_the_same_end() -> None:
    """Entries that overtake each other on their ways leave every proxy with the newest one."""
    told = [Entry(1, "a"), Entry(2, "b", ("a",)), Entry(3, "c", ("a", "b"), sent_away=True)]
    for order in permutations(told):
        router = router_of("a", "b", "c")
        for entry in order:
            learn(router.directory, router.fleet, "S", entry, 0.0)
        session = router.directory.get("S", 0.0)
        assert session is not None
        assert entry_of(session, UNIX) == told[-1]


def test_a_change_is_newer_than_all_that_was_known() -> None:
    """Also where the clock of whoever told it is ahead of ours; what did not change keeps its version."""
    router = router_of("a", "b")
    ahead = Entry(int(UNIX * 1000) + 60_000, "a")
    session = learn(router.directory, router.fleet, "S", ahead, 0.0)
    assert session is not None
    assert entry_of(session, UNIX) == ahead
    router.directory.assign("S", backend_of(router.fleet, "b"), 0.0)
    moved = entry_of(session, UNIX)
    assert moved == Entry(ahead.version + 1, "b", ("a",))
    assert entry_of(session, UNIX + 100) == moved
    router.directory.send_away(session)
    assert entry_of(session, UNIX + 200) == Entry(int(UNIX + 200) * 1000, "b", ("a",), sent_away=True)


def test_a_session_without_a_home_is_not_told_of() -> None:
    """An announcement says nothing of where it will be."""
    router = router_of("a")
    router.directory.announce("S", 0.0)
    session = router.directory.get("S", 0.0)
    assert session is not None
    assert entry_of(session, UNIX) is None


def test_a_backend_that_is_not_known_here_is_not_learned() -> None:
    """The proxies of one site are configured one after the other: the session is asked for instead."""
    router = router_of("a")
    assert learn(router.directory, router.fleet, "S", Entry(1, "new"), 0.0) is None
    assert router.directory.get("S", 0.0) is None


def test_what_another_proxy_sends_away_has_to_leave_here_too() -> None:
    """Whether it is open here or not, it moves when it is next heard of, and does not count where it was."""
    router = router_of("a")
    session = router.directory.assign("S", backend_of(router.fleet, "a"), 0.0)
    router.directory.opened(session)
    learn(router.directory, router.fleet, "S", Entry(2**50, "a", sent_away=True), 0.0)
    assert session.sent_away
    assert backend_of(router.fleet, "a").sessions == 0
    learn(router.directory, router.fleet, "S", Entry(2**50 + 1, "a"), 0.0)
    assert backend_of(router.fleet, "a").sessions == 1


@pytest.mark.parametrize("before", ["nothing", "announced", "placed", "open", "closed"])
def test_what_is_learned_is_kept_as_long_as_what_was_seen(before: str) -> None:
    """It is no guess any more, lives for affinity.session_timeout, and counts only where it is open."""
    router = router_of("a", "b")
    directory, a, b = router.directory, backend_of(router.fleet, "a"), backend_of(router.fleet, "b")
    if before == "announced":
        directory.announce("S", 0.0)
    elif before != "nothing":
        session = directory.assign("S", a, 0.0)
        if before != "placed":
            directory.opened(session)
        if before == "closed":
            directory.closed(session, 0.0)
    learn(directory, router.fleet, "S", Entry(2**50, "b", ("a",)), 1.0)
    (session,) = directory.sessions()
    assert (session.backend, session.left, session.connected) == (b, ("a",), True)
    assert (a.sessions, b.sessions) == (0, int(before == "open"))
    assert directory.placed_on(b) == []
    if before != "open":
        directory.sweep(directory.session_timeout + 0.9)
        assert len(directory) == 1
        directory.sweep(directory.session_timeout + 1.0)
        assert len(directory) == 0
