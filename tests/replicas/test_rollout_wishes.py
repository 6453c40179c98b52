"""What operators wish of a replica while a rollout is under way."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.controlplane.rollout import Phase, RolloutState
from proxy.replicas import Replica, ReplicaEventKind
from tests.replicas.house import House

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]


@pytest.fixture
def house(app: Callable[[str], Path], tmp_path: Path) -> House:
    """One with a single replica."""
    return House(app(""), 1, tmp_path / "state")


def test_what_an_operator_wishes_of_the_old_one_stays(house: House) -> None:
    """Set to maintenance while it drains: the rollout ends, and does not put it back into service."""

    async def main() -> None:
        house.wish = AdminState.MAINTENANCE
        async with house.running():
            await house.until_ready(1)
            progress = await house.roll_out()
            assert (progress.state, progress.reason) == (
                RolloutState.FAILED,
                "replica-1 was set to maintenance",
            )
            assert [backend.admin_state for backend in house.fleet] == [
                AdminState.MAINTENANCE,
                AdminState.READY,
            ]

    asyncio.run(main())


def test_what_an_operator_wished_before_stays(house: House) -> None:
    """Drained before a rollout that is cancelled, a replica is not put back into service."""

    async def main() -> None:
        house.gate = asyncio.Event()
        async with house.running():
            await house.until_ready(1)
            old = house.fleet.get("replica-1")
            assert old is not None
            house.fleet.set_admin_state(old, AdminState.DRAIN)
            running = house.rollout.begin(asyncio.create_task)
            await house.until(lambda: house.drained)
            running.cancel()
            await asyncio.wait([running])
            assert house.rollout.progress.state is RolloutState.FAILED
            assert old.admin_state is AdminState.DRAIN

    asyncio.run(main())


@pytest.mark.parametrize("wish", [AdminState.DRAIN, AdminState.MAINTENANCE])
@pytest.mark.parametrize("phase", [Phase.CHECKING, Phase.DRAINING])
def test_a_new_one_that_may_not_serve_ends_it(house: House, phase: Phase, wish: AdminState) -> None:
    """An operator takes it out of service: the old one goes on, since nobody else would take its sessions."""

    async def main() -> None:
        house.gate = asyncio.Event()
        if phase is Phase.CHECKING:
            house.sick.add("replica-2")
        async with house.running():
            await house.until_ready(1)
            running = house.rollout.begin(asyncio.create_task)
            await house.until_ready(2)
            await house.until(lambda: house.rollout.progress.phase is phase)
            new = house.fleet.get("replica-2")
            assert new is not None
            house.fleet.set_admin_state(new, wish)
            house.fleet.observe(new, Observation.ANSWERED, 1.0)
            progress = await house.ended(running)
            assert (progress.state, progress.reason) == (
                RolloutState.FAILED,
                f"replica-2 was set to {wish.value}",
            )
            assert house.fleet.get("replica-1").takes_sessions  # type: ignore[union-attr]
            assert (new.gone, new.admin_state) == (phase is Phase.CHECKING, wish)

    asyncio.run(main())


def test_nobody_is_stopped_while_the_new_one_is_down(house: House) -> None:
    """It dies while the old one drains: that one stays until the new one is healthy again."""

    async def main() -> None:
        house.gate = asyncio.Event()
        async with house.running() as supervisor:
            await house.until_ready(1)
            running = house.rollout.begin(asyncio.create_task)
            await house.until(lambda: house.drained)
            new = house.fleet.get("replica-2")
            pid = supervisor.replicas[1].pid
            assert new is not None
            assert pid
            house.sick.add("replica-2")
            os.kill(pid, signal.SIGKILL)
            await house.until(lambda: house.told(ReplicaEventKind.EXITED))
            house.fleet.observe(new, Observation.ENDED, 1.0)
            house.gate.set()
            await house.until_ready(3)
            assert (house.names, running.done()) == (["replica-1", "replica-2"], False)
            house.fleet.observe(new, Observation.ANSWERED, 2.0)
            assert (await house.ended(running)).state is RolloutState.DONE
            assert house.names == ["replica-2"]

    asyncio.run(main())


def test_one_that_is_being_stopped_cannot_be_kept(house: House) -> None:
    """From the end of its drain on it is about to leave the fleet, so nobody can give it sessions again."""

    async def main() -> None:
        seen: list[tuple[bool, AdminState]] = []
        async with house.running() as supervisor:
            await house.until_ready(1)
            old = house.fleet.get("replica-1")
            assert old is not None
            retire = supervisor.retire

            async def watched(replica: Replica) -> None:
                seen.append((old.leaving, old.admin_state))
                await retire(replica)

            supervisor.retire = watched  # type: ignore[method-assign]
            assert (await house.roll_out()).state is RolloutState.DONE
            assert seen == [(True, AdminState.DRAIN)]

    asyncio.run(main())
