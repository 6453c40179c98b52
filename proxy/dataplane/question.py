"""One question to several backends: whether one of them holds a session.

It is over with the first yes, when all have said no, or when the time is up; who has said nothing by then is
not waited for any more. Each backend has a line: so many questions speak to it at once, the others wait.
After a restart they come by the hundred, so over a kept connection one costs no task.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache

from proxy.affinity.backend import Backend
from proxy.affinity.router import Asked, Located
from proxy.dataplane.fetch import Fetch, fetch
from proxy.dataplane.patience import Stood, Timer
from proxy.dataplane.pool import Pool
from proxy.errors import ProxyError, Retry
from proxy.wire.head import ResponseHead

Answer = tuple[ResponseHead, bytes]
_MOST_SAYINGS = 16  # answers that are remembered: instances say the same each time

_SHOWN = (404, "File not found")  # to whom it would give a file of the session
# What an instance says: that it holds the session, whoever asks, or that it does not.
_SAYS = {
    _SHOWN: True,
    (401, "You are not authorized to download files from this session"): True,
    (401, "Unauthorized"): False,
}


@lru_cache(_MOST_SAYINGS)
def holds(status: int, body: bytes) -> bool | None:
    """Whether an answer tells that its instance holds the session; None: it tells nothing."""
    return _SAYS.get((status, _detail(body))) if status in (401, 404) else None


def shows(status: int, body: bytes) -> bool:
    """Whether an answer tells that the session is one of the client that was asked for."""
    return (status, _detail(body)) == _SHOWN


async def shown(pool: Pool, head: bytes, seconds: float) -> bool:
    """Put one question to one backend: whether it `shows` the session. Raises ProxyError."""
    answer, body = await fetch(pool, b"GET", head, seconds)
    return shows(answer.status, body)


def _detail(body: bytes) -> str:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    detail = content.get("detail") if isinstance(content, dict) else None
    return detail if isinstance(detail, str) else ""


class Line:
    """The connections to one backend that questions may use: how many are left, and who waits for one."""

    __slots__ = ("backend", "free", "users", "waiting")

    def __init__(self, backend: Backend, most: int) -> None:
        self.backend = backend
        self.free = most
        self.users = 0  # replies that use one or wait for one
        self.waiting: deque[_Reply] = deque()


class _Reply:
    """What one backend says to a question."""

    __slots__ = ("_fetch", "_question", "_request", "line", "over", "pool")

    def __init__(self, question: "Question", pool: Pool, line: Line) -> None:
        self.pool = pool
        self.line = line
        self.over = False
        self._question = question
        self._request: Fetch | None = None  # set while it speaks over a kept connection
        self._fetch: asyncio.Task[Answer] | None = None  # set while it does over a new one
        line.users += 1
        if line.free:
            line.free -= 1
            self.begin()
        else:
            line.waiting.append(self)

    def begin(self) -> None:
        """It is its turn."""
        kept = self.pool.take()
        if kept is None:
            self._begin_anew()
            return
        self._request = request = Fetch(kept)
        kept.send(request, b"GET", self._question.head)
        request.future.add_done_callback(self._heard)

    def _begin_anew(self) -> None:
        question = self._question
        work = fetch(self.pool, b"GET", question.head, question.timeout)
        self._fetch = asyncio.get_running_loop().create_task(work)
        self._fetch.add_done_callback(self._heard)

    def _heard(self, answer: asyncio.Future[Answer]) -> None:
        error = None if answer.cancelled() else answer.exception()
        if self.over or answer.cancelled():
            return
        if error is None:
            head, body = answer.result()
            self._end()
            self._question.told(self, holds(head.status, body))
        elif isinstance(error, ProxyError) and error.retry is Retry.IF_REUSED and self._fetch is None:
            self._request = None
            self._begin_anew()
        else:
            self._end()
            self._question.told(self, None, error)

    def give_up(self) -> None:
        """Nobody wants to know it any more."""
        if self.over:
            return
        if self._fetch is None and self._request is None:
            self.over = True
            self.line.users -= 1
            self.line.waiting.remove(self)
            return
        if self._fetch is not None:
            self._fetch.cancel()
        elif self._request is not None:
            self._request.upstream.abandon(self._request)
        self._end()

    def _end(self) -> None:
        self.over = True
        line = self.line
        line.users -= 1
        if line.waiting:
            line.waiting.popleft().begin()
        else:
            line.free += 1


class Question:
    """One that is under way; made by the Locator, which is told when it is over."""

    __slots__ = ("_denials", "_replies", "_timer", "_waiting", "ended", "head", "timeout")

    def __init__(
        self,
        head: bytes,
        asked: Iterable[tuple[Pool, Line]],
        timeout: float,
        stood: Stood,
        ended: Callable[[Located], None],
    ) -> None:
        """`head` is that of its request, `timeout` in seconds. `ended` is not called if it is given up."""
        self.head = head
        self.timeout = timeout
        self.ended = ended
        self._denials = 0
        self._waiting: set[asyncio.Future[Located]] = set()
        self._timer = Timer(stood, timeout, self._late)
        self._replies = [_Reply(self, pool, line) for pool, line in asked]

    async def answer(self) -> Located:
        """The backend that holds the session, None if all say that they do not. Cancel-safe."""
        future: asyncio.Future[Located] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for its answer."""
        return bool(self._waiting)

    def told(self, reply: _Reply, told: bool | None, error: BaseException | None = None) -> None:
        """A backend has said yes, no, or nothing."""
        if error is not None and not isinstance(error, (ProxyError, TimeoutError)):
            self.give_up()
            for future in self._waiting:
                if not future.done():
                    future.set_exception(error)
            self.ended(Asked.IN_VAIN)
        elif told:
            self._end(reply.pool.backend)
        else:
            self._denials += told is False
            if all(reply.over for reply in self._replies):
                self._end(None if self._denials == len(self._replies) else Asked.IN_VAIN)

    def _late(self) -> None:
        self._end(Asked.IN_VAIN)

    def _end(self, located: Located) -> None:
        self.give_up()
        self._replies = []  # else they keep it, and it keeps them: the garbage collector would have to look
        for future in self._waiting:
            if not future.done():
                future.set_result(located)
        self.ended(located)

    def give_up(self) -> None:
        """What has not been said is not waited for any more."""
        self._timer.cancel()
        for reply in self._replies:
            reply.give_up()
