"""What a replica started ends with it, in whatever session and however it ends; nothing else does."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.replicas import ReplicaEventKind, kept
from tests.replicas.recorded import Recorded
from tests.support.processes import alive

pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("scripted_chainlit"),
    pytest.mark.skipif(sys.platform != "linux", reason="what leaves its group is lost elsewhere"),
]

App = Callable[[str], Path]
Record = Callable[..., Recorded]
WaitGone = Callable[[list[int], float], list[int]]
Supervise = Callable[[Path, int], tuple[subprocess.Popen[str], list[int]]]

# As a stdio server of MCP is started: a session of its own, and nothing in its environment that tells whose
# it is. It has a child, and the app also has a daemon: a grandchild whose parent has ended.
STARTS = """
import os, subprocess
tree = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], start_new_session=True, env={},
                        stdout=subprocess.PIPE, text=True)
daemon = subprocess.run(["setsid", "sh", "-c", "sleep 300 >&2 & echo $!"], stdout=subprocess.PIPE, text=True)
print("tree", tree.pid, tree.stdout.readline().strip(), daemon.stdout.strip(), flush=True)
with open("../trees", "a") as file:
    print(tree.pid, daemon.stdout, file=file)
"""


def trees(lines: list[str]) -> dict[str, list[int]]:
    """What the replicas have started, by their names."""
    told = [line.split() for line in lines if " tree " in line]
    return {words[0]: [int(pid) for pid in words[3:]] for words in told}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_all_ends_with_a_replica(
    app: App, record: Record, wait_gone: WaitGone, number: signal.Signals
) -> None:
    """Whatever a replica started ends with it, before it is started again; that of the other lives on."""

    async def main() -> None:
        run = record(app(STARTS), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            pids = trees(run.lines)
            victim, other = (pids[replica.name] for replica in supervisor.replicas)
            assert all(map(alive, victim + other))
            assert supervisor.replicas[0].pid
            os.kill(supervisor.replicas[0].pid, number)
            await run.until(lambda: run.told(ReplicaEventKind.EXITED))
            assert wait_gone(victim, 0) == []
            assert all(map(alive, other))
            await run.until_ready(3)
        assert wait_gone(other, 0) == []

    asyncio.run(main())


def test_all_ends_with_the_supervisor(
    app: App, supervise: Supervise, tmp_path: Path, wait_gone: WaitGone
) -> None:
    """When the supervisor is killed nothing is left, not of a replica that is stopped either."""
    process, replicas = supervise(app(STARTS), 2)
    pids = [int(word) for word in (tmp_path / "trees").read_text().split()]
    assert len(pids) == 4
    assert all(map(alive, replicas + pids))
    os.kill(replicas[0], signal.SIGSTOP)
    process.kill()
    assert wait_gone(replicas + pids, 5) == []


def test_all_ends_with_a_keeper(app: App, supervise: Supervise, tmp_path: Path, wait_gone: WaitGone) -> None:
    """When a keeper is killed, its replica goes with it, and the supervisor ends what is left of the tree."""
    process, replicas = supervise(app(STARTS), 1)
    pids = [int(word) for word in (tmp_path / "trees").read_text().split()]
    keeper = int(Path(f"/proc/{replicas[0]}/stat").read_text().rpartition(")")[2].split()[1])
    assert keeper != process.pid
    os.kill(keeper, signal.SIGKILL)
    assert process.stdout
    again = int(process.stdout.readline())
    assert wait_gone([*replicas, *pids], 0) == []
    assert alive(again)


def test_children_of_the_app_are_its_own(app: App, record: Record) -> None:
    """An app sees how its children end; what those leave is reaped, and is no zombie below it."""
    code = """
import os, subprocess, time
child = subprocess.run(["sh", "-c", "sleep 0.1 >&2 & echo $!; exit 7"], stdout=subprocess.PIPE, text=True)
print("code", child.returncode)
while os.path.exists(f"/proc/{child.stdout.strip()}"):
    time.sleep(0.02)
print("reaped")
"""

    async def main() -> None:
        run = record(app(code), 1)
        async with run.running():
            await run.until_ready(1)
        assert [line.partition(" | ")[2] for line in run.lines] == ["code 7", "reaped"]

    asyncio.run(main())


def _as_process_1(*command: str) -> list[str]:
    """A command line that has a command be process 1 of a namespace."""
    unshare = shutil.which("unshare") or ""
    words = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]
    for more in ([], ["--user", "--map-root-user"]):
        if unshare and subprocess.run([*words, *more, "true"], check=False).returncode == 0:
            return [*words, *more, *command]
    pytest.skip("no namespace of processes can be made here")


def test_process_1_reaps_what_others_leave() -> None:
    """As process 1 it hands on signals, reaps strangers, and ends with the code of its program."""
    script = """
trap 'echo told; exit 3' TERM
stranger=$(sleep 0.1 >&2 & echo $!)
echo $$ $PPID
while test -e /proc/$stranger; do sleep 0.02; done
kill -TERM 1
while true; do sleep 0.02; done
"""
    command = _as_process_1(*kept(None, ["sh", "-c", script]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["2", "1", "told"], done
    assert done.returncode == 3


def test_a_program_that_cannot_be_started_is_told() -> None:
    """The code is that of a shell, and the reason is said."""
    command = kept(None, ["/no/such"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (127, "/no/such: No such file or directory\n")


def test_a_stopped_program_is_told_to_end() -> None:
    """A signal reaches a program under SIGSTOP, which is continued for it."""
    command = kept(None, ["sh", "-c", "echo $$; exec sleep 300"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout
        os.kill(int(keeper.stdout.readline()), signal.SIGSTOP)
        began = time.monotonic()
        keeper.terminate()
        assert keeper.wait(20) == -signal.SIGTERM
        assert time.monotonic() - began < 10
