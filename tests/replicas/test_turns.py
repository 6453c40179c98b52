"""How replicas start, one after the other, what they tell when they have, and how one is told to end."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.replicas import SHARING, ReplicaError, ReplicaEventKind, ReplicaState, Supervisor
from proxy.replicas.supervisor import processors
from proxy.sessions import SharingSettings
from tests.replicas.recorded import Recorded

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]

App = Callable[[str], Path]
Record = Callable[..., Recorded]


def test_one_starts_after_the_other(app: App, record: Record) -> None:
    """No more of them load the app at once than was said, each in its own time."""
    code = "import time\nprint('begins')\ntime.sleep(2)\nprint('is loaded')\n"

    async def main() -> None:
        run = record(app(code), 3, at_once=1, start_timeout=lambda: 5.5)
        async with run.running():
            await run.until_ready(3)
        told = [line.partition(" | ")[2] for line in run.lines]
        assert told == 3 * ["begins", "is loaded"]

    asyncio.run(main())


def test_the_first_error_does_not_wait(app: App, record: Record) -> None:
    """With one start at a time, an app that cannot start is told by the first, and no other is tried."""
    run = record(app("print('begins')\n1 / 0\n"), 3, at_once=1)
    with pytest.raises(ReplicaError, match="replica-1 exited with code 1"):
        asyncio.run(run.supervisor.run())
    assert sum(line.endswith("begins") for line in run.lines) == 1


def test_there_is_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container may use of the processors bounds how many start at once; one always does."""
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("proxy.replicas.supervisor.CPU_QUOTA", quota)
    there = processors()
    assert there >= 1
    for text, count in (
        ("max 100000", there),
        ("100000 100000", 1),
        ("20000 100000", 1),
        ("9900000 100000", there),
    ):
        quota.write_text(text)
        assert processors() == count


def test_a_replica_that_cannot_share_is_told(
    app: App, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes of that is in the event that it is ready, with the reason; the others do not matter."""
    code = (
        "import json, pathlib, chainlit.config as c\n"
        "told = pathlib.Path(c.FILES_DIRECTORY).parent / 'sharing'\n"
        "told.write_text(json.dumps({'shared': PORT != %s, 'reason': 'the store is down'}))\n"
    )
    monkeypatch.setenv(SHARING, SharingSettings("sqlite:///nowhere").to_text())
    run = record(app(""), 2)
    run.supervisor.prepare()
    app(code % run.supervisor.replicas[1].url.rpartition(":")[2])

    async def main() -> None:
        async with run.running() as supervisor:
            await run.until_ready(2)
            assert not supervisor.shares
            told = {event.replica.name: event for event in run.told(ReplicaEventKind.READY)}
            assert told["replica-1"].is_fine
            assert not told["replica-2"].is_fine
            assert told["replica-2"].text.endswith("a drain waits for their end: the store is down")
            await supervisor.retire(supervisor.replicas[1])
            assert supervisor.shares

    asyncio.run(main())


def test_a_replica_that_says_nothing_does_not_share(
    app: App, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it could not write, as on a full disk, nobody takes its conversations for shared."""
    code = (
        "import pathlib, chainlit.config as c\n"
        "(pathlib.Path(c.FILES_DIRECTORY).parent / 'sharing').unlink(missing_ok=True)\n"
    )
    monkeypatch.setenv(SHARING, SharingSettings("sqlite:///nowhere").to_text())

    async def main() -> None:
        run = record(app(code), 1)
        async with run.running() as supervisor:
            await run.until_ready(1)
            assert not supervisor.shares
            assert "it could not say in its state folder whether it does" in str(run.events[0])

    asyncio.run(main())


def test_a_state_folder_that_cannot_be_made(app: App, record: Record, tmp_path: Path) -> None:
    """It is a mistake of whoever named it, and told as such."""
    (tmp_path / "plain").touch()
    run = record(app(""), 1)
    supervisor = Supervisor(
        app(""), 1, state=tmp_path / "plain", output=run.lines.append, on_event=run.events.append
    )
    with pytest.raises(ReplicaError, match=r"plain: File exists$") as caught:
        supervisor.prepare()
    assert caught.value.exit_code == 2


def test_one_that_has_to_be_killed_is_told(app: App, record: Record) -> None:
    """Whoever retires a replica reads that it did not end in time."""
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

    async def main() -> None:
        run = record(app(code), 2, stop_timeout=0.1)
        async with run.running() as supervisor:
            await run.until_ready(2)
            retiring = asyncio.create_task(supervisor.retire(supervisor.replicas[0]))
            await asyncio.sleep(0)
            assert supervisor.replicas[0].state is ReplicaState.STOPPING
            await retiring
            kinds = [event.kind for event in run.events if event.replica.name == "replica-1"]
            assert kinds == [ReplicaEventKind.READY, ReplicaEventKind.KILLED, ReplicaEventKind.RETIRED]
            assert "did not end within 0.1 s of SIGTERM and was killed" in str(
                run.told(ReplicaEventKind.KILLED)[0]
            )

    asyncio.run(main())
