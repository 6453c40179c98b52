"""`chainlit-proxy run examples/chat/app.py --replicas 3` as a process, for the browser tests.

The example is copied first, because Chainlit writes its configuration beside the app. When the server is
stopped, every replica that was ever seen must be gone with it; one that is left is killed and is an error.
"""

import http.client
import json
import shutil
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.processes import Process, alive, free_port, kill_left
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "chat"
START = 60.0  # seconds for three instances on two cores that have other work too
STOP = 30.0


class ChatServer(Process):
    """The proxy and its replicas; owned by the fixture."""

    def __init__(self, folder: Path, replicas: int = 3, config: str = "", more: str = "") -> None:
        """`config` is the text of a file for `-c`, if there is to be one; `more` is behind the app's own."""
        self.replicas = replicas
        self.seen: set[int] = set()  # process ids of all replicas so far
        listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.url, self.admin = f"http://{listen}/", f"http://{admin}"
        app = shutil.copytree(EXAMPLE, folder / "chat", ignore=shutil.ignore_patterns(".*")) / "app.py"
        command = [sys.executable, "-m", "proxy", "run", str(app), "--replicas", str(replicas)]
        command += ["--listen", listen, "--admin", admin]
        app.write_text(app.read_text() + more)
        if config:
            (folder / "proxy.yaml").write_text(config)
            command += ["-c", str(folder / "proxy.yaml")]
        super().__init__("chat", command, folder / "chat.log", cwd=app.parent, env={"PYTHONPATH": str(ROOT)})

    def backends(self) -> list[dict[str, Any]]:
        """What the admin API tells; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.admin}/api/backends", timeout=5) as response:
                backends: list[dict[str, Any]] = json.load(response)
        except (OSError, http.client.HTTPException):
            return []
        self.seen.update(backend["pid"] for backend in backends if backend["pid"])
        return backends

    def answering(self, pid: int) -> bool:
        """Whether an app of this replica is at an answer, as far as the proxy has heard."""
        with urllib.request.urlopen(f"{self.admin}/api/overview", timeout=5) as response:
            backends = json.load(response)["backends"]
        return any(backend["turns"] for backend in backends if backend["pid"] == pid)

    def wait_healthy(self) -> None:
        """Waits until every replica takes sessions; AssertionError with the log if the server ends."""

        def healthy() -> bool:
            assert self.running, f"the server ended with {self.returncode}\n{self.tail()}"
            verdicts = [backend["health"] for backend in self.backends()]
            return verdicts == ["healthy"] * self.replicas

        wait_until(healthy, START, f"{self.replicas} healthy replicas")

    def shut_down(self) -> None:
        """One Ctrl-C; AssertionError if a process is left."""
        self.backends()
        try:
            if self.running:
                self.stop(signal.SIGINT, STOP)
        finally:
            self.kill9()
            left = [pid for pid in self.seen if alive(pid)]
            kill_left(left)
        assert not left, f"replicas left behind: {left}\n{self.tail()}"
