"""A rollout over a real fleet and a real supervisor, whose replicas hold a scripted `chainlit`."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proxy.controlplane.rollout
from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.controlplane.rollout import Phase, RolloutError, RolloutProgress, RolloutState
from proxy.replicas import ReplicaEventKind, RestartRule
from tests.replicas.house import House

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]

App = Callable[[str], Path]


@pytest.fixture
def house(app: App, tmp_path: Path) -> Callable[..., House]:
    """Makes a house of some replicas."""

    def make(count: int, **settings: Any) -> House:
        return House(app(""), count, tmp_path / "state", **settings)

    return make


def test_all_are_replaced_and_sessions_move_once(house: Callable[..., House]) -> None:
    """One after the other: a new one, then an old one goes; each session ends on a new one, by one move."""

    async def main() -> None:
        one = house(3)
        async with one.running():
            await one.until_ready(3)
            one.open_sessions()
            assert len({trail[0] for trail in one.trails.values()}) == 3
            assert one.rollout.progress == RolloutProgress()
            status = await one.roll_out(7.0)
            assert status is one.rollout.progress
            assert status == RolloutProgress(RolloutState.DONE, 3, 3)
            assert one.drained == [("replica-1", 7.0), ("replica-2", 7.0), ("replica-3", 7.0)]
            new = ["replica-4", "replica-5", "replica-6"]
            assert one.names == new
            assert one.is_as_before(3)
            assert all(len(trail) == 2 and trail[1] in new for trail in one.trails.values())
            told = [(event.kind, event.replica.name) for event in one.events[3:]]
            assert told == [
                (kind, f"replica-{number + (3 if kind is ReplicaEventKind.READY else 0)}")
                for number in (1, 2, 3)
                for kind in (ReplicaEventKind.READY, ReplicaEventKind.RETIRED)
            ]

    asyncio.run(main())


def test_status_tells_how_far_it_is(house: Callable[..., House]) -> None:
    """While it runs: the phase, who goes and who comes, how many are done; a second one is refused."""

    async def main() -> None:
        one = house(2)
        one.gate = asyncio.Event()
        async with one.running():
            await one.until_ready(2)
            running = one.rollout.begin(asyncio.create_task)
            await asyncio.sleep(0)
            assert one.rollout.progress == RolloutProgress(
                RolloutState.RUNNING, 0, 2, Phase.STARTING, "replica-1"
            )
            await one.until(lambda: one.drained)
            assert one.rollout.progress == RolloutProgress(
                RolloutState.RUNNING, 0, 2, Phase.DRAINING, "replica-1", "replica-3"
            )
            outdated = {backend.name for backend in one.fleet if backend.outdated}
            assert outdated == {"replica-1", "replica-2"}
            with pytest.raises(RolloutError, match="a rollout is running: 0 of 2 are replaced"):
                one.rollout.begin(asyncio.create_task)
            one.gate.set()
            assert (await one.ended(running)).state is RolloutState.DONE
            assert one.names == ["replica-3", "replica-4"]
            assert (await one.roll_out()).done == 2
            assert one.names == ["replica-5", "replica-6"]

    asyncio.run(main())


def test_a_new_one_that_does_not_start_ends_it(house: Callable[..., House], app: App) -> None:
    """What was replaced stays so, the rest of the old serves on, and the status says why."""

    async def main() -> None:
        one = house(3)
        one.gate = asyncio.Event()
        async with one.running():
            await one.until_ready(3)
            one.open_sessions()
            running = one.rollout.begin(asyncio.create_task)
            await one.until(lambda: one.drained)
            app("1 / 0\n")
            one.gate.set()
            status = await one.ended(running)
            assert status == RolloutProgress(
                RolloutState.FAILED,
                1,
                3,
                None,
                "replica-2",
                "",
                "the app did not start: replica-5 exited with code 1 before it was ready",
            )
            assert one.names == ["replica-2", "replica-3", "replica-4"]
            assert one.is_as_before(3)
            assert all(len(trail) <= 2 for trail in one.trails.values())
            app("")
            assert (await one.roll_out()).state is RolloutState.DONE
            assert one.names == ["replica-6", "replica-7", "replica-8"]

    asyncio.run(main())


def test_a_new_one_that_is_not_healthy_ends_it(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered, but probes never agreed: it is retired and nobody was drained for it."""
    monkeypatch.setattr(proxy.controlplane.rollout, "HEALTHY_WITHIN", 0.2)

    async def main() -> None:
        one = house(2)
        one.sick.add("replica-3")
        async with one.running():
            await one.until_ready(2)
            status = await one.roll_out()
            assert (status.state, status.reason) == (
                RolloutState.FAILED,
                "replica-3 was not healthy within 0.2 s",
            )
            assert one.drained == []
            assert one.names == ["replica-1", "replica-2"]
            assert one.is_as_before(2)

    asyncio.run(main())


def test_it_waits_until_a_new_one_is_healthy(house: Callable[..., House]) -> None:
    """Nobody is drained before probes agree that the new one is there."""

    async def main() -> None:
        one = house(1)
        one.sick.add("replica-2")
        async with one.running():
            await one.until_ready(1)
            running = one.rollout.begin(asyncio.create_task)
            await one.until_ready(2)
            await asyncio.sleep(0.1)
            assert (one.rollout.progress.phase, one.drained) == (Phase.CHECKING, [])
            new = one.fleet.get("replica-2")
            assert new is not None
            one.fleet.observe(new, Observation.ANSWERED, 1.0)
            assert (await one.ended(running)).state is RolloutState.DONE
            assert one.names == ["replica-2"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (None, "it was cancelled"),
        (RolloutError("no"), "no"),
        (ValueError("a fault"), "it met a mistake of the proxy, see the log: ValueError('a fault')"),
    ],
)
def test_a_drain_that_does_not_end_in_order(
    house: Callable[..., House], trouble: Exception | None, reason: str
) -> None:
    """Cancelled or failed, the old replica is ready again as it was, beside the new one."""

    async def main() -> None:
        one = house(2)
        one.gate, one.trouble = asyncio.Event(), trouble
        async with one.running():
            await one.until_ready(2)
            running = one.rollout.begin(asyncio.create_task)
            await one.until(lambda: one.drained)
            if trouble is None:
                running.cancel()
            one.gate.set()
            await asyncio.gather(running, return_exceptions=True)
            assert (one.rollout.progress.state, one.rollout.progress.reason) == (RolloutState.FAILED, reason)
            assert one.names == ["replica-1", "replica-2", "replica-3"]
            assert one.is_as_before(3)

    asyncio.run(main())


def test_one_that_was_given_up_is_replaced_too(house: Callable[..., House], app: App) -> None:
    """A rollout of a mended app also brings back what its bugs had ended."""

    async def main() -> None:
        one = house(2)
        async with one.running() as supervisor:
            await one.until_ready(2)
            pid = supervisor.replicas[0].pid
            assert pid
            app("raise SystemExit(3)")
            os.kill(pid, signal.SIGKILL)
            await one.until(lambda: one.told(ReplicaEventKind.EXITED))
            app("")
            assert (await one.roll_out()).state is RolloutState.DONE
            assert one.names == ["replica-3", "replica-4"]
            assert one.is_as_before(2)

    asyncio.run(main())


def test_stopped_in_the_middle(house: Callable[..., House]) -> None:
    """When the supervisor is told to stop meanwhile, the rollout fails and nothing is left running."""

    async def main() -> None:
        one = house(2)
        async with one.running():
            await one.until_ready(2)
            running = one.rollout.begin(asyncio.create_task)
            await asyncio.sleep(0.05)
        status = await one.ended(running)
        assert status.state is RolloutState.FAILED
        assert "replica-3 was stopped before it was ready" in status.reason

    asyncio.run(main())


def test_the_call_that_begins_it_sets_its_state(house: Callable[..., House]) -> None:
    """Whoever asked for it and looks at once sees it run, before the task did anything."""

    async def main() -> None:
        one = house(1)
        async with one.running():
            await one.until_ready(1)
            running = one.rollout.begin(asyncio.create_task)
            assert one.rollout.progress == RolloutProgress(RolloutState.RUNNING, 0, 1)
            assert (await one.ended(running)).state is RolloutState.DONE

    asyncio.run(main())


def test_cancelled_before_it_did_anything(house: Callable[..., House]) -> None:
    """A task that never ran leaves no rollout that runs for ever, and nobody outdated."""

    async def main() -> None:
        one = house(1)
        async with one.running():
            await one.until_ready(1)
            running = one.rollout.begin(asyncio.create_task)
            running.cancel()
            await asyncio.wait([running])
            assert one.rollout.progress.state is RolloutState.FAILED
            assert one.rollout.hindrance == ""
            assert one.is_as_before(1)

    asyncio.run(main())


def test_the_surplus_of_a_failed_one_goes_first(house: Callable[..., House]) -> None:
    """An operator ended a drain: both serve on; the next rollout replaces one less than there are."""

    async def main() -> None:
        one = house(2)
        one.wish = AdminState.READY
        async with one.running():
            await one.until_ready(2)
            progress = await one.roll_out()
            assert (progress.state, progress.reason) == (RolloutState.FAILED, "replica-1 was set to ready")
            assert one.names == ["replica-1", "replica-2", "replica-3"]
            one.wish = None
            assert (await one.roll_out()).state is RolloutState.DONE
            assert one.names == ["replica-4", "replica-5"]
            assert one.is_as_before(2)

    asyncio.run(main())


def test_a_new_one_that_dies_before_it_is_healthy(house: Callable[..., House], app: App) -> None:
    """It answered once, died and cannot start again: the rollout does not wait for its time to be up."""

    async def main() -> None:
        one = house(1, rule=RestartRule(first=0.01, longest=0.01, quick_deaths=2))
        one.sick.add("replica-2")
        async with one.running() as supervisor:
            await one.until_ready(1)
            running = one.rollout.begin(asyncio.create_task)
            await one.until_ready(2)
            app("raise SystemExit(3)")
            pid = supervisor.replicas[1].pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            progress = await one.ended(running)
            assert "replica-2" in progress.reason
            assert "died" in progress.reason
            assert one.names == ["replica-1"]

    asyncio.run(main())
