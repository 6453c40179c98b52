"""One session on its way from one instance to another, while its client need not know.

What websockets and polls have in common: where it goes, how long its client is held, how often it is tried,
and how it is told of. An instance has some 8 ms of work for each, so few at once go through its gate, and
those who are there already hardly notice. One whose next instance went away, too, goes alone: it may be why,
and then takes nobody along. A client is held for at most `affinity.hold` seconds, beside the time at the
gate. What is said to the instance is for `affinity.handing_over`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision
from proxy.affinity.handing_over import Failure, HandingOver
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.borders import Work
from proxy.dataplane.arrivals import Arrivals
from proxy.dataplane.hand_over_counts import Counts, Reason, Result
from proxy.dataplane.patience import Stood, running_time, within
from proxy.dataplane.pool import Pool
from proxy.dataplane.shared_directory import SharedDirectory
from proxy.dataplane.stats import Stats
from proxy.errors import ConnectTimeout, ProxyError, UpstreamTimeout

AT_ONCE = 8  # hand-overs to one instance: a twentieth of a second of its work
GREETS = 15.0  # seconds in which an instance that has a session restores it and greets the client
PARTS = 2.0  # seconds in which an instance puts down what it has of a session
OPENS = 3.0  # seconds in which an instance opens a connection; one that is silent is not waited for
_TURN = 5.0  # seconds at the gate of one instance, which may have become silent; then it is decided anew
_LONGEST = 30.0  # seconds in all: of thousands that are lost at once the last are better told to come anew
_MOST_BROKEN = 3  # instances that one session may cost: the next ones are for everybody else
_WRITES = 0.05  # seconds in which an instance that ends has written what it has of its sessions
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.3)  # seconds between two tries


class Place(Protocol):
    """What a hand-over needs of the site."""

    router: Router
    arrivals: Arrivals
    shared: SharedDirectory
    stats: Stats
    stood: Stood
    leaving: bool  # whether the process is to end

    def pool(self, backend: Backend) -> Pool:
        """The pool of a backend."""
        ...

    def report(self, backend: Backend, error: ProxyError) -> None:
        """Take note of what a connection to a backend met."""
        ...

    def spawn(self, work: Work, give_up: Callable[[], None]) -> asyncio.Task[None]:
        """Run work; if it fails by a fault of ours, `give_up`."""
        ...


class GateTimeoutError(Exception):
    """It was nobody's turn at an instance for long."""


class Waits:
    """Who waits for an instance: for its turn at one, or for any that takes sessions. Owned by HandOvers."""

    def __init__(self) -> None:
        self.hold = 0.0  # seconds, at most
        self._gates: dict[Backend, asyncio.Semaphore] = {}
        self._suspects: dict[Backend, asyncio.Semaphore] = {}  # for whoever goes alone
        self._changed = asyncio.Event()

    def changed(self, backend: Backend, _event: str) -> None:
        """As listener of the fleet: somebody may take sessions who did not."""
        self._changed.set()
        self._changed = asyncio.Event()
        if backend.gone:
            self._gates.pop(backend, None)
            self._suspects.pop(backend, None)

    async def change(self, seconds: float, stood: Stood) -> None:
        """Return when the fleet has changed, or so many seconds later."""
        with suppress(TimeoutError):
            async with within(seconds, stood):
                await self._changed.wait()

    @asynccontextmanager
    async def gate(self, backend: Backend, stood: Stood, *, alone: bool) -> AsyncIterator[None]:
        """One's turn at an instance, of those that go alone the only one. Raises GateTimeoutError."""
        gates = [self._gates.setdefault(backend, asyncio.Semaphore(AT_ONCE))]
        if alone:
            gates.insert(0, self._suspects.setdefault(backend, asyncio.Semaphore(1)))
        async with AsyncExitStack() as held:
            try:
                async with within(_TURN, stood):
                    for gate in gates:
                        await held.enter_async_context(gate)
            except TimeoutError:
                raise GateTimeoutError from None
            yield

    def __repr__(self) -> str:
        return f"<Waits at {len(self._gates)} gates>"


class HandOver:
    """One of them; made by HandOvers. A subclass knows the client's transport."""

    def __init__(
        self, site: Place, waits: Waits, counts: Counts, session: Session, old: Backend, reason: Reason
    ) -> None:
        self._site, self._waits, self._counts = site, waits, counts
        self.session = session
        self.old = old  # where it comes from
        self.reason = reason
        self.planned = reason is Reason.SENT_AWAY  # whether the instance before still has to be told
        self._began = monotonic()
        self._left = waits.hold  # seconds that its client is still held
        self._silent: set[str] = set()  # backends that did not answer in time: another is better
        self._broken = 0  # instances that went away when they knew which session it is
        self._at: Backend | None = None  # where it goes on, in the end
        self._result = Result.LEFT  # until something else came of it
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """It sets out."""
        self.session.set_out()
        self._counts.begun(self.old)
        if self.reason is Reason.ENDED:
            self._site.router.directory.send_away(self.session)  # it may still accept for a moment
        self._task = self._site.spawn(self._run, self._broke)
        self._task.add_done_callback(self._count)  # it may be cancelled before it runs

    def stop(self) -> None:
        """Its client has gone, or is told to connect anew."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        if self.reason is Reason.ENDED:
            await asyncio.sleep(_WRITES)
        self._result = await self._move()
        if self._result is not Result.DONE:
            self.give_up()
        self.ended()

    def _count(self, _: object) -> None:
        self._counts.ended(self.old, self._at, self.reason, self._result, monotonic() - self._began)

    async def _move(self) -> Result:
        tries = 0
        while (self._left > 0 and monotonic() < self._began + _LONGEST) or not tries:
            decision = self._site.router.elsewhere(self.session.id, self.old, monotonic(), self._silent)
            if decision is None and self._silent:
                self._silent.clear()  # nobody is left but those
                continue
            if decision is None:
                async with self._held():
                    await self._waits.change(max(0.0, self._left), self._site.stood)
                tries += 1
                continue
            tried = await self._at_gate(decision)
            if tried is None:
                self._at = decision.backend
                return Result.DONE
            if tried is not Failure.BROKEN or self._broken >= _MOST_BROKEN:
                return Result(tried.value)
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            async with self._held():
                await asyncio.sleep(pause)
        return Result.LATE

    async def _at_gate(self, decision: Decision) -> Failure | None:
        """Try at one instance, in turn; None: it goes on there."""
        claim = decision.claim
        assert claim is not None
        try:
            alone = self._broken > 0
            async with self._waits.gate(decision.backend, self._site.stood, alone=alone), self._held():
                if not decision.backend.holds_pins:
                    return Failure.BROKEN
                return await self._try(decision)
        except GateTimeoutError:
            self.is_silent(decision.backend)
            return Failure.BROKEN
        finally:
            self._site.router.refused(claim)  # of no effect once it was taken

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Its client is held meanwhile; in which time this process stood still, does not count."""
        began = running_time(self._site.stood)
        try:
            yield
        finally:
            self._left -= running_time(self._site.stood) - began

    def _broke(self) -> None:
        """A fault of ours."""
        self.give_up()
        self.ended()

    def failed(self, backend: Backend, error: ProxyError) -> Failure:
        """A try has met an error."""
        self._site.report(backend, error)
        if isinstance(error, (UpstreamTimeout, ConnectTimeout)):
            self.is_silent(backend)
        return Failure.BROKEN

    def tried(self, failure: Failure | None, machine: HandingOver) -> Failure | None:
        """A try has ended: an instance that goes away over a session may do so because of it."""
        self._broken += failure is Failure.BROKEN and machine.has_named
        return failure

    def is_silent(self, backend: Backend) -> None:
        """An instance has not answered in time: others are tried before it is again."""
        self._silent.add(backend.name)

    # What a subclass does

    async def _try(self, decision: Decision) -> Failure | None:
        """Have one instance go on with it; None: it does."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Have its client connect anew."""
        raise NotImplementedError

    def ended(self) -> None:
        """It is over, whatever came of it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from {self.old.name} {self.reason}>"
