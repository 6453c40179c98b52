"""The verdict on a backend: healthy, degraded or down, from what was observed.

Slow is not dead. Silence makes a backend degraded: it takes no new sessions and keeps its own, for an app
that blocks its event loop is silent too; only `evict_after` seconds of silence make it down. A refused
connection or an ended process is down at once. A backend starts as down and is healthy with its first
answer; later it takes `rise` answers in a row, and twice as many each time it was down again soon after it
came back, so that one that flaps is not given users to lose. One whose very first observation is silence is
degraded: it may be an instance with sessions that a proxy met again after its own restart.
"""

from dataclasses import dataclass
from enum import Enum

_CALM = 60.0  # seconds up after which a backend is not taken for one that flaps
_MOST_FLAPS = 4  # doublings: 16 times `rise` are half a minute of probes
_JUST_AFTER = 0.01  # seconds: a probe that ends when a time is over has to see that it is
_HURRIED = 4  # a probe in doubt gets no less than this part of its time


class Verdict(Enum):
    """What is thought of a backend."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Observation(Enum):
    """What one probe or one request met."""

    ANSWERED = "answered"
    FAILED = "failed"  # an answer, but not a good one
    SILENT = "silent"  # accepted, or tried, without an answer in time
    REFUSED = "refused"  # nobody listens, or the process has ended


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a verdict changes: counts of observations, and seconds."""

    fall: int = 3
    rise: int = 2
    evict_after: float = 45.0


class Health:
    """The verdict on one backend and what it rests on; owned by the Backend, changed by `observe` only."""

    __slots__ = (
        "answers",
        "failures",
        "flaps",
        "last_answer",
        "met",
        "returned",
        "rules",
        "since",
        "verdict",
    )

    def __init__(self, rules: HealthRules, now: float) -> None:
        self.rules = rules
        self.verdict = Verdict.DOWN
        self.since = now  # when the verdict was reached
        self.answers = 0  # good answers in a row
        self.failures = 0  # bad ones or silences in a row
        self.met = False  # whether anything was observed yet
        self.last_answer: float | None = None  # None until it first answered
        self.returned: float | None = None  # when it last became healthy again, None before
        self.flaps = 0  # times in a row that it was down soon after it had returned

    def observe(self, observation: Observation, now: float) -> bool:
        """Take one observation; return whether the verdict flipped."""
        first = self.last_answer is None
        met, self.met = self.met, True
        if observation is Observation.ANSWERED:
            self.answers += 1
            self.failures = 0
            self.last_answer = now
            if self.verdict is not Verdict.HEALTHY and (
                first or self.answers >= self.rules.rise << self.flaps
            ):
                if self.verdict is Verdict.DOWN and not first:
                    self.returned = now
                return self._reach(Verdict.HEALTHY, now)
            return False
        self.answers = 0
        self.failures += 1
        if observation is Observation.REFUSED:
            return self._reach(Verdict.DOWN, now)
        if observation is Observation.FAILED and not first:
            self.last_answer = now
        if not met:
            return self._reach(Verdict.DEGRADED, now)
        silence = now - (self.since if self.last_answer is None else self.last_answer)
        if self.verdict is not Verdict.DOWN and silence >= self.rules.evict_after:
            return self._reach(Verdict.DOWN, now)
        if self.verdict is Verdict.HEALTHY and self.failures >= self.rules.fall:
            return self._reach(Verdict.DEGRADED, now)
        return False

    @property
    def in_doubt(self) -> bool:
        """Whether it is healthy, but did not answer lately."""
        return self.verdict is Verdict.HEALTHY and self.failures > 0

    def probe_timeout(self, now: float, timeout: float, interval: float, pause: float) -> float:
        """Seconds that a probe may take which begins now, so that a verdict comes when the rules say.

        A silent backend is degraded `fall` intervals after its last answer, if `timeout` leaves room for
        that, and down after `evict_after`. While it is in doubt `pause` seconds lie between two probes.
        """
        if self.last_answer is None or self.verdict is Verdict.DOWN:
            return timeout
        allowed = timeout
        if self.in_doubt:
            left = self.last_answer + self.rules.fall * interval - now
            each = left / max(1, self.rules.fall - self.failures) - pause
            allowed = min(timeout, max(each, timeout / _HURRIED))
        evicted = self.last_answer + self.rules.evict_after - now
        return min(allowed, evicted + _JUST_AFTER if evicted > 0 else timeout / _HURRIED)

    def pause(self, now: float, interval: float, timeout: float, shortest: float) -> float:
        """Seconds until the next probe of one that is neither in doubt nor in transition.

        The last probe of a silent backend has to end when `evict_after` is over.
        """
        if self.verdict is not Verdict.DEGRADED or self.last_answer is None:
            return interval
        left = self.last_answer + self.rules.evict_after - now
        if not 0 < left <= interval + timeout:
            return interval
        return max(shortest, left - timeout + _JUST_AFTER)

    @property
    def in_transition(self) -> bool:
        """Whether the last observations speak against the verdict: probe sooner."""
        if self.verdict is Verdict.HEALTHY:
            return self.failures > 0
        return self.answers > 0

    def _reach(self, verdict: Verdict, now: float) -> bool:
        if verdict is self.verdict:
            return False
        if verdict is Verdict.DOWN and self.returned is not None:
            self.flaps = min(self.flaps + 1, _MOST_FLAPS) if now - self.returned < _CALM else 0
        self.verdict = verdict
        self.since = now
        return True

    def __repr__(self) -> str:
        return f"<Health {self.verdict.value} answers={self.answers} failures={self.failures}>"
