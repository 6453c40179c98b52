"""Time in which this process did not run: stopped, frozen with its container, or moved to another machine.

Nobody was silent in it but we, though the clock went on. Whoever measures how long others are silent looks
here before it judges, and every clock is moved on by the gap. (A machine that is suspended needs none of
this: on Linux the monotonic clock stands as well.)
"""

from collections.abc import Callable

BEAT = 0.25  # seconds between two looks of the ticker
_LATE = 1.0  # seconds beyond that: no wait for a busy core takes so long


class Standstill:
    """Knows when somebody looked last; owned by the app, whose ticker looks every `BEAT` seconds."""

    __slots__ = ("_listeners", "_seen", "total")

    def __init__(self) -> None:
        self.total = 0.0  # seconds
        self._seen: float | None = None
        self._listeners: list[Callable[[float], None]] = []

    def listen(self, listener: Callable[[float], None]) -> None:
        """Have `listener(seconds)` called after each gap, so that it moves its clocks on."""
        self._listeners.append(listener)

    def measure(self, now: float) -> float:
        """All the seconds that this process stood still so far; who waits compares two of these."""
        gap = 0.0 if self._seen is None else now - self._seen - BEAT
        self._seen = now
        if gap > _LATE:
            self.total += gap
            for listener in self._listeners:
                listener(gap)
        return self.total

    def __repr__(self) -> str:
        return f"<Standstill {self.total:.1f} s>"
