"""What is counted and told of hand-overs: nothing of a single session, but of all that left one backend."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from proxy.affinity.backend import Backend
from proxy.borders import Border, Where
from proxy.dataplane.stats import Histogram
from proxy.words import counted

log = logging.getLogger("proxy.dataplane")

_DURATIONS = tuple(2.0**power for power in range(-8, 5))  # seconds; from a restore nearby to a long hold
_QUIET = 0.5  # seconds after the last one of a backend until all of them are told of


class Reason(StrEnum):
    """Why a session was handed over."""

    LOST = "lost"  # its connection broke: its instance died, in most cases
    ENDED = "ended"  # its instance said that it ends
    DOWN = "down"  # its instance was given up
    SENT_AWAY = "sent_away"  # by a drain, a rollout, a rebalance, or maintenance


class Result(StrEnum):
    """How that ended."""

    DONE = "done"
    NO_HOOKS = "no_hooks"  # as in Failure, and the client was told to connect anew; so are the others
    REFUSED = "refused"
    BROKEN = "broken"  # one instance after the other went away over it
    LATE = "late"  # nobody took it in time
    LEFT = "left"  # its client has gone meanwhile


class _Leaving:
    """Those that leave one backend."""

    def __init__(self) -> None:
        self.under_way = 0
        self.at: Counter[str] = Counter()  # where they went on
        self.anew = 0  # that had to connect anew
        self.timer: asyncio.TimerHandle | None = None

    def __str__(self) -> str:
        going = ", ".join(f"{count} at {name}" for name, count in sorted(self.at.items()))
        told = [f"sessions went on: {going}"] if going else []
        told += [f"{counted(self.anew, 'session')} had to connect anew"] if self.anew else []
        return "; ".join(told)


class Counts:
    """All of them; owned by HandOvers."""

    def __init__(self) -> None:
        self.results: Counter[tuple[Reason, Result]] = Counter()
        self.seconds = Histogram(_DURATIONS)  # of those that were done
        self.said_again = 0  # messages of clients
        self.tell: Callable[[str, str], None] = lambda _text, _backend: None  # set by who keeps the events
        self._leaving: dict[str, _Leaving] = {}  # by the backend's name

    def begun(self, old: Backend) -> None:
        """A session sets out."""
        leaving = self._leaving.setdefault(old.name, _Leaving())
        leaving.under_way += 1
        if leaving.timer is not None:
            leaving.timer.cancel()

    def leave(self, backend: Backend) -> bool:
        """Whether sessions are on their way from a backend."""
        leaving = self._leaving.get(backend.name)
        return leaving is not None and leaving.under_way > 0

    def ended(self, old: Backend, at: Backend | None, reason: Reason, result: Result, took: float) -> None:
        """It goes on at another backend after so many seconds, or does not."""
        self.results[reason, result] += 1
        leaving = self._leaving[old.name]
        leaving.under_way -= 1
        if at is not None:
            self.seconds.add(took)
            leaving.at[at.name] += 1
        elif result is not Result.LEFT:
            leaving.anew += 1
        if not leaving.under_way:
            leaving.timer = asyncio.get_running_loop().call_later(_QUIET, self._tell, old.name)

    def _tell(self, name: str) -> None:
        """Nobody has left for a moment: tell of all who did."""
        leaving = self._leaving.pop(name)
        if text := str(leaving):
            log.log(logging.WARNING if leaving.anew else logging.INFO, "backend %s: %s", name, text)
            with Border(Where.LISTENER):
                self.tell(text, name)

    def __repr__(self) -> str:
        return f"<Counts {dict(self.results)}>"
