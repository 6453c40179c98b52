"""What an app can read of the operator's secrets: not its own variables, nor those of what has started it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy_process import COMMAND
from tests.support.sharing import APP, Instance, RunSharing, ending
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

# By the app, or by a tool that it has started: Linux shows the variables of all processes of one user.
LOOKS = r"""
import os, re, pathlib
found, pid = set(re.findall("[A-Za-z0-9_]*hunter[0-9]", repr(dict(os.environ)))), os.getpid()
for _ in range({above} + 1):
    found.update(re.findall("[A-Za-z0-9_]*hunter[0-9]", pathlib.Path(f"/proc/{{pid}}/environ").read_text()))
    pid = int(pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[1])
print("has", sorted(found), flush=True)
"""


def write(folder: Path, above: int) -> None:
    """The app, which looks into itself and so many processes above."""
    (folder / "app.py").write_text(APP.read_text() + LOOKS.format(above=above))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """One that `replica` starts, with secrets of ours and one that is the app's."""
    env = {
        "TMPDIR": str(tmp_path),  # what a killed instance leaves is there
        "CHAINLIT_PROXY_SESSIONS": f"sqlite://{tmp_path}/hunter1.db",
        "CHAINLIT_PROXY_HEALTH_SECRET": "hunter2",
        "CHAINLIT_PROXY_TOKEN": "hunter3",
        "OWN_KEY": "own_hunter4",
    }
    made = Instance("one", tmp_path, "", command=[*COMMAND, "replica", "app.py", "--"], env=env)
    yield made
    made.kill9()


def test_replica_keeps_its_secrets(instance: Instance) -> None:
    """The store's url, which may hold a password, the proof of health, and the operator's token."""
    write(instance.root, 0)
    instance.launch()
    instance.wait_ready()
    assert re.findall(r"has (\[.*)", instance.tail(100)) == ["['own_hunter4']"]


def test_run_keeps_its_secrets(tmp_path: Path) -> None:
    """What its file takes from variables, in its own process and its keeper's too, and after a reload."""
    env = {"PINS": "hunter1", "OLD": "hunter2", "CHAINLIT_PROXY_TOKEN": "hunter3", "OWN_KEY": "own_hunter4"}
    with ending() as made:
        run = RunSharing(tmp_path, 1, env=env, affinity={"secret": ["${PINS}", "${OLD}"]})
        made.append(run)
        write(tmp_path, 2)
        run.start()
        run.post("/api/reload")
        run.post("/api/rollout")
        wait_until(lambda: run.rollout()["state"] == "done", 60, run.tail)
        assert re.findall(r"has (\[.*)", run.tail(100)) == ["['own_hunter4']"] * 2
