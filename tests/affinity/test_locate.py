"""Locate: when the backends are asked for a session, and what their answer is worth (DESIGN section 2)."""

import pytest

from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.router import Asked, Located, Router
from proxy.affinity.router import Locate as Question
from proxy.affinity.session import MoveReason
from proxy.affinity.telling import Entry, learn
from proxy.config.values import Locate
from proxy.errors import NoBackend
from tests.affinity.making import backend_of, drain, hints, kill, maintain, router_of, silence, told


def ask_by_session(router: Router, located: Located) -> object:
    """A request that names its session."""
    return router.by_session("s", Evidence.SESSION, 1.0, located)


def ask_by_cookie(router: Router, located: Located) -> object:
    """A handshake with Chainlit's cookie."""
    return router.handshake(hints(cookie="s"), 1.0, located)


def ask_by_connect(router: Router, located: Located) -> object:
    """A CONNECT at backend `a`, which is taken where it goes."""
    answer = router.connect("s", backend_of(router.fleet, "a"), 1.0, located)
    if isinstance(answer, Decision) and answer.claim is not None:
        router.taken(answer.claim, 1.0)
    return answer


ASKING = [ask_by_session, ask_by_cookie, ask_by_connect]

# mode, backends, announced, this proxy has seen every session, one was forgotten, whether backends are asked;
# None: unless the request opens a connection, since any other comes behind one, which another proxy has seen
QUESTIONS = [
    (Locate.AUTO, "abc", False, False, False, True),
    (Locate.AUTO, "abc", True, False, False, None),
    (Locate.AUTO, "abc", False, True, False, False),
    (Locate.AUTO, "abc", False, True, True, True),
    (Locate.AUTO, "abc", True, True, True, None),
    (Locate.AUTO, "a", False, False, False, False),
    (Locate.ALWAYS, "abc", True, True, False, True),
    (Locate.ALWAYS, "a", False, False, False, True),
    (Locate.NEVER, "abc", False, False, True, False),
]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(("mode", "names", "announced", "sole", "evicted", "asked"), QUESTIONS)
def test_when_backends_are_asked(
    ask: object, mode: Locate, names: str, announced: bool, sole: bool, evicted: bool, asked: bool | None
) -> None:
    """Only for a session that may be in one of them and that this proxy does not know."""
    router = router_of(*names, locate=mode)
    router.sole = sole
    router.directory.evicted = int(evicted)
    if announced:
        router.directory.announce("s", 0.0)
    assert callable(ask)
    answer = ask(router, Asked.NOT_YET)
    assert isinstance(answer, Question) == (ask is ask_by_session if asked is None else asked)
    if isinstance(answer, Question):
        assert (answer.session_id, answer.backends) == ("s", tuple(router.fleet))


@pytest.mark.parametrize("ask", ASKING)
def test_a_known_session_is_not_asked_for(ask: object) -> None:
    """Its entry tells, even when its backend is not there any more: then it moves."""
    router = router_of("a", "b", "c", locate=Locate.ALWAYS)
    router.directory.assign("s", backend_of(router.fleet, "b"), 0.0)
    assert callable(ask)
    assert told(ask(router, Asked.NOT_YET))[0] == "b"
    kill(router.fleet, "b")
    assert told(ask(router, Asked.NOT_YET))[2] in (Outcome.MOVED, Outcome.REHOMED)


@pytest.mark.parametrize("ask", ASKING)
def test_who_holds_it_is_remembered(ask: object) -> None:
    """One question, then the directory knows."""
    router = router_of("a", "b", locate=Locate.AUTO)
    assert callable(ask)
    for located, outcome in (("a", Outcome.LOCATED), ("b", Outcome.LOCATED)):
        router = router_of("a", "b", locate=Locate.AUTO)
        answer = told(ask(router, backend_of(router.fleet, located)))
        expected = Outcome.REHOMED if ask is ask_by_connect and located == "b" else outcome
        assert (answer[0], answer[2]) == (located, expected)
        assert told(ask(router, Asked.NOT_YET))[0] == located


@pytest.mark.parametrize("ask", ASKING)
def test_a_session_that_nobody_holds_is_new(ask: object) -> None:
    """It is placed, and not asked for again."""
    router = router_of("a", "b", locate=Locate.AUTO)
    assert callable(ask)
    name, _, outcome = told(ask(router, None))
    assert outcome is Outcome.PLACED
    assert told(ask(router, Asked.NOT_YET))[0] == name


@pytest.mark.parametrize("ask", ASKING)
def test_an_answer_from_a_backend_that_is_gone_meanwhile_is_none(ask: object) -> None:
    """What it held is lost with it."""
    router = router_of("a", "b", locate=Locate.AUTO)
    found = backend_of(router.fleet, "b")
    kill(router.fleet, "b")
    assert callable(ask)
    name, _, outcome = told(ask(router, found))
    assert (name, outcome) == ("a", Outcome.PLACED)


@pytest.mark.parametrize("ask", ASKING)
def test_an_answer_that_comes_late_changes_nothing(ask: object) -> None:
    """Another request has settled the session meanwhile: all of its requests go together."""
    router = router_of("a", "b", locate=Locate.AUTO)
    router.directory.assign("s", backend_of(router.fleet, "a"), 0.0)
    assert callable(ask)
    assert told(ask(router, backend_of(router.fleet, "b")))[0] == "a"


def test_a_request_that_asks_in_vain_takes_no_session_for_new() -> None:
    """Where it cannot be found out who holds a session, the pin leads, and CONNECT asks again."""
    router = router_of("a", "b", locate=Locate.AUTO)
    for name in "ab":
        pin = hints(cookie="s", pin=backend_of(router.fleet, name).token)
        answer = router.by_session("s", Evidence.SESSION, 1.0, Asked.IN_VAIN, hints=pin)
        assert told(answer) == (name, Evidence.PIN_COOKIE, Outcome.PINNED)
        answer = router.handshake(pin, 1.0, Asked.IN_VAIN)
        assert told(answer) == (name, Evidence.PIN_COOKIE, Outcome.PINNED)
        answer = router.handshake(hints(session="s", pin=pin.pin), 1.0, Asked.IN_VAIN)
        assert told(answer) == (name, Evidence.PIN_COOKIE, Outcome.PINNED)
    assert len(router.directory) == 0
    assert isinstance(ask_by_connect(router, Asked.NOT_YET), Question)
    assert told(ask_by_connect(router, Asked.IN_VAIN)) == ("a", Evidence.SESSION, Outcome.PLACED)
    answer = router.by_session("s", Evidence.SESSION, 1.0, Asked.IN_VAIN, hints=hints(pin=b"x"))
    assert told(answer)[0] == "a"  # it has been told meanwhile


def test_a_session_that_requests_claim_is_asked_for_again_when_it_connects() -> None:
    """It is no load, it was told apart by nobody, and a backend may hold it after all."""
    for found, home in ((None, "ab"), ("a", "a"), ("b", "b")):
        router = router_of("a", "b", locate=Locate.AUTO)
        only_named = told(router.by_session("s", Evidence.SESSION, 1.0, None))[0]
        assert [backend.sessions for backend in router.fleet] == [0, 0]
        assert told(ask_by_session(router, Asked.NOT_YET))[0] == only_named
        assert isinstance(ask_by_connect(router, Asked.NOT_YET), Question)
        located = backend_of(router.fleet, found) if found else None
        assert told(ask_by_connect(router, located))[0] in (home if found else only_named)
        assert told(ask_by_connect(router, Asked.NOT_YET))[0] in (home if found else only_named)
        assert sum(backend.sessions for backend in router.fleet) == 1


def test_a_cookie_is_no_load_for_long() -> None:
    """A handshake reserves a place for some seconds; an id that is made up in its cookie counts no longer."""
    router = router_of("a", "b", locate=Locate.AUTO)
    for at in range(10):
        told(router.handshake(hints(cookie=f"s{at}"), 1.0, None))
    assert [backend.sessions for backend in router.fleet] == [0, 0]
    assert sum(router.placement._pending.values()) == 10
    home = told(router.handshake(hints(cookie="s1"), 1.0))[0]
    answer = router.connect("s1", backend_of(router.fleet, home), 2.0)
    assert told(answer)[0] == home  # nobody is asked again
    assert isinstance(answer, Decision)
    assert answer.claim is not None
    router.taken(answer.claim, 2.0)
    assert sum(backend.sessions for backend in router.fleet) == 1


def test_only_those_that_may_hold_it_are_asked() -> None:
    """A degraded or drained backend may, one that is down or in maintenance may not."""
    router = router_of("a", "b", "c", "d", locate=Locate.AUTO)
    silence(router.fleet, "a")
    drain(router, "b")
    kill(router.fleet, "c")
    maintain(router, "d")
    answer = router.by_session("s", Evidence.SESSION, 1.0)
    assert isinstance(answer, Question)
    assert [backend.name for backend in answer.backends] == ["a", "b"]


def test_nobody_is_asked_where_there_is_nobody() -> None:
    """There is no backend, and no question either."""
    router = router_of("a", locate=Locate.ALWAYS)
    kill(router.fleet, "a")
    with pytest.raises(NoBackend):
        router.by_session("s", Evidence.SESSION, 1.0)


# mode, announced when, what is asked of a session without a home: the backends, and whether only if need be
SHARED = [
    (Locate.AUTO, None, "abc", False),
    (Locate.AUTO, 0.0, "abc", True),
    (Locate.AUTO, -20.0, "abc", False),
    (Locate.ALWAYS, 0.0, "abc", False),
    (Locate.NEVER, None, "", False),
]


@pytest.mark.parametrize("ask", [ask_by_cookie, ask_by_connect])
@pytest.mark.parametrize(("mode", "announced", "asked", "is_new"), SHARED)
def test_other_proxies_are_asked_first(
    ask: object, mode: Locate, announced: float | None, asked: str, is_new: bool
) -> None:
    """Where proxies share a directory, it is asked for whatever has no home here, before the backends.

    An announcement tells that a session is new, but not for long: it may have connected elsewhere since.
    """
    router = router_of("a", "b", "c", locate=mode)
    router.shared = True
    if announced is not None:
        router.directory.announce("s", announced)
    assert callable(ask)
    answer = ask(router, Asked.NOT_YET)
    assert isinstance(answer, Question)
    assert ("".join(backend.name for backend in answer.backends), answer.is_new) == (asked, is_new)
    assert told(ask(router, None))[2] is Outcome.PLACED


@pytest.mark.parametrize("ask", ASKING)
def test_other_proxies_are_asked_before_a_move(ask: object) -> None:
    """Another one may have moved the session already; who stays where it is is not asked for."""
    router = router_of("a", "b", "c", locate=Locate.NEVER)
    router.shared = True
    router.directory.assign("s", backend_of(router.fleet, "b"), 0.0)
    assert callable(ask)
    assert told(ask(router, Asked.NOT_YET))[0] == "b"
    kill(router.fleet, "b")
    answer = ask(router, Asked.NOT_YET)
    assert isinstance(answer, Question)
    assert answer.backends == ()
    learn(router.directory, router.fleet, "s", Entry(1, "c", ("b",)), 1.0)
    assert told(ask(router, None))[0] == "c"


def test_a_connect_that_cannot_be_followed_is_taken_where_it_is() -> None:
    """The session moves to the backend at which it connects, unless that takes none."""
    router = router_of("a", "b")
    session = router.directory.assign("s", backend_of(router.fleet, "b"), 0.0)
    router.directory.opened(session)
    drain(router, "a")
    assert router.accept("s", backend_of(router.fleet, "a")) is None
    router = router_of("a", "b")
    session = router.directory.assign("s", backend_of(router.fleet, "b"), 0.0)
    router.directory.opened(session)
    answer = router.accept("s", backend_of(router.fleet, "a"))
    assert told(answer)[::2] == ("a", Outcome.MOVED)
    assert not router.directory.moves
    assert answer is not None
    assert answer.claim is not None
    assert router.taken(answer.claim, 1.0) is session
    assert [move.reason for move in session.moves] == [MoveReason.ALONE]
