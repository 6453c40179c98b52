"""What the log and the events tell of changes: of backends, and of a process that stood still.

A verdict that is not `healthy` is a warning, all else is information; while the proxy leaves, nothing is a
warning: it ends its replicas itself.
"""

import asyncio
import logging
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.affinity.standstill import BEAT, Standstill
from proxy.controlplane.events import EventKind, EventLog
from proxy.words import counted

log = logging.getLogger("proxy")

_NOBODY = "no backend takes sessions"


class Changes:
    """Listens to a fleet; created by the app."""

    def __init__(self, fleet: Fleet, events: EventLog) -> None:
        self.leaving = False  # set when the process is to end
        self._fleet = fleet
        self._events = events
        self._said_nobody = False  # whether it is told that no backend takes sessions
        fleet.listen(self._changed)

    def _changed(self, backend: Backend, event: str) -> None:
        verdict = backend.health.verdict
        bad = verdict is not Verdict.HEALTHY and event.startswith(f"is {verdict.value}") and not self.leaving
        log.log(logging.WARNING if bad else logging.INFO, "backend %s %s", backend.name, event)
        self._events.record(EventKind.BACKEND, event, backend.name)
        if backend.sessions and not backend.holds_pins and not backend.leaving:
            lost = f"is lost with {counted(backend.sessions, 'session')}"
            self._events.record(EventKind.FAILOVER, lost, backend.name)
        self._tell_if_nobody_takes_sessions()

    def _tell_if_nobody_takes_sessions(self) -> None:
        """Say once that no backend takes sessions, when each has been met."""
        nobody = not any(backend.takes_sessions for backend in self._fleet)
        if nobody and (self.leaving or not all(b.health.met and not b.starting for b in self._fleet)):
            return
        if nobody and not self._said_nobody:
            log.warning(_NOBODY)
            self._events.record(EventKind.BACKEND, _NOBODY)
        self._said_nobody = nobody

    def __repr__(self) -> str:
        return f"<Changes of {len(self._fleet)} backends>"


async def beat(standstill: Standstill) -> None:
    """Notice when this process stood still, until cancelled."""
    told = 0.0
    while True:
        total = standstill.measure(monotonic())
        if total > told:
            log.warning(
                "this process did not run for %.1f s: nobody counts as silent for that time", total - told
            )
            told = total
        await asyncio.sleep(BEAT)
