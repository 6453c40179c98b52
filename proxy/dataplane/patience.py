"""The time that others have: only that in which this process ran counts.

A process that stood still (see `affinity.standstill`) finds its timers due before it has read what came
meanwhile; so may one that had to wait for a core. So whoever gives a client or a backend time gives it here:
the time is up when it has passed, what was missed of it has passed as well, and what came by then is read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

_TURNS = 4  # of the loop: it reads, and who waited for that goes on

Stood = Callable[[float], float]
"""All the seconds that this process stood still so far; its argument is the present time."""


def never(_now: float) -> float:
    """A process that never stands still."""
    return 0.0


def running_time(stood: Stood) -> float:
    """A clock, in seconds, that stands still while this process does."""
    now = monotonic()
    return now - stood(now)


async def all_is_read() -> None:
    """Returns when what has come by now was read."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _nothing() -> None:
    """What is called no more."""


class Timer:
    """Calls once when the time is up; whoever made it may cancel it."""

    __slots__ = ("_call", "_handle", "_seen", "_stood")

    def __init__(self, stood: Stood, seconds: float, call: Callable[[], object]) -> None:
        self._stood = stood
        self._call = call
        self._seen = stood(monotonic())
        self._handle: asyncio.Handle = asyncio.get_running_loop().call_later(seconds, self._due)

    def _due(self) -> None:
        before, self._seen = self._seen, self._stood(monotonic())
        if missed := self._seen - before:
            self._handle = asyncio.get_running_loop().call_later(missed, self._due)
        else:
            self._read(_TURNS)

    def _read(self, turns: int) -> None:
        if turns:
            self._handle = asyncio.get_running_loop().call_soon(self._read, turns - 1)
        else:
            self._call()

    def cancel(self) -> None:
        """It is not to call any more; also when it has. Nor does it keep whoever keeps it."""
        self._handle.cancel()
        self._call = _nothing

    def __repr__(self) -> str:
        return f"<Timer {self._call!r}>"


@asynccontextmanager
async def within(seconds: float, stood: Stood) -> AsyncIterator[None]:
    """As `asyncio.timeout`: cancel what the block awaits and raise TimeoutError when the time is up."""
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(None) as limit:
        timer = Timer(stood, seconds, lambda: limit.reschedule(now()))
        try:
            yield
        finally:
            timer.cancel()
