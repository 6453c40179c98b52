"""The container engine of the tests: the one that runs here, else Docker's or Podman's, started for them.

Those that the tests start are of Debian's packages, which `python -m tests.deploy.own_engine` installs. Each
keeps all that it has in one folder, and is spoken to by Docker's client through a socket in it. `leftovers`
tells what it left behind on the machine. The variable ENGINE (docker, podman) chooses one of them.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from tests.browser import chromium
from tests.deploy.engine import Engine, client
from tests.deploy.machine import FIREWALLS, Machine, saved
from tests.support.processes import alive
from tests.support.waiting import wait_until

START = 60.0  # seconds for an engine to answer
BRIDGE = "docker0"  # that of Docker's containers of which nobody said more
CHAINS = "NETAVARK"  # what the names of Podman's begin with
SHARED = Path("/var/lib/containers"), Path("/run/containers")  # where Podman writes whatever it is told


class NotStartedError(RuntimeError):
    """An engine ended before it answered, or did not answer; the end of its log."""


class OwnEngine(ABC):
    """A daemon with a folder of its own; started and ended by the fixture."""

    PROGRAMS: ClassVar[tuple[str, ...]]  # what has to be here
    PACKAGES: ClassVar[tuple[str, ...]]  # Debian's, which have them

    def __init__(self) -> None:
        self.before = Machine.now()
        self.folder = Path(tempfile.mkdtemp(prefix="chainlit-proxy-engine-"))
        self.log = self.folder / "log"
        self.socket = f"unix://{self.folder}/socket"
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    def is_here(cls) -> bool:
        """Whether its programs are here, and this user may start it."""
        return os.geteuid() == 0 and all(map(shutil.which, cls.PROGRAMS))

    @abstractmethod
    def command(self) -> list[str]:
        """The daemon's."""

    def environment(self) -> dict[str, str]:
        """What the daemon is told by variables."""
        return {}

    def start(self) -> Engine:
        """Start it and wait until it answers; `NotStartedError` with its log if it does not."""
        with self.log.open("wb") as log:
            self._daemon = subprocess.Popen(
                self.command(),
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        engine = Engine(client(), {"DOCKER_HOST": self.socket})
        daemon = self._daemon
        with contextlib.suppress(AssertionError):
            wait_until(lambda: daemon.poll() is not None or engine.answers(), START, "an answer")
        if daemon.poll() is not None or not engine.answers():
            raise NotStartedError(self.log.read_text(errors="replace")[-3000:])
        return engine

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


class Docker(OwnEngine):
    """Docker's engine, which changes no rule of the machine: published ports are passed on by a process."""

    PROGRAMS = ("docker", "dockerd", "docker-compose", "debootstrap", "tini")
    PACKAGES = ("docker.io", "iptables", "docker-compose", "debootstrap", "tini")

    def command(self) -> list[str]:
        """Everything in the folder, and no rule of the firewall."""
        command = ["dockerd", "--host", self.socket, "--pidfile", f"{self.folder}/pid"]
        command += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        if BRIDGE not in self.before.links:  # told to have none, the engine would remove another engine's
            command += ["--bridge=none"]
        return command


class Podman(OwnEngine):
    """Podman's service, where Docker's engine cannot start.

    Images are built without namespaces, and containers are run by runc in groups that nothing else manages.
    A thread runs the health checks, which Podman leaves to systemd. The chains of rules for published ports
    that Podman leaves behind are removed at the end.
    """

    PROGRAMS = ("docker", "podman", "runc", "iptables", "docker-compose", "debootstrap", "tini")
    PACKAGES = (
        *("docker.io", "podman", "runc", "netavark", "aardvark-dns"),
        *("iptables", "docker-compose", "debootstrap", "tini"),
    )
    CONTAINERS = """
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
tmp_dir = "{folder}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
    STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{folder}/data"\nrunroot = "{folder}/run"\n'
    FORWARD = Path("/proc/sys/net/ipv4/ip_forward")

    def __init__(self) -> None:
        super().__init__()
        self._forward = self.FORWARD.read_text()
        self._shared = [place for place in SHARED if place.exists()]
        self._over = threading.Event()
        self._checks = threading.Thread(target=self._check_until_over)

    def environment(self) -> dict[str, str]:
        """Files of its own instead of those of the machine."""
        for name, text in (("containers", self.CONTAINERS), ("storage", self.STORAGE)):
            (self.folder / f"{name}.conf").write_text(text.format(folder=self.folder))
        return {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": f"{self.folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
            "DISABLE_HC_SYSTEMD": "true",
        }

    def command(self) -> list[str]:
        """The service behind the socket, which has places of its own where another Podman has its."""
        own = [
            f"mkdir -p {self.folder}{place} {place} && mount --bind {self.folder}{place} {place}"
            for place in SHARED
        ]
        line = " && ".join([*own, f"exec podman system service --time 0 {self.socket}"])
        return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", line]

    def start(self) -> Engine:
        """The same, and the health checks with it."""
        engine = super().start()
        self._checks.start()
        return engine

    def _podman(self, *words: str) -> str:
        """What a command prints; nothing if it fails or hangs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = ["podman", "--url", self.socket, *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        return ""

    def _check_until_over(self) -> None:
        """Have each container's health checked every second; what one says that has no check is unheard."""
        with ThreadPoolExecutor() as pool:
            while not self._over.wait(1.0):
                running = self._podman("ps", "--quiet").split()
                list(pool.map(lambda container: self._podman("healthcheck", "run", container), running))

    def end(self) -> None:
        """The same, and what Podman changes elsewhere: rules, a setting of the kernel, empty folders."""
        self._over.set()
        if self._checks.ident is not None:
            self._checks.join()
        super().end()
        if not any(CHAINS in rule for rule in self.before.rules):  # another Podman's
            for program in FIREWALLS:
                _remove_chains(program)
        self.FORWARD.write_text(self._forward)
        for place in SHARED:
            if place not in self._shared:
                with contextlib.suppress(OSError):  # another Podman is there meanwhile
                    place.rmdir()


def _remove_chains(program: str) -> None:
    """Remove Podman's chains from a firewall, and the rules that lead there."""
    for table in ("filter", "nat"):
        lines = [line for line in saved(program, "-t", table) if CHAINS in line]
        ours = [line[1:].split()[0] for line in lines if line.startswith(f":{CHAINS}")]
        commands = [["-D", *shlex.split(line)[1:]] for line in lines if line.startswith("-A")]
        commands += [[option, chain] for option in ("-F", "-X") for chain in ours]
        for command in commands:
            subprocess.run([program, "-t", table, *command], capture_output=True, check=False)


OWN: dict[str, type[OwnEngine]] = {"docker": Docker, "podman": Podman}  # the first that starts is used


def started(*, install: bool = False) -> tuple[OwnEngine, Engine]:
    """An engine of our own, with Debian's packages for it if need be; FileNotFoundError if none starts."""
    told = [
        "no container engine: start Docker, or run this as root with Debian's packages of one that starts"
    ]
    named = os.environ.get("ENGINE")
    if named is not None and named not in OWN:
        raise FileNotFoundError(f"ENGINE={named}: no such engine; there are {' and '.join(OWN)}")
    for name, kind in OWN.items():
        if named not in {name, None}:
            continue
        if install and not all(map(shutil.which, kind.PROGRAMS)):
            chromium.install(kind.PACKAGES)
        if not kind.is_here():
            told.append(f"{name}: needs root and {' '.join(kind.PACKAGES)}")
            continue
        own = kind()
        try:
            return own, own.start()
        except NotStartedError as error:
            told.append(f"{name}: does not start: {error}")
            own.end()
    raise FileNotFoundError("\n".join(told))


def the_machines() -> Engine | None:
    """The engine that runs here, unless another one was asked for."""
    if "ENGINE" not in os.environ:
        with contextlib.suppress(FileNotFoundError):
            engine = Engine(client())
            return engine if engine.answers() else None
    return None


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """The machine's engine, or one of our own; nothing of it is left. FileNotFoundError if there is none."""
    own, engine = None, the_machines()
    if engine is None:
        own, engine = started()
    try:
        try:
            yield engine
        finally:
            engine.clean()
            left = engine.left()
    finally:
        if own is not None:
            own.end()
    assert (left, [] if own is None else own.leftovers()) == ([], [])


def main() -> int:
    """Install what is missing; non-zero with what was tried if there can be no engine."""
    if the_machines() is not None and shutil.which("docker-compose"):
        return 0
    try:
        own, engine = started(install=True)
    except FileNotFoundError as missing:
        print(missing, file=sys.stderr)
        return 1
    print(f"{type(own).__name__} {engine('version', '--format', '{{.Server.Version}}')}")
    own.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
