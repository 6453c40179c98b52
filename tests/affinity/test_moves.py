"""A session moves once and as one, and never back to a backend that it left while another takes it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.decision import Decision
from proxy.affinity.evidence import Evidence, Hints
from proxy.affinity.router import Router
from proxy.errors import NoBackend
from tests.affinity.making import backend_of, kill, revive, router_of, silence

NAMES = "abcd"
EVENTS = st.tuples(
    st.sampled_from(["kill", "revive", "silence", "drain", "ready", "none"]), st.sampled_from(NAMES)
)
REQUESTS = st.lists(st.sampled_from(["query", "cookie", *NAMES]), min_size=1, max_size=4)


def happen(router: Router, event: str, name: str) -> None:
    """Something happens to a backend."""
    fleet = router.fleet
    backend = backend_of(fleet, name)
    if event == "kill":
        kill(fleet, name)
    elif event == "revive":
        revive(fleet, name)
    elif event == "silence":
        silence(fleet, name)
    elif event == "drain":
        fleet.set_admin_state(backend, AdminState.DRAIN)
    elif event == "ready":
        fleet.set_admin_state(backend, AdminState.READY)


def ask(router: Router, request: str) -> Backend | None:
    """Where a request of the session goes: it names it, or its cookie does, or its CONNECT at a backend."""
    try:
        if request == "query":
            answer = router.by_session("s", Evidence.SESSION, 1.0)
        elif request == "cookie":
            answer = router.handshake(Hints(None, "s", None, b"c"), 1.0)
        else:
            answer = router.connect("s", backend_of(router.fleet, request), 1.0)
    except NoBackend:
        return None
    assert isinstance(answer, Decision)
    if answer.claim is not None:
        router.taken(answer.claim, 1.0)
    return answer.backend


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(EVENTS, REQUESTS), max_size=12))
def test_a_session_moves_once_and_as_one(story: list[tuple[tuple[str, str], list[str]]]) -> None:
    """Whatever happens to backends: all requests agree, nobody moves without need, and none goes back."""
    router = router_of(*NAMES)
    home: Backend | None = None
    left: set[str] = set()
    for event, requests in story:
        happen(router, *event)
        held = home is not None and home.holds_pins
        able = {backend.name for backend in router.fleet if backend.takes_sessions}
        went = [ask(router, request) for request in requests]
        assert len(set(went)) == 1
        new = went[0]
        if held:
            assert new is home
        elif new is None:
            assert not able
        else:
            if home is not None:
                left.add(home.name)
            assert new.name in able
            assert new.name not in left or able <= left
            left.discard(new.name)
            home = new
        session = router.directory.get("s", 1.0)
        assert (session.backend if session else None) is home
        counts = session is not None and home is not None and not session.only_named
        assert sum(backend.sessions for backend in router.fleet) == counts


@given(st.sampled_from(NAMES), st.integers(0, 30))
def test_a_backend_that_came_back_gets_new_sessions_only(name: str, many: int) -> None:
    """No session that moved away is sent back to it, though it would be the first choice of some."""
    router = router_of(*NAMES)
    sessions = [f"s{at}" for at in range(many)]

    def homes() -> dict[str, str]:
        return {s: d.backend.name for s in sessions
                if isinstance(d := router.by_session(s, Evidence.SESSION, 1.0), Decision)}  # fmt: skip

    before = homes()
    kill(router.fleet, name)
    moved = homes()
    assert all(moved[s] == before[s] or before[s] == name for s in sessions)
    revive(router.fleet, name)
    assert homes() == moved
    assert name not in moved.values()
