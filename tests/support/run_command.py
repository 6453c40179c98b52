"""`chainlit-proxy run` as a process of its own, with real replicas of the test app."""

import json
import shutil
from pathlib import Path

from tests.support.instances import APP
from tests.support.journal import Journal
from tests.support.processes import Process, free_port
from tests.support.proxy_process import COMMAND, ROOT, AdminListener
from tests.support.waiting import wait_until

REPLICAS = 2
START = 40.0


class RunCommand(Process, AdminListener):
    """`chainlit-proxy run` with two replicas of the test app in a folder of its own."""

    def __init__(self, folder: Path, config: str = "") -> None:
        """`config` is the text of a file for `-c`, if there is to be one."""
        self.file = folder / "run.yaml"
        self.file.write_text(config)
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.url, self.admin = f"http://{listen}", f"http://{admin}"
        self.journal = Journal(folder / "journal.jsonl")
        shutil.copy(APP, folder / "app.py")
        super().__init__(
            "run",
            [*COMMAND, "run", "app.py", "--replicas", str(REPLICAS), "--listen", listen, "--admin", admin]
            + (["-c", self.file.name] if config else []),
            folder / "run.log",
            env={"JOURNAL": str(self.journal.path), "PYTHONPATH": str(ROOT)},
            cwd=folder,
        )

    def start(self) -> None:
        """Starts the command and waits until all replicas take sessions."""
        self.launch()
        wait_until(self.all_healthy, START, lambda: f"all replicas healthy\n{self.tail()}")

    def all_healthy(self) -> bool:
        """Whether the command runs, and every replica is healthy and its process known."""
        assert self.running, self.tail()
        health = self.health()
        is_healthy = len(health) == REPLICAS and set(health.values()) == {"healthy"}
        return is_healthy and all(backend["pid"] for backend in self.backends().values())

    def pids(self) -> list[int]:
        """The processes of the replicas that have one."""
        return [int(backend["pid"]) for backend in self.backends().values() if backend["pid"]]

    def rollout(self) -> dict[str, object]:
        """How far the newest rollout is."""
        state: dict[str, object] = json.loads(self.get("/api/rollout"))
        return state
