"""Emptying backends: what the operator wishes of one, and how its sessions leave.

A backend that drains takes no new sessions; those it has go on, with their uploads and reconnects. What is
at rest is sent away at a pace: at once where conversations outlive their instance, else only when the time
that is left is just enough, because a session that is sent away begins anew elsewhere. A session in the
middle of an answer is left to finish. At the deadline the rest has to go, and whoever comes back after it.
One task looks at all drains a few times a second, so no state hangs on a timer.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.directory import Session
from proxy.affinity.fleet import Fleet
from proxy.affinity.pace import Pace, time_for
from proxy.borders import Border, Where

log = logging.getLogger("proxy")

_LOOK = 0.2  # seconds between two looks at the drains
_LAST_CALL = 2.0  # seconds before the deadline that the move itself may take


class Moves(Protocol):
    """What the data plane can tell of sessions, and do with them."""

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

    def cut(self, backend: Backend) -> None:
        """End the tunnels there that belong to no session."""
        ...

    def is_empty(self, backend: Backend) -> bool:
        """Whether nothing that lasts goes on there."""
        ...


@dataclass(eq=False, slots=True)
class Drain:
    """One backend that is being emptied; owned by Drains."""

    backend: Backend
    began: float
    deadline: float
    pace: Pace
    sent_away: int = 0  # sessions at rest
    forced: int = 0  # sessions that were answering at the deadline
    ended: float | None = None  # when it was first empty
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # set while it is


class Drains:
    """All drains; the only one who sets the operator's wish."""

    def __init__(
        self,
        fleet: Fleet,
        moves: Moves,
        *,
        patience: float,
        shared: bool = False,
        emptied: Callable[[Backend], None] = lambda _: None,
        stood: Callable[[float], object] = lambda _now: None,
    ) -> None:
        """`emptied(backend)` is told when one is empty for the first time.

        `stood(now)` is asked before deadlines are looked at: it calls `move_on` if this process stood still.
        """
        self._fleet = fleet
        self._moves = moves
        self._emptied = emptied
        self._stood = stood
        self.patience = patience  # seconds until the deadline of a drain that names none
        self.shared = shared  # whether conversations outlive their instance
        self.ended = 0  # drains that ended with an empty backend
        self.seconds = 0.0  # that they took together
        self._drains: dict[Backend, Drain] = {}
        self._wake = asyncio.Event()

    def get(self, backend: Backend) -> Drain | None:
        """The drain of a backend."""
        return self._drains.get(backend)

    def drain(self, backend: Backend, within: float | None = None) -> Drain:
        """Take no new sessions and empty it within so many seconds; asked again, set another deadline."""
        now = monotonic()
        deadline = now + (self.patience if within is None else within)
        known = self._drains.get(backend)
        if known is not None:
            known.deadline = deadline
            if known.ended is not None:  # it is told again that it is empty, to whoever wishes so now
                known.began, known.ended = now, None
            return known
        drain = self._drains[backend] = Drain(backend, now, deadline, Pace(now))
        self._fleet.set_admin_state(backend, AdminState.DRAIN)
        self._moves.forget_placed(backend)
        self._wake.set()
        return drain

    def ready(self, backend: Backend) -> None:
        """Take sessions again, with a slow start; what was not sent away stays."""
        self._drains.pop(backend, None)
        if backend.admin_state is not AdminState.READY:
            backend.health.returned = monotonic()
        self._fleet.set_admin_state(backend, AdminState.READY)

    def maintenance(self, backend: Backend) -> None:
        """Take it out now: its sessions move, whatever they are at."""
        self._drains.pop(backend, None)
        self._moves.forget_placed(backend)
        self._moves.send_away(self._moves.sessions_on(backend))
        self._fleet.set_admin_state(backend, AdminState.MAINTENANCE)

    async def until_empty(self, backend: Backend, within: float | None = None) -> None:
        """Drain a backend and wait until it is empty; the deadline of `within` seconds forces it."""
        await self.drain(backend, within).empty.wait()

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
            await asyncio.sleep(_LOOK)

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: nobody could leave in them."""
        for drain in self._drains.values():
            drain.deadline += gap

    def _look_at(self, drain: Drain, now: float) -> None:
        backend = drain.backend
        if backend.gone or not backend.holds_pins or self._moves.is_empty(backend):
            self._found_empty(drain, now)
            return
        drain.empty.clear()
        sessions = self._moves.sessions_on(backend)
        end = drain.deadline - _LAST_CALL
        if now >= drain.deadline:
            self._moves.cut(backend)
            idle = self._moves.at_rest(sessions)
            drain.forced += len(sessions) - len(idle)
            drain.sent_away += len(idle)
            self._moves.send_away(sessions)
        elif self.shared or now >= end - time_for(len(sessions)):
            idle = self._moves.at_rest(sessions)
            going = idle[: drain.pace.allow(len(idle), now, end)]
            drain.sent_away += len(going)
            self._moves.send_away(going)

    def _found_empty(self, drain: Drain, now: float) -> None:
        drain.empty.set()
        if drain.ended is None:
            drain.ended = now
            took = now - drain.began
            self.ended += 1
            self.seconds += took
            log.info(
                "backend %s is drained: %d sessions were sent away at rest, %d in the middle of an answer,"
                " in %.1f s",
                drain.backend.name,
                drain.sent_away,
                drain.forced,
                took,
            )
            self._emptied(drain.backend)

    def __repr__(self) -> str:
        return f"<Drains {[drain.backend.name for drain in self._drains.values()]} shared={self.shared}>"
