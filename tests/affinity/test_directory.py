"""The session directory: what it remembers, for how long, and what it counts at the backends."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.directory import Directory
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Observation
from proxy.affinity.session import Move, MoveReason, Session

TIMEOUT = 3600.0
A, B, C = (Backend(name, "127.0.0.1", 8001) for name in "abc")


@pytest.fixture(autouse=True)
def nobody_has_sessions() -> None:
    """The backends are the same in all tests here, and empty at the start of each."""
    for backend in (A, B, C):
        backend.sessions = 0


def connected(directory: Directory, name: str, backend: Backend, now: float) -> Session:
    """A session that lives on a backend and has a connection."""
    session = directory.assign(name, backend, now)
    directory.opened(session)
    return session


def names(directory: Directory) -> set[str]:
    """The ids of all entries."""
    return {session.id for session in directory.sessions()}


def test_a_session_is_found_where_it_was_settled() -> None:
    """Settled is known, with its backend; others are not known."""
    directory = Directory(10, TIMEOUT)
    session = directory.assign("s", A, 0.0)
    assert directory.get("s", 1.0) is session
    assert session.backend is A
    assert directory.get("t", 1.0) is None


def test_an_announced_session_has_no_home() -> None:
    """The page's announcement tells that no backend knows the session yet, not where it will live."""
    directory = Directory(10, TIMEOUT)
    directory.announce("s", 0.0)
    session = directory.get("s", 1.0)
    assert session is not None
    assert (session.announced, session.backend) == (True, None)
    assert directory.assign("s", A, 1.0) is session
    assert session.announced


def test_a_session_that_had_a_connect_is_not_announced_any_more() -> None:
    """A page that is announced twice has not become new."""
    directory = Directory(10, TIMEOUT)
    session = connected(directory, "s", A, 0.0)
    directory.announce("s", 1.0)
    assert not session.announced


# what happened by when it was last in use, seconds after which it is forgotten
@pytest.mark.parametrize(("had_connect", "lives"), [(False, 120.0), (True, TIMEOUT)])
def test_expiry(had_connect: bool, lives: float) -> None:
    """Placed entries wait two minutes for their CONNECT, connected ones as long as Chainlit keeps them."""
    for look in (Directory.get, lambda directory, name, now: directory.sweep(now)):
        for now, known in ((lives - 0.1, {"s"}), (lives, set())):
            directory = Directory(10, TIMEOUT)
            session = directory.assign("s", A, -1.0)
            if had_connect:
                directory.opened(session)
                directory.closed(session, 0.0)
            else:
                directory.assign("s", A, 0.0)
            look(directory, "s", now)
            assert names(directory) == known


def test_an_open_session_does_not_expire() -> None:
    """An entry lives as long as a connection of its session, however many there are."""
    directory = Directory(10, TIMEOUT)
    session = connected(directory, "s", A, 0.0)
    directory.opened(session)
    directory.closed(session, 1.0)
    directory.sweep(1e9)
    assert directory.get("s", 1e9) is session
    directory.closed(session, 1e9)
    assert directory.get("s", 1e9 + TIMEOUT - 1) is session
    assert directory.get("s", 1e9 + TIMEOUT) is None


def test_a_session_remembers_where_it_was() -> None:
    """Each backend that it left is named once, the last one last; the one it lives on is not among them."""
    directory = Directory(10, TIMEOUT)
    session = directory.assign("s", A, 0.0)
    seen = [session.left]
    for at, backend in enumerate((A, B, C, A), start=1):
        directory.assign("s", backend, float(at))
        seen.append(session.left)
    assert seen == [(), (), ("a",), ("a", "b"), ("b", "c")]
    assert session.since == 4.0
    assert repr(session) == "<Session at a open=0 left=('b', 'c')>"


def test_counts_follow_a_session() -> None:
    """Placed counts, open counts once whatever its connections, closed does not, moved counts where it is."""
    directory = Directory(10, TIMEOUT)
    counts = []
    session = directory.assign("s", A, 0.0)
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: directory.opened(session),
        lambda: directory.opened(session),
        lambda: directory.assign("s", B, 1.0),
        lambda: directory.closed(session, 2.0),
        lambda: directory.closed(session, 3.0),
        lambda: directory.assign("s", C, 4.0),
        lambda: directory.opened(session),
    ]
    for step in steps:
        step()
        counts.append((A.sessions, B.sessions, C.sessions))
    placed, moved, none = (1, 0, 0), (0, 1, 0), (0, 0, 0)
    assert counts == [placed, placed, placed, moved, moved, none, none, (0, 0, 1)]


def test_announced_sessions_count_nowhere() -> None:
    """What has no home loads no backend."""
    directory = Directory(10, TIMEOUT)
    directory.announce("s", 0.0)
    assert (A.sessions, B.sessions, C.sessions) == (0, 0, 0)


def test_unconnected_entries_are_forgotten_first() -> None:
    """Made-up session ids push out each other, never a session that lives or lived."""
    directory = Directory(8, TIMEOUT)
    connected(directory, "open", A, 0.0)
    closed = connected(directory, "closed", A, 0.0)
    directory.closed(closed, 0.0)
    for at in range(100):
        directory.assign(f"made-up-{at}", B, 1.0)
    assert names(directory) == {"open", "closed", "made-up-98", "made-up-99"}
    assert (A.sessions, B.sessions) == (1, 2)


def test_forgetting_what_no_backend_knows_leaves_it_complete() -> None:
    """A session that never connected is in no backend, so its loss costs no question."""
    directory = Directory(4, TIMEOUT)
    for at in range(10):
        directory.assign(f"{at}", A, 0.0)
    assert directory.evicted == 0


def test_the_longest_unused_is_given_up_for_room() -> None:
    """Of the closed sessions the one goes that would expire first; from then on it is not complete."""
    directory = Directory(3, TIMEOUT)
    sessions = {name: connected(directory, name, A, 0.0) for name in "abc"}
    for now, name in enumerate("bca"):
        directory.closed(sessions[name], float(now))
    directory.assign("b", A, 5.0)
    connected(directory, "d", A, 6.0)
    assert names(directory) == {"a", "b", "d"}
    assert directory.evicted == 1
    assert A.sessions == 1


def test_open_sessions_are_not_given_up() -> None:
    """There are no more of them than connections; the bound is for what is only remembered."""
    directory = Directory(2, TIMEOUT)
    for name in "abcd":
        connected(directory, name, A, 0.0)
    assert names(directory) == set("abcd")
    assert (A.sessions, directory.evicted) == (4, 0)
    assert repr(directory) == "<Directory open=4 closed=0 fresh=0 evicted=0>"


def test_a_forgotten_session_that_connects_is_known_again() -> None:
    """Between the decision and the CONNECT an entry may be given up: its connection counts all the same."""
    directory = Directory(4, TIMEOUT)
    session = directory.assign("s", A, 0.0)
    directory.assign("t", B, 0.0)
    assert directory.get("s", 0.0) is None
    directory.assign("s", C, 0.0)
    directory.opened(session)
    assert directory.get("s", 1e9) is session
    assert (A.sessions, B.sessions, C.sessions) == (1, 0, 0)


class Operations(RuleBasedStateMachine):
    """Any sequence of operations, with handles to sessions that may be stale."""

    def __init__(self) -> None:
        super().__init__()
        self.backends = [Backend(name, "127.0.0.1", 8001) for name in "abc"]
        self.directory = Directory(5, TIMEOUT)
        self.now = 0.0
        self.handles: list[Session] = []
        self.open: Counter[int] = Counter()  # connections by place in `handles`
        self.was_open: set[int] = set()  # entries that were open before the last operation, by id()

    def keep(self, session: Session) -> None:
        """Remember a session that was handed out."""
        if not any(session is known for known in self.handles):
            self.handles.append(session)

    @rule(name=st.sampled_from("pqrstuvw"), where=st.integers(0, 2))
    def settle(self, name: str, where: int) -> None:
        """A decision."""
        session = self.directory.assign(name, self.backends[where], self.now)
        assert session.backend is self.backends[where]
        self.keep(session)

    @rule(name=st.sampled_from("pqrstuvw"))
    def announce(self, name: str) -> None:
        """A page."""
        self.directory.announce(name, self.now)
        known = self.directory.get(name, self.now)
        assert known is not None
        self.keep(known)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def opened(self, data: st.DataObject) -> None:
        """A connection of any session that was ever handed out."""
        at = data.draw(st.integers(0, len(self.handles) - 1))
        self.open[at] += 1
        self.directory.opened(self.handles[at])
        assert self.directory.get(self.handles[at].id, self.now) is not None

    @precondition(lambda self: self.open.total())
    @rule(data=st.data())
    def closed(self, data: st.DataObject) -> None:
        """The end of a connection that was opened."""
        at = data.draw(st.sampled_from(sorted(+self.open)))
        self.open[at] -= 1
        self.directory.closed(self.handles[at], self.now)

    @rule(seconds=st.sampled_from([1.0, 119.0, 120.0, TIMEOUT]))
    def wait(self, seconds: float) -> None:
        """Time."""
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        """The ticker: nothing that has expired is left."""
        self.directory.sweep(self.now)
        assert all(s.open or s.expires > self.now for s in self.directory.sessions())

    @rule(name=st.sampled_from("pqrstuvw"))
    def get(self, name: str) -> None:
        """A request."""
        session = self.directory.get(name, self.now)
        assert session is None or (session.id == name and (session.open or session.expires > self.now))

    @invariant()
    def counts_are_true(self) -> None:
        """Each backend counts its open sessions and those that are placed there."""
        truth: Counter[Backend | None] = Counter()
        for at, session in enumerate(self.handles):
            assert session.open == self.open[at]
            entry = any(session is known for known in self.directory.sessions())
            if session.open or (entry and not session.connected):
                truth[session.backend] += 1
        assert [backend.sessions for backend in self.backends] == [truth[b] for b in self.backends]

    @invariant()
    def bounds_hold(self) -> None:
        """Open entries stay; others are no more than there is room for; no id has two."""
        entries = self.directory.sessions()
        assert len({s.id for s in entries}) == len(entries) == len(self.directory)
        fresh = [s for s in entries if not s.connected]
        remembered = [s for s in entries if s.connected and not s.open]
        assert len(fresh) <= 1
        assert not remembered or len(entries) - len(fresh) <= 5
        still = {id(s) for s in self.handles if s.open} & self.was_open
        assert still <= {id(s) for s in entries}
        self.was_open = {id(s) for s in entries if s.open}


TestOperations = Operations.TestCase
TestOperations.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOperations.__doc__ = "After any sequence of operations the counts on the backends are the truth."


@pytest.mark.parametrize("reason", list(MoveReason))
def test_a_session_remembers_why_it_moved(reason: MoveReason) -> None:
    """Each move has its reason, is counted by it, and the newest five are kept."""
    directory = Directory(10, TIMEOUT)
    old = Backend("old", "127.0.0.1", 8001)
    if reason is not MoveReason.DOWN:
        old.health.observe(Observation.ANSWERED, 0.0)
    session = connected(directory, "s", old, 0.0)
    old.gone = reason is MoveReason.GONE
    if reason is MoveReason.MAINTENANCE:
        old.admin_state = AdminState.MAINTENANCE
    if reason is MoveReason.SENT_AWAY:
        directory.send_away(session)
    alone = reason if reason is MoveReason.ALONE else None
    directory.assign("s", B, 1.0, Evidence.SESSION, reason=alone)
    assert session.moves == (Move(1.0, "old", "b", reason),)
    assert (session.since, session.evidence) == (1.0, Evidence.SESSION)
    assert {name for name, count in directory.moved.items() if count} == {reason}
    for at in range(2, 12):
        directory.assign("s", (A, B)[at % 2], float(at))
    assert [move.at for move in session.moves] == [7.0, 8.0, 9.0, 10.0, 11.0]


def test_a_session_that_stays_keeps_why_it_came() -> None:
    """Settled where it is, neither evidence nor time changes."""
    directory = Directory(10, TIMEOUT)
    directory.assign("s", A, 0.0, Evidence.CHAINLIT_COOKIE, located=True)
    session = directory.assign("s", A, 5.0, Evidence.SESSION)
    assert (session.evidence, session.located, session.since) == (Evidence.CHAINLIT_COOKIE, True, 0.0)
