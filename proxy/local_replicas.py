"""The bridge between the supervisor of `run` and the fleet: its replicas are the backends."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.health import Observation
from proxy.controlplane.elastic import Elastic
from proxy.controlplane.events import EventKind
from proxy.controlplane.rollout import Rollout, RolloutError, RolloutProgress, RolloutState
from proxy.parts import Parts
from proxy.replicas import ReplicaEvent, ReplicaEventKind, ReplicaState, Supervisor

log = logging.getLogger("proxy")


class LocalReplicas:
    """Made by the app; of use once it has a supervisor."""

    def __init__(self, parts: Parts, public_address: Callable[[], str]) -> None:
        """`public_address` tells where clients connect."""
        self._parts = parts
        self._public_address = public_address
        self.supervisor: Supervisor | None = None  # who runs the replicas, under `run`
        self._rollout: Rollout | None = None  # set with it
        self.elastic: Elastic | None = None  # as well
        self._shared = False  # whether the replicas were told to share their sessions

    def supervise(self, supervisor: Supervisor) -> None:
        """The fleet is the replicas of a supervisor that has been prepared."""
        parts = self._parts
        self.supervisor = supervisor
        self._shared = parts.drains.shared
        tell = partial(parts.events.record, EventKind.ROLLOUT)
        self._rollout = Rollout(supervisor, parts.fleet, parts.drains, tell)
        parts.wants.has_replicas = True
        self.elastic = Elastic(
            supervisor,
            parts.fleet,
            parts.drains,
            lambda: parts.wants.settings.count,
            answers=self._answers,
            hindered=self._hindered,
            tell=partial(parts.events.record, EventKind.SCALING),
        )
        parts.wants.follow = self.elastic.look
        parts.router.sole = True
        parts.prober.own_replicas = parts.drains.own_replicas = True
        now = monotonic()
        for replica in supervisor.replicas:
            parts.fleet.add(replica.name, *_host_port(replica.url), now=now).starting = True

    def _answers(self, backend: Backend) -> int:
        """Those under way at a backend."""
        return sum(session.backend is backend for session in self._parts.router.directory.answering())

    def _hindered(self) -> bool:
        """Whether replicas are not to come and go now."""
        return self._parts.changes.leaving or self.rollout.state is RolloutState.RUNNING

    def heard(self, event: ReplicaEvent) -> None:
        """Something happened to a replica: the fleet hears of it at once."""
        parts, replica = self._parts, event.replica
        level = logging.INFO if event.is_fine else logging.WARNING
        log.log(level, "%s %s", replica.name, event.text)
        parts.events.record(EventKind.REPLICA, event.text, replica.name, event.lines)
        if self.supervisor is not None:
            parts.drains.shared = self._shared and self.supervisor.shares
        now = monotonic()
        backend = parts.fleet.get(replica.name)
        if backend is None and event.kind is ReplicaEventKind.READY:
            backend = parts.fleet.add(replica.name, *_host_port(replica.url), now=now)
            parts.prober.watch(backend)
        if backend is None:
            return
        if self._rollout is not None:
            self._rollout.replica_changed()
        backend.pid = replica.pid
        backend.starting = backend.starting and event.kind is not ReplicaEventKind.READY
        if event.kind is ReplicaEventKind.RETIRED:
            parts.fleet.remove(backend)
        elif event.kind is ReplicaEventKind.READY:
            parts.fleet.move(backend, *_host_port(replica.url))
            parts.fleet.observe(backend, Observation.ANSWERED, now)
            parts.prober.suspect(backend)
            self._tell_if_all_are_ready()
        else:
            parts.fleet.observe(backend, Observation.ENDED, now, f"the process {event.text}")

    def _tell_if_all_are_ready(self) -> None:
        if (
            self.rollout.state is RolloutState.RUNNING
        ):  # there is one more of them, and it says when it is done
            return
        replicas = self.supervisor.replicas if self.supervisor else []
        if replicas and all(replica.state is ReplicaState.READY for replica in replicas):
            number = "the replica is" if len(replicas) == 1 else f"all {len(replicas)} replicas are"
            log.info("%s ready: open %s", number, self._public_address())

    @property
    def rollout(self) -> RolloutProgress:
        """How far the newest rollout is."""
        return self._rollout.progress if self._rollout else RolloutProgress()

    def begin_rollout(
        self, tasks: asyncio.TaskGroup | None, drain_timeout: float | None = None
    ) -> asyncio.Task[None]:
        """Replace the replicas one by one, in a task of the group; None: it ends. Raises RolloutError."""
        if self._rollout is None:
            raise RolloutError(
                "the backends are not replicas of this proxy: only those of `run` can be replaced"
            )
        if tasks is None:
            raise RolloutError("the proxy is about to end")
        return self._rollout.begin(tasks.create_task, drain_timeout)

    def __repr__(self) -> str:
        return f"<LocalReplicas of {self.supervisor!r}>"


def _host_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)
