"""The rollout: every replica of `run` is replaced by a new one, one after the other; no session is cut off.

For each old replica a new one is started; when it is healthy, the old one is drained and retired. While
a rollout runs the old backends are *outdated*: sessions are placed on the others, so a session that has to
move goes where it can stay, and moves once. Where a new replica does not come up the rollout ends: what is
left of the old goes on serving, as do the new ones before it. What draining is, and who asks for a rollout,
is not known here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.replicas import Replica, ReplicaError, Supervisor

log = logging.getLogger("proxy")


class Drains(Protocol):
    """Who empties backends."""

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """Drain one; what is left after so many seconds (None: the configured ones) is forced."""
        ...

    def ready(self, backend: Backend) -> None:
        """Let it take sessions again."""
        ...


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
class RolloutStatus:
    """What can be told of the newest rollout."""

    state: RolloutState = RolloutState.IDLE
    done: int = 0  # replicas that were replaced
    total: int = 0  # replicas that were to be replaced
    phase: Phase | None = None  # while it runs
    old: str = ""  # whose turn it is, or was when it failed
    new: str = ""  # what takes its place, once it is started
    reason: str = ""  # why it failed


class Rollout:
    """Made by the app, once; whoever wants a rollout awaits `run`."""

    def __init__(
        self,
        supervisor: Supervisor,
        fleet: Fleet,
        drains: Drains,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` is told how it goes, in sentences."""
        self.status = RolloutStatus()
        self._supervisor = supervisor
        self._fleet = fleet
        self._drains = drains
        self._tell = tell
        self._changed = asyncio.Event()  # set at every change of the fleet
        fleet.listen(lambda _backend, _event: self._changed.set())

    def __repr__(self) -> str:
        return f"<Rollout {self.status}>"

    @property
    def hindrance(self) -> str:
        """Why none can begin now, "" if one can."""
        status = self.status
        if status.state is RolloutState.RUNNING:
            return f"a rollout is running: {status.done} of {status.total} are replaced"
        return ""

    async def run(self, drain_timeout: float | None = None) -> RolloutStatus:
        """Replaces every replica there is now; returns how that ended, failed or done.

        Raises RolloutError, before anything is done, while another one runs. When cancelled, leaves the
        replica that is just being replaced ready beside the new one.
        """
        if self.hindrance:
            raise RolloutError(self.hindrance)
        old = list(self._supervisor.replicas)
        self.status = RolloutStatus(RolloutState.RUNNING, total=len(old))
        log.info("rollout of %d replicas", len(old))
        self._tell(f"of {len(old)} replicas begins")
        self._mark(old, outdated=True)
        try:
            for replica in old:
                await self._replace(replica, drain_timeout)
        except (RolloutError, ReplicaError) as error:
            self._failed(str(error))
        except BaseException as error:
            self._failed("it was cancelled" if isinstance(error, asyncio.CancelledError) else repr(error))
            raise
        else:
            self.status = RolloutStatus(RolloutState.DONE, len(old), len(old))
            log.info("rollout is done: %d replicas are new", len(old))
            self._tell(f"is done: {len(old)} replicas are new")
        finally:
            self._mark(old, outdated=False)
        return self.status

    async def _replace(self, old: Replica, drain_timeout: float | None) -> None:
        """One old replica by a new one."""
        self.status = replace(self.status, phase=Phase.STARTING, old=old.name, new="")
        new = await self._supervisor.start_another()
        self.status = replace(self.status, phase=Phase.CHECKING, new=new.name)
        try:
            await self._until_healthy(new)
        except BaseException:
            await self._supervisor.retire(new)
            raise
        self.status = replace(self.status, phase=Phase.DRAINING)
        await self._empty(old, drain_timeout)
        self.status = replace(self.status, phase=Phase.STOPPING)
        await self._supervisor.retire(old)
        log.info("rollout: %s has taken the place of %s", new.name, old.name)
        self._tell(f"{new.name} has taken the place of {old.name}")
        self.status = replace(self.status, done=self.status.done + 1)

    async def _until_healthy(self, replica: Replica) -> None:
        """Waits until probes say that a replica which answered is healthy. Raises RolloutError."""
        try:
            async with asyncio.timeout(HEALTHY_WITHIN):
                while not self._is_healthy(replica):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise RolloutError(f"{replica.name} was not healthy within {HEALTHY_WITHIN:g} s") from None

    def _is_healthy(self, replica: Replica) -> bool:
        backend = self._fleet.get(replica.name)
        return backend is not None and backend.health.verdict is Verdict.HEALTHY

    async def _empty(self, replica: Replica, timeout: float | None) -> None:  # noqa: ASYNC109  # handed on
        """Drains a replica's backend; if that does not end, it takes sessions again."""
        backend = self._fleet.get(replica.name)
        if backend is None:
            return
        try:
            await self._drains.until_empty(backend, timeout)
        except BaseException:
            if not backend.gone:
                self._drains.ready(backend)
            raise

    def _mark(self, replicas: list[Replica], *, outdated: bool) -> None:
        for replica in replicas:
            backend = self._fleet.get(replica.name)
            if backend is not None:
                backend.outdated = outdated

    def _failed(self, reason: str) -> None:
        self.status = replace(self.status, state=RolloutState.FAILED, phase=None, reason=reason)
        self._tell(f"has failed after {self.status.done} of {self.status.total} replicas: {reason}")
        log.error(
            "rollout has failed after %d of %d replicas: %s", self.status.done, self.status.total, reason
        )
