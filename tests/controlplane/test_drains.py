"""Draining: who has to leave, when, and what is told of it. Looked at with a clock of the test's own."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from time import monotonic

import pytest

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Observation
from proxy.controlplane.drains import DrainEndedError, Drains
from tests.controlplane.scripted_moves import ScriptedMoves, healthy_fleet


class House:
    """Two backends and their drains."""

    def __init__(self, *, shared: bool = False, patience: float = 100.0) -> None:
        self.fleet: Fleet = healthy_fleet("a", "b")
        self.moves = ScriptedMoves()
        self.emptied: list[str] = []
        self.drains = Drains(
            self.fleet,
            self.moves,
            patience=patience,
            shared=shared,
            emptied=lambda backend: self.emptied.append(backend.name),
        )

    @property
    def a(self) -> Backend:
        """The first one."""
        backend = self.fleet.get("a")
        assert backend is not None
        return backend

    def look(self, seconds: float) -> int:
        """Look so many seconds after the drain began; return how many sessions are left."""
        drain = self.drains.get(self.a)
        assert drain is not None
        self.drains._look_at(drain, drain.began + seconds)
        return len(self.moves.sessions_on(self.a))


@pytest.fixture
def house() -> House:
    """The common case: conversations end with their instance."""
    return House()


def test_nobody_new_comes_and_who_is_there_stays(house: House) -> None:
    """A drain takes sessions away from placement at once, and from their users only when it is time."""
    house.moves.open(house.a, 10)
    house.drains.drain(house.a)
    assert (house.a.admin_state, house.a.takes_sessions, house.a.holds_pins) == (
        AdminState.DRAIN,
        False,
        True,
    )
    assert house.moves.forgotten == ["a"]
    assert house.look(50.0) == 10


def test_who_is_at_rest_leaves_just_in_time(house: House) -> None:
    """With 100 sessions at 20 a second that is five seconds, and two more for the move itself."""
    house.moves.open(house.a, 100)
    house.drains.drain(house.a)
    assert house.look(92.5) == 100
    seconds = 93.2
    while house.look(seconds):
        seconds += 0.2
    assert 97.5 < seconds <= 98.5
    assert house.look(seconds) == 0
    assert house.emptied == ["a"]


def test_who_is_at_rest_leaves_at_once_where_conversations_are_shared() -> None:
    """Nothing is lost by a move then; they still go at a pace."""
    house = House(shared=True)
    house.moves.open(house.a, 100)
    house.drains.drain(house.a)
    left = [house.look(0.2 * step) for step in range(1, 28)]
    assert all(3 <= before - after <= 5 for before, after in pairwise([100, *left[:-2]]))
    assert left[-1] == 0


@pytest.mark.parametrize("shared", [False, True])
def test_who_is_answered_stays_until_the_deadline(shared: bool) -> None:
    """An answer under way is finished; if it takes longer than the drain may, it is cut off and counted."""
    house = House(shared=shared)
    sessions = house.moves.open(house.a, 3)
    house.moves.busy = {sessions[0], sessions[1]}
    drain = house.drains.drain(house.a)
    for seconds in (0.2, 1.0, 97.0, 98.0, 99.0):
        house.look(seconds)
    assert house.moves.gone == [sessions[2]]
    house.moves.busy.remove(sessions[1])
    house.look(99.5)
    assert house.moves.gone == [sessions[2], sessions[1]]
    assert (house.look(100.1), house.moves.was_cut) == (0, ["a"])
    assert (drain.sent_away, drain.forced) == (2, 1)


def test_who_comes_back_after_the_deadline_goes_again(house: House) -> None:
    """The backend stays drained until the operator says otherwise, and is empty again a moment later."""
    drain = house.drains.drain(house.a)
    house.look(0.2)
    assert drain.is_empty
    house.moves.open(house.a, 2)
    house.look(50.0)
    assert (drain.is_empty, house.look(101.0)) == (False, 0)
    house.look(101.2)
    assert (drain.is_empty, house.emptied) == (True, ["a"])
    assert house.drains.ended == 1
    assert house.drains.seconds == pytest.approx(0.2)


def test_a_standstill_of_the_proxy_shortens_no_drain(house: House) -> None:
    """Nobody could leave while this process did not run: the deadline moves on by that."""
    drain = house.drains.drain(house.a, 60.0)
    house.drains.move_on(46.0)
    assert drain.deadline == pytest.approx(drain.began + 106.0)


def test_another_deadline_for_the_same_drain(house: House) -> None:
    """Asked again, a drain goes on with the new time."""
    house.moves.open(house.a, 5)
    first = house.drains.drain(house.a, 500.0)
    assert house.look(99.0) == 5
    assert house.drains.drain(house.a, 0.0) is first
    assert house.look(1.0) == 0


def test_one_that_is_down_is_empty(house: House) -> None:
    """Nobody waits for the sessions of a backend that has died."""
    house.moves.open(house.a, 5)
    drain = house.drains.drain(house.a)
    house.fleet.observe(house.a, Observation.REFUSED, 1.0)
    house.look(1.0)
    assert drain.is_empty


def test_ready_ends_a_drain_with_a_slow_start(house: House) -> None:
    """What has not left stays, and new sessions come back slowly."""
    house.moves.open(house.a, 5)
    house.drains.drain(house.a)
    house.drains.ready(house.a)
    assert house.drains.get(house.a) is None
    assert house.a.takes_sessions
    assert house.a.health.returned == pytest.approx(monotonic(), abs=5)
    assert len(house.moves.sessions_on(house.a)) == 5


def test_ready_changes_nothing_where_nothing_was_wished(house: House) -> None:
    """A backend that is ready already has its full share as before."""
    house.drains.ready(house.a)
    assert house.a.health.returned is None


def test_maintenance_moves_all_at_once(house: House) -> None:
    """Whatever they are at; nothing goes there any more."""
    sessions = house.moves.open(house.a, 5)
    house.moves.busy = set(sessions)
    house.drains.drain(house.a)
    house.drains.maintenance(house.a)
    assert house.moves.gone == sessions
    assert (house.drains.get(house.a), house.a.holds_pins) == (None, False)


def test_waiting_for_the_end() -> None:
    """`until_empty` returns when the task has found it empty; a drain that was taken back has no end."""
    house = House(shared=True)

    async def scenario() -> None:
        running = asyncio.create_task(house.drains.run())
        house.moves.open(house.a, 20)
        await asyncio.wait_for(house.drains.until_empty(house.a, 5.0), 10)
        assert house.emptied == ["a"]
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda house: house.drains.ready(house.a), "a was set to ready"),
        (lambda house: house.drains.maintenance(house.a), "a was set to maintenance"),
        (lambda house: house.fleet.remove(house.a), "a has left the fleet"),
    ],
)
def test_who_waits_is_told_why_a_drain_has_ended(end: Callable[[House], None], reason: str) -> None:
    """Whoever takes a drain back ends it with a reason, for everybody who waits for it."""
    house = House()

    async def scenario() -> None:
        running = asyncio.create_task(house.drains.run())
        house.moves.open(house.a, 5)
        waiting = [asyncio.create_task(house.drains.until_empty(house.a)) for _ in range(2)]
        await asyncio.sleep(0)
        assert house.drains.get(house.a) is not None
        end(house)
        ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert [(type(error), str(error)) for error in ended] == [(DrainEndedError, reason)] * 2
        assert house.emptied == []
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())


def test_one_that_leaves_the_fleet_because_it_is_empty_was_emptied() -> None:
    """Who waits for the end of a drain gets it, though there is no such backend any more."""
    house = House()

    async def scenario() -> None:
        running = asyncio.create_task(house.drains.run())
        house.drains._emptied = house.fleet.remove
        await asyncio.wait_for(house.drains.until_empty(house.a), 5)
        assert repr(house.drains) == "<Drains [] shared=False>"
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scenario())


def test_asked_again_it_is_empty_when_it_is_looked_at_again(house: House) -> None:
    """What the API shows of a drain is that of the one which was asked for last, not of an older one."""
    drain = house.drains.drain(house.a)
    house.look(0.2)
    assert drain.is_empty
    house.moves.open(house.a, 2)
    house.drains.drain(house.a, 50.0)
    assert not drain.is_empty


def restart(house: House) -> None:
    """The first one is away and answers again."""
    house.fleet.observe(house.a, Observation.REFUSED, 1.0)
    house.fleet.observe(house.a, Observation.ANSWERED, 2.0)
    house.fleet.observe(house.a, Observation.ANSWERED, 3.0)


def move(house: House) -> None:
    """The first one answers at another address, as a new pod of the same name does."""
    house.fleet.met(house.a, "10.0.0.1")
    house.drains.drain_for(house.a, None, until_restart=True)
    house.fleet.met(house.a, "10.0.0.2")


@pytest.mark.parametrize("come_back", [restart, move])
def test_a_drain_until_a_restart_ends_with_it(house: House, come_back: Callable[[House], None]) -> None:
    """Nobody has to say that it is back, and until then it takes nobody."""
    house.drains.drain_for(house.a, None, until_restart=True)
    house.look(1.0)
    assert house.a.admin_state is AdminState.DRAIN
    come_back(house)
    house.look(2.0)
    assert (house.drains.get(house.a), house.a.takes_sessions) == (None, True)


@pytest.mark.parametrize("away", [Observation.REFUSED, Observation.SILENT])
def test_one_that_starts_stays_drained_until_it_answers(house: House, away: Observation) -> None:
    """Its hook speaks when its container starts, minutes before some apps answer: no alarm meanwhile."""
    house.drains.drain_for(house.a, None, until_restart=True)
    for second in range(4):
        house.fleet.observe(house.a, away, float(second))
    house.drains.restarted(house.a)
    house.look(5.0)
    assert house.a.admin_state is AdminState.DRAIN
    house.fleet.observe(house.a, Observation.ANSWERED, 6.0)
    house.fleet.observe(house.a, Observation.ANSWERED, 7.0)
    house.look(7.0)
    assert (house.drains.get(house.a), house.a.takes_sessions) == (None, True)


def test_one_whose_answers_are_no_good_takes_sessions_if_it_says_so(house: House) -> None:
    """It may be the last resort."""
    house.drains.drain_for(house.a, None, until_restart=True)
    for second in range(4):
        house.fleet.observe(house.a, Observation.DENIED, float(second))
    house.drains.restarted(house.a)
    assert house.a.admin_state is AdminState.READY


@pytest.mark.parametrize(("hooks", "left"), [(300.0, 20.0), (5.0, 5.0)])
def test_a_hook_gives_an_operators_drain_no_more_time(house: House, hooks: float, left: float) -> None:
    """Whoever waits for its end gets it when it was promised; a backend that ends sooner is empty by then."""
    began = house.drains.drain(house.a, 20.0).began
    house.drains.drain_for(house.a, hooks, until_restart=True)
    drain = house.drains.get(house.a)
    assert drain is not None
    assert drain.deadline - began == pytest.approx(left, abs=1.0)
    house.drains.drain_for(house.a, 60.0, until_restart=False)
    assert drain.deadline - began == pytest.approx(60.0, abs=1.0)


def test_one_that_is_to_leave_stays_drained(house: House) -> None:
    """What no list has any more takes no sessions again when it is restarted, and leaves when it is empty."""
    house.drains.drain_for(house.a, None, until_restart=True)
    house.a.leaving = True
    restart(house)
    house.look(2.0)
    assert (house.a.admin_state, house.emptied) == (AdminState.DRAIN, ["a"])


def test_silence_is_no_restart(house: House) -> None:
    """An app that blocks its event loop while it drains is the same process afterwards."""
    house.drains.drain_for(house.a, None, until_restart=True)
    for second in range(4):
        house.fleet.observe(house.a, Observation.SILENT, float(second))
    house.fleet.observe(house.a, Observation.ANSWERED, 5.0)
    house.fleet.observe(house.a, Observation.ANSWERED, 6.0)
    house.look(6.0)
    assert house.a.admin_state is AdminState.DRAIN


@pytest.mark.parametrize("again", [False, True])
def test_what_an_operator_wished_outlives_a_restart(house: House, again: bool) -> None:
    """A drain without an end of its own stays, whoever asked first; so does maintenance."""
    house.drains.drain_for(house.a, None, until_restart=again)
    house.drains.drain_for(house.a, None, until_restart=not again)
    restart(house)
    house.look(2.0)
    house.drains.restarted(house.a)
    assert not house.a.takes_sessions
    house.drains.maintenance(house.a)
    house.drains.drain_for(house.a, None, until_restart=True)
    house.drains.restarted(house.a)
    assert house.a.admin_state is AdminState.MAINTENANCE
