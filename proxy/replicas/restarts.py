"""When a replica that died is started again, and when it is given up. Pure: `now` is an argument.

The wait doubles from death to death and begins anew after a calm life. A replica that dies at once each time
will not get better by itself: after some such deaths in a row it is given up, so that it does not take CPU
time from the others for ever.
"""

from dataclasses import dataclass

from proxy.backoff import Backoff


@dataclass(frozen=True, slots=True)
class RestartRule:
    """The numbers, in seconds. A life counts from the moment the replica was ready."""

    first: float = 0.5  # the first wait: a killed replica is back soon
    longest: float = 30.0  # the wait never gets longer: what it waits for may be back any time
    calm: float = 60.0  # a life this long makes the next wait the first again
    quick: float = 5.0  # a life shorter than this, or none at all, is a quick death
    quick_deaths: int = 5  # that many in a row: given up (7.5 s of waiting, and five starts)


class RestartHistory:
    """What is remembered of one replica's lives; made and owned by the replica."""

    def __init__(self, rule: RestartRule) -> None:
        self._rule = rule
        self._backoff = Backoff(rule.first, rule.longest)
        self._quick_deaths = 0
        self._ready_at: float | None = None  # set while the replica is ready

    def __repr__(self) -> str:
        return f"<RestartHistory {self._backoff}, {self._quick_deaths} quick deaths>"

    def ready(self, now: float) -> None:
        """The replica answered for the first time in this life."""
        self._ready_at = now

    def died(self, now: float) -> float | None:
        """The replica died. Returns the seconds to wait before the next start; None: give it up."""
        rule = self._rule
        life = 0.0 if self._ready_at is None else now - self._ready_at
        self._ready_at = None
        if life >= rule.calm:
            self._backoff.reset()
        self._quick_deaths = self._quick_deaths + 1 if life < rule.quick else 0
        if self._quick_deaths >= rule.quick_deaths:
            return None
        return self._backoff.pause()
