"""Asking the backends which of them holds a session that nobody else knows (docs/affinity.md).

`GET /project/file/x?session_id=ID` has no side effect in Chainlit: the instance that holds the session
answers that it has no such file, the others that the request is not authorised (chainlit/server.py,
get_file). Only these answers count, told by what they say: any app answers 404 for a path that it has not.
All backends are asked at once, the first that holds the session wins.

Asking is an amplifier: one request of a client becomes one to each backend. So equal questions that are
under way are joined, their number is bounded, and each backend answers over a bounded number of connections.
What is over the bound is not asked.
"""

import asyncio
import json
from collections.abc import Hashable, Sequence
from enum import StrEnum

from proxy.affinity.backend import Backend
from proxy.affinity.router import Asked, Located
from proxy.config.models import AffinitySettings
from proxy.dataplane.fetch import fetch
from proxy.dataplane.patience import Stood, never, within
from proxy.dataplane.pool import Pool
from proxy.dataplane.stats import Stats
from proxy.errors import Limit, ProxyError


class Result(StrEnum):
    """What became of a question, as the metric calls it."""

    FOUND = "found"
    NOBODY = "nobody"  # every backend said that it does not hold the session
    UNCLEAR = "unclear"  # nobody said that it holds it, and not all that they do not
    JOINED = "joined"  # an equal one was under way
    OVER_LIMIT = "over_limit"  # not asked: too many were under way
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

    def __init__(self, settings: AffinitySettings, stats: Stats, stood: Stood = never) -> None:
        self.settings = settings  # replaced when the configuration is
        self.results = dict.fromkeys(Result, 0)  # for the metrics
        self._stats = stats
        self._stood = stood
        self._questions: dict[Hashable, _Question] = {}
        self._lines: dict[Backend, _Line] = {}

    async def ask(self, asked: tuple[Hashable, bytes] | None, pools: Sequence[Pool]) -> Located:
        """The backend that holds a session, None if all say that they do not.

        `asked` is what the question is about and the head of its request, None if it cannot be put. Those
        about the same are equal. Cancel-safe: one that nobody waits for any more is given up.
        """
        if asked is None:
            self.results[Result.NO_ROOT] += 1
            return Asked.IN_VAIN
        about = (asked[0], *(pool.backend for pool in pools))
        question = self._questions.get(about)
        if question is not None:
            self.results[Result.JOINED] += 1
        elif len(self._questions) >= self.settings.locate_questions:
            self.results[Result.OVER_LIMIT] += 1
            self._stats.limits[Limit.LOCATE_QUESTIONS] += 1
            return Asked.IN_VAIN
        else:
            task = asyncio.get_running_loop().create_task(self._find(pools, asked[1]))
            question = self._questions[about] = _Question(task)
        question.waiting += 1
        try:
            await asyncio.wait((question.task,))  # others may wait for it too: cancelled, we only leave
        finally:
            question.waiting -= 1
            if not question.waiting:
                question.task.cancel()
                self._questions.pop(about, None)
        return question.task.result()

    async def _find(self, pools: Sequence[Pool], head: bytes) -> Located:
        asked = {asyncio.ensure_future(self._ask(pool, head)): pool.backend for pool in pools}
        waiting, denials = set(asked), 0
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for answer in done:
                    if answer.result():
                        self.results[Result.FOUND] += 1
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
