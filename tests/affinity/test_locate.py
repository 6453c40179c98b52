"""Locate: when the backends are asked for a session, and what their answer is worth (DESIGN section 2)."""

import pytest

from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Observation
from proxy.affinity.past import Past
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

# mode, backends, announced, this proxy has seen every session, this one was forgotten; who is asked by a
# request that names it, by a handshake, whose cookie is a guess until the CONNECT comes, and by a CONNECT at
# `a`, which goes on there whether the session is there or is new
QUESTIONS = [
    (Locate.AUTO, "abc", False, False, False, ("abc", "", "bc")),
    # a connection is announced; any other request comes behind one, which another proxy has seen
    (Locate.AUTO, "abc", True, False, False, ("abc", "", "")),
    (Locate.AUTO, "abc", False, True, False, ("", "", "")),
    (Locate.AUTO, "abc", False, True, True, ("abc", "", "bc")),
    (Locate.AUTO, "abc", True, True, True, ("abc", "", "")),
    (Locate.AUTO, "a", False, False, False, ("", "", "")),
    (Locate.ALWAYS, "abc", True, True, False, ("abc", "abc", "bc")),
    (Locate.ALWAYS, "a", False, False, False, ("a", "a", "")),
    (Locate.NEVER, "abc", False, False, True, ("", "", "")),
]


@pytest.mark.parametrize("ask", range(3), ids=["session", "cookie", "connect"])
@pytest.mark.parametrize(("mode", "names", "announced", "sole", "forgotten", "asked"), QUESTIONS)
def test_when_backends_are_asked(
    ask: int, mode: Locate, names: str, announced: bool, sole: bool, forgotten: bool, asked: tuple[str, ...]
) -> None:
    """Only for a session that may be in one of them and that this proxy does not know."""
    router = router_of(*names, locate=mode)
    router.sole = sole
    if forgotten:
        router.directory.past.forgot("s", 0.0)
    if announced:
        router.directory.announce("s", 0.0)
    answer = ASKING[ask](router, Asked.NOT_YET)
    assert isinstance(answer, Question) == bool(asked[ask])
    if isinstance(answer, Question):
        backends = "".join(backend.name for backend in answer.backends)
        assert (answer.session_id, backends) == ("s", asked[ask])


def test_a_guess_of_a_handshake_asks_nobody_and_settles_nothing() -> None:
    """The pin leads, and then the CONNECT asks, wherever the session is."""
    router = router_of("a", "b", locate=Locate.AUTO)
    for name in "ab":
        answer = router.handshake(hints(cookie="s", pin=backend_of(router.fleet, name).token), 1.0)
        assert told(answer) == (name, Evidence.PIN_COOKIE, Outcome.PINNED)
    assert told(router.handshake(hints(cookie="s"), 1.0))[1:] == (Evidence.CLIENT, Outcome.PLACED)
    assert len(router.directory) == 0
    assert isinstance(ask_by_connect(router, Asked.NOT_YET), Question)
    assert told(ask_by_connect(router, backend_of(router.fleet, "b"))) == (
        "b",
        Evidence.SESSION,
        Outcome.REHOMED,
    )
    assert told(router.handshake(hints(cookie="s"), 1.0))[0] == "b"


def test_an_old_announcement_settles_nothing_by_a_handshake() -> None:
    """Its session may be at a backend; one that was announced just now is placed before its CONNECT."""
    for since, evidence in ((0.0, Evidence.CHAINLIT_COOKIE), (-11.0, Evidence.CLIENT)):
        router = router_of("a", "b", locate=Locate.AUTO)
        router.directory.announce("s", since)
        assert told(router.handshake(hints(cookie="s"), 1.0))[1] is evidence


def test_a_backend_that_cannot_keep_a_new_session_is_asked_too() -> None:
    """If the session is not there, it does not stay there."""
    router = router_of("a", "b", "c", locate=Locate.AUTO)
    drain(router, "a")
    answer = ask_by_connect(router, Asked.NOT_YET)
    assert isinstance(answer, Question)
    assert [backend.name for backend in answer.backends] == ["a", "b", "c"]


HOUR = 3600.0  # seconds that a session is kept after its last connection
LONG = HOUR * 1.25 + 60  # seconds after which none of those is left that a backend had when it came


@pytest.mark.parametrize("ask", [ask_by_session, ask_by_connect])
def test_who_has_been_up_for_longer_than_sessions_live_asks_nobody(ask: object) -> None:
    """If it is alone: all sessions came through here, and have their entry, but at backends that are new."""

    def asked(now: float, **settings: bool) -> str | None:
        router = router_of("a", "b", "c", locate=Locate.AUTO)
        router.alone, router.shared = settings.get("alone", True), settings.get("shared", False)
        if settings.get("joined"):
            late = router.fleet.add("d", "127.0.0.1", 9000, now=HOUR)
            router.fleet.observe(late, Observation.ANSWERED, HOUR)
        if ask is ask_by_session:
            answer: object = router.by_session("s", Evidence.SESSION, now)
        else:
            answer = router.connect("s", backend_of(router.fleet, "a"), now)
        return "".join(b.name for b in answer.backends) if isinstance(answer, Question) else None

    everybody = "abc" if ask is ask_by_session else "bc"
    assert asked(LONG - 1) == everybody
    assert asked(LONG) is None
    assert asked(LONG, joined=True) == "d"
    assert asked(LONG + HOUR, joined=True) is None
    assert asked(LONG, shared=True) == everybody
    assert asked(LONG, alone=False) == everybody


def test_one_that_is_somewhere_else_is_asked_again() -> None:
    """What listens there may have been there before."""
    router = router_of("a", "b", "c", locate=Locate.AUTO)
    router.alone = True
    moved = backend_of(router.fleet, "b")
    router.fleet.change(moved, "127.0.0.2", 8001, path="", weight=1.0, tls=None, now=HOUR)
    router.fleet.change(
        backend_of(router.fleet, "c"), "127.0.0.1", 8003, path="", weight=2.0, tls=None, now=HOUR
    )
    answer = router.by_session("s", Evidence.SESSION, LONG)
    assert isinstance(answer, Question)
    assert answer.backends == (moved,)


@pytest.mark.parametrize("sole", [True, False])
@pytest.mark.parametrize("how", ["expired", "evicted"])
def test_who_comes_back_after_its_entry_was_given_up_is_asked_for(how: str, sole: bool) -> None:
    """A backend may keep a session for longer than it is configured here; who never was here asks nobody."""
    router = router_of("a", "b", locate=Locate.AUTO, size=2)
    router.sole, router.alone = sole, not sole
    directory, home = router.directory, backend_of(router.fleet, "b")
    for name in ("s", "t", "u")[: 1 if how == "expired" else 3]:
        session = directory.assign(name, home, LONG)
        directory.opened(session)
        directory.closed(session, LONG)
    now = LONG + 1
    if how == "expired":
        now += HOUR
        directory.sweep(now)
    assert isinstance(router.connect("s", backend_of(router.fleet, "a"), now), Question)
    assert isinstance(router.connect("never-here", backend_of(router.fleet, "a"), now), Decision)


def test_ids_that_are_not_kept_any_more_are_asked_for_while_they_may_live() -> None:
    """With more ids than it remembers a proxy does not know who was here: then it asks for everybody."""
    past = Past(4, HOUR)
    backends = list(router_of("a", "b").fleet)

    def asks(session_id: str, now: float) -> bool:
        return bool(past.may_be_at(backends, session_id, now, sole=True))

    for number in range(6):
        past.forgot(f"s{number}", 100.0)
    assert all(asks(f"s{number}", 159.0) for number in range(6))
    assert asks("never-here", 159.0)
    assert not asks("never-here", 160.0)  # a minute later an instance has noticed that the client had gone
    assert not asks("s0", 160.0)
    assert asks("s5", 160.0)
    assert len(past._lately) + len(past._before) <= 4


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
    router = router_of("a", "b", locate=Locate.ALWAYS)
    for at in range(10):
        told(router.handshake(hints(cookie=f"s{at}"), 1.0, None))
    assert [backend.sessions for backend in router.fleet] == [0, 0]
    assert sum(map(len, router.placement._reserved.values())) == 10
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


# mode, announced when; what is asked by a handshake and by a CONNECT at `a`: the backends, and whether these
# only if the directory cannot be had
SHARED = [
    (Locate.AUTO, None, ("abc", True), ("bc", False)),
    (Locate.AUTO, 0.0, ("abc", True), ("bc", True)),
    (Locate.AUTO, -20.0, ("abc", True), ("bc", False)),
    (Locate.ALWAYS, 0.0, ("abc", False), ("bc", False)),
    (Locate.NEVER, None, ("", False), ("", False)),
]


@pytest.mark.parametrize(("mode", "announced", "by_handshake", "by_connect"), SHARED)
def test_other_proxies_are_asked_first(
    mode: Locate, announced: float | None, by_handshake: tuple[str, bool], by_connect: tuple[str, bool]
) -> None:
    """Where proxies share a directory, it is asked for whatever has no home here, before the backends.

    An announcement tells that a session is new, but not for long: it may have connected elsewhere since.
    """
    for ask, asked in ((ask_by_cookie, by_handshake), (ask_by_connect, by_connect)):
        router = router_of("a", "b", "c", locate=mode)
        router.shared = True
        if announced is not None:
            router.directory.announce("s", announced)
        answer = ask(router, Asked.NOT_YET)
        assert isinstance(answer, Question)
        assert ("".join(backend.name for backend in answer.backends), answer.is_new) == asked
        assert told(ask(router, None))[2] is Outcome.PLACED


def test_a_guess_that_the_directory_does_not_know_settles_nothing() -> None:
    """Where the directory is up the backends were not asked; what one says that was is believed."""
    router = router_of("a", "b", locate=Locate.AUTO)
    router.shared = True
    pin = hints(cookie="s", pin=backend_of(router.fleet, "a").token)
    assert isinstance(router.handshake(pin, 1.0), Question)
    assert told(router.handshake(pin, 1.0, None)) == ("a", Evidence.PIN_COOKIE, Outcome.PINNED)
    assert len(router.directory) == 0
    assert told(router.handshake(pin, 1.0, backend_of(router.fleet, "b")))[0] == "b"


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
