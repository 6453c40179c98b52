"""The pauses between attempts that fail: each twice as long as the one before, up to a limit.

All that tries again here pauses by it, but for `proxy/sessions`, which runs in the app's process, apart from
the rest of the package.
"""

import random

SPREAD = 0.2  # of a pause, each way, for what fails in several places at once: they do not come back together


class Backoff:
    """Made by whoever tries, for one thing that is tried."""

    def __init__(self, first: float, longest: float, spread: float = 0.0) -> None:
        """In seconds; `spread` is the share of a pause by which it may differ."""
        self._first, self._longest, self._spread = first, longest, spread
        self._next = first

    def __repr__(self) -> str:
        return f"<Backoff next {self._next:g} s>"

    def reset(self) -> None:
        """It went well: begin with the first pause again."""
        self._next = self._first

    def pause(self) -> float:
        """Seconds until the next attempt."""
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return seconds * random.uniform(1 - self._spread, 1 + self._spread)  # noqa: S311
