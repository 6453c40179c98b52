"""Instances that `chainlit-proxy replica` starts in one folder: each has its own uploads, and leaves none."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.replicas.visitor import Visitor
from tests.support.proxy_process import COMMAND
from tests.support.sharing import Instance

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

STOP = 30.0
STORE = {"sessions.db", "sessions.db.files"}  # all of it that is left
Start = Callable[..., Instance]


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """Where the instances make their temporary folders."""
    folder = tmp_path / "temp"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path: Path, temp: Path) -> Iterator[Start]:
    """Makes an instance in the folder `app`, with these options of `replica`, and launches it."""
    made: list[Instance] = []

    def make(name: str, *options: str) -> Instance:
        store = f"sqlite://{tmp_path}/sessions.db"
        command = [*COMMAND, "replica", "app.py", "--sessions", store, *options, "--"]
        made.append(Instance(name, tmp_path, "", command=command, env={"TMPDIR": str(temp)}, root="app"))
        made[-1].launch()
        return made[-1]

    yield make
    for instance in made:
        instance.kill9()
        print(instance.tail())


def entries(folder: Path) -> set[str]:
    """What is in a folder."""
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_files_of_one_stay_when_another_stops(
    start: Start, temp: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Whatever ends one of two in a folder, the other takes and hands out files, and both clean up."""
    one, other = start("one"), start("other")
    one.wait_ready()
    other.wait_ready()
    assert f"sessions are shared in sqlite://{tmp_path}/sessions.db" in one.tail(200)

    async def scenario() -> None:
        async with Visitor(other.url) as visitor:
            before = await visitor.uploads("a.txt", b"kept")
            one.stop(number, timeout=STOP)
            assert await visitor.fetches(before) == b"kept"
            assert await visitor.fetches(await visitor.uploads("b.txt", b"new")) == b"new"

    asyncio.run(scenario())
    if number is signal.SIGKILL:  # nobody could clean up: the next that starts does
        assert len(entries(temp)) == 2
        one.launch()
        one.wait_ready()
        assert len(entries(temp)) == 2
        one.stop(signal.SIGTERM, timeout=STOP)
    other.stop(signal.SIGTERM, timeout=STOP)
    assert entries(temp) == set()
    assert ".files" not in entries(one.root)
    if number is not signal.SIGKILL:  # the last one leaves the store as one file
        assert {name for name in entries(tmp_path) if name.startswith("sessions.db")} <= STORE


def test_a_folder_that_is_named_is_for_one(start: Start, tmp_path: Path) -> None:
    """With `--state` uploads are below that folder; a second instance is refused it; the rest of it stays."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "files").write_text("mine")
    one = start("one", "--state", str(state))
    one.wait_ready()

    async def scenario() -> None:
        async with Visitor(one.url) as visitor:
            await visitor.uploads("a.txt", b"there")
            stored = [file.read_bytes() for file in (state / "replica" / "files").glob("*/*")]
            assert stored.count(b"there") == 1  # the greeting of the app may have put a file there, too

    asyncio.run(scenario())
    two = start("two", "--state", str(state))
    assert two.wait() == 2
    assert f"--state: {state}: another instance uses this folder; give each its own" in two.tail()
    assert one.stop(signal.SIGTERM, timeout=STOP) == 0
    assert not list((state / "replica").glob("files"))
    assert (state / "files").read_text() == "mine"


def test_files_of_chainlit_itself_are_not_touched(start: Start, tmp_path: Path) -> None:
    """A `.files` that was there, of a plain `chainlit run` in the same folder, is there afterwards."""
    (tmp_path / "app" / ".files").mkdir(parents=True)
    one = start("one")
    one.wait_ready()
    assert one.stop(signal.SIGTERM, timeout=STOP) == 0
    assert ".files" in entries(one.root)


def test_an_instance_that_does_not_start_leaves_nothing(start: Start, temp: Path) -> None:
    """An option that Chainlit refuses ends the command with Chainlit's code, and its folder is gone."""
    one = start("one", "--", "--no-such-option")
    assert one.wait() == 2
    assert "No such option" in one.tail()
    assert entries(temp) == set()
