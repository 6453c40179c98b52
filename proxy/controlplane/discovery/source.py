"""What all sources of backends have in common: a source tells complete lists, or why it has none.

Rules: what cannot be read or used changes nothing, the last good list stays; it is counted each time and
logged once, until it is something else. No source touches the fleet: `membership` joins what they find.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from time import monotonic

from proxy.backoff import SPREAD, Backoff
from proxy.config import Address, BackendSettings

log = logging.getLogger("proxy.discovery")

_LONGEST_NAME = 63  # characters, as `backends.name` has it
_SHORTEST, _LONGEST = 0.5, 30.0  # seconds between two connections
_CALM = 5.0  # seconds after which a connection counts as one that worked

Backends = tuple[BackendSettings, ...]
Found = Callable[[Backends], None]


class UnusableError(Exception):
    """A list that cannot be joined to the fleet; the text says why."""


def backend_at(host: str, port: int, name: str = "", weight: float = 1.0) -> BackendSettings:
    """The backend at an address. Raises ValueError; without a name it is called host:port."""
    told = {"name": _short(name)} if name else {}
    return BackendSettings.model_validate({"url": f"http://{Address(host, port)}", "weight": weight, **told})


def _short(name: str) -> str:
    """A name as a backend may bear it, the same on every proxy; two long ones still differ."""
    plain = re.sub(r"[^A-Za-z0-9._:-]", "_", name)
    if plain == name and len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{plain[: _LONGEST_NAME - 1 - len(mark)]}-{mark}"


class Source:
    """One place where backends are found; created and run by the Membership."""

    def __init__(self, name: str, found: Found) -> None:
        """`found(backends)` takes a list that differs from the one before. It raises UnusableError."""
        self.name = name
        self._found = found
        self.asked = asyncio.Event()  # set when it was asked once, however that went
        self.updates = 0  # good lists that differed from the one before
        self.failures = 0  # times that there was none that could be used
        self.last: Backends | None = None  # the last good list, None until the first
        self._trouble: tuple[str, ...] = ()  # what was last said to be wrong

    @property
    def is_current(self) -> bool:
        """Whether the last list could be used."""
        return self.last is not None and not self._trouble

    async def run(self) -> None:
        """Follow the source until cancelled."""
        raise NotImplementedError

    async def _keep(self, connect: Callable[[], Awaitable[None]]) -> None:
        """Follow one connection after the other until cancelled; `connect` tells itself what fails."""
        backoff = Backoff(_SHORTEST, _LONGEST, SPREAD)
        while True:
            began = monotonic()
            await connect()
            if monotonic() - began > _CALM:
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    def tell(self, backends: Backends) -> None:
        """Here is the complete list as it is now."""
        if backends != self.last:
            try:
                self._found(backends)
            except UnusableError as error:
                self.fail(str(error))
                return
            self.last = backends
            self.updates += 1
            log.info("discovery.%s: %d backends", self.name, len(backends))
        elif self._trouble:
            log.info("discovery.%s: works again", self.name)
        self._trouble = ()
        self.asked.set()

    def fail(self, *reasons: str) -> None:
        """There is no list that can be used, and why."""
        self.failures += 1
        if reasons != self._trouble:
            self._trouble = reasons
            log.error("discovery.%s: no list that can be used, the last good one stays in effect:", self.name)
            for reason in reasons:
                log.error("%s", reason)
        self.asked.set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.last or ())} backends failures={self.failures}>"
