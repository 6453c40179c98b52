"""The end of a process: who costs everybody comes last.

As long as somebody would lose something by it nobody is sent away, and whoever comes is served: until the
requests under way, the answers of apps and the questions to them have ended and their clients have taken
them, or the time is nearly up. Short requests that come meanwhile are answered, and hold nobody up. Then
nothing more is accepted, and all clients are told to connect anew within `timeouts.farewell`. From there on
they are offline until another process accepts their connections, so only the end of this one may follow.

Where another process has taken the ports over, nobody is offline: what is new goes there, and clients leave
as they come to rest, those in the middle of an answer last.
"""

import asyncio
import logging
from collections.abc import Collection
from time import monotonic

from proxy.affinity.pace import Pace, time_for
from proxy.borders import Border, Where
from proxy.dataplane.connection import Connection
from proxy.dataplane.evictions import Evictions
from proxy.dataplane.listeners import Listeners
from proxy.dataplane.patience import all_is_read
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel

log = logging.getLogger("proxy.dataplane")

_STEP = 0.1  # seconds between two looks at who is left
_LAST_CALL = 1.5  # seconds before the end in which nobody is waited for: a frame may take one to end


class Leaving:
    """Made by the Plane when the process is to end; looks at its connections and tunnels."""

    def __init__(
        self,
        site: Site,
        listeners: Listeners,
        evictions: Evictions,
        connections: Collection[Connection],
        tunnels: Collection[Tunnel],
    ) -> None:
        """All that are open, at any time."""
        self._site = site
        self._listeners = listeners
        self._evictions = evictions
        self._connections = connections
        self._tunnels = tunnels
        self._end = 0.0  # when the time is up

    async def run(self, grace: float, farewell: float, stay: float) -> None:
        """Have everybody leave within `grace` seconds; see `timeouts.shutdown`, `.farewell` and `.hand_over`.

        Returns when nobody would lose anything any more, or the time is up. Cancel it to have the rest end at
        once.
        """
        self._end = monotonic() + grace
        self._site.arrivals.let_all_go()
        if await self._listeners.hand_over():
            self._end = monotonic() + stay + grace
            if stay:
                log.info("another process has taken over: websockets stay for at most %g s", stay)
            self._close_doors()
            while self._tunnels and monotonic() < self._end - grace:
                await self._look_later()
            await self._part(self._end - _LAST_CALL, patient=True)
            while not self._is_quiet() and monotonic() < self._end:
                await self._look_later()
        else:
            await all_is_read()
            began, busy = monotonic(), self._evictions.somebody_is_busy
            while busy(began) and monotonic() < self._end - farewell - _LAST_CALL:
                await self._look_later()
            patient = not busy(began)
            self._close_doors()
            until = min(monotonic() + _LAST_CALL, self._end - _LAST_CALL)
            while not self._is_quiet() and monotonic() < until:  # who has just come or was just answered
                await self._look_later()
            await self._part(min(monotonic() + farewell, self._end - _LAST_CALL), patient=patient)
        for tunnel in list(self._tunnels):
            with Border(Where.LEAVE):
                tunnel.send_away_now()

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: nobody could leave in them."""
        self._end += gap

    async def _look_later(self) -> None:
        await asyncio.sleep(_STEP)
        self._site.stood(monotonic())
        await all_is_read()

    def _close_doors(self) -> None:
        """Nothing new is accepted; what is under way goes on, and idle connections end."""
        self._site.leaving = True
        self._site.lingers.seconds = 0.0  # nobody could come back to this process
        self._site.lingers.end_all()
        with Border(Where.LEAVE):
            self._listeners.close()
        for connection in list(self._connections):
            with Border(Where.LEAVE):
                connection.leave()

    async def _part(self, deadline: float, *, patient: bool) -> None:
        """Have the clients of tunnels connect anew, the last of them at the `deadline`.

        First those to whom a frame may be on its way, which takes another second; with `patient` those whose
        app is asked or answers are the last. Until then they may take what they were told.
        """
        pace, legs = Pace(monotonic()), self._evictions.legs()
        while self._tunnels and (now := monotonic()) < self._end:
            with Border(Where.LEAVE):
                busy = {t for t in self._tunnels if t.session and (t.session.in_turn or not t.is_silent(now))}
                going = sorted(self._tunnels, key=lambda tunnel: not tunnel.active)
                if patient and deadline - now > time_for(len(busy)):
                    going = [tunnel for tunnel in going if tunnel not in busy]
                for tunnel in going[: pace.allow(len(going), now, deadline)]:
                    tunnel.send_away()
            await self._look_later()
        while any(leg.has_unsent for leg in legs) and monotonic() < deadline:
            await self._look_later()

    def _is_quiet(self) -> bool:
        """Whether no request is under way but long polls, which may be ended without loss."""
        return all(connection.waits_for_news for connection in self._connections)

    def __repr__(self) -> str:
        return f"<Leaving {len(self._connections)} connections, {len(self._tunnels)} tunnels>"
