"""As many replicas of `run` as are wanted: more are started at once, fewer are left by draining the emptiest.

One leaves at a time. It is drained, so its sessions are handed over at rest and its answers end there; then
it is retired. Where conversations do not outlive their instance, only one without sessions leaves. One that
an operator has taken out of service does not count, and is replaced as far as the upper bound allows; one
that has died counts, since it is started again; one that was given up does not. While a rollout runs
nothing happens here but that it hears how many are wanted. If more are wanted again, whoever is just
leaving stays; also if nobody else takes sessions any more.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.backoff import Backoff
from proxy.borders import Work, held
from proxy.config.span import Span
from proxy.controlplane.drains import DrainEndedError
from proxy.controlplane.wants import Wish
from proxy.replicas import Replica, ReplicaError, ReplicaState, Supervisor

log = logging.getLogger("proxy")

_FIRST, _LONGEST = 5.0, 60.0  # seconds until another start is tried after one that has failed


class Drains(Protocol):
    """Who empties backends."""

    @property
    def shared(self) -> bool:
        """Whether conversations outlive their instance."""
        ...

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """Drain one. Raises DrainEndedError if somebody takes the drain back."""
        ...

    def ready(self, backend: Backend) -> None:
        """Let it take sessions again."""
        ...


class Elastic:
    """Made by the bridge of `run`, which has it look at every new wish; run by the app."""

    def __init__(
        self,
        supervisor: Supervisor,
        fleet: Fleet,
        drains: Drains,
        bounds: Callable[[], Span],
        *,
        answers: Callable[[Backend], int],
        hindered: Callable[[], bool],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`hindered`: a rollout runs, or the proxy ends; `answers` counts those under way at one."""
        self._supervisor, self._fleet, self._drains = supervisor, fleet, drains
        self._bounds, self._answers, self._hindered, self._tell = bounds, answers, hindered, tell
        self._going: dict[Replica, Backend] = {}  # whom we drain and retire
        self._backoff = Backoff(_FIRST, _LONGEST)
        self._not_before = 0.0  # when another start may be tried
        self._due = 0  # starts that have not begun
        self._known = bounds()
        self._settling = False  # set while another fixed number, by a reload, is not reached yet
        self._tasks: asyncio.TaskGroup | None = None  # set while it runs

    async def run(self) -> None:
        """Start and retire until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    def look(self, wish: Wish) -> None:
        """Have as many as are wanted now."""
        bounds = self._bounds()
        if bounds != self._known:
            self._known, self._settling = bounds, bounds.is_fixed
        if self._tasks is None or (bounds.is_fixed and not self._settling):
            return
        target = bounds.low if bounds.is_fixed else wish.wanted
        self._supervisor.count = target
        if self._hindered():
            return
        alive = [replica for replica in self._supervisor.replicas if replica.state is not ReplicaState.FAILED]
        serving = [replica for replica in alive if replica not in self._going and self._serves(replica)]
        if self._going and not any(backend.takes_sessions for backend in self._fleet):
            self._add(len(self._going), 0)  # the others died meanwhile, and take a while to come back
        elif len(serving) < target:
            self._add(target - len(serving), max(0, bounds.high - len(alive)))
        elif len(serving) > target:
            self._leave_one(serving)
        else:
            self._settling = False
            for replica in set(self._supervisor.replicas) - set(alive):
                self._do(partial(self._supervisor.retire, replica))

    def _serves(self, replica: Replica) -> bool:
        """Whether it takes sessions, or will: an operator wishes nothing else of it."""
        backend = self._fleet.get(replica.name)
        if replica.state in {ReplicaState.STOPPING, ReplicaState.STOPPED}:
            return False
        return backend is None or backend.admin_state is AdminState.READY

    def _add(self, missing: int, room: int) -> None:
        for replica, backend in list(self._going.items()):
            if missing and replica.state is ReplicaState.READY and not backend.leaving:
                self._drains.ready(backend)  # which ends its drain
                del self._going[replica]
                missing -= 1
        if monotonic() >= self._not_before:
            for _ in range(min(missing, room) - self._due):
                self._due += 1
                self._do(self._start)

    async def _start(self) -> None:
        self._due -= 1  # the supervisor has it among its replicas from now on
        try:
            replica = await self._supervisor.start_another()
        except ReplicaError as error:
            pause = self._backoff.pause()
            self._not_before = monotonic() + pause
            log.warning("scaling: %s; another one is tried in %.0f s", error, pause)
            self._tell(f"{error}; another one is tried in {pause:.0f} s")
        else:
            self._backoff.reset()
            self._tell(f"{replica.name} has been added")

    def _leave_one(self, serving: list[Replica]) -> None:
        """Have the emptiest leave, if nobody is leaving or on the way and the rest serves."""
        known = [(replica, self._fleet.get(replica.name)) for replica in serving]
        there = [(replica, backend) for replica, backend in known if backend is not None]
        if self._going or len(there) < len(known):
            return
        replica, backend = min(there, key=lambda pair: (self._answers(pair[1]), pair[1].sessions))
        others = [other for _, other in there if other is not backend]
        if (backend.sessions and not self._drains.shared) or not any(
            other.takes_sessions for other in others
        ):
            return
        self._going[replica] = backend
        self._do(partial(self._leave, replica, backend))

    async def _leave(self, replica: Replica, backend: Backend) -> None:
        try:
            await self._drains.until_empty(backend)
            backend.leaving = True
            await self._supervisor.retire(replica)
        except DrainEndedError as reason:
            log.info("scaling: %s stays: %s", replica.name, reason)
            self._tell(f"{replica.name} stays: {reason}")
        else:
            self._tell(f"{replica.name} has left")
        finally:
            self._going.pop(replica, None)

    def _do(self, work: Work) -> None:
        assert self._tasks
        self._tasks.create_task(held(work, lambda: None))

    def __repr__(self) -> str:
        return f"<Elastic {self._bounds()} going={list(self._going)}>"
