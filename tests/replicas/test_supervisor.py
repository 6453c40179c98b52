"""The supervisor with real processes that hold a scripted `chainlit`: quick, and all can be provoked."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.replicas import ReplicaError, ReplicaEventKind, ReplicaState, RestartRule, Supervisor
from tests.replicas.recorded import Recorded
from tests.support.waiting import Stopwatch

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("scripted_chainlit")]

App = Callable[[str], Path]
Record = Callable[..., Recorded]
HASTE = RestartRule(first=0.05, longest=0.1, quick=5, quick_deaths=3)


def test_prefixed_lines_of_any_length(app: App, record: Record) -> None:
    """Both streams of every replica arrive as prefixed lines, also one of a megabyte."""
    code = "import sys\nprint('out', PORT)\nprint('x' * 1_000_000)\nprint('err', file=sys.stderr)\n"

    async def main() -> None:
        run = record(app(code), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            await run.until(lambda: sum(line.endswith("err") for line in run.lines) == 2)
            for replica in supervisor.replicas:
                port = replica.url.rpartition(":")[2]
                own = [line for line in run.lines if line.startswith(f"{replica.name} | ")]
                assert own[0] == f"{replica.name} | out {port}"
                assert sum(line.count("x") for line in own) == 1_000_000

    asyncio.run(main())


def test_killed_replica_is_back_at_its_port(app: App, record: Record, tmp_path: Path) -> None:
    """A replica that was killed starts again under the same name and url, the others are not touched."""

    async def main() -> None:
        run = record(app(""), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one, other = supervisor.replicas
            before = (one.name, one.url, other.pid)
            assert one.pid
            os.kill(one.pid, signal.SIGKILL)
            await run.until_ready(3)
            assert (one.name, one.url, other.pid) == before
            assert (one.restarts, other.restarts) == (1, 0)
            kinds = [event.kind for event in run.events if event.replica is one]
            assert kinds == [
                ReplicaEventKind.READY,
                ReplicaEventKind.EXITED,
                ReplicaEventKind.RESTARTING,
                ReplicaEventKind.READY,
            ]
            exited = run.told(ReplicaEventKind.EXITED)[0]
            assert (exited.code, str(exited)) == (-9, "replica-1 was killed by SIGKILL")
        assert {replica.state for replica in supervisor.replicas} == {ReplicaState.STOPPED}
        assert not (tmp_path / "state").exists()

    asyncio.run(main())


def test_lost_port_is_replaced(app: App, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica whose port was taken while it was down comes back at another."""

    async def main() -> None:
        run = record(app(""), 2, rule=RestartRule(first=0.5))
        async with run.running() as supervisor:
            await run.until_ready(2)
            one = supervisor.replicas[0]
            port = int(one.url.rpartition(":")[2])
            assert one.pid
            os.kill(one.pid, signal.SIGKILL)
            await run.until(lambda: run.told(ReplicaEventKind.RESTARTING))
            with socket.create_server(("127.0.0.1", port)):
                await run.until_ready(3)
            assert one.url != f"http://127.0.0.1:{port}"

    asyncio.run(main())


def test_gives_up_on_one_that_always_dies(app: App, record: Record) -> None:
    """One that was ready and then dies at once each time is given up; the others go on."""
    code = "import os\nif FIRST == PORT:\n    AFTER.append(lambda: os._exit(7))\n"

    async def main(run: Recorded) -> None:
        async with run.running():
            one, other = run.supervisor.replicas
            await run.until(lambda: run.told(ReplicaEventKind.FAILED))
            assert one.state is ReplicaState.FAILED
            assert [event.code for event in run.told(ReplicaEventKind.EXITED)] == [7, 7, 7]
            assert str(run.told(ReplicaEventKind.FAILED)[0]) == (
                "replica-1 is given up: it died at once 3 times in a row"
            )
            await run.until(lambda: other.state is ReplicaState.READY)
            assert (other.restarts, other.pid is None) == (0, False)

    run = record(app(""), 2, rule=HASTE)
    run.supervisor.prepare()
    app(f"FIRST = {run.supervisor.replicas[0].url.rpartition(':')[2]}\n{code}")
    asyncio.run(main(run))


def test_run_fails_when_all_are_given_up(app: App, record: Record) -> None:
    """When no replica is left, the run ends with an error."""
    code = "import os\nAFTER.append(lambda: os._exit(0))\n"
    with pytest.raises(ReplicaError, match="every replica was given up"):
        asyncio.run(record(app(code), 2, rule=HASTE).supervisor.run())


def test_broken_app_ends_the_run(app: App, record: Record, tmp_path: Path) -> None:
    """An app that fails at its import ends the run at once, with its traceback told by one replica only."""
    run = record(app("raise RuntimeError('no key')"), 3)
    begin = Stopwatch()
    with pytest.raises(ReplicaError, match=r"the app did not start: replica-. exited with code 1") as error:
        asyncio.run(run.supervisor.run())
    assert begin.seconds < 10
    assert error.value.exit_code == 1
    assert sum(line.endswith("RuntimeError: no key") for line in run.lines) == 1
    assert {replica.state for replica in run.supervisor.replicas} == {ReplicaState.STOPPED}
    assert not (tmp_path / "state").exists()


def test_broken_app_is_told_by_another_if_the_first_hangs(app: App, record: Record) -> None:
    """If the first replica neither starts nor fails, the words of the one that failed are passed on."""
    run = record(app(""), 2)
    run.supervisor.prepare()
    port = run.supervisor.replicas[0].url.rpartition(":")[2]
    app(f"import time\nif PORT == {port}:\n    time.sleep(60)\n1 / 0\n")
    with pytest.raises(ReplicaError, match="replica-2 exited with code 1"):
        asyncio.run(run.supervisor.run())
    assert run.lines[-1] == "replica-2 | ZeroDivisionError: division by zero"


def test_broken_app_is_told_once_if_the_first_ends_slowly(app: App, record: Record) -> None:
    """A first replica that has said why, and takes its time to end, is not repeated by another."""
    run = record(app(""), 2)
    run.supervisor.prepare()
    port = run.supervisor.replicas[0].url.rpartition(":")[2]
    app(f"import atexit, time\nif PORT == {port}:\n    atexit.register(time.sleep, 60)\n1 / 0\n")
    with pytest.raises(ReplicaError, match="replica-2 exited with code 1"):
        asyncio.run(run.supervisor.run())
    assert sum(line.endswith("ZeroDivisionError: division by zero") for line in run.lines) == 1
    assert run.lines[-1] == "replica-1 | ZeroDivisionError: division by zero"


def test_app_that_never_answers_is_ended(app: App, record: Record) -> None:
    """An app that hangs at its import ends the run when the time for a start is over."""
    run = record(app("import time; time.sleep(60)"), 1, start_timeout=lambda: 0.5)
    with pytest.raises(ReplicaError, match=r"was not ready within 0\.5 s"):
        asyncio.run(run.supervisor.run())


def test_exit_code_of_the_app_is_kept(app: App, record: Record) -> None:
    """The run's exit code is the app's own where it has one."""
    with pytest.raises(ReplicaError) as error:
        asyncio.run(record(app("raise SystemExit(3)"), 1).supervisor.run())
    assert error.value.exit_code == 3


def test_stop_kills_one_that_does_not_listen(
    app: App, record: Record, wait_gone: Callable[[list[int], float], list[int]]
) -> None:
    """What ignores SIGTERM is killed after the stop timeout, with what it started."""
    code = (
        "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('child', subprocess.Popen(['sleep', '300']).pid)\n"
    )

    async def main() -> tuple[int, float]:
        run = record(app(code), 1, stop_timeout=0.3)
        async with run.running():
            await run.until_ready(1)
            await run.until(lambda: run.lines)
            begin, watch = time.monotonic(), Stopwatch()
        took = time.monotonic() - begin
        assert watch.own(took) < 3
        return int(run.lines[0].split()[-1]), took

    child, took = asyncio.run(main())
    assert took >= 0.3
    assert wait_gone([child], 2) == []


def test_stop_reaches_one_that_is_stopped(app: App, record: Record) -> None:
    """A replica under SIGSTOP ends at SIGTERM too, in order."""

    async def main() -> float:
        run = record(app(""), 1, stop_timeout=30)
        async with run.running() as supervisor:
            await run.until_ready(1)
            pid = supervisor.replicas[0].pid
            assert pid
            os.kill(pid, signal.SIGSTOP)
            begin = Stopwatch()
        return begin.seconds

    assert asyncio.run(main()) < 5


def test_kill_does_not_wait(app: App, record: Record) -> None:
    """`kill` ends at once what `stop` would wait for."""
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

    async def main() -> float:
        run = record(app(code), 2, stop_timeout=60)
        async with run.running() as supervisor:
            await run.until_ready(2)
            supervisor.stop()
            begin = Stopwatch()
            supervisor.kill()
        return begin.seconds

    assert asyncio.run(main()) < 5


def test_cancelled_run_leaves_nothing(
    app: App, record: Record, wait_gone: Callable[[list[int], float], list[int]]
) -> None:
    """A run that is cancelled ends its replicas before it ends itself."""

    async def main() -> list[int]:
        run = record(app(""), 2)
        task = asyncio.create_task(run.supervisor.run())
        await run.until_ready(2)
        pids = [replica.pid for replica in run.supervisor.replicas if replica.pid]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pids

    pids = asyncio.run(main())
    assert len(pids) == 2
    assert wait_gone(pids, 0) == []


def test_stop_while_starting(app: App, record: Record) -> None:
    """A run that is stopped before any replica was ready returns without an error."""

    async def main() -> None:
        run = record(app("import time; print('here'); time.sleep(60)"), 2)
        async with run.running():
            await run.until(lambda: run.lines)
        assert run.events == []

    asyncio.run(main())


def test_works_on_uvloop(app: App, record: Record) -> None:
    """The event loop of the proxy is uvloop: start, death, restart and stop work there too."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        run = record(app("print('up')"), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            pid = supervisor.replicas[1].pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            await run.until_ready(3)
        assert sum(line.endswith("up") for line in run.lines) == 3

    uvloop.run(main())


def test_chainlit_without_the_known_names_is_refused(
    app: App, record: Record, scripted_chainlit: Path
) -> None:
    """A Chainlit that does not say where its files are is not run: instances would remove each other's."""
    config = scripted_chainlit / "config.py"
    config.write_text(config.read_text().replace("FILES_DIRECTORY =", "OTHER ="))
    run = record(app(""), 1)
    with pytest.raises(ReplicaError, match="exited with code 1"):
        asyncio.run(run.supervisor.run())
    assert run.lines[-1].endswith("keeps uploads where instances cannot have their own")


def test_app_may_have_a_module_named_like_ours(app: App, record: Record) -> None:
    """The app finds its own module `proxy`, and none of the launcher's neighbours, and Chainlit's argv."""
    path = app(
        "import importlib.util, sys, proxy\n"
        "print(proxy.NAME, importlib.util.find_spec('supervisor'), sys.argv[1:3])"
    )
    Path("proxy.py").write_text("NAME = 'the app'")

    async def main() -> None:
        run = record(path, 1)
        async with run.running():
            await run.until_ready(1)
        assert run.lines == ["replica-1 | the app None ['run', 'app.py']"]

    asyncio.run(main())


def test_what_an_earlier_run_left_is_removed(app: App, record: Record, tmp_path: Path) -> None:
    """Folders of an earlier run's replicas are gone after the start."""
    old = tmp_path / "state" / "replica-9" / "files"
    old.mkdir(parents=True)

    async def main() -> None:
        run = record(app(""), 1)
        async with run.running():
            await run.until_ready(1)
            assert not old.exists()
            assert (tmp_path / "state" / "replica-1" / "files").is_dir()

    asyncio.run(main())


def _refused(app: Path, state: Path, **settings: list[str]) -> str:
    supervisor = Supervisor(app, 2, state=state, output=print, on_event=print, **settings)  # type: ignore[arg-type]
    with pytest.raises(ReplicaError) as error:
        supervisor.prepare()
    assert error.value.exit_code == 2
    assert not state.exists()
    return str(error.value)


def test_mistakes_are_told_before_anything_starts(app: App, tmp_path: Path) -> None:
    """No file, a folder, one that is not Python, and options that are not the replica's are refused."""
    good, state = app(""), tmp_path / "state"
    Path("notes.txt").write_text("")
    assert _refused(Path("none.py"), state) == "none.py: there is no such file"
    assert _refused(Path(), state) == ".: must be the Python file of the app, and is a directory"
    assert _refused(Path("notes.txt"), state) == "notes.txt: Chainlit runs Python files, named .py"
    assert "--port=80 cannot be passed on" in _refused(good, state, options=["--port=80"])
    assert "--ssl-cert cannot be passed on" in _refused(good, state, options=["-d", "--ssl-cert", "x"])


def test_missing_chainlit_is_told(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Chainlit in the environment the error says how to get it."""
    monkeypatch.setitem(sys.modules, "chainlit", None)
    assert "pip install 'chainlit>=2.0,<3'" in _refused(app(""), tmp_path / "state")
