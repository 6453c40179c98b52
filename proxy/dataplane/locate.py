"""Asking the backends which of them holds a session that nobody else knows (docs/affinity.md).

`GET /project/file/x?session_id=ID` has no side effect in Chainlit: the instance that holds the session
answers that it has no such file, the others that the request is not authorised (chainlit/server.py,
get_file). Only these answers count, told by what they say: any app answers 404 for a path that it has not.
All backends are asked at once, the first that holds the session wins.

Asking is an amplifier: one request of a client becomes one to each backend. So equal questions that are
under way are joined, their number is bounded, and each backend answers over a bounded number of connections.
A client has a bucket of questions that lead nowhere, and what nobody holds is remembered for a moment. What
is over a bound is not asked.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from enum import StrEnum
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.router import Asked, Located
from proxy.config.models import AffinitySettings
from proxy.config.sections import LimitSettings
from proxy.dataplane.buckets import Buckets
from proxy.dataplane.fetch import fetch
from proxy.dataplane.patience import Stood, never, within
from proxy.dataplane.pool import Pool
from proxy.dataplane.stats import Stats
from proxy.errors import Limit, ProxyError

_REMEMBERED = 2.0  # seconds that nobody holds a session: short, for it may connect through another proxy
_MOST_REMEMBERED = 4096  # such answers: as many as come in those seconds


class Result(StrEnum):
    """What became of a question, as the metric calls it."""

    FOUND = "found"
    NOBODY = "nobody"  # every backend said that it does not hold the session
    UNCLEAR = "unclear"  # nobody said that it holds it, and not all that they do not
    JOINED = "joined"  # an equal one was under way
    REMEMBERED = "remembered"  # not asked: a moment ago nobody did
    OVER_LIMIT = "over_limit"  # not asked: too many were under way
    OVER_CLIENT_LIMIT = "over_client_limit"  # not asked: its client has had too many
    NO_ROOT = "no_root"  # not asked: no Chainlit is known below the path of the request


# What an instance says: that it holds the session, whoever asks, or that it does not.
_SAYS = {
    (404, "File not found"): True,
    (401, "You are not authorized to download files from this session"): True,
    (401, "Unauthorized"): False,
}


def holds(status: int, body: bytes) -> bool | None:
    """Whether an answer tells that its instance holds the session; None: it tells nothing."""
    if status not in (401, 404):
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    detail = content.get("detail") if isinstance(content, dict) else None
    return _SAYS.get((status, detail)) if isinstance(detail, str) else None


class _Question:
    """One that is under way, and how many wait for its answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Located]) -> None:
        self.task = task
        self.waiting = 0


class _Line:
    """The connections to one backend that questions may use, and how many questions want one."""

    __slots__ = ("free", "users")

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self.users = 0


class Locator:
    """All questions of one data plane; owned by the plane."""

    def __init__(
        self, settings: AffinitySettings, limits: LimitSettings, stats: Stats, stood: Stood = never
    ) -> None:
        self.results = dict.fromkeys(Result, 0)  # for the metrics
        self._stats = stats
        self._stood = stood
        self._questions: dict[Hashable, _Question] = {}
        self._lines: dict[Backend, _Line] = {}
        self._nobody: OrderedDict[Hashable, float] = OrderedDict()  # what nobody holds, and until when
        self.configure(settings, limits)

    def configure(self, settings: AffinitySettings, limits: LimitSettings) -> None:
        """Ask by these settings from now on."""
        self.settings = settings
        per_minute = limits.questions_per_minute
        self._buckets = Buckets(per_minute / 60, per_minute) if per_minute else None

    async def ask(
        self,
        asked: tuple[Hashable, bytes] | None,
        pools: Sequence[Pool],
        client: str = "",
        *,
        remember: bool = False,
    ) -> Located:
        """The backend that holds a session, None if all say that they do not.

        `asked` is what the question is about and the head of its request, None if it cannot be put. Those
        about the same are equal. `client` is whose it is, "" for nobody's. With `remember` an equal one of a
        moment ago answers for this one. Cancel-safe: one that nobody waits for any more is given up.
        """
        if asked is None:
            self.results[Result.NO_ROOT] += 1
            return Asked.IN_VAIN
        about, now = (asked[0], *(pool.backend for pool in pools)), monotonic()
        question = self._questions.get(about)
        if question is not None:
            self.results[Result.JOINED] += 1
        elif remember and self._nobody.get(about, 0.0) > now:
            self.results[Result.REMEMBERED] += 1
            return None
        elif len(self._questions) >= self.settings.locate_questions:
            return self._over(Result.OVER_LIMIT, Limit.LOCATE_QUESTIONS)
        elif client and self._buckets is not None and self._buckets.take(client, now):
            return self._over(Result.OVER_CLIENT_LIMIT, Limit.QUESTIONS_PER_MINUTE)
        else:
            task = asyncio.get_running_loop().create_task(self._find(pools, asked[1], client))
            question = self._questions[about] = _Question(task)
        question.waiting += 1
        try:
            await asyncio.wait((question.task,))  # others may wait for it too: cancelled, we only leave
        finally:
            question.waiting -= 1
            if not question.waiting:
                question.task.cancel()
                self._questions.pop(about, None)
        found = question.task.result()
        if found is None and remember:
            self._remember(about)
        return found

    def _over(self, result: Result, limit: Limit) -> Asked:
        self.results[result] += 1
        self._stats.limits[limit] += 1
        return Asked.IN_VAIN

    def _remember(self, about: Hashable) -> None:
        self._nobody[about] = monotonic() + _REMEMBERED
        self._nobody.move_to_end(about)
        if len(self._nobody) > _MOST_REMEMBERED:
            self._nobody.popitem(last=False)

    def sweep(self, now: float) -> None:
        """Forget what is not so for certain any more; called every few seconds."""
        if self._buckets is not None:
            self._buckets.sweep(now)
        while self._nobody and next(iter(self._nobody.values())) <= now:
            self._nobody.popitem(last=False)

    async def _find(self, pools: Sequence[Pool], head: bytes, client: str) -> Located:
        asked = {asyncio.ensure_future(self._ask(pool, head)): pool.backend for pool in pools}
        waiting, denials = set(asked), 0
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for answer in done:
                    if answer.result():
                        self.results[Result.FOUND] += 1
                        if client and self._buckets is not None:
                            self._buckets.give_back(client)
                        return asked[answer]
                    denials += answer.result() is False
        finally:
            for answer in waiting:
                answer.cancel()
        nobody = denials == len(asked)
        self.results[Result.NOBODY if nobody else Result.UNCLEAR] += 1
        return None if nobody else Asked.IN_VAIN

    async def _ask(self, pool: Pool, head: bytes) -> bool | None:
        """What a backend says; None if it says nothing in time, for which it may have to wait its turn."""
        timeout = self.settings.locate_timeout
        line = self._lines.get(pool.backend)
        if line is None:
            line = self._lines[pool.backend] = _Line(self.settings.locate_connections)
        line.users += 1
        try:
            async with within(timeout, self._stood), line.free:
                response, body = await fetch(pool, b"GET", head, timeout)
        except (ProxyError, TimeoutError):
            return None
        finally:
            line.users -= 1
            if not line.users and self._lines.get(pool.backend) is line:
                del self._lines[pool.backend]
        return holds(response.status, body)

    def __repr__(self) -> str:
        return f"<Locator asking={len(self._questions)}>"
