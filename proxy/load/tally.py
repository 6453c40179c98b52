"""What the users met: kept as it happens, and summed up for any span of time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that came whole; times are of the monotonic clock, in seconds."""

    asked: float
    first: float  # when its first token came
    ended: float
    tokens: int

    @property
    def waited(self) -> float:
        """Seconds to the first token."""
        return self.first - self.asked


@dataclass(frozen=True, slots=True)
class Span:
    """What was met in a span of time."""

    seconds: float
    users: float  # connected on average
    asked: int
    answers: int
    tokens: int
    errors: int
    disconnects: int
    first: Sequence[float]  # seconds to the first token, sorted; who still waits counts with that

    def quantile(self, part: float) -> float:
        """Of the first tokens; 0 without any."""
        return quantile(self.first, part)

    @property
    def failed(self) -> float:
        """The part of what was asked or tried that went wrong."""
        return (self.errors + self.disconnects) / max(1, self.answers + self.errors + self.disconnects)


def quantile(values: Sequence[float], part: float) -> float:
    """The value of sorted ones that a part of them does not exceed; 0 without any."""
    return values[min(len(values) - 1, max(0, ceil(part * len(values)) - 1))] if values else 0.0


@dataclass(slots=True)
class Second:
    """One point of the pictures."""

    at: float
    users: int
    cpu: dict[str, float]  # cores in use, by name


@dataclass(slots=True)
class Tally:
    """Written by the users; one for all of them."""

    answers: list[Answer] = field(default_factory=list)
    connects: list[tuple[float, float]] = field(default_factory=list)  # when, and seconds until it was usable
    errors: list[tuple[float, str]] = field(default_factory=list)
    disconnects: list[tuple[float, str]] = field(default_factory=list)
    tokens: Counter[int] = field(default_factory=Counter)  # by second
    asked: int = 0
    opened: int = 0  # sessions, ever
    connected: int = 0  # users, now
    waiting: dict[int, float] = field(default_factory=dict)  # since when each waits for a first token
    seconds: list[Second] = field(default_factory=list)

    def kinds(self) -> dict[str, int]:
        """Errors by kind, the most frequent first."""
        return dict(Counter(kind for _, kind in self.errors).most_common())

    def lost(self) -> dict[str, int]:
        """Disconnects by kind."""
        return dict(Counter(kind for _, kind in self.disconnects).most_common())

    def span(self, start: float, end: float) -> Span:
        """What was met from one time to another. Who has waited since for long counts, too."""
        answers = [answer for answer in reversed_until(self.answers, start) if answer.first <= end]
        late = [end - since for since in self.waiting.values() if since < end]
        first = [answer.waited for answer in answers]
        longest = quantile(sorted(first), 0.9)
        first += [waited for waited in late if waited > longest]
        users = [second.users for second in self.seconds if start <= second.at <= end]
        return Span(
            seconds=end - start,
            users=sum(users) / len(users) if users else float(self.connected),
            asked=self.asked,
            answers=len(answers),
            tokens=sum(count for at, count in self.tokens.items() if start <= at < end),
            errors=sum(start <= at <= end for at, _ in self.errors),
            disconnects=sum(start <= at <= end for at, _ in self.disconnects),
            first=sorted(first),
        )


def reversed_until(answers: Sequence[Answer], start: float) -> list[Answer]:
    """Those whose first token came since then; they stand in the order of their ends."""
    return [answer for answer in answers if answer.first >= start]
