"""The last things that happened, for those who look: a bounded log in memory, and news for who follows it.

Health, wishes, drains, reloads, rollouts and replicas tell of themselves here; nothing of single requests or
sessions does. A follower keeps the number of the last event that it has seen, so a slow one costs nothing and
may come back later. The log is lost with the process; the log on standard error is the lasting one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_SIZE = 500  # events: a day of an ordinary fleet, some 100 kB with the last lines of replicas


class EventKind(StrEnum):
    """What an event tells of."""

    BACKEND = "backend"  # its verdict, the operator's wish, that it left
    FAILOVER = "failover"  # a backend is lost and had sessions
    HAND_OVER = "hand_over"  # sessions of a backend went on at others
    DRAIN = "drain"  # one that came to its end
    RELOAD = "reload"
    ROLLOUT = "rollout"
    REPLICA = "replica"
    SCALING = "scaling"  # how many backends are wanted, and who comes and goes for that
    CERTIFICATE = "certificate"  # got from an authority, or not


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    id: int  # greater than that of any before it, of an earlier process too
    at: float  # unix time
    kind: EventKind
    backend: str  # its name, "" if it is about none
    text: str  # one sentence, without the name
    lines: tuple[str, ...] = ()  # the last lines of a replica that ended


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the data plane has counted since the start, by backend."""

    requests: dict[str, int]
    failures: dict[str, int]  # requests that were answered with 500 or more, or not at all
    frames: dict[str, int]  # of websockets, from clients and from backends
    turns: dict[str, int]  # sessions whose app is answering, now
    probes: dict[str, tuple[int, float]]  # answered ones, and the seconds that they took together
    decisions: Sequence[tuple[str, str, int]]  # evidence, outcome, how often
    queue: Mapping[str, int]  # who waits for a place among the sessions, now and since the start


class EventLog:
    """All that are remembered; created by the app, written by who is told of changes."""

    def __init__(self, size: int = _SIZE, before: int = 0) -> None:
        """`before` is a number that an earlier process cannot have reached: the first event is the next."""
        self._events: deque[Event] = deque(maxlen=size)
        self._last = before
        self._news = asyncio.Event()  # of the next event; a new one after each
        self.rounds = 0  # how often followers were told to go
        self.closed = False  # set when the proxy leaves: nobody may follow any more

    def record(self, kind: EventKind, text: str, backend: str = "", lines: tuple[str, ...] = ()) -> None:
        """Something happened now."""
        self._last += 1
        self._events.append(Event(self._last, time.time(), kind, backend, text, lines))
        self._wake()

    @property
    def last(self) -> int:
        """The number of the last one, 0 before there is any."""
        return self._last

    def after(self, seen: int) -> list[Event]:
        """Those that are newer than number `seen`, oldest first.

        A number that was never given is of an earlier process: then all of them.
        """
        if seen > self._last:
            seen = 0
        return [event for event in self._events if event.id > seen]

    async def news(self, within: float) -> None:
        """Wait for the next event or the call to go, at most `within` seconds; safe to cancel."""
        try:
            async with asyncio.timeout(within):
                await self._news.wait()
        except TimeoutError:
            pass

    def hang_up(self) -> None:
        """Have all followers go; they may come back."""
        self.rounds += 1
        self._wake()

    def close(self) -> None:
        """Have all followers go for good."""
        self.closed = True
        self.hang_up()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<EventLog {len(self._events)} of {self._last}>"
