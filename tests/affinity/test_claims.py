"""A CONNECT counts when its backend has taken it, not by its client's word."""

import pytest

from proxy.affinity.answers import answered, names
from proxy.affinity.claims import Claim
from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from tests.affinity.making import HOLDS_NOT, backend_of, router_of, told


def claim_of(router: Router, session_id: str, at: str, now: float = 1.0) -> Claim:
    """The claim of a CONNECT that came to a backend."""
    answer = router.connect(session_id, backend_of(router.fleet, at), now)
    assert isinstance(answer, Decision)
    assert answer.claim is not None
    return answer.claim


def known(router: Router, session_id: str, at: str) -> Session:
    """A session that was open at a backend."""
    session = router.directory.assign(session_id, backend_of(router.fleet, at), 0.0)
    router.directory.opened(session)
    router.directory.closed(session, 0.0)
    return session


def test_what_is_said_changes_nothing() -> None:
    """500 made-up CONNECT packets: no entry, no open or placed session, and who lived there lives on."""
    router = router_of("a", "b", size=20)
    lives = [known(router, f"real-{number}", "a") for number in range(20)]
    for number in range(500):
        router.refused(claim_of(router, f"made-up-{number}", "a"))
    assert [backend.sessions for backend in router.fleet] == [0, 0]
    assert [router.directory.get(session.id, 1.0) for session in lives] == lives
    assert (len(router.directory), len(router.claims), router.directory.evicted) == (20, 0, 0)


def test_what_is_on_its_way_counts_for_nothing() -> None:
    """Neither load nor room, however many there are at once."""
    router = router_of("a", "b", size=20)
    claims = [claim_of(router, f"made-up-{number}", "a") for number in range(500)]
    assert [backend.sessions for backend in router.fleet] == [0, 0]
    assert (len(router.directory), len(router.claims)) == (0, 500)
    for claim in claims:
        router.refused(claim)
        router.refused(claim)
    assert len(router.claims) == 0


@pytest.mark.parametrize("at", ["a", "b", "c"])
def test_everybody_goes_where_it_is_about_to_be(at: str) -> None:
    """Requests that name the session, and another CONNECT elsewhere, until it is taken or refused."""
    router = router_of("a", "b", "c")
    claim = claim_of(router, "s", at)
    for other in "abc":
        again = router.connect("s", backend_of(router.fleet, other), 1.0)
        assert told(again)[::2] == (at, Outcome.PINNED if other == at else Outcome.REHOMED)
    assert told(router.by_session("s", Evidence.SESSION, 1.0)) == (at, Evidence.SESSION, Outcome.PINNED)
    assert router.directory.get("s", 1.0) is None
    session = router.taken(claim, 2.0)
    assert session.backend is backend_of(router.fleet, at)
    assert told(router.by_session("s", Evidence.SESSION, 2.0))[0] == at


@pytest.mark.parametrize("state", HOLDS_NOT)
def test_a_claim_at_a_backend_that_is_gone_is_none(state: str) -> None:
    """Its CONNECT will not be answered."""
    router = router_of("a", "b")
    claim_of(router, "s", "a")
    HOLDS_NOT[state](router, "a")
    assert told(router.connect("s", backend_of(router.fleet, "b"), 1.0))[0] == "b"


def test_a_move_counts_when_it_has_succeeded() -> None:
    """A session whose backend is down moves when another has taken it, and once."""
    router = router_of("a", "b", "c")
    session = known(router, "s", "a")
    HOLDS_NOT["down"](router, "a")
    router.refused(claim_of(router, "s", "b"))
    assert (session.moves, dict(router.directory.moves)) == ((), {})
    assert router.taken(claim_of(router, "s", "b"), 2.0) is session
    assert dict(router.directory.moves) == {"a": 1}
    assert session.left == ("a",)


def test_a_session_that_stays_is_renewed_when_it_is_taken() -> None:
    """Who names a session that is known does not keep it in the directory by that."""
    router = router_of("a", "b")
    session = known(router, "s", "a")
    expires = session.expires
    router.refused(claim_of(router, "s", "a", now=100.0))
    assert session.expires == expires
    router.taken(claim_of(router, "s", "a", now=100.0), 100.0)
    assert session.expires > expires


def test_a_poll_opens_its_session_when_it_is_answered() -> None:
    """Once; a refused one leaves the transport undecided, and the next one that it names counts."""
    router = router_of("a", "b")
    engine = router.engines.opened(b"s", backend_of(router.fleet, "a"), 0.0)
    names(router, engine, claim_of(router, "refused-session", "a"))
    assert answered(router, engine, 1.0, taken=False) is None
    assert (engine.decided, engine.session, len(router.claims)) == (False, None, 0)
    names(router, engine, claim_of(router, "session", "a"))
    assert answered(router, engine, 1.0, taken=True) is engine.session
    assert answered(router, engine, 1.0, taken=True) is None
    assert engine.session is not None
    assert (engine.session.open, backend_of(router.fleet, "a").sessions) == (1, 1)
    assert router.engines.settled == {engine.pinned: engine}


@pytest.mark.parametrize("how", ["decided", "closed"])
def test_who_is_answered_no_more_holds_no_claim(how: str) -> None:
    """Where its session lives may have been asked while another CONNECT was taken, or it ended."""
    router = router_of("a")
    engine = router.engines.opened(b"s", backend_of(router.fleet, "a"), 0.0)
    if how == "decided":
        router.engines.decide(engine, None)
    else:
        router.engines.closed(engine, 1.0)
    names(router, engine, claim_of(router, "session", "a"))
    assert (len(router.claims), engine.claim, engine.session) == (0, None, None)


def test_of_several_sessions_none_is_taken() -> None:
    """An answer does not tell which of them it is about."""
    router = router_of("a")
    engine = router.engines.opened(b"s", backend_of(router.fleet, "a"), 0.0)
    for session in ("one", "two"):
        names(router, engine, claim_of(router, session, "a"))
    for taken in (False, True):
        assert answered(router, engine, 1.0, taken=taken) is None
        assert (engine.decided, len(router.claims), len(router.directory)) == (False, 0, 0)
    names(router, engine, claim_of(router, "three", "a"))
    assert answered(router, engine, 1.0, taken=True) is None
    assert (engine.decided, engine.session, len(router.claims), len(router.directory)) == (True, None, 0, 0)


def test_a_transport_that_ends_leaves_no_claim() -> None:
    """Nobody answers it any more."""
    router = router_of("a")
    engine = router.engines.opened(b"s", backend_of(router.fleet, "a"), 0.0)
    names(router, engine, claim_of(router, "session", "a"))
    router.engines.closed(engine, 1.0)
    assert (len(router.claims), engine.claim) == (0, None)


def test_what_is_shown() -> None:
    """Logs and tests read where a CONNECT goes, without the session's id."""
    router = router_of("a")
    claim = claim_of(router, "secret", "a")
    assert (repr(claim), repr(router.claims)) == ("<Claim at a>", "<Claims 1>")
