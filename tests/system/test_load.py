"""`load` against replicas of `run`: users get whole answers, and what is carried is found twice alike."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process, free_port
from tests.support.proxy_process import COMMAND, ROOT, AdminListener
from tests.support.size import in_full
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

APP = ROOT / "tests/support/loaded_app.py"
BLOCKS = "block 0.1"  # a tenth of a second of the whole loop for each answer
WAITS = "models 2 0.25"  # eight answers a second, and nobody is blocked
Make = Callable[[str, int], "Loaded"]


class Loaded(Process, AdminListener):
    """`run` of the app for tests of load."""

    def __init__(self, folder: Path, kind: str, replicas: int) -> None:
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.url, self.admin, self.replicas, self.folder = (
            f"http://{listen}",
            f"http://{admin}",
            replicas,
            folder,
        )
        shutil.copy(APP, folder / "app.py")
        super().__init__(
            "run",
            [*COMMAND, "run", "app.py", "--replicas", str(replicas), "--listen", listen, "--admin", admin],
            folder / "run.log",
            env={"LOADED": kind, "PYTHONPATH": str(ROOT)},
            cwd=folder,
        )

    def all_healthy(self) -> bool:
        """Whether every replica is healthy."""
        assert self.running, self.tail()
        return list(self.health().values()) == ["healthy"] * self.replicas

    def load(self, *options: str) -> dict[str, Any]:
        """Runs the command against it; what it wrote as JSON."""
        command = [*COMMAND, "load", self.url, "--json", "load.json", "--html", "load.html", *options]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        told: dict[str, Any] = json.loads((self.folder / "load.json").read_text())
        return told


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts replicas of an app of that kind."""
    made: list[Loaded] = []

    def start(kind: str, replicas: int) -> Loaded:
        folder = tmp_path / f"{len(made)}"
        folder.mkdir()
        made.append(Loaded(folder, kind, replicas))
        made[-1].launch()
        wait_until(made[-1].all_healthy, 60, made[-1].tail)
        return made[-1]

    yield start
    for loaded in made:
        loaded.stop()
        print(loaded.tail(50))


def test_users_get_whole_answers(make: Make) -> None:
    """By each transport: as many sessions as users, tokens, no error; the report tells of both replicas."""
    told = make("models 8 0.05", 2).load("--users", "10", "--ramp", "1", "--for", "6", "--think", "0.5")
    assert (told["sessions"], told["errors"], told["disconnects"]) == (10, {}, {})
    assert told["answers"] > 20
    assert told["tokens"] >= 9 * told["answers"]
    assert {"generator", "front", "instance 1", "instance 2"} == told["cpu_cores"].keys()
    assert 0.05 <= told["first_token_seconds"]["median"] < 2


def test_what_one_replica_carries_is_found(make: Make) -> None:
    """A loop that is blocked for 0.1 s an answer gives ten answers a second, and no search finds more."""
    began = time.monotonic()
    told = make(BLOCKS, 1).load(
        "--users", "12", "--ramp", "1", "--think", "0.2", "--target", "0.4", "--transport", "websocket"
    )
    carried = told["carried"]
    assert 1 <= carried["users"] <= 8, told["trials"]
    assert (carried["instances"], carried["instances_with_one_to_spare"]) == (1, 2)
    assert told["trials"][-1]["confirmation"]
    assert time.monotonic() - began < 240


@in_full
@pytest.mark.parametrize("kind", [BLOCKS, WAITS])
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_second_run_confirms_the_first(make: Make, kind: str, replicas: int) -> None:
    """Within 15 %, for an app that blocks and one that does not, with one, two and three replicas."""
    loaded = make(kind, replicas)
    options = ["--users", "200", "--ramp", "20", "--think", "2", "--target", "2"]
    first, second = (loaded.load(*options)["carried"]["users"] for _ in range(2))
    assert abs(first - second) <= 0.15 * max(first, second), (first, second)
