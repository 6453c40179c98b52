"""How many backends are wanted: the arithmetic of `docs/capacity.md`, for what goes on at this moment.

Answers under way and open sessions are added up, as parts of what one backend carries: that is the work. It
is divided by what one carries, rounded up, and one is added to spare. Where event loops answer late
although the figures say that there is room, the app costs more than the figures: from then on one backend
carries less. More are wanted at once, fewer when the same is so for a while. Whose backends they are is not
known here.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil

_ROOM = 0.9  # of what one carries: it has to be enough even so before fewer are wanted
_EASED = 0.8  # of the work that made loops late: what one carries from then on
_LEAST = 0.005  # of the figures: an app cannot be taken to be heavier than two hundred times that
_SETTLES = (
    30.0  # seconds from more being wanted until loops may be found late again: a start, and a slow start
)
_FORGOTTEN = 3600.0  # seconds without a late loop after which the figures count again
_EXACT = 1e-9  # what rounding may add to a whole number
_NAMED = 5  # late ones in the text: of hundreds nobody reads each


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one backend carries, and how careful to be."""

    answers: int = 50  # under way at once
    sessions: int = 2000  # open
    spare: int = 1  # backends more than the work needs, while anybody is there
    calm: float = 120.0  # seconds that fewer have to be enough


@dataclass(frozen=True, slots=True)
class Load:
    """What goes on now."""

    answers: int  # sessions whose app is answering
    sessions: int  # open ones
    serving: int  # backends that share this
    late: tuple[str, ...] = ()  # of those, whose event loop answers late


@dataclass(frozen=True, slots=True)
class Need:
    """How many are wanted, and why."""

    count: int
    reason: str  # a sentence without its full stop


class Wanted:
    """The rule with what it remembers; made and asked by one owner, once a second or so."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.carries = 1.0  # of the figures: what one backend of this app is taken to carry
        self._late_at: float | None = None  # when that was found last
        self._needs: deque[tuple[float, int]] = (
            deque()
        )  # of the last `calm` seconds: falling from left to right

    def look(self, load: Load, now: float) -> Need:
        """How many are wanted for this load."""
        capacity = self.capacity
        work = load.answers / capacity.answers + load.sessions / capacity.sessions
        self._learn(load, work, now)
        while self._needs and self._needs[0][0] <= now - capacity.calm:
            self._needs.popleft()
        count = self._count(work)
        held = self._needs[0][1] if self._needs else 0
        if count < held:
            count = min(held, self._count(work / _ROOM))
        while self._needs and self._needs[-1][1] <= count:
            self._needs.pop()
        self._needs.append((now, count))
        at, most = self._needs[0]
        reason = self._reason(load, work)
        if most > count:
            reason += f"; {count} would be enough, which has to stay so for {at + capacity.calm - now:.0f} s"
        return Need(most, reason)

    def _count(self, work: float) -> int:
        """For so much work; without any, one that waits for it."""
        if not work:
            return 1
        return max(1, ceil(work / self.carries - _EXACT)) + self.capacity.spare

    def _learn(self, load: Load, work: float, now: float) -> None:
        """Take loops that are late for the cost of this app; one of many is that one's own trouble."""
        if load.late and work and 2 * len(load.late) >= load.serving:
            if self._late_at is None or now - self._late_at >= _SETTLES:
                self.carries = max(_LEAST, min(self.carries, _EASED * work / load.serving))
                self._late_at = now
        elif self._late_at is not None and now - self._late_at >= _FORGOTTEN:
            self.carries, self._late_at = 1.0, None

    def _reason(self, load: Load, work: float) -> str:
        if not work:
            return "nobody is there"
        answers = f"{load.answers} answer{'s' * (load.answers != 1)}"
        sessions = f"{load.sessions} session{'s' * (load.sessions != 1)}"
        text = f"{answers} and {sessions} fill {work / self.carries:.2f}"
        if self.carries < 1:
            text += f", where one carries {100 * self.carries:.0f} % of the figures, as loops were late"
        if load.late:
            more = len(load.late) - _NAMED
            text += f"; late now: {', '.join(load.late[:_NAMED])}{f' and {more} more' if more > 0 else ''}"
        return text + (f"; {self.capacity.spare} to spare" if self.capacity.spare else "")

    def __repr__(self) -> str:
        return f"<Wanted carries={self.carries:.3f} needs={list(self._needs)}>"
