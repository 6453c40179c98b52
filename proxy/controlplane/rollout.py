"""The rollout: every replica of `run` is replaced by a new one, one after the other; no session is cut off.

For each old replica a new one is started; when it is healthy, the old one is drained and retired. While
a rollout runs the old backends are *outdated*: sessions are placed on the others, so a session that has to
move goes where it can stay, and moves once. Where a new replica does not come up or is taken out of service,
or an operator ends a drain, the rollout ends: what is left of the old goes on serving, as do the new ones
before it, and what an operator wished of one stays so. If that leaves more replicas than are wanted, the next
rollout begins with the surplus, which gets no successor. What draining is, and who asks for a rollout, is not
known here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.borders import Where, fault
from proxy.controlplane.drains import DrainEndedError
from proxy.replicas import Replica, ReplicaError, ReplicaState, Supervisor
from proxy.words import counted

log = logging.getLogger("proxy")


class Drains(Protocol):
    """Who empties backends."""

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """Drain one; what is left after so many seconds (None: the configured ones) is forced.

        Raises DrainEndedError if somebody else ends the drain.
        """
        ...

    def drain(self, backend: Backend) -> object:
        """Give it no new sessions."""
        ...

    def ready(self, backend: Backend) -> None:
        """Let it take sessions again."""
        ...


Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

_OVER = {ReplicaState.FAILED, ReplicaState.STOPPING, ReplicaState.STOPPED}
HEALTHY_WITHIN = 30.0  # seconds from a replica's first answer until probes agree: many of their intervals


class RolloutError(Exception):
    """A rollout cannot begin or go on; the text is for the user."""


class RolloutState(Enum):
    """How the rollouts of this process stand."""

    IDLE = "idle"  # there was none
    RUNNING = "running"
    FAILED = "failed"  # the newest one
    DONE = "done"  # the newest one


class Phase(Enum):
    """What a running rollout is at."""

    STARTING = "starting"  # the new replica's process
    CHECKING = "checking"  # whether it is healthy
    DRAINING = "draining"  # the old one
    STOPPING = "stopping"  # the old one's process


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """What can be told of the newest rollout."""

    state: RolloutState = RolloutState.IDLE
    done: int = 0  # replicas that were replaced
    total: int = 0  # replicas that were to be replaced
    phase: Phase | None = None  # while it runs
    old: str = ""  # whose turn it is, or was when it failed
    new: str = ""  # what takes its place, once it is started
    reason: str = ""  # why it failed


class Rollout:
    """Made by the app, once; whoever wants a rollout calls `begin`."""

    def __init__(
        self,
        supervisor: Supervisor,
        fleet: Fleet,
        drains: Drains,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` is told how it goes, in sentences whose subject is the rollout, or which name a replica."""
        self.progress = RolloutProgress()
        self._supervisor = supervisor
        self._fleet = fleet
        self._drains = drains
        self._tell = tell
        self._changed = asyncio.Event()  # set at every change of the fleet or of a replica
        fleet.listen(lambda _backend, _event: self._changed.set())

    def __repr__(self) -> str:
        return f"<Rollout {self.progress}>"

    @property
    def hindrance(self) -> str:
        """Why none can begin now, "" if one can."""
        progress = self.progress
        if progress.state is RolloutState.RUNNING:
            return f"a rollout is running: {progress.done} of {progress.total} are replaced"
        return ""

    def replica_changed(self) -> None:
        """Something happened to a replica: a rollout may wait for it in vain."""
        self._changed.set()

    def begin(self, spawn: Spawn, drain_timeout: float | None = None) -> asyncio.Task[None]:
        """Begins to replace every replica there is now, in a task that `spawn` makes of the work.

        `progress` tells from now on how far that is, and how it ended. Raises RolloutError while another one
        runs. When the task is cancelled, leaves the replica that is just being replaced ready beside the new
        one.
        """
        if self.hindrance:
            raise RolloutError(self.hindrance)
        old = list(self._supervisor.replicas)
        self.progress = RolloutProgress(RolloutState.RUNNING, total=len(old))
        self._say(f"begins with {counted(len(old), 'replica')}")
        self._mark(old, outdated=True)
        task = spawn(self._replace_all(old, drain_timeout))
        task.add_done_callback(lambda _: self._ended(old))
        return task

    async def _replace_all(self, old: list[Replica], drain_timeout: float | None) -> None:
        try:
            for replica in old:
                await self._replace(replica, drain_timeout)
        except (RolloutError, ReplicaError, DrainEndedError) as error:
            self._failed(str(error))
        except Exception as error:
            fault(Where.REPLICA, error, "the rollout broke")
            self._failed(f"it met a mistake of the proxy, see the log: {error!r}")
        else:
            self.progress = RolloutProgress(RolloutState.DONE, len(old), len(old))
            self._say(f"done, replaced {counted(len(old), 'replica')}")

    def _ended(self, old: list[Replica]) -> None:
        """The task has ended, also one that was cancelled before it began."""
        self._mark(old, outdated=False)
        if self.progress.state is RolloutState.RUNNING:
            self._failed("it was cancelled")

    async def _replace(self, old: Replica, drain_timeout: float | None) -> None:
        """One old replica by a new one, or by none if there are more than are wanted."""
        self.progress = replace(self.progress, phase=Phase.STARTING, old=old.name, new="")
        new = None
        if not self._is_one_too_many(old):
            new = await self._supervisor.start_another()
            self.progress = replace(self.progress, phase=Phase.CHECKING, new=new.name)
            try:
                await self._until_healthy(new)
            except BaseException:
                await self._retire(new)
                raise
        self.progress = replace(self.progress, phase=Phase.DRAINING)
        await self._empty(old, new, drain_timeout)
        self.progress = replace(self.progress, phase=Phase.STOPPING)
        await self._retire(old)
        text = f"{new.name} has taken the place of {old.name}" if new else f"{old.name} was one too many"
        self._say(text)
        self.progress = replace(self.progress, done=self.progress.done + 1)

    def _is_one_too_many(self, old: Replica) -> bool:
        """Whether as many as are wanted serve without it: somebody may be drained, by hand or to be fewer."""
        others = (self._fleet.get(other.name) for other in self._supervisor.replicas if other is not old)
        serving = sum(other is not None and other.takes_sessions and not other.leaving for other in others)
        return serving >= self._supervisor.count

    async def _retire(self, replica: Replica) -> None:
        """Stops one that takes no sessions meanwhile, whatever an operator wishes of it."""
        backend = self._fleet.get(replica.name)
        if backend is not None:
            backend.leaving = True
            if backend.admin_state is AdminState.READY:
                self._drains.drain(backend)
        await self._supervisor.retire(replica)

    async def _until_healthy(self, replica: Replica) -> None:
        """Waits until probes say that a replica which answered is healthy. Raises RolloutError."""
        try:
            async with asyncio.timeout(HEALTHY_WITHIN):
                while not self._is_healthy(replica):
                    if replica.state in _OVER:
                        raise RolloutError(f"{replica.name} died before it was healthy")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise RolloutError(f"{replica.name} was not healthy within {HEALTHY_WITHIN:g} s") from None
        self._has_to_serve(replica)

    def _is_healthy(self, replica: Replica) -> bool:
        backend = self._fleet.get(replica.name)
        return backend is not None and backend.health.verdict is Verdict.HEALTHY

    def _has_to_serve(self, new: Replica) -> None:
        """Raises RolloutError if a new replica takes the place of nobody."""
        backend = self._fleet.get(new.name)
        if backend is None or new.state in _OVER:
            raise RolloutError(f"{new.name} was given up")
        if backend.admin_state is not AdminState.READY:
            raise RolloutError(f"{new.name} was set to {backend.admin_state.value}")

    async def _empty(self, old: Replica, new: Replica | None, timeout: float | None) -> None:  # noqa: ASYNC109  # handed on
        """Drains the backend of the old replica while the new one serves.

        If that does not end it takes sessions again, unless an operator wishes something else of it.
        """
        backend = self._fleet.get(old.name)
        if backend is None:
            return
        was_ready = backend.admin_state is AdminState.READY
        emptying = asyncio.ensure_future(self._drains.until_empty(backend, timeout))
        emptying.add_done_callback(lambda _: self._changed.set())
        try:
            while not emptying.done():
                self._changed.clear()
                await self._changed.wait()
                if new is not None and not emptying.done():
                    self._has_to_serve(new)
            await emptying
            if new is not None:  # it may have died meanwhile, and is started again
                await self._until_healthy(new)
        except DrainEndedError:
            raise
        except BaseException:
            if was_ready and not backend.gone:
                self._drains.ready(backend)
            raise
        finally:
            emptying.cancel()

    def _mark(self, replicas: list[Replica], *, outdated: bool) -> None:
        for replica in replicas:
            backend = self._fleet.get(replica.name)
            if backend is not None:
                backend.outdated = outdated

    def _failed(self, reason: str) -> None:
        self.progress = replace(self.progress, state=RolloutState.FAILED, phase=None, reason=reason)
        done, total = self.progress.done, self.progress.total
        self._say(f"failed after {done} of {total} replicas: {reason}", logging.ERROR)

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """To the log and to who is told."""
        log.log(level, "rollout: %s", text)
        self._tell(text)
