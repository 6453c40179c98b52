"""One running container of an image, as careful as in production; removed by the test that started it."""

import json
import shlex
import time
from typing import Any

from tests.deploy.engine import Engine
from tests.support.waiting import wait_until

CAREFUL = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
WITHIN = 60.0  # seconds for a container to be healthy


class Container:
    """Started when it is made."""

    def __init__(self, engine: Engine, image: str, *words: str, command: tuple[str, ...] = ()) -> None:
        self._engine = engine
        health = ("--health-interval", "1s", "--health-retries", "2")
        self.id = engine(
            "run", "--detach", "--label", engine.label, *CAREFUL, *health, *words, image, *command
        )

    def __repr__(self) -> str:
        return f"<Container {self.id[:12]} {self.state().get('Status')}>"

    def state(self) -> dict[str, Any]:
        """What the engine tells of it."""
        state: dict[str, Any] = json.loads(self._engine("inspect", "--format", "{{json .State}}", self.id))
        return state

    def logs(self) -> str:
        """What it printed."""
        done = self._engine.call("logs", self.id)
        return (done.stdout + done.stderr).decode(errors="replace")

    def becomes(self, verdict: str, within: float = WITHIN) -> None:
        """Wait until the health check of the image says so."""

        def told() -> bool:
            state = self.state()
            assert state["Running"], self.logs()
            return bool(state["Health"]["Status"] == verdict)

        wait_until(told, within, lambda: f"{verdict}: {self.state()}\n{self.logs()[-3000:]}")

    def run(self, *words: str) -> str:
        """What a command prints that is run inside."""
        return self._engine("exec", self.id, *words)

    def sh(self, line: str) -> str:
        """The same, a line for a shell."""
        return self.run("sh", "-c", line)

    def python(self, program: str) -> str:
        """The same, a program in Python."""
        return self.run("python", "-c", program)

    def signal(self, name: str) -> None:
        """Send a signal to all of its processes."""
        self._engine("kill", "--signal", name, self.id)  # the first is out of reach from inside
        self.sh(f"kill -{name} -1 || true")

    def stop(self, grace: int = 35) -> float:
        """Ask it to end: status 0 within its grace, SIGKILL is not needed; the seconds that it took."""
        began = time.monotonic()
        self._engine("stop", "--time", str(grace), self.id)
        took = time.monotonic() - began
        assert self.state()["ExitCode"] == 0, self.logs()[-3000:]
        assert took < grace
        return took

    def may_do_nothing(self) -> None:
        """It runs as its user, cannot get rights, and can write nowhere but where it was told."""
        status = dict(line.split(":", 1) for line in self.run("cat", "/proc/1/status").splitlines())
        assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"].strip() == "1"
        folders = ["/", "/etc/chainlit-proxy", "/opt/chainlit-proxy", "/srv"]
        if not self._engine.is_podman:  # which gives each container one of its own
            folders.append("/var/tmp")
        for folder in folders:
            told = self.sh(f"touch {shlex.quote(folder)}/mine 2>&1 || true")
            assert "Read-only file system" in told or "No such file" in told or "denied" in told, (
                folder,
                told,
            )

    def remove(self) -> None:
        """End it at once."""
        self._engine("rm", "--force", "--volumes", self.id)
