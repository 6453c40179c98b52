"""When the certificate of `tls.acme` is due, and who gets it: the work is done in a thread.

It is due when there is none for these domains, and then when the authority wants it renewed (RFC 9773) or, if
that says nothing, after two thirds of its life and a bit of chance, so that not all come at once. It never
waits for its last tenth. What fails is told, counted and tried again after growing pauses; the listeners go
on with what they have. What was issued and is due at once has failed too. Of proxies that share a folder one
orders, and the others look again; the listeners of all watch the file.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import TypeVar

from proxy.backoff import SPREAD, Backoff
from proxy.borders import Where, fault
from proxy.config.tls_settings import AcmeSettings
from proxy.controlplane.certificate_store import BusyError, CertificateStore, OrderError
from proxy.tls import Facts

T = TypeVar("T")

log = logging.getLogger("proxy.acme")

_DUE = 2 / 3  # of its life
_CHANCE = 0.05  # of its life, the most that is waited beyond that
_LATEST = 0.9  # of its life, whatever the authority says
_LOOK = 3600.0  # seconds between two looks: a machine that slept has other clocks
_BUSY = 15.0  # seconds until another look while another proxy orders: an order takes some ten
_ASK = 6 * 3600.0  # seconds until the authority is asked again that did not answer; RFC 9773 section 4.3.3
# Let's Encrypt takes five refusals an hour for one name: these are the tries of the first hour.
_FIRST_PAUSE, _LONGEST_PAUSE = 120.0, 6 * 3600.0


class Outcome(StrEnum):
    """How a try ended; a label of the metric."""

    RENEWED = "renewed"
    FAILED = "failed"


class Renewals:
    """Made by Parts, run by the app; idle unless the configuration names domains."""

    def __init__(
        self, tell: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.time
    ) -> None:
        """`tell` hears of what happened; `clock` gives unix time."""
        self.counts = dict.fromkeys(Outcome, 0)
        self._tell, self._clock = tell, clock
        self._settings = AcmeSettings()
        self._store: CertificateStore | None = None  # set while there are domains
        self._news = asyncio.Event()
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, SPREAD)
        self._forget()

    def _forget(self) -> None:
        self._backoff.reset()
        self._is_new = False  # set from an order until it is known when the next one is due
        self._seen: Facts | None = None  # the certificate that the next two are about
        self._wanted = 0.0  # when it is due, in unix time
        self._ask = 0.0  # when to ask the authority for that

    def configure(self, settings: AcmeSettings) -> None:
        """Go by these settings, and look at once: what failed is tried again."""
        if settings != self._settings:
            self._settings = settings
            self._store = CertificateStore(settings) if settings.domains else None
        self._forget()
        self._news.set()

    def answer(self, token: str) -> bytes | None:
        """What is answered to a question of the authority; None: nothing is known of it."""
        return self._store.answer(token) if self._store else None

    async def run(self, serving: asyncio.Event) -> None:
        """Keep a good certificate, until cancelled; begin when clients are served: the authority is one."""
        await serving.wait()
        while True:
            self._news.clear()
            store = self._store
            pause = None if store is None else await self._look(self._settings, store)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _look(self, settings: AcmeSettings, store: CertificateStore) -> float:
        """Get a certificate if that is due; return in how many seconds to look again."""
        before = store.facts()
        due = await self._due(settings, store)
        now = self._clock()
        if now < due:
            self._is_new = False
            self._backoff.reset()
            return min(due - now, _LOOK)
        if self._is_new:  # else it would be ordered again and again
            self._is_new = False
            return self._failed(settings, "what was issued is due already: see the clock, and its names")
        try:
            ordered = await in_thread(partial(self._order, settings, store, before))
        except BusyError:
            return _BUSY
        except OrderError as error:
            return self._failed(settings, str(error))
        except Exception as error:  # a border: nothing here may ask the authority again and again
            fault(Where.CONTROL, error)
            return self._failed(settings, "a mistake of the proxy")
        self._is_new = self._store is store  # else there are other names by now
        if ordered:
            self.counts[Outcome.RENEWED] += 1
            self._say(logging.INFO, f"there is a new certificate for {', '.join(settings.domains)}")
        return 0.0  # to see when that one is due

    def _order(self, settings: AcmeSettings, store: CertificateStore, before: Facts | None) -> bool:
        """In a thread: order, unless another proxy has just done so; return whether it was ordered here.

        `before` is the certificate that is due.
        """
        with store.turn():
            facts = store.facts()
            if facts != before and _is_good(facts, settings):
                return False
            from proxy.controlplane.acme_order import order  # noqa: PLC0415 - needs an extra, and a third of a second

            order(settings, store)
            return True

    async def _due(self, settings: AcmeSettings, store: CertificateStore) -> float:
        """When the certificate that is there is to be renewed, in unix time."""
        facts = store.facts()
        if facts is None or not _is_good(facts, settings):
            self._seen = facts
            return 0.0
        life = facts.until - facts.since
        if facts != self._seen:
            self._seen, self._ask = facts, 0.0
            self._wanted = facts.since + life * (_DUE + random.uniform(0, _CHANCE))  # noqa: S311
        if self._clock() >= self._ask:
            await self._ask_authority(settings, store)
        return min(self._wanted, facts.since + life * _LATEST)

    async def _ask_authority(self, settings: AcmeSettings, store: CertificateStore) -> None:
        self._ask = self._clock() + _ASK
        try:
            wanted, again = await in_thread(partial(_renewal_time, settings, store))
        except Exception as error:  # a hint less: what is known without it is good enough
            log.debug("the authority did not say when to renew: %s", error)
            return
        self._ask = max(again, self._clock() + _LOOK / 60)
        if wanted is not None:
            self._wanted = wanted

    def _failed(self, settings: AcmeSettings, why: str) -> float:
        """Tell of it; return the seconds until the next try."""
        self.counts[Outcome.FAILED] += 1
        pause = self._backoff.pause()
        text = f"no new certificate for {', '.join(settings.domains)}: {why}"
        self._say(logging.WARNING, f"{text}; the next try is in {pause / 60:.0f} minutes")
        return pause

    def _say(self, level: int, text: str) -> None:
        log.log(level, "%s", text)
        self._tell(text)

    def __repr__(self) -> str:
        return f"<Renewals {self._store!r} {self._backoff!r}>"


def _is_good(facts: Facts | None, settings: AcmeSettings) -> bool:
    """Whether it is the authority's, for all domains."""
    return facts is not None and not facts.signed_by_itself and set(settings.domains) <= set(facts.names)


def _renewal_time(settings: AcmeSettings, store: CertificateStore) -> tuple[float | None, float]:
    from proxy.controlplane.acme_order import renewal_time  # noqa: PLC0415 - as above

    return renewal_time(settings, store)


async def in_thread(work: Callable[[], T]) -> T:
    """As asyncio.to_thread, in a thread that nobody waits for when the process ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: Callable[[], None]) -> None:
        if not done.done():  # else nobody waits for it any more
            result()

    def run() -> None:
        try:
            result = partial(done.set_result, work())
        except Exception as error:
            result = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="acme", daemon=True).start()
    return await done
