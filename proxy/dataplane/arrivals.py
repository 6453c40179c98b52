"""Requests that nobody can take for now: they are held, and decided anew when somebody can.

Either their session has lost its instance and has not connected to another one yet: an upload, a button or an
element would meet an instance that cannot know the session. Or no backend takes sessions at all, such as
while the only one restarts. A request is held for at most `affinity.hold` seconds in all; then it is sent, or
refused, whatever came of it. When a backend is back they go to it one after the other: all at once would be
too much for one that has just started, and if one of them ends it, the others are held again and have had no
part in that. What is still to come of its body is not read meanwhile. So many at once are held, a quarter of
them of one client; one more goes on at once, and so do all when the process is to end.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from math import inf
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.session import Session
from proxy.borders import Work
from proxy.dataplane.patience import Stood, running_time, within

_MOST = 1000  # requests; each holds at most the 64 KiB of its body that were read
_PER_CLIENT = 250
_BETWEEN = 0.02  # seconds between two that go to a backend which is back: a session takes it some 8 ms
_ALL = 2.0  # seconds in which all of them go


class Held(StrEnum):
    """How the wait of a request has ended; a label of the metric."""

    CONNECTED = "connected"  # its session has
    BACK = "back"  # a backend takes sessions again
    IN_VAIN = "in_vain"  # the time was up, or the process is to end
    TOO_MANY = "too_many"  # it was not held


class Guest(Protocol):
    """A request that may be held: an exchange."""

    ended: bool
    held_for: float  # seconds so far; infinite when it is not to be held again

    @property
    def whose(self) -> str:
        """The client that it counts for, "" for nobody."""
        ...

    def halt(self) -> None:
        """It is held from now on: nobody is late with anything."""
        ...

    def go_on(self) -> None:
        """It is held no more: decide anew."""
        ...

    def spawn(self, work: Work) -> None:
        """Run work for it, until it has ended."""
        ...


class Arrivals:
    """All that are held, by session, or for a backend; owned by the Site."""

    def __init__(self, fleet: Fleet, stood: Stood) -> None:
        self.counts = dict.fromkeys(Held, 0)
        self._fleet = fleet
        self._stood = stood
        self._sessions: dict[str, set[asyncio.Event]] = {}
        self._backends: set[asyncio.Event] = set()  # of those that wait for any backend
        self._held = 0
        self._held_of: Counter[str] = Counter()  # by client
        self._is_over = False  # set when the process is to end

    def hold(self, guest: Guest, seconds: float, session_id: str | None = None) -> bool:
        """Hold a request until its session has connected, or without one until a backend takes sessions.

        For at most so many seconds in all, however often it is held. False: it may not be held any longer.
        """
        patience = seconds - guest.held_for
        if patience <= 0 or self._is_over:
            return False
        guest.halt()
        guest.spawn(lambda: self._keep(guest, patience, session_id))
        return True

    async def _keep(self, guest: Guest, patience: float, session_id: str | None) -> None:
        if session_id is None:
            result = await self._wait(guest, self._backends, patience, Held.BACK)
        else:
            waiting = self._sessions.setdefault(session_id, set())
            try:
                result = await self._wait(guest, waiting, patience, Held.CONNECTED)
            finally:
                if not waiting and self._sessions.get(session_id) is waiting:
                    del self._sessions[session_id]
        guest.held_for += result
        if not guest.ended:
            guest.go_on()

    async def _wait(self, guest: Guest, waiting: set[asyncio.Event], patience: float, hoped: Held) -> float:
        """The seconds that it took; infinite if it was in vain."""
        if self._held >= _MOST or self._held_of[guest.whose] >= _PER_CLIENT:
            self.counts[Held.TOO_MANY] += 1
            return inf
        released, began = asyncio.Event(), running_time(self._stood)
        waiting.add(released)
        self._held += 1
        if guest.whose:
            self._held_of[guest.whose] += 1
        try:
            self._release_if_there_is_one()  # it may have come since
            async with within(patience, self._stood):
                await released.wait()
        except TimeoutError:
            result = Held.IN_VAIN
        else:
            result = Held.IN_VAIN if self._is_over else hoped
        finally:
            self._held -= 1
            self._held_of -= Counter([guest.whose])  # who has none left is not in it
            waiting.discard(released)
        self.counts[result] += 1
        return inf if result is Held.IN_VAIN else running_time(self._stood) - began

    def arrived(self, session: Session) -> None:
        """A session has connected."""
        self.release(session.id)

    def release(self, key: str) -> None:
        """What requests were held for under this key has happened."""
        for waiter in self._sessions.pop(key, ()):
            waiter.set()

    def backend_changed(self, _backend: Backend, _event: str) -> None:
        """A backend may take sessions now."""
        self._release_if_there_is_one()

    def _release_if_there_is_one(self) -> None:
        if self._backends and any(backend.takes_sessions for backend in self._fleet):
            loop = asyncio.get_running_loop()
            pause = min(_BETWEEN, _ALL / len(self._backends))
            for number, waiter in enumerate(self._backends):
                loop.call_later(number * pause, waiter.set)

    def let_all_go(self) -> None:
        """The process is to end: nobody is held any more."""
        self._is_over = True
        for waiting in (self._backends, *self._sessions.values()):
            for waiter in waiting:
                waiter.set()

    def __len__(self) -> int:
        return self._held

    def __repr__(self) -> str:
        return f"<Arrivals held={self._held}>"
