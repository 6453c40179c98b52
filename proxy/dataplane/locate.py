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

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from enum import StrEnum
from functools import partial
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.router import Asked, Located
from proxy.config.models import AffinitySettings
from proxy.config.sections import LimitSettings
from proxy.dataplane.buckets import Buckets
from proxy.dataplane.patience import Stood, never
from proxy.dataplane.pool import Pool
from proxy.dataplane.question import Line, Question
from proxy.dataplane.stats import Stats
from proxy.errors import Limit

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


class Locator:
    """All questions of one data plane; owned by the plane."""

    def __init__(
        self, settings: AffinitySettings, limits: LimitSettings, stats: Stats, stood: Stood = never
    ) -> None:
        self.results = dict.fromkeys(Result, 0)  # for the metrics
        self._stats = stats
        self._stood = stood
        self._questions: dict[Hashable, Question] = {}
        self._lines: dict[Backend, Line] = {}
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
            lines = [(pool, self._line(pool.backend)) for pool in pools]
            ended = partial(self._ended, about, client)
            question = Question(asked[1], lines, self.settings.locate_timeout, self._stood, ended)
            self._questions[about] = question
        try:
            found = await question.answer()
        finally:
            if not question.is_wanted and self._questions.get(about) is question:
                question.give_up()
                self._forget(about)
        if found is None and remember:
            self._remember(about)
        return found

    def _line(self, backend: Backend) -> Line:
        line = self._lines.get(backend)
        if line is None:
            line = self._lines[backend] = Line(backend, self.settings.locate_connections)
        return line

    def _ended(self, about: tuple[Hashable, ...], client: str, located: Located) -> None:
        self._forget(about)
        if isinstance(located, Backend):
            self.results[Result.FOUND] += 1
            if client and self._buckets is not None:
                self._buckets.give_back(client)
        else:
            self.results[Result.NOBODY if located is None else Result.UNCLEAR] += 1

    def _forget(self, about: tuple[Hashable, ...]) -> None:
        """A question is over: so are the lines that nobody uses any more."""
        del self._questions[about]
        for backend in about[1:]:
            line = self._lines.get(backend) if isinstance(backend, Backend) else None
            if line is not None and not line.users:
                del self._lines[line.backend]

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

    def __repr__(self) -> str:
        return f"<Locator asking={len(self._questions)}>"
