"""A running supervisor starts one more replica and retires one, with processes of a scripted `chainlit`."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.replicas import Replica, ReplicaError, ReplicaEventKind, ReplicaState, RestartRule
from tests.replicas.recorded import Recorded

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]

App = Callable[[str], Path]
Record = Callable[..., Recorded]
WaitGone = Callable[[list[int], float], list[int]]
HASTE = RestartRule(first=0.05, longest=0.1, quick=5, quick_deaths=3)
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
# Ends in order half a second after SIGTERM, and says so.
SLOW_END = (
    "import os, signal, time\n"
    "def end(*_):\n    time.sleep(0.5)\n    print('in order', flush=True)\n    os._exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
)


def pid_of(replica: Replica) -> int:
    """The process id of a replica that runs."""
    assert replica.pid
    return replica.pid


def children() -> set[int]:
    """The processes that this one started, with those that nobody has waited for."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found


def test_another_has_the_next_free_number(app: App, record: Record, tmp_path: Path) -> None:
    """Each new replica is ready when it is returned, with a port, a folder and a number of its own.

    A number never comes again: pins are made from names.
    """

    async def main() -> None:
        run = record(app(""), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            third = await supervisor.start_another()
            assert (third.name, third.state) == ("replica-3", ReplicaState.READY)
            assert run.told(ReplicaEventKind.READY)[-1].replica is third
            assert (tmp_path / "state" / "replica-3" / "files").is_dir()
            assert supervisor.replicas[2] is third
            assert len({replica.url for replica in supervisor.replicas}) == 3
            await supervisor.retire(third)
            fourth, fifth = await asyncio.gather(supervisor.start_another(), supervisor.start_another())
            assert {fourth.name, fifth.name} == {"replica-4", "replica-5"}
            assert [replica.restarts for replica in supervisor.replicas] == [0, 0, 0, 0]

    asyncio.run(main())


def test_another_is_restarted_as_the_first_are(app: App, record: Record) -> None:
    """A replica that was added and dies is back under its name, like any other."""

    async def main() -> None:
        run = record(app(""), 1)
        async with run.running() as supervisor:
            await run.until_ready(1)
            second = await supervisor.start_another()
            os.kill(pid_of(second), signal.SIGKILL)
            await run.until_ready(3)
            assert (second.state, second.restarts) == (ReplicaState.READY, 1)

    asyncio.run(main())


# what the app does when it is started again, how soon it must be ready, what the error says
BROKEN = [
    ("print('here', flush=True)\n1 / 0\n", 60.0, "replica-3 exited with code 1 before it was ready"),
    ("print('here', flush=True)\nimport time\ntime.sleep(60)\n", 3.0, "was not ready within 3 s"),
]


@pytest.mark.parametrize(("code", "start_timeout", "reason"), BROKEN)
def test_one_that_does_not_start_is_gone(
    app: App, record: Record, tmp_path: Path, code: str, start_timeout: float, reason: str
) -> None:
    """The error says why, its words were heard; nothing is left of it and the others are as they were."""

    async def main() -> None:
        patience = 60.0
        run = record(app(""), 2, start_timeout=lambda: patience)
        async with run.running() as supervisor:
            await run.until_ready(2)
            patience = start_timeout
            before = [(replica, replica.pid) for replica in supervisor.replicas]
            processes = children()
            app(code)
            with pytest.raises(ReplicaError, match=reason):
                await supervisor.start_another()
            assert run.lines.count("replica-3 | here") == 1
            assert [(replica, replica.pid) for replica in supervisor.replicas] == before
            assert children() == processes
            assert not (tmp_path / "state" / "replica-3").exists()
            assert [event.kind for event in run.events[2:]] == [
                ReplicaEventKind.EXITED,
                ReplicaEventKind.RETIRED,
            ]
            app("")
            patience = 60.0
            assert (await supervisor.start_another()).name == "replica-4"

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the children of a process")
@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_cancelled_start_leaves_no_process(app: App, record: Record, tmp_path: Path, library: str) -> None:
    """Wherever a start is cancelled, before, while or after its process is made: no process, no folder."""
    runner = pytest.importorskip(library)

    async def main() -> None:
        run = record(app(""), 1)
        async with run.running() as supervisor:
            await run.until_ready(1)
            processes = children()
            for steps in [*range(12), 40, 400]:
                start = asyncio.create_task(supervisor.start_another())
                for _ in range(steps):
                    await asyncio.sleep(0 if steps < 40 else 0.0005)
                start.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await supervisor.retire(await start)
                assert children() == processes
            assert [replica.name for replica in supervisor.replicas] == ["replica-1"]
            assert [folder.name for folder in (tmp_path / "state").iterdir()] == ["replica-1"]

    runner.run(main())


def test_retired_replica_ends_in_order(app: App, record: Record, tmp_path: Path) -> None:
    """It gets SIGTERM and its time, is told of once and not started again, and its folder is removed."""

    async def main() -> None:
        run = record(app(SLOW_END), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one, other = supervisor.replicas
            pid = other.pid
            await supervisor.retire(one)
            assert "replica-1 | in order" in run.lines
            assert (one.pid, one.state) == (None, ReplicaState.STOPPED)
            assert not (tmp_path / "state" / "replica-1").exists()
            assert supervisor.replicas == [other]
            assert (other.pid, other.restarts) == (pid, 0)
            await supervisor.retire(one)
            assert [str(event) for event in run.events[2:]] == ["replica-1 is retired"]

    asyncio.run(main())


def test_one_that_does_not_listen_is_killed(app: App, record: Record, wait_gone: WaitGone) -> None:
    """What ignores SIGTERM is killed after `stop_timeout`."""

    async def main() -> None:
        run = record(app(DEAF), 2, stop_timeout=0.3)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one = supervisor.replicas[0]
            pid = pid_of(one)
            await supervisor.retire(one)
            assert wait_gone([pid], 0) == []

    asyncio.run(main())


def test_cancelled_retirement_goes_on(app: App, record: Record) -> None:
    """Who waits for it may leave; the replica still ends in order and is gone."""

    async def main() -> None:
        run = record(app(SLOW_END), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            retirement = asyncio.create_task(supervisor.retire(supervisor.replicas[0]))
            await asyncio.sleep(0)
            retirement.cancel()
            await run.until(lambda: run.told(ReplicaEventKind.RETIRED))
            assert "replica-1 | in order" in run.lines
            assert [replica.name for replica in supervisor.replicas] == ["replica-2"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "when", [None, ReplicaEventKind.EXITED, ReplicaEventKind.RESTARTING, ReplicaEventKind.FAILED]
)
def test_retired_while_it_crashes(app: App, record: Record, when: ReplicaEventKind | None) -> None:
    """A crash at the time of a retirement changes nothing: told once, gone, not started again."""

    async def main() -> None:
        run = record(app(""), 2, rule=HASTE)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one = supervisor.replicas[0]
            if when is ReplicaEventKind.FAILED:
                app("raise SystemExit(3)")
            os.kill(pid_of(one), signal.SIGKILL)
            if when is not None:
                await run.until(lambda: run.told(when))
            await asyncio.gather(supervisor.retire(one), supervisor.retire(one))
            told = len(run.events)
            assert len(run.told(ReplicaEventKind.RETIRED)) == 1
            app("")
            assert (await supervisor.start_another()).name == "replica-3"
            assert [event.kind for event in run.events[told:]] == [ReplicaEventKind.READY]
            assert one not in supervisor.replicas

    asyncio.run(main())


def test_others_are_restarted_meanwhile(app: App, record: Record) -> None:
    """A replica that crashes while another one is started or retired is back as ever."""

    async def main() -> None:
        run = record(app(SLOW_END), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one, other = supervisor.replicas
            start = asyncio.create_task(supervisor.start_another())
            await asyncio.sleep(0)
            os.kill(pid_of(one), signal.SIGKILL)
            await start
            await run.until(lambda: one.state is ReplicaState.READY and one.restarts == 1)
            retirement = asyncio.create_task(supervisor.retire(other))
            await asyncio.sleep(0)
            os.kill(pid_of(one), signal.SIGKILL)
            await retirement
            await run.until(lambda: one.state is ReplicaState.READY and one.restarts == 2)

    asyncio.run(main())


def test_stop_while_another_starts(app: App, record: Record) -> None:
    """A run that is stopped meanwhile ends as ever, with no process left, and the start fails."""

    async def main() -> None:
        run = record(app(""), 1)
        processes = children()
        async with run.running() as supervisor:
            await run.until_ready(1)
            app("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
            start = asyncio.create_task(supervisor.start_another())
            await run.until(lambda: run.lines)
        with pytest.raises(ReplicaError, match="replica-2 was stopped before it was ready"):
            await start
        assert children() == processes
        with pytest.raises(ReplicaError, match="the supervisor does not run"):
            await supervisor.start_another()

    asyncio.run(main())


def test_stop_while_one_is_retired(app: App, record: Record) -> None:
    """The one that is retired ends in order with the others: being stopped twice does not kill it."""

    async def main() -> None:
        run = record(app(SLOW_END), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            retirement = asyncio.create_task(supervisor.retire(supervisor.replicas[0]))
            await asyncio.sleep(0)
        await retirement
        assert sorted(run.lines) == ["replica-1 | in order", "replica-2 | in order"]

    asyncio.run(main())


def test_kill_while_one_is_retired(app: App, record: Record) -> None:
    """A second Ctrl-C does not wait for one that is being retired either."""

    async def main() -> None:
        run = record(app(DEAF), 2, stop_timeout=60)
        processes = children()
        async with run.running() as supervisor:
            await run.until_ready(2)
            retirement = asyncio.create_task(supervisor.retire(supervisor.replicas[0]))
            await asyncio.sleep(0)
            supervisor.stop()
            supervisor.kill()
        await retirement
        assert children() == processes

    asyncio.run(main())


def test_run_fails_when_all_that_are_left_are_given_up(app: App, record: Record) -> None:
    """One was given up, the other is retired: that is the end; not before."""

    async def main() -> None:
        run = record(app(""), 2, rule=HASTE)
        task = asyncio.create_task(run.supervisor.run())
        await run.until_ready(2)
        one, other = run.supervisor.replicas
        app("raise SystemExit(3)")
        os.kill(pid_of(one), signal.SIGKILL)
        await run.until(lambda: run.told(ReplicaEventKind.FAILED))
        assert not task.done()
        await run.supervisor.retire(other)
        with pytest.raises(ReplicaError, match="every replica was given up"):
            await task

    asyncio.run(main())


def test_run_goes_on_with_one_that_was_added(app: App, record: Record) -> None:
    """That the first replicas are gone is no end while one that was added is there; without any it is."""

    async def main() -> None:
        run = record(app(""), 1)
        task = asyncio.create_task(run.supervisor.run())
        await run.until_ready(1)
        first = run.supervisor.replicas[0]
        second = await run.supervisor.start_another()
        await run.supervisor.retire(first)
        third = await run.supervisor.start_another()
        await run.supervisor.retire(second)
        assert not task.done()
        await run.supervisor.retire(third)
        with pytest.raises(ReplicaError, match="no replica is left"):
            await task

    asyncio.run(main())
