"""One replica: a place that one Chainlit process after another fills.

A life is: wait for a turn to start, start, wait until it answers, wait until it ends. Between two lives
stands the restart rule. A
replica that never answered while no other did either is not restarted: then it is the app that fails, and its
own words (on the output) say why. A replica is stopped by cancelling its `run`.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from proxy.replicas.launch import SHARING
from proxy.replicas.output import ReplicaLog
from proxy.replicas.process import LOOPBACK, Orphans, Port, Process
from proxy.replicas.restarts import RestartHistory, RestartRule

if TYPE_CHECKING:
    import aiohttp

POLL = 0.1  # seconds between two looks whether a replica answers: short against its start of 1.2 s
ASK = 2.0  # seconds for one look; an app may block its event loop while it starts


class ReplicaState(Enum):
    """Where a replica is in its life."""

    STARTING = "starting"  # it waits for its turn, or its process runs and does not answer yet
    READY = "ready"  # it answered
    RESTARTING = "restarting"  # it died and waits for its next start
    FAILED = "failed"  # given up
    STOPPING = "stopping"
    STOPPED = "stopped"


class ReplicaEventKind(Enum):
    """What an event tells."""

    READY = "ready"  # the replica answers at its `url`, which may be another than before
    EXITED = "exited"  # its process ended, unasked
    KILLED = "killed"  # it was told to end, and had to be killed
    RESTARTING = "restarting"  # it is started again in `delay` seconds
    FAILED = "failed"  # it is given up
    RETIRED = "retired"  # it was retired, or did not start when it was added; told once, nothing follows


class ReplicaError(Exception):
    """The app cannot be run. The text is for the user, `exit_code` for the command."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class ReplicaEvent:
    """Told by a replica to the owner of the supervisor, in the order in which things happen."""

    kind: ReplicaEventKind
    replica: "Replica"
    text: str  # one sentence for the log, without the replica's name
    code: int | None = None  # EXITED: return code; negative: the signal; None: it could not be started
    delay: float | None = None  # RESTARTING: seconds
    lines: tuple[str, ...] = ()  # EXITED, FAILED: the last lines of its output

    def __str__(self) -> str:
        return f"{self.replica.name} {self.text}"

    @property
    def is_fine(self) -> bool:
        """Whether it is as was wanted."""
        is_wanted = self.kind in {ReplicaEventKind.READY, ReplicaEventKind.RETIRED}
        return is_wanted and not self.replica.unshared


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """How replicas are run; made by the supervisor, the same for all of them."""

    state: Path  # each replica has a folder of its name there
    command: Callable[[str, int], Sequence[str]]  # name, port -> command line
    held: Sequence[int]  # descriptors of its keeper: the lifeline, and what is held while the replica lives
    orphans: Orphans
    turns: asyncio.Semaphore  # so many start at once
    http: "aiohttp.ClientSession"
    ready_path: str
    start_timeout: Callable[[], float]  # asked at each start
    hidden: Callable[[], Collection[str]]  # variables that are not for the app, asked at each start
    stop_timeout: float
    rule: RestartRule
    on_event: Callable[[ReplicaEvent], None]


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a life ended."""

    code: int | None
    reason: str

    @classmethod
    def of(cls, code: int) -> Self:
        if code >= 0:
            return cls(code, f"exited with code {code}")
        known = {number.value for number in signal.Signals}
        name = signal.Signals(-code).name if -code in known else f"signal {-code}"
        return cls(code, f"was killed by {name}")


def _why_unshared(told: Path) -> str:
    """What a replica has written of it; nothing if it was not to share."""
    if SHARING not in os.environ:
        return ""
    with suppress(OSError, ValueError):
        said = json.loads(told.read_bytes())
        return "" if said["shared"] else str(said["reason"])
    return "it could not say in its state folder whether it does"


class Replica:
    """Made by the supervisor, which also runs it; others read its attributes."""

    def __init__(self, name: str, log: ReplicaLog) -> None:
        self.name = name
        self.log = log
        self.state = ReplicaState.STARTING
        self.restarts = 0  # starts after the first
        self.unshared = ""  # why it does not share its sessions though it was to; set when it is ready
        self._port: Port | None = None  # set by `claim_port`
        self._process: Process | None = None  # set while a process runs

    def __repr__(self) -> str:
        return f"<Replica {self.name} {self.state.value} {self.url} pid {self.pid} restarts {self.restarts}>"

    @property
    def url(self) -> str:
        """Where it listens, or will; empty before the supervisor prepared its start."""
        return f"http://{LOOPBACK}:{self._port.number}" if self._port else ""

    @property
    def pid(self) -> int | None:
        """The id of its process while that runs, as soon as it is known."""
        return self._process.pid if self._process else None

    def claim_port(self) -> None:
        """Keeps the port it has while that is free, else takes a new one."""
        if self._port is None or not self._port.is_free():
            if self._port:
                self._port.release()
            self._port = Port()

    def is_port_ours(self) -> bool:
        """False if another program took the port, so that the replica could not listen."""
        return self._port is None or self._port.is_free()

    def close(self) -> None:
        """Gives the port back, when it does not run any more; the url stays readable."""
        if self._port:
            self._port.release()
        if self.state is not ReplicaState.FAILED:
            self.state = ReplicaState.STOPPED

    def stopping(self) -> None:
        """It is told to stop, and will."""
        if self.state is not ReplicaState.FAILED:
            self.state = ReplicaState.STOPPING

    def kill(self) -> None:
        """SIGKILL to its process and what that started, now."""
        if self._process:
            self._process.kill()

    async def run(self, context: RunContext, app_failed: Callable[["Replica"], bool]) -> None:
        """Lives until cancelled or given up.

        `app_failed` is asked when a life ends before the replica answered: whether that is the app's fault,
        for which nothing can be done. Then raises ReplicaError. When cancelled, ends the process in order;
        cancelled again, at once.
        """
        history = RestartHistory(context.rule)
        try:
            while True:
                ending, was_ready = await self._live(context, history)
                self._tell(
                    context, ReplicaEventKind.EXITED, ending.reason, code=ending.code, lines=self.log.last
                )
                if not was_ready and app_failed(self):
                    raise ReplicaError(
                        f"the app did not start: {self.name} {ending.reason} before it was ready",
                        ending.code if ending.code and 0 < ending.code < 126 else 1,
                    )
                delay = history.died(asyncio.get_running_loop().time())
                if delay is None:
                    self._give_up(context)
                    return
                self.state = ReplicaState.RESTARTING
                self._tell(context, ReplicaEventKind.RESTARTING, f"restarts in {delay:g} s", delay=delay)
                await asyncio.sleep(delay)
                self.restarts += 1
        finally:
            self.close()

    async def _live(self, context: RunContext, history: RestartHistory) -> tuple[_Ending, bool]:
        """One life. Returns how it ended, and whether the replica was ready in it."""
        self.state = ReplicaState.STARTING
        try:
            async with context.turns:
                self._process = process = await self._start(context)
                ready = await self._becomes_ready(process, context)
            if not ready and process.returncode is None:
                process.kill()
                await process.wait()
                seconds = f"{context.start_timeout():g} s"
                text = f"was not ready within {seconds} (replicas.start_timeout) and was killed"
                return _Ending(None, text), ready
            if ready:
                self.state = ReplicaState.READY
                self.unshared = _why_unshared(context.state / self.name / "sharing")
                history.ready(asyncio.get_running_loop().time())
                text = f"is ready at {self.url}, pid {process.pid}"
                if self.unshared:
                    text += f"; it cannot share its sessions, so a drain waits for their end: {self.unshared}"
                self._tell(context, ReplicaEventKind.READY, text)
            return _Ending.of(await process.wait()), ready
        except OSError as error:
            return _Ending(None, f"could not be started: {error}"), False
        finally:
            await self._stop(context)

    async def _start(self, context: RunContext) -> Process:
        self.claim_port()
        assert self._port
        hidden = context.hidden()
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        return await Process.start(
            context.command(self.name, self._port.number),
            env={**env, "PYTHONUNBUFFERED": "1"},  # lines arrive when they are printed
            held=context.held,
            orphans=context.orphans,
            on_line=self.log.write,
        )

    async def _stop(self, context: RunContext) -> None:
        """Ends the process if it runs, in order."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self.stopping()
        try:
            if not await process.stop(context.stop_timeout):
                text = f"did not end within {context.stop_timeout:g} s of SIGTERM and was killed"
                self._tell(context, ReplicaEventKind.KILLED, text)
        finally:
            self._process = None

    async def _becomes_ready(self, process: Process, context: RunContext) -> bool:
        """Asks until the replica answers, its process ends or the time is over.

        Any answer but a server error will do: Chainlit listens only when the app is loaded, and has
        `/health` below its root path, which may be set where only the replica looks (`.env`).
        """
        import aiohttp  # noqa: PLC0415 - as in the supervisor

        loop = asyncio.get_running_loop()
        began = loop.time()
        timeout = aiohttp.ClientTimeout(total=ASK)
        while loop.time() < began + context.start_timeout() and process.returncode is None:
            try:
                async with context.http.get(
                    self.url + context.ready_path, timeout=timeout, allow_redirects=False
                ) as response:
                    if response.status < 500:
                        return process.returncode is None
            except (aiohttp.ClientError, TimeoutError):
                pass
            await process.ended_within(POLL)
        return False

    def _give_up(self, context: RunContext) -> None:
        self.state = ReplicaState.FAILED
        rule = context.rule
        text = f"is given up: it died at once {rule.quick_deaths} times in a row"
        self._tell(context, ReplicaEventKind.FAILED, text, lines=self.log.last)

    def _tell(
        self,
        context: RunContext,
        kind: ReplicaEventKind,
        text: str,
        *,
        code: int | None = None,
        delay: float | None = None,
        lines: tuple[str, ...] = (),
    ) -> None:
        context.on_event(ReplicaEvent(kind, self, text, code=code, delay=delay, lines=lines))
