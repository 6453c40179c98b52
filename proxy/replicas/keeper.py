"""Keeps one program and all that it starts: when the program or the supervisor ends, so does everything.

Runs as a process of its own between the two, by its path and with `python -I -S`: small, quick, and without
the rest of the package. On Linux it is a subreaper: what the program started stays below the keeper, in
whatever session or group, also when the program was killed. So the tree of a replica is always known, and
nothing else is ever killed. Elsewhere only the program's process group is.

Its first line of output is the program's process id. It passes signals on, ends as the program ended, and as
process 1 of a container, where it has no supervisor, it reaps what others left. The variables that it passed
on, secrets among them, are not to be found in it: what the program starts may look for them.
"""

import os
import resource
import select
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

KILL = signal.SIGUSR1  # what the supervisor sends to have all end at once: SIGKILL would end the keeper alone
NONE = "-"  # in place of descriptors: there is no supervisor
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LAST = 5.0  # seconds for the kernel to end what was killed; what hangs in a disk for longer is left to it
PAUSE = 0.01  # seconds between two looks at what is left of the tree
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # linux/prctl.h
_BLOCK = slice(47, 49)  # env_start and env_end of proc(5), counted from behind the name of the program


def become_subreaper() -> None:
    """Has processes that lose their parent below this one become its children."""
    _prctl(_SUBREAPER, 1)


def children() -> Iterator[int]:
    """The children of this process, those that were adopted among them; on Linux, with /proc."""
    tasks: list[str] = []
    with suppress(OSError):
        tasks = os.listdir("/proc/self/task")  # noqa: PTH208 - a keeper is small: it loads no pathlib
    for task in tasks:
        with suppress(OSError), open(f"/proc/self/task/{task}/children") as file:  # noqa: PTH123
            yield from map(int, file.read().split())


def _prctl(what: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not needed elsewhere

        ctypes.CDLL(None).prctl(what, value, 0, 0, 0)


def forget(names: Collection[str] | None = None) -> None:
    """Overwrites what /proc/PID/environ shows of this process: these variables, or all; not `os.environ`.

    It would show what the process began with as long as that lives, whatever was taken out since.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):
        with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123 - as above
            start, end = map(int, stat.read().rpartition(b")")[2].split()[_BLOCK])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
            memory.seek(start)
            at = start
            for entry in memory.read(end - start).split(b"\0"):
                name, _, value = entry.partition(b"=")
                if value and (names is None or os.fsdecode(name) in names):
                    memory.seek(at + len(entry) - len(value))
                    memory.write(bytes(len(value)))
                at += len(entry) + 1


class Keeper:
    """One program and its tree; made by `main`."""

    def __init__(self, lifeline: int | None) -> None:
        """`lifeline` is the reading end of a pipe whose other end only the supervisor holds."""
        self._lifeline = lifeline
        self._waking, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for number in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the descriptor tells
        self._program = 0

    def start(self, command: list[str]) -> int:
        """Starts the program; returns its process id."""
        keeper = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # one that comes now is for the program itself
        self._program = os.fork()
        if not self._program:
            self._become(command, keeper)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return self._program

    def _become(self, command: list[str], keeper: int) -> None:
        """What happens in the new process."""
        try:
            signal.set_wakeup_fd(-1)
            for number in PASSED_ON:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()  # a terminal's Ctrl-C reaches the keeper alone, which passes it on
            _prctl(_DEATH_SIGNAL, signal.SIGKILL)  # whoever kills the keeper ends the program too
            if os.environ.get("LISTEN_PID") == str(keeper):  # sockets that the service manager opened
                os.environ["LISTEN_PID"] = str(os.getpid())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            if os.getppid() == keeper:
                os.execvp(command[0], command)  # noqa: S606  # the command that we were given
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def keep(self) -> int:
        """Waits for the end of the program, and ends its tree; returns the wait status."""
        watched = [self._waking] if self._lifeline is None else [self._waking, self._lifeline]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self._lifeline in ready:  # end of file: the supervisor has gone
                watched.remove(self._lifeline)
                os.kill(self._program, signal.SIGKILL)
            if self._waking in ready:
                for number in os.read(self._waking, 512):
                    self._pass_on(number)
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._program:
                    self._end_rest()
                    return ended[1]

    def _pass_on(self, number: int) -> None:
        """The program is not reaped yet: its id is its own."""
        if number == KILL and self._lifeline is not None:
            os.kill(self._program, signal.SIGKILL)
        elif number != signal.SIGCHLD:
            os.kill(self._program, number)
            os.kill(self._program, signal.SIGCONT)  # one that is stopped would not see the first

    def _end_rest(self) -> None:
        """Ends what the program has started, from above: whoever loses a parent comes here."""
        if sys.platform != "linux":
            with suppress(OSError):
                os.killpg(self._program, signal.SIGKILL)
            return
        deadline = time.monotonic() + LAST
        while time.monotonic() < deadline:
            for pid in children():
                with suppress(OSError):  # it runs as another user
                    os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(PAUSE)


def end_as(status: int) -> None:
    """Ends this process as another one ended, without a second core."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError):  # of SIGKILL
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # process 1 has outlived that
    os._exit(os.WEXITSTATUS(status))


def main() -> None:
    """Arguments: the lifeline and what else is held while the program lives, as in 3,4; then the command."""
    held = [] if sys.argv[1] == NONE else [int(descriptor) for descriptor in sys.argv[1].split(",")]
    for descriptor in held:
        os.set_inheritable(descriptor, False)
    become_subreaper()
    keeper = Keeper(held[0] if held else None)
    program = keeper.start(sys.argv[2:])
    forget()
    if held:
        os.write(1, f"{program}\n".encode())
    end_as(keeper.keep())


if __name__ == "__main__":
    main()
