"""Another configuration for a proxy that runs: read, checked whole, and applied without dropping anything.

One reload at a time. A file that cannot be read or applied, by whatever mistake, is refused, and the old
configuration stays in effect. How one is applied is known to whoever gives `apply`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter

from proxy.borders import Where, fault
from proxy.config import Config, ConfigError
from proxy.controlplane.events import EventKind, EventLog
from proxy.net import ListenError
from proxy.tls import CertificateError

log = logging.getLogger("proxy")

# What was handed to threads, the kernel, the replicas.
_AT_START = ("balance.most_answers", "otel", "reuse_port", "sessions")

Apply = Callable[[Config, Config], Awaitable[None]]
"""(old, new): have `new` take effect, or raise with `old` in effect as it was."""


@dataclass(frozen=True, slots=True)
class Reload:
    """How a reload went."""

    at: float  # unix time
    problems: tuple[str, ...] = ()  # why it was refused; none: it was applied
    changes: tuple[str, ...] = ()  # what is different now, by key
    restart: tuple[str, ...] = ()  # keys that take effect with the next start only

    @property
    def applied(self) -> bool:
        """Whether the file is in effect."""
        return not self.problems


@dataclass(slots=True)
class ReloadCounts:
    """What the metrics tell of reloads."""

    applied: int = 0
    refused: int = 0
    current: bool = True  # whether the file is in effect as it was last read


class Reloads:
    """Reads the configuration again; created by the app."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config] | None,
        apply: Apply,
        events: EventLog,
        counts: ReloadCounts,
    ) -> None:
        """`config` is in effect now. `read` raises ConfigError; None: there is no file."""
        self.config = config
        self.last: Reload | None = None  # None until the first
        self._read, self._apply = read, apply
        self._events, self._counts = events, counts
        self._turn = asyncio.Lock()
        self._stopped = False

    def stop(self) -> None:
        """Refuse reloads from now on: the process is about to end."""
        self._stopped = True

    async def reload(self) -> Reload:
        """Read the file and apply it; a bad one changes nothing."""
        async with self._turn:
            try:
                done = await self._reload()
            except (ConfigError, ListenError, CertificateError) as error:
                done = Reload(time.time(), problems=tuple(str(error).splitlines()))
            except Exception as error:  # a border: nothing that a reload meets may end the proxy
                fault(Where.CONTROL, error, "the reload broke", always=True)
                what = f"{type(error).__name__}: {error}".partition("\n")[0]
                done = Reload(time.time(), problems=(f"it met a mistake of the proxy, see the log: {what}",))
            self._tell(done)
            return done

    async def _reload(self) -> Reload:
        if self._stopped:
            return Reload(time.time(), problems=("the proxy is about to end",))
        if self._read is None:
            return Reload(time.time())
        old, new = self.config, self._read()
        await self._apply(old, new)
        self.config = new
        changes = tuple(key for key in Config.model_fields if getattr(old, key) != getattr(new, key))
        restart = tuple(key for key in _AT_START if attrgetter(key)(old) != attrgetter(key)(new))
        return Reload(time.time(), changes=changes, restart=restart)

    def _tell(self, done: Reload) -> None:
        self.last, self._counts.current = done, done.applied
        changed = ", ".join(done.changes) or "nothing changed"
        if done.applied:
            self._counts.applied += 1
            self._events.record(EventKind.RELOAD, f"applied: {changed}")
            log.info("the configuration was read again: %s", changed)
            for key in done.restart:
                log.warning("%s: takes effect when the proxy is started again", key)
            return
        self._counts.refused += 1
        self._events.record(EventKind.RELOAD, "refused: " + "; ".join(done.problems))
        log.error("the changed configuration is not used, the old one stays:")
        for problem in done.problems:
            log.error("%s", problem)

    def __repr__(self) -> str:
        return f"<Reloads {self._counts}>"
