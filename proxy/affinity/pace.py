"""How fast sessions are sent away: spread over time, so that their clients do not all connect anew at once.

A Chainlit instance takes about 8 ms of CPU for a new session, so `PER_SECOND` keeps a sixth of a core busy.
With 50 a second, on two cores that were busy with 300 clients besides, each was away for twice as long. Only
a deadline that is nearer than that allows asks for more. Sessions that are handed over are not away, and only
a few at once go to one instance: these go as they come to rest, for the next question may follow in a second.
"""

PER_SECOND = 20.0
HANDED_OVER_PER_SECOND = 240.0
_MOST_REST = 0.5  # seconds: who asked nobody for a while does not send all away at once
_SOONEST = 0.1  # seconds: a deadline that has passed lets all go


class Pace:
    """Hands out leave to go; made anew for each drain."""

    __slots__ = ("_at", "_credit", "_per_second")

    def __init__(self, now: float, per_second: float = PER_SECOND) -> None:
        self._per_second = per_second
        self._at = now
        self._credit = 1.0

    def allow(self, waiting: int, now: float, deadline: float) -> int:
        """How many of `waiting` sessions may go now, so that all have gone by the deadline."""
        if now >= deadline:
            return waiting
        rate = max(self._per_second, waiting / max(deadline - self._at, _SOONEST))
        self._credit = min(float(waiting), self._credit + rate * min(now - self._at, _MOST_REST))
        self._at = now
        allowed = int(self._credit)
        self._credit -= allowed
        return allowed

    def __repr__(self) -> str:
        return f"<Pace credit={self._credit:.1f}>"


def time_for(sessions: int) -> float:
    """Seconds that it takes to send so many away without hurry."""
    return sessions / PER_SECOND
