"""The fleet: the one door through which backends come, change and go."""

import pytest

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.claims import Claim, Claims
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation, Verdict
from proxy.affinity.pins import pin_token
from proxy.affinity.placement import Placement
from proxy.config import loads
from tests.affinity.making import backend_of, fleet_of, kill, silence


class Heard:
    """What a listener was told, and how the backend was then."""

    def __init__(self, fleet: Fleet) -> None:
        self.events: list[tuple[str, str, bool]] = []
        fleet.listen(lambda backend, event: self.events.append((backend.name, event, backend.holds_pins)))


def test_a_backend_is_known_by_name_and_token() -> None:
    """Who joins can be found by its name and by the pin that its name makes."""
    fleet = fleet_of("a", "b")
    a = backend_of(fleet, "a")
    assert list(fleet) == [a, backend_of(fleet, "b")]
    assert len(fleet) == 2
    assert a.token == pin_token("a")
    assert fleet.by_token(a.token) is a
    assert fleet.get("c") is None
    assert fleet.by_token(b"forged") is None


def test_a_secret_makes_tokens_that_cannot_be_guessed() -> None:
    """Proxies with one secret read each other's pins, and none without it."""
    fleet = Fleet(HealthRules(), b"secret")
    backend = fleet.add("a", "127.0.0.1", 8001, now=0.0)
    assert backend.token == pin_token("a", b"secret")
    assert fleet.by_token(pin_token("a")) is None


def test_a_name_is_taken_once() -> None:
    """Two backends of one name would share pins."""
    fleet = fleet_of("a")
    with pytest.raises(ValueError, match="backend a is known already"):
        fleet.add("a", "127.0.0.1", 9000, now=0.0)


def test_a_new_backend_is_down_until_it_answers() -> None:
    """Nobody is sent to a backend that has not answered yet."""
    fleet = Fleet(HealthRules())
    backend = fleet.add("a", "127.0.0.1", 8001, now=0.0)
    assert (backend.takes_sessions, backend.holds_pins) == (False, False)
    assert fleet.observe(backend, Observation.ANSWERED, 1.0)
    assert (backend.takes_sessions, backend.holds_pins) == (True, True)


def test_who_leaves_is_forgotten() -> None:
    """Its pins are void, it takes nothing; its name is known to have left, until it comes again."""
    fleet = fleet_of("a", "b")
    a = backend_of(fleet, "a")
    heard = Heard(fleet)
    fleet.remove(a)
    assert heard.events == [("a", "left the fleet", False)]
    assert fleet.by_token(a.token) is None
    assert (a.gone, a.takes_sessions, a.holds_pins) == (True, False, False)
    assert [backend.name for backend in fleet] == ["b"]
    assert [name for name in "abc" if fleet.has_left(name)] == ["a"]
    again = fleet.add("a", "127.0.0.1", 8001, now=1.0)
    assert again is not a
    assert fleet.by_token(a.token) is again
    assert not fleet.has_left("a")


def test_of_many_that_have_left_the_last_are_known() -> None:
    """Pods with ever new names cost no memory in the end."""
    fleet = Fleet(HealthRules())
    for number in range(3000):
        fleet.remove(fleet.add(f"pod-{number}", "127.0.0.1", 8001, now=0.0))
    assert fleet.has_left("pod-2999")
    assert 0 < sum(fleet.has_left(f"pod-{number}") for number in range(3000)) < 3000


def test_listeners_hear_flips_only() -> None:
    """Every flip of a verdict is told once with its reason; observations that change nothing are not."""
    fleet = fleet_of("a")
    heard = Heard(fleet)
    a = backend_of(fleet, "a")
    assert not fleet.observe(a, Observation.ANSWERED, 1.0)
    assert fleet.observe(a, Observation.SILENT, 2.0)
    assert fleet.observe(a, Observation.REFUSED, 3.0, "connection refused")
    assert not fleet.observe(a, Observation.REFUSED, 4.0, "connection refused")
    assert heard.events == [
        ("a", "is degraded: silent for 1 s", True),
        ("a", "is down: connection refused", False),
    ]


def test_listeners_hear_the_first_verdict() -> None:
    """That a backend never answered is told once, though it changes nothing; not of a replica that starts."""
    fleet = Fleet(HealthRules())
    heard = Heard(fleet)
    for name in "abc":
        backend = fleet.add(name, "127.0.0.1", 8001, now=0.0)
        backend.starting = name == "c"
        observation = Observation.SILENT if name == "b" else Observation.REFUSED
        fleet.observe(backend, observation, 1.0, f"why {name}")
        fleet.observe(backend, observation, 2.0, f"why {name}")
    assert heard.events == [("a", "is down: why a", False), ("b", "is degraded: why b", True)]


def test_one_answer_is_enough_while_nobody_else_is_there() -> None:
    """`rise` answers are asked of one that comes back, unless no other backend takes sessions."""
    fleet = Fleet(HealthRules(rise=2))
    a, b = (fleet.add(name, "127.0.0.1", 8001, now=0.0) for name in "ab")
    for backend in (a, b):
        fleet.observe(backend, Observation.ANSWERED, 0.0)
    kill(fleet, "a")
    assert not fleet.observe(a, Observation.ANSWERED, 1.0), "b is there"
    kill(fleet, "b")
    assert fleet.observe(a, Observation.ANSWERED, 2.0), "nobody is"
    assert not fleet.observe(b, Observation.ANSWERED, 3.0), "a is there again"
    fleet.set_admin_state(a, AdminState.DRAIN)
    assert fleet.observe(b, Observation.ANSWERED, 4.0), "who drains takes nobody"


def test_bad_answers_are_better_than_none() -> None:
    """One whose probes are denied takes new sessions while nobody is healthy and ready, and only then."""
    fleet = fleet_of("a", "b")
    a, b = backend_of(fleet, "a"), backend_of(fleet, "b")
    for now in range(3):
        fleet.observe(a, Observation.DENIED, float(now), "400 to GET /health")
    assert (a.takes_sessions, b.takes_sessions) == (False, True)
    kill(fleet, "b")
    assert (a.takes_sessions, b.takes_sessions) == (True, False)
    fleet.set_admin_state(a, AdminState.DRAIN)
    assert (a.takes_sessions, b.takes_sessions) == (False, False)
    fleet.set_admin_state(a, AdminState.READY)
    fleet.observe(a, Observation.SILENT, 4.0)
    assert (a.takes_sessions, b.takes_sessions) == (False, False), "it does not answer any more"
    fleet.observe(a, Observation.DENIED, 5.0)
    assert (a.takes_sessions, b.takes_sessions) == (True, False)
    fleet.observe(b, Observation.ANSWERED, 6.0)
    assert (a.takes_sessions, b.takes_sessions) == (False, True)


def test_a_standstill_is_nobodys_silence() -> None:
    """The clocks of every backend move on by the time in which the process did not run."""
    fleet = fleet_of("a")
    a = backend_of(fleet, "a")
    fleet.stood(46.0)
    assert (a.health.since, a.health.last_answer, a.health.returned) == (46.0, 46.0, None)
    fleet.observe(a, Observation.SILENT, 90.0)
    assert a.health.verdict is Verdict.DEGRADED


def test_listeners_hear_the_operator() -> None:
    """A change of the operator's wish is told, its repetition is not; all listeners hear it."""
    fleet = fleet_of("a")
    first, second = Heard(fleet), Heard(fleet)
    for state in (AdminState.DRAIN, AdminState.DRAIN, AdminState.MAINTENANCE, AdminState.READY):
        fleet.set_admin_state(backend_of(fleet, "a"), state)
    assert first.events == [("a", "is set to drain", True), ("a", "is set to maintenance", False),
                            ("a", "is set to ready", True)]  # fmt: skip
    assert second.events == first.events


# what happened, admin state, takes sessions, holds pins
READINESS = [
    (None, AdminState.READY, True, True),
    (None, AdminState.DRAIN, False, True),
    (None, AdminState.MAINTENANCE, False, False),
    (silence, AdminState.READY, False, True),
    (silence, AdminState.DRAIN, False, True),
    (silence, AdminState.MAINTENANCE, False, False),
    (kill, AdminState.READY, False, False),
    (kill, AdminState.DRAIN, False, False),
    (kill, AdminState.MAINTENANCE, False, False),
]


@pytest.mark.parametrize(("happened", "state", "takes", "holds"), READINESS)
def test_readiness_is_derived(happened: object, state: AdminState, takes: bool, holds: bool) -> None:
    """DESIGN section 4: degraded and drained keep their sessions, down and maintenance do not."""
    fleet = fleet_of("a")
    if callable(happened):
        happened(fleet, "a")
    fleet.set_admin_state(backend_of(fleet, "a"), state)
    a = backend_of(fleet, "a")
    assert (a.takes_sessions, a.holds_pins) == (takes, holds)


def test_a_replica_may_come_back_on_another_port() -> None:
    """It keeps its name, hence its pins."""
    fleet = fleet_of("a")
    a = backend_of(fleet, "a")
    fleet.move(a, "127.0.0.2", 9000)
    assert (a.url, fleet.by_token(a.token)) == ("http://127.0.0.2:9000", a)


def test_what_is_shown_of_a_backend() -> None:
    """Logs and tests read who it is, where, how, and what it carries."""
    backend = Backend("a", "::1", 8001)
    assert backend.url == "http://[::1]:8001"
    assert repr(backend) == "<Backend a http://[::1]:8001 down ready sessions=0 tunnels=0>"
    fleet = fleet_of("a")
    assert repr(fleet) == f"<Fleet [{backend_of(fleet, 'a')!r}]>"
    assert fleet.get("a") is not None
    assert backend_of(fleet, "a").health.verdict is Verdict.HEALTHY


def test_a_full_backend_gets_nobody_new_while_another_has_room() -> None:
    """With those whose CONNECT is on its way there; where all are full it is as good as any."""
    fleet = fleet_of("a", "b")
    fleet.configure(loads("balance: {most_sessions: 2}"))
    a, b = fleet
    placement, claims = Placement(), Claims()
    a.sessions = 1
    claim = claims.add(Claim("session-1", a))
    assert a.is_full
    assert not fleet.welcomes(a)
    keys = [b"%d" % number for number in range(20)]
    assert {placement.place(key, fleet, 0.0) for key in keys} == {b}
    claims.end(claim)
    claims.end(claim)
    assert fleet.welcomes(a)
    assert fleet.room == 3
    a.sessions, b.sessions = 2, 5
    assert fleet.room == 0
    assert fleet.welcomes(a)
    assert placement.place(b"key", fleet, 0.0) is not None
    added = fleet.add("c", "127.0.0.1", 8003, now=0.0)
    assert added.most_sessions == 2
    fleet.configure(loads(""))
    assert not any(backend.is_full for backend in fleet)
