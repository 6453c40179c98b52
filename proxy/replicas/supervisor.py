"""Runs the replicas of one app: starts all, keeps each alive, ends with all of them gone.

While it runs, another replica may be started and one retired; each has a number that none had before it.
What can be wrong is checked before a process is started. No more of them start at once than there are
processors, each within its time. No replica outlives the supervisor, nor does anything that it started: its
keeper holds the reading end of one pipe, the lifeline, whose other end only this process has (see
`keeper.py`). `stop` and `kill` may be called from a signal handler of the event loop.
"""

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.borders import Border, Where
from proxy.config.packages import install
from proxy.replicas.output import ReplicaLog
from proxy.replicas.process import LOOPBACK, Orphans
from proxy.replicas.replica import Replica, ReplicaError, ReplicaEvent, ReplicaEventKind, RunContext
from proxy.replicas.restarts import RestartRule

if TYPE_CHECKING:
    import aiohttp

BAD_USE = 2  # exit code for what the user can put right on the command line or in the environment
SUFFIXES = (".py", ".py3")  # chainlit/utils.py check_file
LAUNCHER = Path(__file__).with_name("launch.py")
REFUSED = {
    "--watch": "each replica would reload by itself, and its sessions be lost",
    "-w": "each replica would reload by itself, and its sessions be lost",
    "--host": "replicas listen on loopback only",
    "--port": "each replica gets a free port of its own; the proxy's is set with --listen",
    "--ssl-cert": "the proxy ends TLS, see `tls` in its configuration",
    "--ssl-key": "the proxy ends TLS, see `tls` in its configuration",
}
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # what a container may use of the processors
SECOND_OPINION = 1.0  # seconds between the first failing replica and the verdict, see `_hear_failure`


def processors() -> int:
    """How many processors this process can use at once."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = map(int, CPU_QUOTA.read_text().split())  # "max" where there is none
        allowed = min(allowed, round(quota / period))
    return max(allowed, 1)


def require_chainlit() -> None:
    """Raises ReplicaError if this environment has no Chainlit."""
    found = importlib.util.find_spec("chainlit")
    if found is None or found.origin is None:  # none: just a folder of that name
        raise ReplicaError(
            f"Chainlit is not installed in {sys.prefix}: {install('chainlit')}, or install this proxy where "
            "your Chainlit is",
            BAD_USE,
        )


def check(app: Path, options: Sequence[str]) -> None:
    """Raises ReplicaError if the app cannot be run, or not with these options of Chainlit."""
    if app.is_dir():
        raise ReplicaError(f"{app}: must be the Python file of the app, and is a directory", BAD_USE)
    if not app.is_file():
        raise ReplicaError(f"{app}: there is no such file", BAD_USE)
    if app.suffix not in SUFFIXES:
        raise ReplicaError(f"{app}: Chainlit runs Python files, named .py", BAD_USE)
    for option in options:
        if reason := REFUSED.get(option.partition("=")[0]):
            raise ReplicaError(f"{option} cannot be passed on to Chainlit: {reason}", BAD_USE)
    require_chainlit()


class Supervisor:
    """Made and run by the composition root, in the main thread.

    `state` is a folder for this supervisor alone: it is made, cleaned of what an earlier run left, and
    removed at the end. `output` gets the replicas' lines, prefixed with their names; `on_event` what
    happens to them. Both are called in the event loop and must not block.
    """

    def __init__(
        self,
        app: Path,
        count: int,
        *,
        state: Path,
        output: Callable[[str], None],
        on_event: Callable[[ReplicaEvent], None],
        options: Sequence[str] = (),
        held: Sequence[int] = (),
        ready_path: str = "/health",
        start_timeout: Callable[[], float] = lambda: 120.0,
        hidden: Callable[[], Collection[str]] = tuple,
        stop_timeout: float = 26.0,  # Chainlit takes 23.6 s to let an idle polling client go
        at_once: int | None = None,
        rule: RestartRule | None = None,
    ) -> None:
        """`held` are descriptors that no replica outlives; so many start `at_once`, None: as can.

        Of our variables those that are `hidden` are not for the app.
        """
        self.orphans = Orphans()
        self._app = app
        self.count = count  # how many replicas are wanted
        self._state = state.absolute()
        self._options = tuple(options)
        self._on_event = on_event
        self._ready_path = ready_path
        self._start_timeout = start_timeout
        self._hidden = hidden
        self._held = tuple(held)
        self._at_once = at_once or processors()
        self._stop_timeout = stop_timeout
        self._rule = rule or RestartRule()
        self._output = output
        self._group: asyncio.TaskGroup | None = None  # set while it runs, as are the next two
        self._context: RunContext | None = None
        self._lifeline = -1  # the reading end
        self._tasks: dict[Replica, asyncio.Task[None]] = {}  # of every replica that is not retired
        self._starting: dict[Replica, asyncio.Future[None]] = {}  # what `start_another` waits for
        self._retiring: set[Replica] = set()  # told to stop by `retire`, and not gone yet
        self._ever_ready = False  # set when the first replica of this run answered
        self._stopping = False
        self._width = len(f"replica-{count}")
        self._next = 1  # the number of the next replica
        self.replicas = [self._make(held=at > 0) for at in range(count)]

    def __repr__(self) -> str:
        return f"<Supervisor {self._app} {self.replicas}>"

    @property
    def shares(self) -> bool:
        """Whether no replica that was to share its sessions has failed to."""
        return not any(replica.unshared for replica in self.replicas)

    def prepare(self) -> None:
        """Checks what can be checked, makes the state folder and claims the ports.

        `run` does it if nobody did. Raises ReplicaError. Afterwards each replica has its first `url`.
        """
        if not self.replicas:
            raise ReplicaError("at least one replica is needed", BAD_USE)
        check(self._app, self._options)
        self._remove_state()
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            for replica in self.replicas:
                replica.claim_port()
        except OSError as error:
            where = f"{error.filename}: " if error.filename else "no port on loopback: "
            raise ReplicaError(f"{where}{error.strerror}", BAD_USE) from None

    async def run(self) -> None:
        """Runs the replicas until `stop`; returns when the last of them has gone.

        Raises ReplicaError if the app cannot be started at all, or if every replica that is left was given
        up. When cancelled, stops all in order first; `kill` makes that short.
        """
        import aiohttp  # noqa: PLC0415 - it takes a while to load, and who only serves has no replicas

        if not self.replicas or not self.replicas[0].url:
            self.prepare()
        self._lifeline, held_end = os.pipe()
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
                asyncio.TaskGroup() as group,
            ):
                self._group, self._context = group, self._make_context(http)
                for replica in self.replicas if not self._stopping else ():
                    self._begin(replica, self._run_one(replica, self._context))
            if not self._stopping:
                raise ReplicaError("every replica was given up" if self.replicas else "no replica is left")
        except BaseExceptionGroup as failed:
            error = next((error for error in failed.exceptions if isinstance(error, ReplicaError)), None)
            raise (error or failed) from None
        finally:
            self._group = self._context = None
            self._tasks = {}
            os.close(self._lifeline)
            os.close(held_end)
            for replica in self.replicas:
                replica.close()
            self._remove_state()

    def stop(self) -> None:
        """Ends all replicas in order: SIGTERM, after `stop_timeout` SIGKILL. `run` then returns."""
        if not self._stopping:
            self._stopping = True
            for replica in self.replicas:
                replica.stopping()
            for task in self._tasks.values():
                if not task.cancelling():  # one that is being retired, told again, would be killed
                    task.cancel()

    def kill(self) -> None:
        """Ends all replicas at once, without their shutdown; for a user who will not wait for `stop`."""
        self.stop()
        for replica in self.replicas:
            replica.kill()

    async def start_another(self) -> Replica:
        """Starts one more replica and returns it when it is ready; from then on it is as the others.

        Raises ReplicaError if its process ends or is not ready within `start_timeout`, or if the supervisor
        does not run. After an error, or when cancelled, it is gone; the others are not touched.
        """
        if self._context is None or self._stopping:
            raise ReplicaError("no replica can be started: the supervisor does not run")
        replica = self._make()
        self.replicas.append(replica)
        started = self._starting[replica] = asyncio.get_running_loop().create_future()
        try:
            replica.claim_port()
            self._begin(replica, self._run_another(replica, self._context, started))
            await started
        except OSError as error:
            await self.retire(replica)
            raise ReplicaError(f"{replica.name} gets no port: {error}") from error
        except BaseException:
            await self.retire(replica)
            raise
        finally:
            del self._starting[replica]
        return replica

    async def retire(self, replica: Replica) -> None:
        """Stops one replica in order, as `stop` does it; returns when it and its folder are gone.

        It is not started again, whatever it was just at. One that was retired before is no error. A
        retirement whose caller is cancelled goes on, only the folder may stay until the end of the run.
        """
        if replica not in self.replicas:
            return
        task = self._tasks.get(replica)
        if task is not None and not task.done():
            self._retiring.add(replica)
            replica.stopping()
            if not task.cancelling():
                task.cancel()
            await asyncio.wait([task])
        self._forget(replica)
        await asyncio.to_thread(shutil.rmtree, self._state / replica.name, ignore_errors=True)

    def _make(self, *, held: bool = False) -> Replica:
        name = f"replica-{self._next}"
        self._next += 1
        return Replica(name, ReplicaLog(f"{name:<{self._width}} | ", self._output, held=held))

    def _begin(self, replica: Replica, life: Coroutine[Any, Any, None]) -> None:
        """Has a replica run in the group. Raises ReplicaError if that has just ended."""
        assert self._group
        try:
            self._tasks[replica] = task = self._group.create_task(life, name=replica.name)
        except RuntimeError:
            life.close()
            raise ReplicaError("no replica can be started: the supervisor is ending") from None
        task.add_done_callback(lambda _: self._ended(replica))

    def _ended(self, replica: Replica) -> None:
        """A replica's task has ended, also one that was cancelled before it began."""
        started = self._starting.get(replica)
        if started is not None and not started.done():
            started.set_exception(ReplicaError(f"{replica.name} was stopped before it was ready"))
        if replica in self._retiring:
            self._forget(replica)

    def _forget(self, replica: Replica) -> None:
        if replica in self.replicas:
            self.replicas.remove(replica)
            self._tasks.pop(replica, None)
            self._retiring.discard(replica)
            replica.close()
            self._hear(ReplicaEvent(ReplicaEventKind.RETIRED, replica, "is retired"))

    def _make_context(self, http: "aiohttp.ClientSession") -> RunContext:
        return RunContext(
            state=self._state,
            command=self._command,
            held=(self._lifeline, *self._held),
            orphans=self.orphans,
            turns=asyncio.Semaphore(self._at_once),
            http=http,
            ready_path=self._ready_path,
            start_timeout=self._start_timeout,
            hidden=self._hidden,
            stop_timeout=self._stop_timeout,
            rule=self._rule,
            on_event=self._hear,
        )

    def _command(self, name: str, port: int) -> list[str]:
        """The command line of a replica. -P: the launcher's own folder is not for the app to import from."""
        state = str(self._state / name)
        return [
            *(sys.executable, "-P", str(LAUNCHER), "--supervised", "--state", state),
            *("run", str(self._app), "--headless", "--host", LOOPBACK, "--port", str(port), *self._options),
        ]

    async def _run_one(self, replica: Replica, context: RunContext) -> None:
        try:
            await replica.run(context, lambda _: not self._ever_ready and replica.is_port_ours())
        except ReplicaError:
            await self._hear_failure(replica)
            raise

    async def _run_another(
        self, replica: Replica, context: RunContext, started: asyncio.Future[None]
    ) -> None:
        """As `_run_one`; but that it does not start is a matter of who wanted it, not of the run."""
        try:
            await replica.run(context, lambda _: not started.done())
        except ReplicaError as error:
            if not started.done():
                started.set_exception(error)

    async def _hear_failure(self, failed: Replica) -> None:
        """Lets only one replica say why the app does not start.

        The first is heard live. If another one failed before it, the first, which runs the same app, is
        given a moment to fail too; its failure cancels this wait. Only then the other's words are passed on.
        """
        first = self.replicas[0]
        if failed is not first:
            await asyncio.sleep(SECOND_OPINION)
            first.log.mute()
            if first.log.last[-1:] != failed.log.last[-1:]:  # else it has said so, and only takes long to end
                failed.log.release()

    def _hear(self, event: ReplicaEvent) -> None:
        if event.kind is ReplicaEventKind.READY:
            self._ever_ready = True
            for replica in self.replicas:
                replica.log.release()
            started = self._starting.get(event.replica)
            if started is not None and not started.done():
                started.set_result(None)
        with Border(Where.REPLICA):
            self._on_event(event)

    def _remove_state(self) -> None:
        """Removes the replicas' folders, those of an earlier run too, and the state folder if it is empty."""
        for folder in self._state.glob("replica-*"):
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            self._state.rmdir()
