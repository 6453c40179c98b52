"""As many replicas as are wanted: a real fleet and supervisor, whose replicas hold a scripted `chainlit`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.health import Observation
from proxy.affinity.wanted import Load
from proxy.config.span import Span
from proxy.controlplane.elastic import Elastic
from proxy.controlplane.rollout import RolloutState
from proxy.controlplane.wants import Wish
from tests.replicas.house import House

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]

App = Callable[[str], Path]


class Elastics(House):
    """A house whose number of replicas follows what is wanted."""

    def __init__(self, app: Path, bounds: Span, state: Path) -> None:
        super().__init__(app, bounds.low, state)
        self.bounds = bounds
        self.shared = True
        self.answers: dict[str, int] = {}
        self.said: list[str] = []
        self.elastic = Elastic(
            self.supervisor,
            self.fleet,
            self,
            lambda: self.bounds,
            answers=lambda backend: self.answers.get(backend.name, 0),
            hindered=lambda: self.rollout.progress.state is RolloutState.RUNNING,
            tell=self.scaled,
        )

    def scaled(self, text: str) -> None:
        """Something was told."""
        self.said.append(text)
        self._told.set()

    def want(self, count: int) -> None:
        """One look."""
        self.elastic.look(Wish(count, "", Load(0, 0, 0)))

    async def until_there_are(self, *names: str) -> None:
        """Waits until these are the replicas, and nobody else."""
        await self.until(lambda: sorted(b.name for b in self.fleet) == sorted(names) == sorted(
            replica.name for replica in self.supervisor.replicas
        ))  # fmt: skip

    @asynccontextmanager
    async def lives(self) -> AsyncIterator[None]:
        """The supervisor and the elastic run, and the first replicas are ready."""
        async with self.running():
            task = asyncio.create_task(self.elastic.run())
            try:
                await self.until_ready(self.bounds.low)
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])


def play(app: App, tmp_path: Path, bounds: Span, scene: Callable[[Elastics], object]) -> None:
    """Plays a scene with such replicas."""

    async def main() -> None:
        house = Elastics(app(""), bounds, tmp_path / "state")
        async with house.lives():
            await scene(house)  # type: ignore[misc]

    asyncio.run(main())


def test_more_come_at_once_and_the_emptiest_leaves(app: App, tmp_path: Path) -> None:
    """All that lack are started together; one at a time leaves, whoever answers least."""

    async def scene(house: Elastics) -> None:
        house.want(3)
        house.want(3)
        await house.until_there_are("replica-1", "replica-2", "replica-3")
        house.answers = {"replica-1": 2, "replica-2": 1, "replica-3": 1}
        known = {backend.name: backend for backend in house.fleet}
        known["replica-2"].sessions, known["replica-3"].sessions = 4, 3
        house.want(1)
        house.want(1)
        await house.until_there_are("replica-1", "replica-2")
        assert house.drained == [("replica-3", None)]
        await house.until(lambda: "replica-3 has left" in house.said)
        house.want(1)
        await house.until_there_are("replica-1")

    play(app, tmp_path, Span(1, 3), scene)


def test_who_is_leaving_stays_if_more_are_wanted(app: App, tmp_path: Path) -> None:
    """Its drain is taken back, and nobody is started in its place."""

    async def scene(house: Elastics) -> None:
        gate = house.gate = asyncio.Event()
        house.want(1)
        await house.until(lambda: house.drained)
        house.wish = AdminState.READY
        house.want(2)
        gate.set()
        await house.until(lambda: any("stays" in text for text in house.said))
        house.want(2)
        assert [backend.admin_state for backend in house.fleet] == [AdminState.READY] * 2
        await house.until_there_are("replica-1", "replica-2")

    async def begun(house: Elastics) -> None:
        house.bounds = Span(1, 3)
        await scene(house)

    play(app, tmp_path, Span(2, 3), begun)


def test_who_is_leaving_stays_if_the_others_die(app: App, tmp_path: Path) -> None:
    """While they are started again somebody has to take sessions."""

    async def scene(house: Elastics) -> None:
        house.bounds = Span(1, 3)
        gate = house.gate = asyncio.Event()
        house.answers = {"replica-1": 1}
        house.want(1)
        await house.until(lambda: house.drained)
        first, leaving = house.fleet.get("replica-1"), house.fleet.get("replica-2")
        assert first is not None
        assert leaving is not None
        house.fleet.observe(first, Observation.ENDED, 0.0, "the process ended")
        house.wish = AdminState.READY
        house.want(1)
        assert leaving.takes_sessions
        house.want(1)
        assert leaving.takes_sessions, "nobody else does yet"
        gate.set()
        await house.until(lambda: any("stays" in text for text in house.said))

    play(app, tmp_path, Span(2, 3), scene)


def test_sessions_that_are_not_shared_keep_their_replica(app: App, tmp_path: Path) -> None:
    """Only an empty one leaves where a conversation would begin anew."""

    async def scene(house: Elastics) -> None:
        house.bounds, house.shared = Span(1, 3), False
        for backend in house.fleet:
            backend.sessions = 1
        house.want(1)
        assert not house.drained
        last(house).sessions = 0
        house.want(1)
        await house.until_there_are("replica-1")

    play(app, tmp_path, Span(2, 3), scene)


def last(house: Elastics) -> Backend:
    """The backend of the newest replica."""
    found = house.fleet.get(house.supervisor.replicas[-1].name)
    assert found
    return found


def test_one_that_is_drained_by_hand_is_replaced(app: App, tmp_path: Path) -> None:
    """It does not count, but takes its place of the upper bound; when it is back, one is too many."""

    async def scene(house: Elastics) -> None:
        house.bounds = Span(1, 3)
        (first, _) = house.fleet
        house.drain(first)
        house.want(2)
        await house.until_there_are("replica-1", "replica-2", "replica-3")
        house.want(3)
        assert len(house.supervisor.replicas) == 3, "no more than the bound"
        house.ready(first)
        house.want(2)
        await house.until(lambda: len(house.supervisor.replicas) == 2)

    play(app, tmp_path, Span(2, 3), scene)


def test_nothing_happens_during_a_rollout(app: App, tmp_path: Path) -> None:
    """Afterwards there are as many as are wanted then."""

    async def scene(house: Elastics) -> None:
        house.bounds = Span(1, 3)
        gate = house.gate = asyncio.Event()
        running = house.rollout.begin(asyncio.create_task)
        await house.until(lambda: house.drained)
        before = len(house.supervisor.replicas)
        house.want(3)
        await asyncio.sleep(0)
        assert len(house.supervisor.replicas) == before
        gate.set()
        assert (await house.ended(running)).state is RolloutState.DONE
        house.want(3)
        await house.until(lambda: len(list(house.fleet)) == 3)

    play(app, tmp_path, Span(2, 3), scene)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_rollout_leaves_somebody_to_serve(app: App, tmp_path: Path, by_hand: bool) -> None:
    """Whoever is drained already, by an operator or to be fewer, is no reason to replace nobody."""

    async def scene(house: Elastics) -> None:
        house.bounds = Span(1, 3)
        gate = house.gate = asyncio.Event()
        if by_hand:
            house.drain(last(house))
        house.answers = {"replica-1": 1}
        house.want(1)
        if not by_hand:
            await house.until(lambda: house.drained)
        served: list[bool] = []
        house.fleet.listen(lambda _backend, _what: served.append(any(b.takes_sessions for b in house.fleet)))
        running = house.rollout.begin(asyncio.create_task)
        await house.until(lambda: ("replica-1", None) in house.drained)
        gate.set()
        assert (await house.ended(running)).state is RolloutState.DONE
        assert all(served)
        await house.until(lambda: len(house.supervisor.replicas) == 1)

    play(app, tmp_path, Span(2, 3), scene)


def test_one_that_does_not_start_is_tried_again_later(app: App, tmp_path: Path) -> None:
    """Not at the next look, but after a pause; the others serve on."""

    async def scene(house: Elastics) -> None:
        app("import sys; sys.exit(3)")
        house.want(2)
        await house.until(lambda: any("is tried in" in text for text in house.said))
        house.want(2)
        assert len(house.supervisor.replicas) == 1, "the pause is not over"
        app("")
        house.elastic._not_before = 0.0
        house.want(2)
        await house.until(lambda: len(list(house.fleet)) == 2)

    play(app, tmp_path, Span(1, 2), scene)


def test_a_fixed_number_is_left_alone(app: App, tmp_path: Path) -> None:
    """Unless it has just been changed by a reload: then it is reached once."""

    async def scene(house: Elastics) -> None:
        house.drain(last(house))
        house.want(2)
        house.want(5)
        assert len(house.supervisor.replicas) == 2
        house.ready(last(house))
        house.bounds = Span(1, 1)
        house.want(5)
        await house.until(lambda: len(house.supervisor.replicas) == 1)

    play(app, tmp_path, Span(2, 2), scene)
