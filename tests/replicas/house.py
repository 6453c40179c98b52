"""A fleet, a supervisor whose replicas hold a scripted `chainlit`, and a rollout over both."""

import asyncio
from pathlib import Path
from typing import Any

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.placement import Placement
from proxy.controlplane.drains import DrainEndedError
from proxy.controlplane.rollout import Rollout, RolloutProgress
from proxy.replicas import ReplicaEvent, ReplicaEventKind
from tests.replicas.recorded import Recorded

SESSIONS = 60


class House(Recorded):
    """What the app joins: replicas and their backends, and a drain that moves sessions."""

    def __init__(self, app: Path, count: int, state: Path, **settings: Any) -> None:
        super().__init__(app, count, state, **settings)
        self.fleet = Fleet(HealthRules())
        self.rollout = Rollout(self.supervisor, self.fleet, self)
        self.placement = Placement()
        self.trails: dict[bytes, list[str]] = {}  # the backends of each session, in order
        self.drained: list[tuple[str, float | None]] = []
        self.sick: set[str] = set()  # which answer, but not to probes
        self.gate: asyncio.Event | None = None  # what a drain waits for
        self.trouble: Exception | None = None  # what a drain meets
        self.wish: AdminState | None = None  # what an operator sets the backend to that is drained

    def _event(self, event: ReplicaEvent) -> None:
        name = event.replica.name
        backend = self.fleet.get(name)
        if event.kind is ReplicaEventKind.READY:
            backend = backend or self.fleet.add(name, "127.0.0.1", 1, now=0.0)
            if name not in self.sick:
                self.fleet.observe(backend, Observation.ANSWERED, 0.0)
        elif backend is not None and event.kind is ReplicaEventKind.RETIRED:
            self.fleet.remove(backend)
        self.rollout.replica_changed()
        super()._event(event)

    def ready(self, backend: Backend) -> None:
        """As Drains."""
        self.fleet.set_admin_state(backend, AdminState.READY)

    def drain(self, backend: Backend) -> None:
        """As Drains."""
        self.fleet.set_admin_state(backend, AdminState.DRAIN)

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """As Drains: moves the backend's sessions, as they are placed now."""
        self.fleet.set_admin_state(backend, AdminState.DRAIN)
        self.drained.append((backend.name, within))
        self._told.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.wish is not None:
            self.fleet.set_admin_state(backend, self.wish)
            raise DrainEndedError(f"{backend.name} was set to {self.wish.value}")
        if self.trouble is not None:
            raise self.trouble
        for key, trail in self.trails.items():
            if trail[-1] == backend.name:
                trail.append(self.place(key, avoid=trail))

    async def roll_out(self, drain_timeout: float | None = None) -> RolloutProgress:
        """A rollout from its beginning to its end."""
        return await self.ended(self.rollout.begin(asyncio.create_task, drain_timeout))

    async def ended(self, running: asyncio.Task[None]) -> RolloutProgress:
        """How a rollout has ended."""
        await running
        return self.rollout.progress

    def place(self, key: bytes, avoid: list[str]) -> str:
        """Where a session goes now."""
        backend = self.placement.place(key, self.fleet, 0.0, avoid=avoid)
        assert backend is not None
        return backend.name

    def open_sessions(self) -> None:
        """Sessions on all the backends there are."""
        self.trails = {b"%d" % at: [self.place(b"%d" % at, [])] for at in range(SESSIONS)}

    @property
    def names(self) -> list[str]:
        """The backends of the fleet, which are the replicas of the supervisor."""
        names = sorted(backend.name for backend in self.fleet)
        assert names == sorted(replica.name for replica in self.supervisor.replicas)
        return names

    def is_as_before(self, count: int) -> bool:
        """Whether all backends take sessions and nobody is outdated."""
        return len(self.names) == count and all(
            backend.takes_sessions and not backend.outdated for backend in self.fleet
        )
