"""Engine.IO sessions that poll: undecided, decided, moved, quiet, given up."""

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession, Void
from proxy.affinity.directory import Directory
from proxy.affinity.engine import Elsewhere, EngineSessions
from proxy.affinity.lingering import Backlog
from proxy.wire.fields import Fields
from proxy.wire.head import ResponseHead

HEAD = ResponseHead(200, b"OK", 1, Fields(b""), 0)


class Waiter:
    """A poll that waits at an undecided transport's backend, and what it was told."""

    def __init__(self, engine: EngineSession) -> None:
        self.told: list[str] = []
        self._engine = engine
        engine.waiting.add(self)

    def redirect(self) -> None:
        """As Waiting."""
        self.told.append(f"redirect to {self._engine.backend.name}")

    def decided(self) -> None:
        """As Waiting."""
        self.told.append("decided")


class Scene:
    """Engine sessions over a directory with two backends."""

    def __init__(self, most: int = 100) -> None:
        self.a = Backend("a", "127.0.0.1", 8001)
        self.b = Backend("b", "127.0.0.1", 8002)
        self.directory = Directory(100, 3600.0)
        self.engines = EngineSessions(self.directory, most)

    def decided(self, sid: bytes, session_id: str, now: float = 0.0) -> EngineSession:
        """A transport at `a` whose CONNECT named a session there."""
        engine = self.engines.opened(sid, self.a, now)
        self.engines.decide(engine, self.directory.assign(session_id, self.a, now))
        return engine


def test_a_transport_is_known_by_the_clients_sid() -> None:
    """From its handshake to its end."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    assert scene.engines.get(b"s") is engine
    assert (engine.backend, engine.upstream_sid, engine.decided) == (scene.a, b"s", False)
    scene.engines.closed(engine, 1.0)
    assert scene.engines.get(b"s") is None
    assert len(scene.engines) == 0


def test_connect_opens_its_session_until_the_transport_ends() -> None:
    """A session is open while a transport of it is; ending twice closes once."""
    scene = Scene()
    engine = scene.decided(b"s", "one")
    session = scene.directory.get("one", 0.0)
    assert session is not None
    assert (engine.session, engine.decided, session.open, scene.a.sessions) == (session, True, 1, 1)
    scene.engines.decide(engine, session)
    assert session.open == 1
    scene.engines.closed(engine, 1.0)
    scene.engines.closed(engine, 1.0)
    assert (session.open, scene.a.sessions) == (0, 0)


def test_a_transport_may_be_decided_without_a_session() -> None:
    """A first POST without CONNECT: it connected elsewhere; a later CONNECT may still name one."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    waiter = Waiter(engine)
    scene.engines.decide(engine, None)
    assert (engine.decided, engine.session, waiter.told) == (True, None, ["decided"])
    session = scene.directory.assign("one", scene.a, 0.0)
    scene.engines.decide(engine, session)
    assert (engine.session, session.open) == (session, 1)


def test_waiters_are_told_once_where_the_transport_stays() -> None:
    """When CONNECT has decided, nobody waits any more."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    waiters = [Waiter(engine), Waiter(engine)]
    scene.engines.decide(engine, scene.directory.assign("one", scene.a, 0.0))
    scene.engines.decide(engine, None)
    assert [waiter.told for waiter in waiters] == [["decided"], ["decided"]]
    assert not engine.waiting


def test_a_rehome_sends_all_waiters_to_the_new_backend() -> None:
    """The client's sid stands for another one elsewhere, and what waited at the wrong backend asks again."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    waiter = Waiter(engine)
    scene.engines.rehome(engine, scene.b, b"t")
    assert (engine.backend, engine.upstream_sid, engine.sid) == (scene.b, b"t", b"s")
    scene.engines.decide(engine, scene.directory.assign("one", scene.b, 0.0))
    assert waiter.told == ["redirect to b", "decided"]
    assert scene.engines.get(b"s") is engine


def test_a_transport_that_was_given_up_opens_no_session() -> None:
    """Its CONNECT is decided while it ends: nothing would ever close what it opened."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    waiter = Waiter(engine)
    scene.engines.closed(engine, 1.0)
    session = scene.directory.assign("one", scene.a, 1.0)
    scene.engines.decide(engine, session)
    assert (session.open, waiter.told, scene.engines.get(b"s")) == (0, ["decided"], None)


def test_an_old_transport_does_not_end_a_new_one_of_its_sid() -> None:
    """A sid that is met again is a new entry; the old one is ended, and only once."""
    scene = Scene()
    old = scene.decided(b"s", "one")
    new = scene.engines.opened(b"s", scene.b, 1.0)
    session = scene.directory.get("one", 1.0)
    assert session is not None
    assert session.open == 0
    scene.engines.closed(old, 2.0)
    scene.engines.decide(old, session)
    assert scene.engines.get(b"s") is new
    assert session.open == 0


# requests under way, open websockets, seconds since the last poll, whether it is forgotten
QUIET = [(0, 0, 59.9, False), (0, 0, 60.1, True), (1, 0, 1000.0, False), (0, 1, 1000.0, False)]


@pytest.mark.parametrize(("polls", "tunnels", "age", "gone"), QUIET)
@pytest.mark.parametrize("named", [False, True])
def test_quiet_transports_are_forgotten(
    named: bool, polls: int, tunnels: int, age: float, gone: bool
) -> None:
    """Engine.IO ends a transport after 45 s without a poll; one with a poll or websocket open is alive."""
    scene = Scene()
    engine = scene.decided(b"s", "one") if named else scene.engines.opened(b"s", scene.a, 0.0)
    engine.polls, engine.tunnels = polls, tunnels
    scene.engines.sweep(age)
    assert (scene.engines.get(b"s") is None) == gone
    assert scene.a.sessions == (1 if named and not gone else 0)


def test_the_end_of_an_upgrade_is_the_end_unless_polls_go_on() -> None:
    """A websocket that was the transport takes it along within seconds; a failed upgrade does not."""
    scene = Scene()
    upgraded, failed, other = (scene.decided(sid, sid.decode(), 100.0) for sid in (b"u", b"f", b"o"))
    other.tunnels = 1
    for engine in (upgraded, failed, other):
        scene.engines.upgrade_ended(engine, 100.0)
    failed.seen = 101.0
    scene.engines.sweep(104.0)
    assert len(scene.engines) == 3
    scene.engines.sweep(106.0)
    assert scene.engines.get(b"u") is None
    assert scene.engines.get(b"f") is failed
    assert scene.engines.get(b"o") is other


def test_made_up_sids_push_out_no_transport_that_matters() -> None:
    """Room is bounded, and those whose session is not known are given up first: the pin alone serves them."""
    scene = Scene(most=3)
    engine = scene.decided(b"s", "one")
    scene.engines.rehome(engine, scene.b, b"t")
    for at in range(100):
        scene.engines.opened(b"made-up-%d" % at, scene.a, 1.0)
    assert len(scene.engines) == 4
    assert scene.engines.get(b"s") is engine


def test_transports_with_a_session_are_bounded_too() -> None:
    """The oldest is given up, and its session is closed by that."""
    scene = Scene(most=3)
    for at in range(5):
        scene.decided(b"%d" % at, f"{at}")
    assert [scene.engines.get(b"%d" % at) is None for at in range(5)] == [True, True, False, False, False]
    assert scene.a.sessions == 3


SAID = (b"40/admin,", b"42/admin," + b"x" * 991)  # with what packets take beside their bytes: 1409


def test_what_is_said_before_connect_is_bounded_for_all() -> None:
    """Who says too much for all together is watched no longer; others may when one has ended."""
    scene = Scene()
    scene.engines.most_said = 3000
    first, second, third = (scene.engines.opened(b"%d" % number, scene.a, 0.0) for number in range(3))
    for engine in (first, second, third):
        scene.engines.says(engine, SAID)
    assert [engine.decided for engine in (first, second, third)] == [False, False, True]
    assert third.said is None
    scene.engines.closed(first, 1.0)
    last = scene.engines.opened(b"last", scene.a, 2.0)
    scene.engines.says(last, SAID)
    assert not last.decided
    scene.engines.says(first, SAID)  # a request of it that was under way
    for engine in (first, second, last):
        scene.engines.closed(engine, 3.0)
    assert scene.engines._said == 0


def test_what_a_websocket_was_told_counts_when_it_has_ended() -> None:
    """Its transport may go on by polling, and keeps it."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    for packet in SAID:
        scene.engines.said(engine).say(packet)
    assert scene.engines._said == 0
    scene.engines.upgrade_ended(engine, 1.0)
    assert scene.engines._said == 1409
    scene.engines.forget(engine)
    assert (scene.engines._said, engine.said) == (0, None)


def test_what_is_shown() -> None:
    """Logs and tests read where a transport is and how far."""
    scene = Scene()
    engine = scene.engines.opened(b"s", scene.a, 0.0)
    Waiter(engine)
    assert repr(engine) == "<EngineSession at a undecided waiting=1>"
    assert repr(scene.engines) == "<EngineSessions named=0 bare=1>"
    scene.engines.decide(engine, None)
    assert repr(engine) == "<EngineSession at a decided>"


@pytest.mark.parametrize("first", ["told", "met"])
def test_a_connect_that_another_proxy_has_read(first: str) -> None:
    """The transport follows it: what waits is asked again at its backend, and its session is known."""
    scene = Scene()
    heard: list[EngineSession] = []
    scene.engines.heard = heard.append
    session = scene.directory.assign("one", scene.b, 0.0)
    told = Elsewhere(session, scene.b, b"other", 0.0)
    if first == "told":
        scene.engines.connected_elsewhere(b"s", told)
        engine = scene.engines.opened(b"s", scene.a, 1.0)
    else:
        engine = scene.engines.opened(b"s", scene.a, 0.0)
        waiter = Waiter(engine)
        scene.engines.connected_elsewhere(b"s", told)
        assert waiter.told == ["redirect to b", "decided"]
    assert (engine.backend, engine.upstream_sid, engine.session) == (scene.b, b"other", session)
    assert session.open == 1
    scene.engines.connected_elsewhere(b"s", told)
    assert (session.open, heard) == (1, [])
    scene.engines.closed(engine, 2.0)
    assert session.open == 0


def test_what_was_sent_away_follows_nobody() -> None:
    """News that were on their way when a session had to leave do not bring its transport back to life."""
    scene = Scene()
    engine = scene.decided(b"s", "one")
    assert engine.session is not None
    told = Elsewhere(engine.session, scene.a, b"s", 0.0)
    scene.directory.send_away(engine.session)
    scene.engines.send_away([engine.session], 1.0)
    scene.engines.connected_elsewhere(b"s", told)
    assert engine.decision is Void.VOID


def test_transports_that_never_come_are_forgotten() -> None:
    """Most of what other proxies tell of never comes here: it is kept for a minute, and bounded."""
    scene = Scene(most=2)
    session = scene.directory.assign("one", scene.a, 0.0)
    for sid in (b"1", b"2", b"3"):
        scene.engines.connected_elsewhere(sid, Elsewhere(session, scene.a, sid, 0.0))
    assert scene.engines.opened(b"1", scene.b, 1.0).session is None
    assert scene.engines.opened(b"2", scene.b, 1.0).session is session
    scene.engines.sweep(61.0)
    assert scene.engines.opened(b"3", scene.b, 61.0).session is None


def test_nothing_is_owed_to_a_client_that_has_gone() -> None:
    """Whose next polls get something is waited for, as long as it polls."""
    scene = Scene()
    engine = scene.decided(b"s", "one", 10.0)
    assert scene.engines.owed(5.0) == set()
    engine.backlog = Backlog(HEAD, [b"42"])
    assert scene.engines.owed(5.0) == {engine.session}
    assert scene.engines.owed(10.0) == set()
    engine.polls = 1
    assert scene.engines.owed(10.0) == {engine.session}
