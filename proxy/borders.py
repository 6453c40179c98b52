"""Borders: a mistake of ours in one item costs that item, not the loop that serves many.

Every loop and task over many items has a border round each item: what crosses it is logged with its traceback
and counted by place, and the loop goes on. Only `Exception` is held: cancellation and the end of the process
pass. What is expected to fail has its own `except` and does not come here, so the counts stay 0 in a proxy
without mistakes. A place whose items all fail does not flood the log: it tells one traceback in a while.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from time import monotonic
from types import TracebackType
from typing import Any, ParamSpec

P = ParamSpec("P")

log = logging.getLogger("proxy")

_QUIET = 10.0  # seconds between two tracebacks of one place
_AGAIN = 1.0  # seconds until a task that broke by a mistake of ours is run again

Work = Callable[[], Awaitable[None]]
"""Makes what a task awaits, once the task runs: one that is cancelled before that has made nothing."""


class Where(StrEnum):
    """The places that have borders; a label of the metric."""

    TICK = "tick"  # deadlines, sweeps and the certificate
    LEAVE = "leave"  # the end of the process
    MOVE = "move"  # sending sessions away
    POOL = "pool"  # a backend's connections, when it is down
    TASK = "task"  # what is awaited for a request or a tunnel
    DRAIN = "drain"
    REBALANCE = "rebalance"
    SCALING = "scaling"  # how many backends are wanted
    PROBE = "probe"
    DISCOVERY = "discovery"
    DIRECTORY = "directory"  # the shared one
    REPLICA = "replica"  # what is told of a replica
    LISTENER = "listener"  # who is told of a backend's change, or of a request that has ended
    CONTROL = "control"  # a task of the control plane as a whole
    LOOP = "loop"  # callbacks of the event loop: those of connections, timers and signals


counts: dict[Where, int] = dict.fromkeys(Where, 0)
"""How many mistakes were held at each place since the process began."""

_quiet_until: dict[Where, float] = {}


def fault(where: Where, error: BaseException | None, text: str = "", *, always: bool = False) -> None:
    """Count a mistake of ours, and log it with its traceback unless the place has just told one.

    `always` tells it all the same: where somebody waits for what becomes of it.
    """
    counts[where] += 1
    now = monotonic()
    if always or now >= _quiet_until.get(where, 0.0):
        _quiet_until[where] = now + _QUIET
        log.error("internal error (%s)%s; please report it", where, text and f": {text}", exc_info=error)


class Border:
    """`with Border(where):` goes on behind the block whatever went wrong in it; holds no state."""

    __slots__ = ("_where",)

    def __init__(self, where: Where) -> None:
        self._where = where

    def __enter__(self) -> None:
        """As a context manager."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        fault(self._where, error)
        return True

    def __repr__(self) -> str:
        return f"<Border {self._where} {counts[self._where]}>"


def guarded(where: Where, call: Callable[P, None]) -> Callable[P, None]:
    """The same call, with a border round it."""

    @functools.wraps(call)
    def held(*args: P.args, **kwargs: P.kwargs) -> None:
        with Border(where):
            call(*args, **kwargs)

    return held


async def kept(work: Work) -> None:
    """Run a task of the control plane until cancelled; if a mistake of ours ends it, again after a moment."""
    while True:
        with Border(Where.CONTROL):
            await work()
        await asyncio.sleep(_AGAIN)


async def held(work: Work, give_up: Callable[[], None]) -> None:
    """Do work that belongs to one request; if a mistake of ours ends it, `give_up`."""
    try:
        await work()
    except Exception as error:
        fault(Where.TASK, error)
        with Border(Where.TASK):
            give_up()


def on_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The event loop's exception handler: a callback failed, which costs at most its own connection.

    uvloop closes a transport whose protocol failed in reading, but not one that failed in `pause_writing`.
    An error of the system, such as that no descriptor is left, is no mistake of ours.
    """
    error, text = context.get("exception"), str(context.get("message", ""))
    if isinstance(error, OSError):
        log.warning("%s: %s", text, error)
        return
    fault(Where.LOOP, error, text)
    abort = getattr(context.get("transport"), "abort", None)
    if abort is not None:
        with Border(Where.LOOP):
            abort()
