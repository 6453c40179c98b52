"""A CONNECT on a transport names its session: where the two meet (DESIGN section 2, re-home)."""

from collections import Counter

import pytest

from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.errors import NoBackend
from tests.affinity.making import HOLDS, HOLDS_NOT, backend_of, kill, router_of, told


@pytest.mark.parametrize("state", HOLDS)
def test_a_session_that_lives_elsewhere_is_rehomed(state: str) -> None:
    """The guess was wrong: the transport goes to the session, never the session to the transport."""
    router = router_of("a", "b")
    session = router.directory.assign("s", backend_of(router.fleet, "a"), 0.0)
    HOLDS[state](router, "a")
    answer = router.connect("s", backend_of(router.fleet, "b"), 1.0)
    assert told(answer) == ("a", Evidence.SESSION, Outcome.REHOMED)
    here = router.connect("s", backend_of(router.fleet, "a"), 1.0)
    assert told(here) == ("a", Evidence.SESSION, Outcome.PINNED)
    assert isinstance(answer, Decision)
    assert answer.session is session
    assert session.left == ()


def test_a_new_session_stays_where_its_transport_is() -> None:
    """Any backend is as good, so nothing is moved."""
    for name in "abc":
        router = router_of("a", "b", "c")
        answer = router.connect("s", backend_of(router.fleet, name), 1.0)
        assert told(answer) == (name, Evidence.SESSION, Outcome.PLACED)
        assert told(router.by_session("s", Evidence.SESSION, 2.0))[0] == name


@pytest.mark.parametrize("state", ["degraded", "drained", *HOLDS_NOT])
def test_a_new_session_does_not_stay_at_a_backend_that_takes_none(state: str) -> None:
    """The guess led to a backend that is to be left alone."""
    router = router_of("a", "b")
    at = backend_of(router.fleet, "a")
    (HOLDS | HOLDS_NOT)[state](router, "a")
    assert told(router.connect("s", at, 1.0)) == ("b", Evidence.SESSION, Outcome.REHOMED)
    kill(router.fleet, "b")
    with pytest.raises(NoBackend):
        router.connect("t", at, 1.0)


def test_a_new_session_does_not_stay_at_an_outdated_backend() -> None:
    """It would move again soon; but it stays while there is nothing newer, and a session that lives there."""
    router = router_of("a", "b")
    at, new = backend_of(router.fleet, "a"), backend_of(router.fleet, "b")
    at.outdated = new.outdated = True
    assert told(router.connect("s", at, 1.0)) == ("a", Evidence.SESSION, Outcome.PLACED)
    new.outdated = False
    assert told(router.connect("t", at, 2.0)) == ("b", Evidence.SESSION, Outcome.REHOMED)
    assert told(router.connect("s", at, 3.0)) == ("a", Evidence.SESSION, Outcome.PINNED)


@pytest.mark.parametrize("state", HOLDS_NOT)
def test_a_session_of_a_backend_that_is_not_there_stays_here(state: str) -> None:
    """It has to move in any case, so it moves to where its client is."""
    router = router_of("a", "b", "c")
    router.directory.assign("s", backend_of(router.fleet, "a"), 0.0)
    HOLDS_NOT[state](router, "a")
    answer = router.connect("s", backend_of(router.fleet, "c"), 1.0)
    assert told(answer) == ("c", Evidence.SESSION, Outcome.MOVED)
    assert told(router.by_session("s", Evidence.SESSION, 2.0))[0] == "c"


def test_a_session_is_not_taken_back_by_a_backend_that_it_left() -> None:
    """Chainlit would revive the stale copy there (CHAINLIT.md B 19); alone it is better than nothing."""
    router = router_of("a", "b", "c")
    a, b = backend_of(router.fleet, "a"), backend_of(router.fleet, "b")
    router.directory.assign("s", a, 0.0)
    router.directory.assign("s", b, 0.0)
    kill(router.fleet, "b")
    assert told(router.connect("s", a, 1.0)) == ("c", Evidence.SESSION, Outcome.REHOMED)
    kill(router.fleet, "c")
    assert told(router.connect("s", a, 2.0)) == ("a", Evidence.SESSION, Outcome.MOVED)


def test_a_session_that_is_handed_over_may_come_back() -> None:
    """It takes its state along, so one backend after the other may die and return: all share the load."""
    router = router_of("a", "b", "c")
    a, b, c = (backend_of(router.fleet, name) for name in "abc")
    for number in range(30):
        for home in (c, b, a):
            router.directory.assign(f"s{number}", home, 0.0)
    kill(router.fleet, "a")
    found = Counter[str]()
    for number in range(30):
        decision = router.elsewhere(f"s{number}", a, 1.0, ())
        assert decision is not None
        assert decision.claim is not None
        router.directory.opened(router.taken(decision.claim, 1.0))
        found[decision.backend.name] += 1
    assert found.keys() == {"b", "c"}
    assert min(found.values()) >= 10


def test_sessions_that_are_lost_together_are_shared_out() -> None:
    """Whoever has fewer sessions gets more of them, up to its share, and not all: none has arrived yet."""
    router = router_of("a", "b", "c")
    a, b, c = (backend_of(router.fleet, name) for name in "abc")
    for home, many in ((a, 40), (b, 26), (c, 14)):
        for number in range(many):
            router.directory.opened(router.directory.assign(f"{home.name}{number}", home, 0.0))
    kill(router.fleet, "a")
    placed = [router.elsewhere(f"a{number}", a, 1.0, ()) for number in range(40)]
    went = Counter(decision.backend for decision in placed if decision is not None)
    assert max(26 + went[b], 14 + went[c]) <= 1.25 * 80 / 2 + 1
    assert min(went[b], went[c]) >= 10


def test_a_session_that_is_handed_over_goes_where_it_belongs() -> None:
    """Not where its first request was sent a moment ago: a rebalance moves it because of that."""
    router = router_of("a", "b", "c")
    a, b, c = (backend_of(router.fleet, name) for name in "abc")
    session = next(
        f"s{number}"
        for number in range(100)
        if next(router.placement.preference(b"s%d" % number, (a, b, c), 1.0)) is b
    )
    assert router.placement.place(session.encode(), (a, c), 1.0, avoid=("c",)) is a
    router.directory.assign(session, c, 1.0)
    router.directory.send_away(router.directory.assign(session, c, 1.0))
    decision = router.elsewhere(session, c, 1.1, ())
    assert decision is not None
    assert decision.backend is b
