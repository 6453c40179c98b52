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
from proxy.dataplane.dialing import Dial
from proxy.dataplane.patience import Stood, Timer, running_time

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

    def halt(self, stay: Dial) -> None:
        """It is held from now on: nobody is late with anything; `stay` is cancelled if it ends meanwhile."""
        ...

    def go_on(self) -> None:
        """It is held no more: decide anew."""
        ...

    def spawn(self, work: Work) -> None:
        """Run work for it, until it has ended."""
        ...


class _Stay:
    """One request that is held, in the group of all that wait for the same; as Dial.

    It is there as soon as it is made: what it waits for may happen before the event loop turns.
    """

    __slots__ = ("_arrivals", "_began", "_group", "_guest", "_key", "_timer")

    def __init__(self, arrivals: "Arrivals", guest: Guest, key: str | None) -> None:
        self._arrivals = arrivals
        self._guest = guest
        self._key = key
        self._began = running_time(arrivals.stood)
        self._timer: Timer | None = None  # set while it is held
        self._group: set[_Stay] = set()  # others that wait for the same

    def begin(self, group: "set[_Stay]", seconds: float) -> None:
        """It is held with these, for at most so many seconds."""
        self._group = group
        group.add(self)
        self._timer = Timer(self._arrivals.stood, seconds, lambda: self.end(Held.IN_VAIN))
        self._arrivals.took(self._guest.whose, 1)

    def end(self, how: Held) -> None:
        """It is held no more."""
        if self._timer is not None:
            self.cancel()
            self.go_on(how)

    def go_on(self, how: Held) -> None:
        """It goes on, in a turn of its own."""
        self._arrivals.counts[how] += 1
        hoped = how in (Held.CONNECTED, Held.BACK)
        self._guest.held_for += running_time(self._arrivals.stood) - self._began if hoped else inf
        self._guest.spawn(self._decide)

    async def _decide(self) -> None:
        if not self._guest.ended:
            self._guest.go_on()

    def cancel(self) -> None:
        """As Dial: it leaves, whatever comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._group.discard(self)
            self._arrivals.took(self._guest.whose, -1)
            self._arrivals.left(self._key, self._group)

    def __repr__(self) -> str:
        return f"<Stay held={self._timer is not None}>"


class Arrivals:
    """All that are held, by session, or for a backend; owned by the Site."""

    def __init__(self, fleet: Fleet, stood: Stood) -> None:
        self.counts = dict.fromkeys(Held, 0)
        self.stood = stood
        self._fleet = fleet
        self._sessions: dict[str, set[_Stay]] = {}
        self._backends: set[_Stay] = set()  # those that wait for any backend
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
        stay = _Stay(self, guest, session_id)
        guest.halt(stay)
        if self._held >= _MOST or self._held_of[guest.whose] >= _PER_CLIENT:
            stay.go_on(Held.TOO_MANY)
        elif session_id is not None:
            stay.begin(self._sessions.setdefault(session_id, set()), patience)
        else:
            stay.begin(self._backends, patience)
            self._release_if_there_is_one()  # it may have come since
        return True

    def took(self, whose: str, places: int) -> None:
        """So many places more are a client's."""
        self._held += places
        if whose:
            self._held_of[whose] += places
            if not self._held_of[whose]:
                del self._held_of[whose]

    def left(self, key: str | None, group: set[_Stay]) -> None:
        """One of a group is held no more."""
        if key is not None and not group and self._sessions.get(key) is group:
            del self._sessions[key]

    def arrived(self, session: Session) -> None:
        """A session has connected."""
        self.release(session.id)

    def release(self, key: str) -> None:
        """What requests were held for under this key has happened."""
        for stay in list(self._sessions.pop(key, ())):
            stay.end(Held.CONNECTED)

    def backend_changed(self, _backend: Backend, _event: str) -> None:
        """A backend may take sessions now."""
        self._release_if_there_is_one()

    def _release_if_there_is_one(self) -> None:
        if self._backends and any(backend.takes_sessions for backend in self._fleet):
            loop = asyncio.get_running_loop()
            pause = min(_BETWEEN, _ALL / len(self._backends))
            for number, stay in enumerate(self._backends):
                loop.call_later(number * pause, stay.end, Held.BACK)

    def let_all_go(self) -> None:
        """The process is to end: nobody is held any more."""
        self._is_over = True
        for group in (self._backends, *list(self._sessions.values())):
            for stay in list(group):
                stay.end(Held.IN_VAIN)

    def __len__(self) -> int:
        return self._held

    def __repr__(self) -> str:
        return f"<Arrivals held={self._held}>"
