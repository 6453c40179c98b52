"""Emptying backends: what the operator wishes of one, and how its sessions leave.

A backend that drains takes no new sessions; those it has go on, with their uploads and reconnects. What is
at rest is sent away at a pace: at once where conversations outlive their instance, else only when the time
that is left is just enough, because a session that is sent away begins anew elsewhere. A session in the
middle of an answer is left to finish. At the deadline the rest has to go, and whoever comes back after it.
One task looks at all drains a few times a second, so no state hangs on a timer. Whoever takes a drain back
ends it with a reason, and those who wait for its end are told. One that the backend's own hook asked for
ends by itself when the backend was restarted: nobody has to say so at the worst moment, when it starts.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.affinity.pace import HANDED_OVER_PER_SECOND, PER_SECOND, Pace, time_for
from proxy.affinity.session import Session
from proxy.borders import Border, Where
from proxy.config import Config
from proxy.words import drained

log = logging.getLogger("proxy")

_PAUSE = 0.2  # seconds between two looks at the drains
_LAST_CALL = 2.0  # seconds before the deadline that the move itself may take


class DrainEndedError(Exception):
    """A drain was taken back before its backend was empty; the text tells the user why."""


class Departures(Protocol):
    """What the data plane can tell of the sessions on a backend, and how it has them leave."""

    @property
    def hands_over(self) -> bool:
        """Whether another backend goes on with who is sent away, and the client stays connected."""
        ...

    def sessions_on(self, backend: Backend) -> list[Session]:
        """Those that are open there."""
        ...

    def forget_placed(self, backend: Backend) -> None:
        """Those that were placed there and have not come yet go elsewhere."""
        ...

    def at_rest(self, sessions: Collection[Session]) -> list[Session]:
        """Those that lose nothing by connecting anew."""
        ...

    def send_away(self, sessions: Collection[Session]) -> None:
        """Have their clients connect anew, elsewhere."""
        ...

    def cut(self, backend: Backend, began: float) -> None:
        """End requests there that began before, and the tunnels that belong to no session."""
        ...

    def is_empty(self, backend: Backend) -> bool:
        """Whether no session can be there any more, and nothing is under way."""
        ...


@dataclass(eq=False, slots=True)
class Drain:
    """One backend that is being emptied; owned by Drains."""

    backend: Backend
    began: float
    deadline: float
    pace: Pace
    lives: int  # of the backend, when it began
    until_restart: bool = False  # whether it ends when the backend was restarted; else when it is taken back
    is_back: bool = (
        False  # whether the backend said that it starts again: it may take minutes until it answers
    )
    sent_away: int = 0  # sessions at rest
    forced: int = 0  # sessions that were answering at the deadline
    emptied_at: float | None = None  # when it was first empty
    is_empty: bool = False
    taken_back: str = ""  # why it is no drain any more; "" while it is one
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # set while it is empty or taken back

    @property
    def told(self) -> str:
        """How it ended, behind the backend's name."""
        return drained(self.sent_away, self.forced)


class Drains:
    """All drains; the only one who sets the operator's wish."""

    def __init__(
        self,
        fleet: Fleet,
        departures: Departures,
        *,
        patience: float = 300.0,
        shared: bool = False,
        emptied: Callable[[Backend], None] = lambda _: None,
        watch: Callable[[Backend], None] = lambda _: None,
        stood: Callable[[float], object] = lambda _now: None,
    ) -> None:
        """`emptied(backend)` is told when one is empty for the first time.

        `watch(backend)` is told of one that is to be restarted, as `awaits_restart` says from then on.
        `stood(now)` is asked before deadlines are looked at: it calls `move_on` if this process stood still.
        """
        self._fleet = fleet
        self._departures = departures
        self._emptied, self._watch = emptied, watch
        self._stood = stood
        self.patience = patience  # seconds until the deadline of a drain that names none
        self.shared = shared  # whether conversations outlive their instance
        self.own_replicas = False  # set by who runs them, who then tells whether they share
        self.ended = 0  # drains that ended with an empty backend
        self.seconds = 0.0  # that they took together
        self._drains: dict[Backend, Drain] = {}
        self._wake = asyncio.Event()
        fleet.listen(self._backend_changed)

    def configure(self, config: Config) -> None:
        """Take what is configured; drains that are under way keep their deadlines."""
        self.patience = config.timeouts.drain
        if not self.own_replicas:
            self.shared = config.sessions.shared is True

    def get(self, backend: Backend) -> Drain | None:
        """The drain of a backend."""
        return self._drains.get(backend)

    def drain(self, backend: Backend, within: float | None = None) -> Drain:
        """Take no new sessions and empty it within so many seconds; asked again, set another deadline."""
        now = monotonic()
        deadline = now + (self.patience if within is None else within)
        running = self._drains.get(backend)
        if running is not None:
            running.deadline = deadline
            if running.emptied_at is not None:  # it is told again that it is empty, to whoever wishes so now
                running.began, running.emptied_at, running.is_empty = now, None, False
                running.settled.clear()
            return running
        pace = Pace(now, HANDED_OVER_PER_SECOND if self._departures.hands_over else PER_SECOND)
        drain = self._drains[backend] = Drain(backend, now, deadline, pace, backend.lives)
        self._fleet.set_admin_state(backend, AdminState.DRAIN)
        self._departures.forget_placed(backend)
        self._wake.set()
        return drain

    def drain_for(self, backend: Backend, within: float | None, *, until_restart: bool) -> None:
        """As `drain`, for an operator or, until it was restarted, for the backend itself.

        What an operator wished outlives a restart, and gets no more time by what the backend asks for.
        """
        if not until_restart:
            self.drain(backend, within).until_restart = False
        elif backend.admin_state is not AdminState.MAINTENANCE:
            before = self._drains.get(backend)
            latest = inf if before is None or before.until_restart else before.deadline
            drain = self.drain(backend, within)
            drain.deadline = min(drain.deadline, latest)
            drain.until_restart = drain.until_restart or before is None
            self._watch(backend)

    def awaits_restart(self, backend: Backend) -> bool:
        """Whether its drain ends when it was restarted, so that nobody may miss that."""
        drain = self._drains.get(backend)
        return drain is not None and drain.until_restart

    def restarted(self, backend: Backend) -> None:
        """It has been restarted: a drain until then ends once it answers, unless it is to leave the fleet."""
        drain = self._drains.get(backend)
        if drain is not None and drain.until_restart and not backend.leaving:
            if not _answers(backend):
                drain.is_back = True
                return
            log.info("backend %s is back from its restart: its drain ends", backend.name)
            self.ready(backend)

    def ready(self, backend: Backend) -> None:
        """Take sessions again, with a slow start; what was not sent away stays."""
        self._take_back(backend, f"{backend.name} was set to ready")
        if backend.admin_state is not AdminState.READY:
            backend.health.returned = monotonic()
        self._fleet.set_admin_state(backend, AdminState.READY)

    def maintenance(self, backend: Backend) -> None:
        """Take it out now: its sessions move, whatever they are at."""
        self._take_back(backend, f"{backend.name} was set to maintenance")
        self._departures.forget_placed(backend)
        self._departures.send_away(self._departures.sessions_on(backend))
        self._departures.cut(backend, inf)
        self._fleet.set_admin_state(backend, AdminState.MAINTENANCE)

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """Drain a backend and wait until it is empty; the deadline of `within` seconds forces it.

        Raises DrainEndedError when somebody takes the drain back.
        """
        drain = self.drain(backend, within)
        while not drain.is_empty:
            if drain.taken_back:
                raise DrainEndedError(drain.taken_back)
            await drain.settled.wait()

    async def run(self) -> None:
        """Carry drains out until cancelled."""
        while True:
            await self._wake.wait()
            self._stood(monotonic())
            for drain in list(self._drains.values()):
                with Border(Where.DRAIN):
                    self._look_at(drain, monotonic())
            if not self._drains:
                self._wake.clear()
            await asyncio.sleep(_PAUSE)

    def _backend_changed(self, backend: Backend, _event: str) -> None:
        if backend.gone:
            self._take_back(backend, f"{backend.name} has left the fleet")

    def _take_back(self, backend: Backend, reason: str) -> None:
        """It is no drain any more: whoever waits for its end is told why."""
        drain = self._drains.pop(backend, None)
        if drain is not None:
            drain.taken_back = reason
            drain.settled.set()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: nobody could leave in them."""
        for drain in self._drains.values():
            drain.deadline += gap

    def _look_at(self, drain: Drain, now: float) -> None:
        backend = drain.backend
        is_healthy = backend.health.verdict is Verdict.HEALTHY
        if _answers(backend) if drain.is_back else is_healthy and backend.lives != drain.lives:
            self.restarted(backend)
            if drain.taken_back:
                return
        if self._departures.is_empty(backend):
            self._found_empty(drain, now)
            return
        drain.is_empty = False
        drain.settled.clear()
        sessions = self._departures.sessions_on(backend)
        end = drain.deadline - _LAST_CALL
        if now >= drain.deadline:
            idle = self._departures.at_rest(sessions)
            drain.forced += len(sessions) - len(idle)
            drain.sent_away += len(idle)
            self._departures.send_away(sessions)  # before their polls are cut, so that these may follow
            self._departures.cut(backend, drain.deadline)
        elif (self.shared and self._others_take(backend)) or now >= end - time_for(len(sessions)):
            idle = self._departures.at_rest(sessions)
            going = idle[: drain.pace.allow(len(idle), now, end)]
            drain.sent_away += len(going)
            self._departures.send_away(going)

    def _others_take(self, backend: Backend) -> bool:
        """Whether sessions have somewhere to go; else those at rest would come back at once."""
        return any(other.takes_sessions for other in self._fleet if other is not backend)

    def _found_empty(self, drain: Drain, now: float) -> None:
        drain.is_empty = True
        drain.settled.set()
        if drain.emptied_at is None:
            drain.emptied_at = now
            self.ended += 1
            self.seconds += now - drain.began
            log.info("backend %s %s", drain.backend.name, drain.told)
            self._emptied(drain.backend)

    def __repr__(self) -> str:
        return f"<Drains {[drain.backend.name for drain in self._drains.values()]} shared={self.shared}>"


def _answers(backend: Backend) -> bool:
    """Whether there is somebody, be it one whose answers to probes are no good."""
    return backend.health.verdict is Verdict.HEALTHY or backend.health.denied
