"""Requests of sessions that have lost their instance, and have not connected to another one yet.

A page connects anew within a second or two. An upload, a button or an element that it asks for meanwhile
would meet an instance that cannot know the session. So such requests are held until it has connected, for at
most `affinity.hold` seconds, and are sent then, whatever came of it. What is still to come of their bodies is
not read meanwhile. So many at once are held; one more is sent at once.
"""

import asyncio
from enum import StrEnum

from proxy.affinity.session import Session
from proxy.dataplane.patience import Stood, within

_MOST = 1000  # requests; each holds at most the 64 KiB of its body that were read


class Held(StrEnum):
    """How the wait of a request has ended; a label of the metric."""

    CONNECTED = "connected"  # its session has
    IN_VAIN = "in_vain"  # the time was up
    TOO_MANY = "too_many"  # it was not held


class Arrivals:
    """All that are held, by session; owned by the Site."""

    def __init__(self, stood: Stood) -> None:
        self.counts = dict.fromkeys(Held, 0)
        self._stood = stood
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._held = 0

    async def wait(self, session_id: str, seconds: float) -> None:
        """Return when the session has connected, or so many seconds later."""
        if self._held >= _MOST:
            self.counts[Held.TOO_MANY] += 1
            return
        arrived, waiting = asyncio.Event(), self._waiting.setdefault(session_id, set())
        waiting.add(arrived)
        self._held += 1
        try:
            async with within(seconds, self._stood):
                await arrived.wait()
            self.counts[Held.CONNECTED] += 1
        except TimeoutError:
            self.counts[Held.IN_VAIN] += 1
        finally:
            self._held -= 1
            waiting.discard(arrived)
            if not waiting and self._waiting.get(session_id) is waiting:
                del self._waiting[session_id]

    def arrived(self, session: Session) -> None:
        """A session has connected."""
        for waiter in self._waiting.pop(session.id, ()):
            waiter.set()

    def __len__(self) -> int:
        return self._held

    def __repr__(self) -> str:
        return f"<Arrivals held={self._held}>"
