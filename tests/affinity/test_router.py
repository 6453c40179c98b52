"""The rule of affinity, row by row of the table in DESIGN section 2: what each kind of evidence decides."""

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision, Outcome, Void
from proxy.affinity.evidence import Evidence
from proxy.affinity.router import Asked
from proxy.config.values import Locate
from proxy.errors import NoBackend
from tests.affinity.making import (
    HOLDS,
    HOLDS_NOT,
    backend_of,
    drain,
    hints,
    kill,
    pinned,
    remove,
    revive,
    router_of,
    silence,
    told,
)


class TestSid:
    """Row 1: the pin in a polled sid."""

    @pytest.mark.parametrize("state", HOLDS)
    def test_a_pin_tells_its_backend(self, state: str) -> None:
        """Exactly, with no state at all; it holds on a backend that is slow or drained."""
        router = router_of("a", "b", "c")
        for name in "abc":
            sid = pinned(router, name, name.encode())
            HOLDS[state](router, name)
            assert told(router.by_sid(sid, 1.0)) == (name, Evidence.SID, Outcome.PINNED)

    @pytest.mark.parametrize("state", HOLDS_NOT)
    def test_a_pin_to_a_backend_that_is_not_there_is_void(self, state: str) -> None:
        """Known or not, its transport is ended: the client must connect anew, and stays void."""
        for known in (False, True):
            router = router_of("a", "b")
            sid = pinned(router, "a")
            if known:
                decision = router.by_sid(sid, 1.0)
                assert isinstance(decision, Decision)
                assert decision.engine is not None
                router.engines.decide(decision.engine, router.directory.assign("s", decision.backend, 1.0))
            HOLDS_NOT[state](router, "a")
            session = router.directory.get("s", 2.0)
            assert [router.by_sid(sid, 2.0) for _ in range(2)] == [Void.VOID] * 2
            assert session is None or session.open == 0

    def test_a_forged_pin_is_void(self) -> None:
        """A token of no backend belongs nowhere."""
        router = router_of("a")
        assert router.by_sid(b"forgedforged.sid", 1.0) is Void.VOID
        assert router.by_sid(b".", 1.0) is None

    def test_a_sid_without_a_pin_is_no_evidence(self) -> None:
        """Other evidence must do."""
        assert router_of("a").by_sid(b"sid", 1.0) is None

    def test_a_sid_that_another_proxy_pinned_is_taken_in(self) -> None:
        """No proxy has to know it beforehand; from then on it counts as polling."""
        router = router_of("a", "b")
        first = router.by_sid(pinned(router, "a"), 1.0)
        again = router.by_sid(pinned(router, "a"), 2.0)
        assert isinstance(first, Decision)
        assert isinstance(again, Decision)
        assert first.engine is again.engine
        assert again.engine is not None
        assert again.engine.seen == 2.0

    def test_a_moved_transport_is_where_it_moved(self) -> None:
        """After a re-home the pin names the old backend and the entry the new one."""
        router = router_of("a", "b")
        sid = pinned(router, "a")
        decision = router.by_sid(sid, 1.0)
        assert isinstance(decision, Decision)
        assert decision.engine is not None
        router.engines.rehome(decision.engine, backend_of(router.fleet, "b"), b"other")
        kill(router.fleet, "a")
        assert told(router.by_sid(sid, 2.0))[0] == "b"
        kill(router.fleet, "b")
        assert router.by_sid(sid, 3.0) is Void.VOID

    def test_the_session_of_a_transport_is_known(self) -> None:
        """A poll belongs to the session that its CONNECT named."""
        router = router_of("a")
        decision = router.by_sid(pinned(router, "a"), 1.0)
        assert isinstance(decision, Decision)
        assert decision.engine is not None
        session = router.directory.assign("s", decision.backend, 1.0)
        router.engines.decide(decision.engine, session)
        again = router.by_sid(pinned(router, "a"), 2.0)
        assert isinstance(again, Decision)
        assert again.session is session


class TestSession:
    """Row 2: the session id."""

    @pytest.mark.parametrize("state", HOLDS)
    def test_a_known_session_is_where_it_lives(self, state: str) -> None:
        """Also while its backend is slow or drained: its requests wait rather than go elsewhere."""
        router = router_of("a", "b", "c")
        for name in "abc":
            router.directory.assign(f"s-{name}", backend_of(router.fleet, name), 0.0)
            HOLDS[state](router, name)
            answer = router.by_session(f"s-{name}", Evidence.SESSION, 1.0)
            assert told(answer) == (name, Evidence.SESSION, Outcome.PINNED)

    @pytest.mark.parametrize("state", HOLDS_NOT)
    def test_a_session_moves_when_its_backend_is_not_there(self, state: str) -> None:
        """Once, to one backend, for all of its requests."""
        router = router_of("a", "b", "c")
        router.directory.assign("s", backend_of(router.fleet, "a"), 0.0)
        HOLDS_NOT[state](router, "a")
        name, evidence, outcome = told(router.by_session("s", Evidence.SESSION, 1.0))
        assert name in "bc"
        assert (evidence, outcome) == (Evidence.SESSION, Outcome.MOVED)
        for at in range(5):
            assert told(router.by_session("s", Evidence.SESSION, 2.0 + at)) == (
                name,
                evidence,
                Outcome.PINNED,
            )

    def test_a_new_session_is_placed_by_its_id_and_remembered(self) -> None:
        """Placement is by hash of the session id: proxies that know nothing agree."""
        for at in range(20):
            answers = [
                told(router_of("a", "b", "c").by_session(f"s{at}", Evidence.SESSION, 1.0)) for _ in "xy"
            ]
            assert answers[0] == answers[1]
            assert answers[0][2] is Outcome.PLACED
        router = router_of("a", "b", "c")
        name = told(router.by_session("s", Evidence.SESSION, 1.0))[0]
        assert backend_of(router.fleet, name).sessions == 0  # it may be made up
        assert told(router.by_session("s", Evidence.SESSION, 2.0)) == (name, Evidence.SESSION, Outcome.PINNED)

    def test_adding_a_backend_moves_no_session(self) -> None:
        """DESIGN section 2: the sessions of a backend that stays stay, whoever joins or comes back."""
        router = router_of("a", "b")
        homes = {f"s{at}": told(router.by_session(f"s{at}", Evidence.SESSION, 1.0))[0] for at in range(50)}
        fleet = router.fleet
        fleet.add("c", "127.0.0.1", 9000, now=1.0)
        revive(fleet, "c")
        assert {s: told(router.by_session(s, Evidence.SESSION, 3.0))[0] for s in homes} == homes
        remove(router, "c")
        assert {s: told(router.by_session(s, Evidence.SESSION, 4.0))[0] for s in homes} == homes

    def test_no_backend(self) -> None:
        """A new session is not placed on a backend that is slow, drained or down; then nobody takes it."""
        router = router_of("a", "b", "c")
        kill(router.fleet, "a")
        silence(router.fleet, "b")
        drain(router, "c")
        with pytest.raises(NoBackend) as caught:
            router.by_session("s", Evidence.SESSION, 1.0)
        assert caught.value.status == 503
        assert len(router.directory) == 0
        with pytest.raises(NoBackend):
            router.handshake(hints(), 1.0)

    def test_a_new_session_avoids_who_did_not_accept_in_time(self) -> None:
        """It has nothing there yet, so it moves on; where there is nobody else it waits for its backend."""
        router = router_of("a", "b")
        name = told(router.by_session("s", Evidence.SESSION, 1.0))[0]
        other = told(router.by_session("s", Evidence.SESSION, 1.0, avoid={name}))
        assert other == ("ab".replace(name, ""), Evidence.SESSION, Outcome.MOVED)
        alone = router_of("a")
        alone.by_session("s", Evidence.SESSION, 1.0)
        answer = alone.by_session("s", Evidence.SESSION, 1.0, avoid={"a"})
        assert told(answer) == ("a", Evidence.SESSION, Outcome.PINNED)
        assert isinstance(answer, Decision)
        assert answer.session is not None
        assert answer.session.left == ()


class TestHandshake:
    """Rows 3 to 5: what a handshake carries is a guess."""

    def test_the_strongest_evidence_counts(self) -> None:
        """A header names the session; else Chainlit's cookie, else our cookie, else the client itself."""
        router = router_of("a", "b", "c")
        for name in "abc":
            router.directory.assign(f"s-{name}", backend_of(router.fleet, name), 0.0)
        pin = backend_of(router.fleet, "c").token
        cases = [
            (hints("s-a", "s-b", pin), ("a", Evidence.SESSION, Outcome.PINNED)),
            (hints(None, "s-b", pin), ("b", Evidence.CHAINLIT_COOKIE, Outcome.PINNED)),
            (hints(None, None, pin), ("c", Evidence.PIN_COOKIE, Outcome.PINNED)),
        ]
        for given, expected in cases:
            assert told(router.handshake(given, 1.0)) == expected
        assert told(router.handshake(hints(), 1.0))[1:] == (Evidence.CLIENT, Outcome.PLACED)

    @pytest.mark.parametrize("state", ["degraded", "drained", *HOLDS_NOT])
    def test_the_pin_cookie_draws_nobody_to_a_backend_that_takes_no_sessions(self, state: str) -> None:
        """Browser pins would never drain; a forged one is only a missing one."""
        router = router_of("a", "b")
        pin = backend_of(router.fleet, "a").token
        (HOLDS | HOLDS_NOT)[state](router, "a")
        assert told(router.handshake(hints(pin=pin), 1.0)) == ("b", Evidence.CLIENT, Outcome.PLACED)
        assert told(router.handshake(hints(pin=b"forged"), 1.0)) == ("b", Evidence.CLIENT, Outcome.PLACED)

    def test_first_requests_of_a_client_agree(self) -> None:
        """Row 5: the page, its assets and its handshakes meet one backend."""
        router = router_of("a", "b", "c")
        went = {told(router.plain(hints(), 1.0))[0], told(router.handshake(hints(), 1.1))[0],
                told(router.handshake(hints(), 1.2))[0], told(router.plain(hints(), 1.3))[0]}  # fmt: skip
        assert len(went) == 1

    def test_a_guess_moves_no_session(self) -> None:
        """The cookie may be another tab's, which lives on though its backend did not accept in time."""
        router = router_of("a", "b")
        session = router.directory.assign("s", backend_of(router.fleet, "a"), 0.0)
        answer = router.handshake(hints(cookie="s"), 1.0, avoid={"a"})
        assert told(answer) == ("b", Evidence.CHAINLIT_COOKIE, Outcome.PLACED)
        assert (session.backend, session.left) == (backend_of(router.fleet, "a"), ())

    def test_a_cookie_of_a_new_session_places_it(self) -> None:
        """The page announced it, its handshake brings its cookie: its CONNECT then finds it here."""
        router = router_of("a", "b", "c", locate=Locate.AUTO)
        router.directory.announce("s", 0.0)
        name = told(router.handshake(hints(cookie="s"), 1.0))[0]
        answer = router.connect("s", backend_of(router.fleet, name), 2.0)
        assert told(answer) == (name, Evidence.SESSION, Outcome.PINNED)


class TestPlain:
    """Row 4: requests without a session."""

    @pytest.mark.parametrize("state", ["healthy", "degraded"])
    def test_they_go_where_the_browser_is(self, state: str) -> None:
        """An app's own routes keep meeting the same instance."""
        router = router_of("a", "b")
        pin = backend_of(router.fleet, "a").token
        HOLDS[state](router, "a")
        assert told(router.plain(hints(pin=pin), 1.0)) == ("a", Evidence.PIN_COOKIE, Outcome.PINNED)

    def test_a_pin_alone_leads_to_no_backend_that_drains(self) -> None:
        """It would never be empty: they go where sessions are taken, and back when nobody else takes any."""
        router = router_of("a", "b")
        pin = backend_of(router.fleet, "a").token
        drain(router, "a")
        assert told(router.plain(hints(pin=pin), 1.0)) == ("b", Evidence.CLIENT, Outcome.PLACED)
        kill(router.fleet, "b")
        assert told(router.plain(hints(pin=pin), 1.0)) == ("a", Evidence.PIN_COOKIE, Outcome.PINNED)

    @pytest.mark.parametrize("state", HOLDS_NOT)
    def test_without_it_any_backend_does(self, state: str) -> None:
        """A pin to a backend that is not there is no pin, and neither is one that is to be avoided."""
        router = router_of("a", "b")
        pin = backend_of(router.fleet, "a").token
        assert told(router.plain(hints(pin=pin), 1.0, avoid={"a"})) == ("b", Evidence.CLIENT, Outcome.PLACED)
        HOLDS_NOT[state](router, "a")
        assert told(router.plain(hints(pin=pin), 1.0)) == ("b", Evidence.CLIENT, Outcome.PLACED)

    def test_pages_load_while_nobody_takes_sessions(self) -> None:
        """Degraded and drained backends still serve assets; only when all are down there is nobody."""
        router = router_of("a", "b", "c")
        silence(router.fleet, "a")
        drain(router, "b")
        kill(router.fleet, "c")
        assert {told(router.plain(hints(client=b"%d" % n), 1.0))[0] for n in range(20)} == {"a", "b"}
        assert told(router.plain(hints(), 1.0, avoid={"a"}))[0] == "b"
        kill(router.fleet, "a")
        kill(router.fleet, "b")
        with pytest.raises(NoBackend):
            router.plain(hints(), 1.0)

    def test_they_load_no_backend(self) -> None:
        """Plain requests are no sessions: a thousand of them reserve nothing."""
        router = router_of("a", "b")
        for at in range(1000):
            router.plain(hints(client=b"%d" % at), 1.0)
        assert not router.placement._reserved


def test_the_sweep_forgets_transports_and_sessions() -> None:
    """What has expired counts nowhere any more."""
    router = router_of("a", "b")
    router.by_session("s", Evidence.SESSION, 1.0)
    router.by_sid(pinned(router, "a"), 1.0)
    router.sweep(2000.0)
    assert (len(router.directory), len(router.engines)) == (0, 0)
    assert sum(backend.sessions for backend in router.fleet) == 0


def test_what_is_shown() -> None:
    """Logs and tests read the whole of it."""
    router = router_of()
    assert repr(router) == (
        "<Router <Fleet []> <Directory open=0 closed=0 fresh=0 evicted=0> <EngineSessions named=0 bare=0>>"
    )
    assert not isinstance(Asked.NOT_YET, Backend)
