"""After a backend was added: sessions at rest move to it, a few at a time, until it has its share.

Only those go whose hash prefers that backend now, so each moves once and every proxy agrees. It is off by
default, because a session that moves begins anew unless conversations outlive their instance.
"""

import asyncio
import logging
from collections.abc import Collection
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.placement import Placement
from proxy.affinity.session import Session
from proxy.borders import Border, Where
from proxy.config import Config
from proxy.words import counted

log = logging.getLogger("proxy")

_INTERVAL = 2.0  # seconds between two looks
_AT_ONCE = 5  # sessions that are moved at one look: gently
_ENOUGH = 0.9  # of its share: then it is left to new sessions


class Moves(Protocol):
    """What the data plane can tell of sessions, and do with them."""

    def sessions_on(self, backend: Backend) -> list[Session]:
        """Those that are open there."""
        ...

    def at_rest(self, sessions: Collection[Session]) -> list[Session]:
        """Those that lose nothing by connecting anew."""
        ...

    def send_away(self, sessions: Collection[Session]) -> None:
        """Have their clients connect anew, elsewhere."""
        ...


class Rebalance:
    """Created by the app; `on` follows the configuration."""

    def __init__(self, fleet: Fleet, placement: Placement, moves: Moves, *, on: bool = False) -> None:
        self._fleet = fleet
        self._placement = placement
        self._moves = moves
        self.on = on
        self.moved = 0  # sessions, for the metrics

    def configure(self, config: Config) -> None:
        """Move sessions, or do not."""
        self.on = config.balance.rebalance

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            if self.on:
                with Border(Where.REBALANCE):
                    self.step(monotonic())

    def step(self, now: float) -> int:
        """Move some sessions to the backend that lacks most; return how many."""
        able = [backend for backend in self._fleet if backend.takes_sessions and not backend.outdated]
        needy = self._most_needy(able)
        if needy is None:
            return 0
        going: list[Session] = []
        for backend in sorted(able, key=lambda other: -other.sessions / other.weight):
            if backend is needy or len(going) >= _AT_ONCE:
                continue
            at_rest = self._moves.at_rest(self._moves.sessions_on(backend))
            going += [session for session in at_rest if self._prefers(session, needy, able, now)]
        going = going[:_AT_ONCE]
        self._moves.send_away(going)
        self.moved += len(going)
        if going:
            log.info(
                "backend %s has room: moving %s at rest there", needy.name, counted(len(going), "session")
            )
        return len(going)

    def _most_needy(self, able: list[Backend]) -> Backend | None:
        """The backend that is furthest below its share of the open sessions, if any is far below."""
        total = sum(backend.sessions for backend in able)
        weights = sum(backend.weight for backend in able)
        shares = {backend: total * backend.weight / weights for backend in able}
        needy = [b for b in able if b.sessions < int(_ENOUGH * shares[b])]
        return min(needy, key=lambda backend: backend.sessions / shares[backend], default=None)

    def _prefers(self, session: Session, needy: Backend, able: list[Backend], now: float) -> bool:
        """Whether placement takes it there, and it has not been there before."""
        if needy.name in session.left:
            return False
        return next(self._placement.preference(session.id.encode(), able, now)) is needy

    def __repr__(self) -> str:
        return f"<Rebalance on={self.on} moved={self.moved}>"
