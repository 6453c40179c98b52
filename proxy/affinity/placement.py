"""Placement: which backend a new session goes to. Weighted rendezvous hashing with bounded load.

Every backend scores every key (Thaler and Ravishankar 1998; the logarithm makes weights exact), the best
score wins, so a backend that leaves moves only its own keys. A backend that already has `bound` times its
share of all sessions is passed over (Mirrokni, Thorup and Zadimoghaddam 2018). What was just placed counts as
load until its session arrives, for some seconds at most, what it has not answered yet until it does, and one
that answers nothing for a moment comes behind all others: its app blocks it, and no probe need have told yet.
One key that comes again meanwhile goes where
it went, so that the parallel first requests of a browser agree; unless it comes more often than one
browser does, for behind one address there may be a whole office.
"""

import hashlib
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from proxy.affinity.backend import Backend

_RESERVED = 5.0  # seconds: a browser's CONNECT follows its handshake within a round trip or two
_REMEMBERED = 4096  # keys: more than arrive in those seconds on one core
_AT_ONCE = 6  # places: a browser opens no more connections to one host than this


class _Recent(NamedTuple):
    """Where a key went, and how many places were reserved for it there."""

    backend: Backend
    until: float
    reserved: int


class Placement:
    """Places keys; owned by the router."""

    __slots__ = ("_arrived", "_recent", "_reserved", "bound", "slow_start")

    def __init__(self, bound: float = 1.25, slow_start: float = 10.0) -> None:
        self.bound = bound
        self.slow_start = slow_start  # seconds over which a backend that came back gets its full share
        self._recent: OrderedDict[bytes, _Recent] = OrderedDict()
        self._reserved: dict[Backend, deque[float]] = {}  # until when, for each place
        self._arrived: dict[Backend, int] = {}  # of those, its sessions when they were last looked at

    def place(
        self,
        key: bytes,
        backends: Iterable[Backend],
        now: float,
        *,
        avoid: Collection[str] = (),
        reserve: bool = False,
    ) -> Backend | None:
        """The backend for `key` among those that take sessions, or None.

        Those named in `avoid` come last, before them those that are quiet, those that are full, then those
        that are outdated: what is placed during a rollout goes where it can stay. With `reserve` the place
        counts as load for some seconds.
        """
        self._release(now)
        able = [backend for backend in backends if backend.takes_sessions]
        able = [backend for backend in able if backend.name not in avoid] or able
        able = [backend for backend in able if not backend.is_quiet(now)] or able
        able = [backend for backend in able if not self._is_full(backend)] or able
        able = [backend for backend in able if not backend.outdated] or able
        if not able:
            return None
        recent = self._again(key, able, now, reserve=reserve)
        if recent is None:
            recent = _Recent(self._first_with_room(key, able, now), now + _RESERVED, 0)
        backend = recent.backend
        self._recent[key] = _Recent(backend, recent.until, recent.reserved + 1) if reserve else recent
        self._recent.move_to_end(key)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        if reserve:
            self._reserve(backend, now + _RESERVED)
        return backend

    def forget(self, key: bytes) -> None:
        """It is placed anew next time, wherever it went a moment ago."""
        self._recent.pop(key, None)

    def preference(self, key: bytes, backends: Iterable[Backend], now: float) -> Iterator[Backend]:
        """The backends in the order in which `key` prefers them."""
        scored = [
            (-self._weight(backend, now) / _cost(key, backend), backend.name, backend) for backend in backends
        ]
        scored.sort()  # no two have the same name
        return (backend for _, _, backend in scored)

    def _again(self, key: bytes, able: list[Backend], now: float, *, reserve: bool) -> _Recent | None:
        """Where the key went a moment ago; its own reservations are no reason to part it."""
        recent = self._recent.get(key)
        if recent is None or recent.until <= now or recent.backend not in able:
            return None
        if not reserve or recent.reserved < _AT_ONCE or self._has_room(recent.backend, able, now):
            return recent
        return None

    def _first_with_room(self, key: bytes, able: list[Backend], now: float) -> Backend:
        if len(able) == 1:
            return able[0]
        order = list(self.preference(key, able, now))
        for backend in order:
            if self._has_room(backend, able, now):
                return backend
        return order[0]

    def _has_room(self, backend: Backend, able: list[Backend], now: float) -> bool:
        total, weights = 1, 0.0
        for other in able:
            total += self._load(other)
            weights += self._weight(other, now)
        share = self._weight(backend, now) / weights
        return self._load(backend) < math.ceil(self.bound * total * share)

    def _is_full(self, backend: Backend) -> bool:
        """Whether it has as many sessions as it may have, with those whose place is reserved."""
        reserved = len(self._reserved.get(backend, ()))
        return 0 < backend.most_sessions <= backend.sessions + max(backend.claimed, reserved)

    def _load(self, backend: Backend) -> int:
        reserved = self._reserved.get(backend)
        return backend.sessions + backend.unanswered + (len(reserved) if reserved else 0)

    def _weight(self, backend: Backend, now: float) -> float:
        returned = backend.health.returned
        if returned is None or now - returned >= self.slow_start:
            return backend.weight
        # A tenth at once, so that it is used at all, the rest in time.
        return backend.weight * max(0.1, (now - returned) / self.slow_start)

    def _reserve(self, backend: Backend, until: float) -> None:
        reserved = self._reserved.get(backend)
        if reserved is None:
            reserved = self._reserved[backend] = deque()
            self._arrived[backend] = backend.arrived
        reserved.append(until)

    def _release(self, now: float) -> None:
        """A place is reserved no longer once a session has come to that backend, for then that one counts."""
        for backend, reserved in list(self._reserved.items()):
            came = backend.arrived - self._arrived[backend]
            self._arrived[backend] = backend.arrived
            while reserved and (came > 0 or reserved[0] <= now):
                reserved.popleft()
                came -= 1
            if not reserved:
                del self._reserved[backend], self._arrived[backend]


def _cost(key: bytes, backend: Backend) -> float:
    """-ln of the key's uniform draw for this backend: an exponential variate, the smaller the better."""
    digest = hashlib.blake2b(b"%b\0%b" % (backend.name.encode(), key), digest_size=8).digest()
    # 52 bits and a half: never 0 and never 1 as a float either.
    return -math.log(((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52)
