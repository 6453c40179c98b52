"""A test from its beginning to its end: users come, are counted for a while, and go.

Without a target all users come within the ramp and stay for a time. With one the search says how many there
are to be; each number is given time to settle, and then measured.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import monotonic, process_time
from urllib.parse import urlsplit

import aiohttp

from proxy.load import local
from proxy.load.protocol import Transport
from proxy.load.search import Search
from proxy.load.tally import Second, Span, Tally
from proxy.load.user import Habits, User

_TICK = 0.25  # seconds between two looks at the clock, of which the generator's lateness is told
QUANTILE = 0.9  # of the first tokens: so many have to be in time
_FAILED = 0.02  # of what was asked or tried: with more, a number is not carried
_FEWEST = 20  # answers that tell anything
_SETTLE = 1.0  # thinks and targets, together, until a number of users has settled
_WINDOWS = 4.0  # thinks and targets that are measured
_SHORTEST = 8.0  # seconds of a measurement
_LONGEST = 90.0  # seconds that are waited for the fewest answers
_FIRST = 4  # users of the first trial
_CPU_EVERY = 4  # ticks


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    habits: Habits
    users: int
    ramp: float
    transports: Sequence[Transport]  # given to the users in turn
    seconds: float = 60.0  # after the ramp, without a target
    target: float | None = None
    verify: ssl.SSLContext | bool = True


@dataclass(slots=True)
class Trial:
    """One number of users, and what it met."""

    users: int
    span: Span
    carried: bool
    is_confirmation: bool


@dataclass(slots=True)
class Outcome:
    """All that is known in the end."""

    plan: Plan
    tally: Tally
    began: float  # monotonic
    started: float  # unix time
    seconds: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    carried: int | None = None  # users; None without a target, or where it was interrupted
    is_most: bool = False  # whether as many were carried as were allowed
    instances: int = 0  # that were seen on this machine
    own_cpu: float = 0.0  # cores that the generator used
    own_lateness: float = 0.0  # seconds that its event loop was late, nine times of ten not more
    whole: Span | None = None  # what was met after the ramp, without a target


class Crowd:
    """All users of a test, while it runs."""

    def __init__(self, plan: Plan, show: Callable[["Crowd"], None]) -> None:
        """`show` is called four times a second."""
        self.plan, self._show = plan, show
        self.outcome = Outcome(plan, Tally(), monotonic(), time.time())
        self.doing = ""  # in words
        self._users: list[asyncio.Task[None]] = []
        self._transports = cycle(plan.transports)
        self._number = 0
        self._late: list[float] = []
        self._connector: aiohttp.TCPConnector | None = None  # set while it runs

    async def run(self) -> Outcome:
        """Do it. When cancelled, `outcome` has what is known."""
        plan, outcome, used = self.plan, self.outcome, process_time()
        self._connector = aiohttp.TCPConnector(limit=0, ssl=plan.verify, ttl_dns_cache=300)
        ticking = asyncio.create_task(self._tick())
        try:
            if plan.target is None:
                await self._hold()
            else:
                await self._find(Search(min(_FIRST, plan.users), plan.users), plan.target)
        finally:
            outcome.seconds = monotonic() - outcome.began
            outcome.own_cpu = (process_time() - used) / max(outcome.seconds, 0.001)
            outcome.own_lateness = sorted(self._late)[int(0.9 * len(self._late))] if self._late else 0.0
            ticking.cancel()
            self.doing = "the users leave"
            await self._be(0)
            await self._connector.close()
        return outcome

    async def _hold(self) -> None:
        plan = self.plan
        self.doing = f"{plan.users} users come within {plan.ramp:g} s"
        await self._be(plan.users, plan.ramp)
        began = monotonic()
        self.doing = f"{plan.users} users for {plan.seconds:g} s"
        try:
            await asyncio.sleep(plan.seconds)
        finally:
            self.outcome.whole = self.outcome.tally.span(began, monotonic())

    async def _find(self, search: Search, target: float) -> None:
        outcome = self.outcome
        pace = self.plan.habits.think + target
        while search.confirmed is None:
            users, confirms = search.next, search.is_confirming
            self.doing = f"{'confirming' if confirms else 'trying'} {users} users"
            await self._be(users, self.plan.ramp * max(0, users - len(self._users)) / self.plan.users)
            await asyncio.sleep(max(2.0, _SETTLE * pace))
            span = await self._measure(max(_SHORTEST, _WINDOWS * pace) * (1.5 if confirms else 1.0))
            carried = bool(span.first) and span.quantile(QUANTILE) <= target and span.failed <= _FAILED
            outcome.trials.append(Trial(users, span, carried, confirms))
            search.tell(carried)
        outcome.carried, outcome.is_most = search.confirmed, search.confirmed == search.most

    async def _measure(self, seconds: float) -> Span:
        """So many seconds, and longer where answers are few."""
        began = monotonic()
        while True:
            await asyncio.sleep(seconds)
            span = self.outcome.tally.span(began, monotonic())
            if span.answers + span.errors >= _FEWEST or span.seconds + seconds > _LONGEST:
                return span

    async def _be(self, users: int, within: float = 0.0) -> None:
        """Have so many users: more come within so many seconds, the newest go at once."""
        assert self._connector
        leaving = self._users[users:]
        self._users = self._users[:users]
        for task in leaving:
            task.cancel()
        if leaving:
            await asyncio.wait(leaving)
        missing = users - len(self._users)
        for at in range(missing):
            self._number += 1
            habits, tally, transport = self.plan.habits, self.outcome.tally, next(self._transports)
            user = User(self._number, habits, transport, tally, self._connector)
            self._users.append(asyncio.create_task(user.live()))
            if at + 1 < missing:
                await asyncio.sleep(within / missing)

    async def _tick(self) -> None:
        """Look at the clock, the users and the CPU, again and again."""
        address = urlsplit(self.plan.habits.url)
        port = address.port or (443 if address.scheme == "https" else 80)
        is_here = is_local(address.hostname or "")
        before: dict[str, float] = {}
        used, ticks, then = process_time(), 0, monotonic()
        while True:
            began = monotonic()
            await asyncio.sleep(_TICK)
            self._late.append(max(0.0, monotonic() - began - _TICK))
            ticks += 1
            if ticks % _CPU_EVERY == 0:
                found = await asyncio.to_thread(local.find, port) if is_here else local.Processes(None, ())
                self.outcome.instances = max(self.outcome.instances, len(found.instances))
                spent = {
                    f"instance {at + 1}": local.cpu_seconds(pid) for at, pid in enumerate(found.instances)
                }
                if found.front is not None and found.front not in found.instances:
                    spent["front"] = local.cpu_seconds(found.front)
                now, own = monotonic(), process_time()
                cpu = {
                    name: max(0.0, s - before[name]) / (now - then)
                    for name, s in spent.items()
                    if name in before
                }
                cpu["generator"] = (own - used) / (now - then)
                self.outcome.tally.seconds.append(Second(now, self.outcome.tally.connected, cpu))
                before, used, then = spent, own, now
            self._show(self)

    def __repr__(self) -> str:
        return f"<Crowd of {len(self._users)}: {self.doing}>"


def is_local(host: str) -> bool:
    """Whether a host is this machine, as far as its name tells."""
    return host in {"localhost", "::1"} or host.startswith("127.")
