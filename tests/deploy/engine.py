"""A container engine, spoken to by Docker's client; which one it is, is decided in `own_engine`."""

import contextlib
import functools
import os
import shutil
import subprocess
import uuid

from tests.docs.pages import ROOT

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

    @functools.cached_property
    def is_podman(self) -> bool:
        """Whether Podman answers behind Docker's client."""
        return "Podman" in self("version")

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


def client() -> str:
    """Docker's client; OSError if there is none."""
    program = shutil.which("docker")
    if program is None:
        raise FileNotFoundError("no `docker`: install Debian's package docker.io")
    return program
