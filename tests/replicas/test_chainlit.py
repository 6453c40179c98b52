"""The supervisor with real Chainlit instances."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from proxy.replicas import ReplicaError, ReplicaEventKind
from tests.replicas.recorded import Recorded
from tests.replicas.visitor import Visitor
from tests.support.waiting import Stopwatch

pytestmark = pytest.mark.system

App = Callable[[str], Path]
Record = Callable[..., Recorded]
WaitGone = Callable[[list[int], float], list[int]]
Supervise = Callable[[Path, int], tuple[subprocess.Popen[str], list[int]]]

ROOT = Path(__file__).parents[2]
PLAIN = """\
import os
import chainlit as cl
from chainlit.config import APP_ROOT, FILES_DIRECTORY, config
print("seen", APP_ROOT, os.getcwd(), config.root, __file__, __name__, flush=True)
print("files", FILES_DIRECTORY)

@cl.on_message
async def answer(message):
    await cl.Message(content=f"you said {message.content}").send()
"""


def test_replicas_share_the_root_but_not_the_files(app: App, record: Record, tmp_path: Path) -> None:
    """Each app sees the root, working directory and path that `chainlit run` gives it, and own files."""
    path = app(PLAIN)
    with subprocess.Popen(
        [sys.executable, "-m", "chainlit", "run", str(path), "--headless", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as plain:
        assert plain.stdout
        seen = next(line.rstrip() for line in plain.stdout if line.startswith("seen"))
        plain.kill()
    assert seen.split()[1] == str(tmp_path / "app")

    async def main() -> None:
        run = record(path, 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            told = [line.partition(" | ")[2] for line in run.lines]
            assert [line for line in told if line.startswith("seen")] == [seen, seen]
            files = {line for line in told if line.startswith("files")}
            assert files == {
                f"files {tmp_path}/state/{replica.name}/files" for replica in supervisor.replicas
            }
            assert len({replica.url for replica in supervisor.replicas}) == 2

    asyncio.run(main())
    assert (tmp_path / "app" / ".chainlit" / "config.toml").exists()
    assert not (tmp_path / "state").exists()


def test_files_of_one_stay_when_another_stops(app: App, record: Record) -> None:
    """A replica that stops removes its own uploads only; it is back under its name, and both take files.

    Afterwards the app's folder has no `.files`.
    """

    async def main() -> None:
        run = record(app(PLAIN), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one, other = supervisor.replicas
            async with Visitor(other.url) as visitor:
                file = await visitor.uploads("a.txt", b"kept")
                assert one.pid
                os.kill(one.pid, signal.SIGTERM)
                await run.until_ready(3)
                assert (run.told(ReplicaEventKind.EXITED)[0].code, one.restarts) == (0, 1)
                assert await visitor.fetches(file) == b"kept"
                assert await visitor.uploads("b.txt", b"new")
                await visitor.says("hello")
                await visitor.reads("you said hello")
            async with Visitor(one.url) as visitor:
                assert await visitor.fetches(await visitor.uploads("c.txt", b"there")) == b"there"

    asyncio.run(main())
    assert not Path(".files").exists()


def test_new_version_comes_and_an_old_one_goes(app: App, record: Record, tmp_path: Path) -> None:
    """One that is started later runs the app as it is then; sessions and files elsewhere do not notice.

    One with an import error in it says so, and is gone.
    """

    async def main() -> None:
        run = record(app(PLAIN), 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            one, other = supervisor.replicas
            async with Visitor(other.url) as visitor:
                file = await visitor.uploads("a.txt", b"kept")
                app("import no_such_module\n")
                with pytest.raises(ReplicaError, match="replica-3 exited with code 1 before it was ready"):
                    await supervisor.start_another()
                missing = "replica-3 | ModuleNotFoundError: No module named 'no_such_module'"
                assert missing in run.lines
                app(PLAIN.replace("you said", "you wrote"))
                new = await supervisor.start_another()
                await supervisor.retire(one)
                assert supervisor.replicas == [other, new]
                assert {folder.name for folder in (tmp_path / "state").iterdir()} == {
                    "replica-2",
                    "replica-4",
                }
                assert await visitor.fetches(file) == b"kept"
                await visitor.says("hello")
                await visitor.reads("you said hello")
            async with Visitor(new.url) as visitor:
                await visitor.says("hello")
                await visitor.reads("you wrote hello")

    asyncio.run(main())


def test_one_that_is_retired_answers_to_the_end(app: App, record: Record) -> None:
    """A long request that has begun when its replica is told to end gets its whole answer, and no kill."""
    route = (
        "\nimport asyncio\nfrom chainlit.server import app\n"
        "@app.post('/long')\nasync def long():\n"
        "    print('begun', flush=True)\n    await asyncio.sleep(3)\n    return 'whole'\n"
    )

    async def main() -> None:
        run = record(app(PLAIN + route), 2)
        async with run.running() as supervisor, aiohttp.ClientSession() as http:
            await run.until_ready(2)
            one = supervisor.replicas[0]
            asking = asyncio.ensure_future(http.post(f"{one.url}/long"))
            await run.until(lambda: any(line.endswith("begun") for line in run.lines))
            await supervisor.retire(one)
            async with await asking as answer:
                assert (answer.status, await answer.json()) == (200, "whole")
            assert run.told(ReplicaEventKind.KILLED) == []

    asyncio.run(main())


def test_broken_app_shows_its_traceback(app: App, record: Record, wait_gone: WaitGone) -> None:
    """An app that does not import ends the run with Chainlit's own traceback, once, and leaves nothing."""
    run = record(app("import os\nprint('pid', os.getpid())\nimport no_such_module\n"), 2)
    begin = Stopwatch()
    with pytest.raises(ReplicaError) as error:
        asyncio.run(run.supervisor.run())
    assert begin.seconds < 20
    assert error.value.exit_code == 1
    assert sum("ModuleNotFoundError: No module named 'no_such_module'" in line for line in run.lines) == 1
    assert wait_gone([int(line.split()[-1]) for line in run.lines if " | pid " in line], 0) == []


def test_options_reach_chainlit(app: App, record: Record) -> None:
    """Options are forwarded; with a root path, below which `/health` moves, the replica is ready too."""

    async def main() -> None:
        run = record(app(PLAIN), 1, options=["--root-path", "/chat", "-d"])
        async with run.running():
            await run.until_ready(1)
            assert any("/chat" in line for line in run.lines)

    asyncio.run(main())


def test_unknown_option_is_told_by_chainlit(app: App, record: Record) -> None:
    """An option that Chainlit does not know ends the run with its own message and exit code."""
    run = record(app(PLAIN), 1, options=["--no-such-option"])
    with pytest.raises(ReplicaError) as error:
        asyncio.run(run.supervisor.run())
    assert error.value.exit_code == 2
    assert any("No such option" in line for line in run.lines)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped process with its parent")
def test_killed_supervisor_leaves_no_orphan(app: App, supervise: Supervise, wait_gone: WaitGone) -> None:
    """When the supervisor is killed, its replicas end within five seconds, also one under SIGSTOP."""
    process, pids = supervise(app(PLAIN), 2)
    assert len(set(pids)) == 2
    os.kill(pids[0], signal.SIGSTOP)
    process.kill()
    assert wait_gone(pids, 5) == []


def test_stopped_supervisor_leaves_no_orphan(app: App, supervise: Supervise, wait_gone: WaitGone) -> None:
    """A supervisor that is told to stop ends with code 0 when its replicas are gone."""
    process, pids = supervise(app(PLAIN), 2)
    process.terminate()
    assert process.wait(20) == 0
    assert wait_gone(pids, 0) == []


def test_example_chat(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example greets with an element, streams, remembers, takes files and has a button that works."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        run = record(ROOT / "examples" / "chat" / "app.py", 2)
        async with run.running() as supervisor:
            await run.until_ready(2)
            for replica in supervisor.replicas:
                async with Visitor(replica.url) as visitor:
                    await _converse(visitor, str(replica.pid))

    asyncio.run(main())


async def _converse(visitor: Visitor, instance: str) -> None:
    """One conversation with the example, by everything it can."""
    assert instance in await visitor.reads("Hello! This conversation lives at")
    element = await visitor.hears(visitor.elements)
    assert b"who am I?" in await visitor.fetches(element["chainlitKey"])
    await visitor.says("hi, my name is Ada")
    await visitor.reads("Nice to meet you, Ada.")
    await visitor.says("who am I?")
    assert instance in await visitor.reads("You are Ada.")
    visitor.tokens.clear()
    await visitor.says("tell me something")
    await visitor.reads("token by token")
    assert len(visitor.tokens) > 50
    file = await visitor.uploads("notes.txt", b"twelve bytes")
    await visitor.says("take this", file)
    await visitor.reads("I got notes.txt (12 bytes).")
    told = await visitor.clicks(await visitor.hears(visitor.actions))
    assert told == "I remember: your name is Ada; you sent 4 messages; you gave me notes.txt (12 bytes)."
    assert instance in await visitor.reads("I remember:")
