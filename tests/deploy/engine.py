"""A container engine for the tests: the one that runs here, or Debian's, which starts and ends with them.

`python -m tests.deploy.engine` installs Debian's packages where no engine answers. An engine of our own keeps
all that it has in one folder, and changes no rule of the machine's firewall: published ports are passed on by
a process, on loopback. `leftovers` tells what it left behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.browser import chromium
from tests.deploy.machine import Machine
from tests.docs.pages import ROOT
from tests.support.processes import alive
from tests.support.waiting import wait_until

PACKAGES = ("docker.io", "iptables", "docker-compose", "debootstrap", "tini")
MISSING = f"no container engine: start Docker, or install Debian's packages {' '.join(PACKAGES)} as root"
START = 60.0  # seconds for the engine to answer
BRIDGE = "docker0"  # that of the containers of which nobody said more
LABEL = "chainlit-proxy-test"


class RefusedError(AssertionError):
    """A command of the engine failed; its output."""


class Engine:
    """Builds images and runs containers; all of one run have its label and are removed with it."""

    def __init__(self, program: str, environment: dict[str, str] | None = None) -> None:
        self.program = program
        self.environment = os.environ | {"DOCKER_BUILDKIT": "0"} | (environment or {})
        self.run_id = uuid.uuid4().hex[:8]
        self._images: list[str] = []

    def __repr__(self) -> str:
        return f"<Engine {self.program} {self.environment.get('DOCKER_HOST', '')}>"

    def call(
        self, *words: str, seconds: float = 120.0, data: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """A command of the engine, run in the checkout, however it ends."""
        return subprocess.run(
            [self.program, *words],
            cwd=ROOT,
            env=self.environment,
            input=data,
            capture_output=True,
            timeout=seconds,
            check=False,
        )

    def __call__(self, *words: str, seconds: float = 120.0, data: bytes | None = None) -> str:
        """What a command prints; `RefusedError` unless it succeeds."""
        done = self.call(*words, seconds=seconds, data=data)
        if done.returncode:
            raise RefusedError(
                " ".join(words[:3]), (done.stdout + done.stderr).decode(errors="replace")[-6000:]
            )
        return done.stdout.decode().strip()

    @property
    def label(self) -> str:
        """What everything has that this run made."""
        return f"{LABEL}={self.run_id}"

    def answers(self) -> bool:
        """Whether there is an engine behind the client."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            return self.call("version", "--format", "{{.Server.Version}}", seconds=30.0).returncode == 0
        return False

    def has(self, image: str) -> bool:
        """Whether an image is here."""
        return self.call("image", "inspect", image).returncode == 0

    def owns(self, image: str) -> None:
        """Remove an image with all that this run made."""
        self._images.append(image)

    def build(self, target: str, *words: str, name: str = "", dockerfile: str | None = None) -> str:
        """Build a target of the Dockerfile, or a file of one's own without a context; the image's name."""
        name = f"{LABEL}-{name or target}:{self.run_id}"
        place = [".", "--target", target] if dockerfile is None else ["-"]
        # The network of the machine: that of containers may have no DNS of its own.
        self(
            *("build", "--network", "host", "--label", self.label, "--tag", name, *words, *place),
            seconds=1500.0,
            data=None if dockerfile is None else dockerfile.encode(),
        )
        self.owns(name)
        return name

    def clean(self) -> None:
        """Remove all that this run made: containers, networks, volumes and images."""
        ours = ("--filter", f"label={self.label}")
        for listed, remove in (
            (("ps", "--all", "--quiet", *ours), ("rm", "--force", "--volumes")),
            (("network", "ls", "--quiet", *ours), ("network", "rm")),
            (("volume", "ls", "--quiet", *ours), ("volume", "rm", "--force")),
        ):
            if found := self(*listed).split():
                self(*remove, *found)
        for image in self._images:
            self.call("rmi", "--force", image)
        if found := self("images", "--all", "--quiet", *ours).split():
            self.call("rmi", "--force", *found)

    def left(self) -> list[str]:
        """What of this run is still there."""
        ours = ("--filter", f"label={self.label}")
        return [
            line
            for listed in (("ps", "--all"), ("network", "ls"), ("volume", "ls"), ("images",))
            for line in self(*listed, "--quiet", *ours).split()
        ]


class OwnEngine:
    """Debian's engine with a folder of its own; started and ended by the fixture."""

    def __init__(self) -> None:
        self.before = Machine.now()
        self.folder = Path(tempfile.mkdtemp(prefix="chainlit-proxy-engine-"))
        self.log = self.folder / "log"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> Engine:
        """Start it and wait until it answers; AssertionError with its log if it does not."""
        socket = f"unix://{self.folder}/socket"
        command = ["dockerd", "--host", socket, "--pidfile", f"{self.folder}/pid"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        # The machine's own rules stay as they are; ports are passed on by a process for each.
        command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        if BRIDGE not in self.before.links:  # told to have none, the engine would remove another engine's
            command += ["--bridge=none"]
        with self.log.open("wb") as log:
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        engine = Engine(client(), {"DOCKER_HOST": socket})
        daemon = self._daemon
        wait_until(lambda: engine.answers() or daemon.poll() is not None, START, self._told)
        assert daemon.poll() is None, self._told()
        return engine

    def _told(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """End it by its process id, and what it keeps with it."""
        daemon = self._daemon
        if daemon is not None:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self._processes(), 20, "the engine's processes are still there")
        # What is still mounted, the deepest first: nothing, if the engine ended as it should.
        for mount in sorted(Machine.now().mounts - self.before.mounts, reverse=True):
            if mount.startswith(str(self.folder)):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder)

    def _processes(self) -> list[int]:
        """All that name the folder in their command line, the engine's own among them."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if str(self.folder).encode() in (entry / "cmdline").read_bytes() and alive(
                        int(entry.name)
                    ):
                        found.append(int(entry.name))
        return found

    def leftovers(self) -> list[str]:
        """What differs on the machine from before: mounts, links, rules, processes, files."""
        now = Machine.now()
        found = [f"mount {mount}" for mount in now.mounts if mount.startswith(str(self.folder))]
        found += now.since(self.before)
        found += [f"process {pid}" for pid in self._processes()]
        return found + ([str(self.folder)] if self.folder.exists() else [])


def client() -> str:
    """Docker's client; OSError if there is none."""
    program = shutil.which("docker")
    if program is None:
        raise FileNotFoundError(MISSING)
    return program


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """The machine's engine, or one of our own; nothing of it is left. FileNotFoundError if there is none."""
    engine = Engine(client())
    own = None
    if not engine.answers():
        if shutil.which("dockerd") is None or os.geteuid() != 0:
            raise FileNotFoundError(MISSING)
        own = OwnEngine()
    try:
        if own is not None:
            engine = own.start()
        try:
            yield engine
        finally:
            engine.clean()
            left = engine.left()
    finally:
        if own is not None:
            own.end()
    assert not left
    assert own is None or not own.leftovers()


def main() -> int:
    """Install what is missing; non-zero with one line if there can be no engine."""
    with contextlib.suppress(FileNotFoundError):
        if Engine(client()).answers() and shutil.which("docker-compose"):
            return 0
    if not all(map(shutil.which, ("docker", "dockerd", "docker-compose", "debootstrap", "tini"))):
        chromium.install(PACKAGES)
    found = shutil.which("dockerd") and shutil.which("docker")
    print(found or MISSING, file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
