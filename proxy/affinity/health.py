"""The verdict on a backend: healthy, degraded or down, from what was observed.

Slow is not dead. Silence makes a backend degraded: it takes no new sessions and keeps its own, for an app
that blocks its event loop is silent too; only `evict_after` seconds of silence make it down. A refused
connection or an ended process is down at once; one that only listens no more may be ending in order, and
go on with what is open. A denial is an answer, though not a good one: the process is there, so it is degraded
and never down. A backend starts as down and is healthy with its first answer; later it takes `rise` answers
in a row, and twice as many each time it was down again soon after it came back, so that one that flaps is not
given users to lose; a single one where nobody else takes sessions. One whose very first observation is
silence is degraded: it may be an instance with sessions that a proxy met again after its own restart.
"""

from dataclasses import dataclass
from enum import Enum

_CALM = 60.0  # seconds up after which a backend is not taken for one that flaps
_MOST_FLAPS = 4  # doublings: 16 times `rise` are half a minute of probes
_JUST_AFTER = 0.01  # seconds: a probe that ends when a time is over has to see that it is
_LONGEST_REASON = 200  # characters
_HURRIED = 4  # a probe in doubt gets no less than this part of its time


class Verdict(Enum):
    """What is thought of a backend."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"


class Observation(Enum):
    """What one probe or one request met."""

    ANSWERED = "answered"
    DENIED = "denied"  # a sound answer, but not a good one: the process is there
    FAILED = "failed"  # an error of the backend
    SILENT = "silent"  # accepted, or tried, without an answer in time; or nobody knows
    REFUSED = "refused"  # nobody listens
    ENDED = "ended"  # the process, which is known of a replica of ours


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a verdict changes: counts of observations, and seconds."""

    fall: int = 3
    rise: int = 2
    evict_after: float = 45.0


class Health:
    """The verdict on one backend and what it rests on; owned by the Backend, changed by `observe` only."""

    __slots__ = (
        "_fell",
        "answers",
        "denied",
        "failures",
        "flaps",
        "last_answer",
        "met",
        "reason",
        "refuses",
        "returned",
        "rules",
        "since",
        "verdict",
        "welcome",
    )

    def __init__(self, rules: HealthRules, now: float) -> None:
        self.rules = rules
        self.verdict = Verdict.DOWN
        self.since = now  # when the verdict was reached
        self.reason = ""  # what speaks against it, in words; "" while it is healthy
        self.answers = 0  # good answers in a row
        self.failures = 0  # bad ones or silences in a row
        self.met = False  # whether anything was observed yet
        self.denied = False  # whether the last bad one was a denial
        self.refuses = False  # whether it is down because nobody listens: what is open there may go on
        self.welcome = False  # whether it ever gave a good answer
        self.last_answer: float | None = None  # None until it first answered
        self.returned: float | None = None  # when it last became healthy again, None before
        self.flaps = 0  # times in a row that it was down soon after it had returned
        self._fell = False  # whether it was down since it was last healthy

    def observe(self, observation: Observation, now: float, reason: str = "", *, alone: bool = False) -> bool:
        """Take one observation; return whether the verdict flipped.

        `reason` tells why it is no good one; without one it is how long the silence lasts. `alone` says that
        no other backend takes sessions.
        """
        met, self.met = self.met, True
        if observation is Observation.ANSWERED:
            return self._answered(now, alone=alone)
        self.answers = 0
        self.failures += 1
        self.denied = observation is Observation.DENIED
        if self.denied or (observation is Observation.FAILED and self.welcome):
            self.last_answer = now
        silence = now - (self.since if self.last_answer is None else self.last_answer)
        flipped = self._reach(self._worse(observation, silence, met=met), now)
        over = observation is Observation.ENDED or silence >= self.rules.evict_after
        if observation is Observation.REFUSED:
            self.refuses = self.refuses or flipped
        elif flipped or over:
            self.refuses = False
        if self.verdict is not Verdict.HEALTHY:
            self.reason = reason[:_LONGEST_REASON] or f"silent for {max(1.0, silence):.0f} s"
        return flipped

    def _answered(self, now: float, *, alone: bool) -> bool:
        self.answers += 1
        self.failures, self.refuses = 0, False
        self.last_answer = now
        enough = 1 if alone or not self.welcome else self.rules.rise << self.flaps
        if self.verdict is Verdict.HEALTHY or self.answers < enough:
            return False
        if self._fell and self.welcome:
            self.returned = now
        self.welcome, self._fell, self.reason = True, False, ""
        return self._reach(Verdict.HEALTHY, now)

    def _worse(self, observation: Observation, silence: float, *, met: bool) -> Verdict:
        """The verdict after an observation that was not a good one."""
        if observation in {Observation.REFUSED, Observation.ENDED}:
            return Verdict.DOWN
        if not met or (self.denied and self.verdict is Verdict.DOWN):
            return Verdict.DEGRADED
        if silence >= self.rules.evict_after:
            return Verdict.DOWN
        if self.verdict is Verdict.HEALTHY and self.failures >= self.rules.fall:
            return Verdict.DEGRADED
        return self.verdict

    def stood(self, gap: float) -> None:
        """The process that judges stood still for `gap` seconds: they are nobody's silence."""
        self.since += gap
        if self.last_answer is not None:
            self.last_answer += gap
        if self.returned is not None:
            self.returned += gap

    @property
    def is_silent(self) -> bool:
        """Whether it accepts connections, as far as is known, and gave no sound answer lately."""
        return self.verdict is not Verdict.DOWN and self.failures > 0 and not self.denied

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
        if verdict is Verdict.DOWN:
            self._fell = True
            if self.returned is not None:
                self.flaps = min(self.flaps + 1, _MOST_FLAPS) if now - self.returned < _CALM else 0
        self.verdict = verdict
        self.since = now
        return True

    def __repr__(self) -> str:
        return f"<Health {self.verdict.value} answers={self.answers} failures={self.failures}>"
