"""One external process with its log, and the ports that such processes listen on.

Every process is killed at the end of the test run, whatever happened: by its owner, by `atexit`, or by
the kernel (see `leash.py`). Start processes in the main thread only: the kernel's promise is bound to
the thread that started the child.
"""

import atexit
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

LEASH = Path(__file__).with_name("leash.py")
# Below the range from which Linux takes the ports of outgoing connections, so that a port that is
# free now is still free when its process comes back to it after a restart.
FIRST_PORT, PORTS, BLOCKS = 20000, 500, 24

_running: set["Process"] = set()


def _port_numbers() -> Iterator[int]:
    """This process's own ports: no other run, and no other worker of this one, has any of them.

    A block of them belongs to whoever holds its name, which the kernel frees when the process ends. Where all
    are held, or there are no such names, the block depends on the process and may be another's too.
    """
    name, start = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), os.getpid()
    for block in ((start + i) % BLOCKS for i in range(BLOCKS)):
        try:
            name.bind(f"\0ports-of-chainlit-proxy-tests-{block}")
            break
        except OSError:
            continue
    numbers = range(FIRST_PORT + block * PORTS, FIRST_PORT + (block + 1) * PORTS)
    try:
        yield from itertools.cycle([numbers[(start + i) % PORTS] for i in range(PORTS)])
    finally:
        name.close()


_numbers = _port_numbers()


def free_port() -> int:
    """A loopback port that nobody listens on and that this run has not handed out lately."""
    for port in itertools.islice(_numbers, PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port")


def alive(pid: int) -> bool:
    """Whether a process of that id runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def kill_left(pids: Iterable[int]) -> None:
    """Kills those of these processes that still run; they may end by themselves meanwhile."""
    for pid in filter(alive, pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def threads_of(pid: int) -> list[int]:
    """The threads of a process, by the ids that they have."""
    try:
        return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


class Process:
    """A command, its log file and its signals; created and owned by the fixture that needs it."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Collection[int] = (),
    ) -> None:
        self.name, self.command, self.log, self.cwd = name, command, log, cwd
        self.env = env or {}
        self.pass_fds = pass_fds  # descriptors that the process gets, under the same numbers
        self._popen: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {f'pid={self.pid}' if self.running else 'not running'}>"

    @property
    def running(self) -> bool:
        """Whether the process was launched and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the last launch."""
        assert self._popen, f"{self.name} was never launched"
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """How the last launch ended, or None while it runs."""
        return self._popen.poll() if self._popen else None

    def launch(self) -> None:
        """Starts the process in the background; its output is appended to the log."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.env,
                cwd=self.cwd,
                pass_fds=self.pass_fds,
                start_new_session=True,  # a Ctrl-C at the test run is not one at the process
            )
        _running.add(self)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process runs."""
        if self._popen and self.running:
            self._popen.send_signal(number)

    def pause(self) -> None:
        """Freezes the process: its sockets stay open and nothing answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused process run on."""
        self.send(signal.SIGCONT)

    def wait(self, timeout: float = 20) -> int:
        """Waits for the end; the exit code, negative for a signal."""
        assert self._popen, f"{self.name} was never launched"
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s\n{self.tail()}") from None
        _running.discard(self)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20) -> int:
        """Asks the process to end and waits for it; the exit code."""
        self.send(number)
        return self.wait(timeout)

    def kill9(self) -> None:
        """Kills the process at once, paused or not, and reaps it."""
        if self._popen and self.running:
            self._popen.kill()
            self._popen.wait()
        _running.discard(self)

    def tail(self, lines: int = 40) -> str:
        """The end of the log, for a failing test; nothing of a pipe: who looks would be a reader."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else f"in {self.log}"
        return "\n".join([f"--- log of {self.name}", *text.splitlines()[-lines:]])


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        process.kill9()
