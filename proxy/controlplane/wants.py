"""How many backends are wanted, reckoned once a second of any fleet: for metrics, API, page and events.

What goes on is what this proxy sees: its sessions, the answers under way, and how late event loops answer
its probes. Whether anybody follows, the supervisor of `run` or an autoscaler, is not known here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from statistics import median
from time import monotonic

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.affinity.wanted import Capacity, Load, Need, Wanted
from proxy.borders import Border, Where
from proxy.config import Config
from proxy.config.sections import ReplicaSettings

log = logging.getLogger("proxy")

INTERVAL = 1.0  # seconds between two looks
_PROBES = 5  # whose median tells: one late answer is a lump of work, or ours
_FEWEST = 3  # answered probes that tell anything: the first find an app that has just started


class Lateness:
    """How long the last probes of each backend took."""

    def __init__(self) -> None:
        self._seconds: dict[Backend, deque[float]] = {}

    def add(self, backend: Backend, seconds: float) -> None:
        """A probe was answered."""
        self._seconds.setdefault(backend, deque(maxlen=_PROBES)).append(seconds)

    def of(self, backend: Backend) -> float:
        """The median of its last ones, 0 while there are too few."""
        known = self._seconds.get(backend, ())
        return median(known) if len(known) >= _FEWEST else 0.0

    def forget(self, backend: Backend, _event: str = "") -> None:
        """One that has left the fleet; as a listener of it."""
        if backend.gone:
            self._seconds.pop(backend, None)

    def __repr__(self) -> str:
        return f"<Lateness of {len(self._seconds)} backends>"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was found at the last look."""

    wanted: int
    reason: str
    load: Load
    low: int | None = None  # the bounds that were kept, where there are any
    high: int | None = None


class Wants:
    """Made by the composition root, which runs it."""

    def __init__(
        self,
        fleet: Fleet,
        answering: Callable[[], Sized],
        opened: Callable[[], Sized],
        lateness: Lateness,
        tell: Callable[[str], None] = lambda _: None,
        waiting: Sized = (),
    ) -> None:
        """`answering` and `opened` give the sessions of that kind; `tell` is told of changes.

        Who is `waiting` for a place is wanted to have one.
        """
        self._waiting = waiting
        self._fleet, self._answering, self._opened = fleet, answering, opened
        self._lateness, self._tell = lateness, tell
        self.settings = ReplicaSettings()
        self.has_replicas = False  # set by who runs replicas: their bounds are kept then
        self.follow: Callable[[Wish], None] = lambda _: None  # told after each look
        self._rule = Wanted(Capacity())
        self.wish = Wish(1, "nobody is there", Load(0, 0, 0))
        fleet.listen(lateness.forget)

    def configure(self, config: Config) -> None:
        """Reckon by these figures."""
        settings = self.settings = config.replicas
        balance = config.balance  # what one may have it does not carry more than
        answers = min(settings.answers, balance.most_answers or settings.answers)
        sessions = min(settings.sessions, balance.most_sessions or settings.sessions)
        self._rule.capacity = Capacity(answers, sessions, settings.spare, settings.calm)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            with Border(Where.SCALING):
                self.look(monotonic())
                self.follow(self.wish)

    def look(self, now: float) -> Wish:
        """Reckon anew."""
        before, load = self.wish, self._load()
        self.wish = self._within_bounds(self._rule.look(load, now), load)
        if self.wish.wanted != before.wanted and before.load.serving:  # not at the first look
            text = f"{self.wish.wanted} wanted, {before.wanted} before: {self.wish.reason}"
            log.info("scaling: %s", text)
            self._tell(text)
        return self.wish

    def _load(self) -> Load:
        serving = [
            backend
            for backend in self._fleet
            if backend.admin_state is AdminState.READY and backend.health.verdict is not Verdict.DOWN
        ]
        late = tuple(backend.name for backend in serving if self._is_late(backend))
        sessions = len(self._opened()) + len(self._waiting)
        return Load(len(self._answering()), sessions, len(serving), late)

    def _is_late(self, backend: Backend) -> bool:
        if backend.health.verdict is Verdict.DEGRADED and not backend.health.denied:
            return True  # it answers so late that probes do not wait for it
        return self._lateness.of(backend) > self.settings.late

    def _within_bounds(self, need: Need, load: Load) -> Wish:
        """A fixed number of replicas bounds nothing: then it is told how many there should be."""
        bounds = self.settings.count
        if not self.has_replicas or bounds.is_fixed:
            return Wish(need.count, need.reason, load)
        count = min(max(need.count, bounds.low), bounds.high)
        reason = need.reason
        if count < need.count:
            reason += f"; {need.count} would be wanted, and replicas.count allows {bounds.high}"
        elif count > need.count:
            reason += f"; replicas.count wants {bounds.low} at least"
        return Wish(count, reason, load, bounds.low, bounds.high)

    def __repr__(self) -> str:
        return f"<Wants {self.wish}>"
