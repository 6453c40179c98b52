"""The images, really built and run, by `make images`; it needs Docker or Podman, and some minutes."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = [
    pytest.mark.skipif("IMAGES" not in os.environ, reason="builds images, see `make images`"),
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

CAREFUL = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
CONFIG = "admin: {listen: '127.0.0.1:9901'}\nbackends: [{url: 'http://127.0.0.1:8001'}]\n"
OWN = {
    ".chainlit/config.toml": "[project]\n[UI]\nname = 'Our Bot'\n[meta]\ngenerated_by = '2.12.0'\n",
    "public/own.css": "a style",
}
WITHIN = 60.0  # seconds for a container to be healthy


class Engine:
    """Builds images and runs containers, which end with the test."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._running: list[str] = []

    def __call__(self, *words: str, seconds: float = 120.0) -> str:
        """What a command of the engine prints; it has to succeed."""
        done = subprocess.run(
            [self._program, *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout.strip()

    def build(self, target: str) -> str:
        """Build a target of the Dockerfile; its name."""
        name = f"chainlit-proxy-test-{target}"
        # The network of the machine: that of containers may have no DNS of its own.
        self("build", "--network", "host", "--target", target, "--tag", name, ".", seconds=1500.0)
        return name

    def run(self, *words: str) -> str:
        """Start a container in the background; its id."""
        container = self("run", "--detach", *CAREFUL, "--health-interval", "1s", *words)
        self._running.append(container)
        return container

    def becomes_healthy(self, container: str) -> None:
        """Wait until the health check of the image says so."""
        deadline = time.monotonic() + WITHIN
        while (state := json.loads(self("inspect", "--format", "{{json .State}}", container))) and (
            state["Health"]["Status"] != "healthy"
        ):
            assert state["Running"], self("logs", container)
            assert time.monotonic() < deadline, state["Health"]
            time.sleep(0.5)

    def stops(self, container: str) -> None:
        """SIGTERM ends it with status 0, and SIGKILL is not needed."""
        self("stop", "--time", "35", container)
        assert self("inspect", "--format", "{{.State.ExitCode}}", container) == "0"

    def end(self) -> None:
        """Remove what was started."""
        for container in self._running:
            self("rm", "--force", container)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine that answers."""
    for name in ("docker", "podman"):
        program = shutil.which(name)
        if program and subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0:
            engine = Engine(program)
            yield engine
            engine.end()
            return
    pytest.skip("neither Docker nor Podman answers on this machine")


def test_the_proxy_runs(engine: Engine, tmp_path: Path) -> None:
    """Not as root, without a place to write, and healthy whatever `http_proxy` names."""
    tmp_path.chmod(0o755)
    (tmp_path / "proxy.yaml").write_text(CONFIG)
    container = engine.run(
        *("--volume", f"{tmp_path}:/etc/chainlit-proxy:ro", "--env", "http_proxy=http://127.0.0.1:1"),
        engine.build("proxy"),
    )
    engine.becomes_healthy(container)
    assert engine("exec", container, "id", "-u") == "10001"
    engine.stops(container)


def test_the_app_runs(engine: Engine, tmp_path: Path) -> None:
    """The example, and an app with a configuration of its own in its place, which is used."""
    image = engine.build("chat")
    store = ("--env", "CHAINLIT_PROXY_SESSIONS=sqlite:///tmp/sessions.db", "--tmpfs", "/tmp:mode=1777")
    container = engine.run(*store, "--env", "http_proxy=http://127.0.0.1:1", image)
    engine.becomes_healthy(container)
    assert engine("exec", container, "id", "-u") == "10001"
    engine.stops(container)

    tmp_path.chmod(0o755)
    shutil.copy(ROOT / "examples/chat/app.py", tmp_path)
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    container = engine.run(*store, "--volume", f"{tmp_path}:/srv/chat:ro", image)
    engine.becomes_healthy(container)
    for path, text in {"": "<title>Our Bot</title>", "public/own.css": "a style"}.items():
        program = (
            f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/{path}').read().decode())"
        )
        assert text in engine("exec", container, "python", "-c", program)
    engine.stops(container)
