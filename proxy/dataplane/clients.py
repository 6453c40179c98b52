"""Who a client is, and how much of the proxy each one has at the moment.

A client is an address, or a network of 64 bits in IPv6: that is what one customer gets, who may take another
address for each connection. Trusted proxies are nobody's client; theirs are told apart by `client_address`.
"""

import ipaddress
import math

from proxy.config import LimitSettings
from proxy.dataplane.buckets import Buckets
from proxy.errors import Limit, OverLimit
from proxy.wire import reply
from proxy.wire.forwarding import Origin

_RETRY_AFTER = 5  # seconds: connections end by themselves, but not at once
_IPV6_CUSTOMER = 8  # bytes

REFUSALS = {
    limit: reply.reply(
        status, f"{status} {reason}\n".encode(), close=True, extra=b"Retry-After: %d\r\n" % _RETRY_AFTER
    )
    for limit, status, reason in (
        (Limit.CONNECTIONS, 503, "too many connections"),
        (Limit.CONNECTIONS_PER_CLIENT, 429, "too many connections of one client"),
    )
}
"""What a connection that is one too many is told before anything is read of it."""


def client_key(address: str) -> str:
    """What the client with an address is counted under."""
    if ":" not in address:
        return address
    try:
        return ipaddress.IPv6Address(address).packed[:_IPV6_CUSTOMER].hex()
    except ValueError:
        return address


class Rates:
    """How often each client may ask, and open Socket.IO sessions; owned by the Plane."""

    __slots__ = ("_requests", "_sessions")

    def __init__(self, limits: LimitSettings) -> None:
        rate, sessions = limits.requests_per_second, limits.sessions_per_minute
        self._requests = Buckets(rate, limits.burst) if rate else None
        self._sessions = Buckets(sessions / 60, sessions) if sessions else None

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return self._requests is not None or self._sessions is not None

    def over(self, client: str, now: float, *, opens: bool) -> OverLimit | None:
        """The limit that a client's request is over; `opens` says that it opens a Socket.IO session."""
        if self._requests is not None and (wait := self._requests.take(client, now)):
            return _too_many(Limit.REQUESTS_PER_SECOND, "too many requests", wait)
        if opens and self._sessions is not None and (wait := self._sessions.take(client, now)):
            return _too_many(Limit.SESSIONS_PER_MINUTE, "too many new sessions", wait)
        return None

    def sweep(self, now: float) -> None:
        """Forget clients that were not seen for a while; called every few seconds."""
        for buckets in (self._requests, self._sessions):
            if buckets is not None:
                buckets.sweep(now)

    def __repr__(self) -> str:
        return f"<Rates requests={self._requests!r} sessions={self._sessions!r}>"


def _too_many(limit: Limit, reason: str, wait: float) -> OverLimit:
    return OverLimit(limit, reason, status=429, retry_after=math.ceil(wait))


class Clients:
    """The open connections of each client, tunnels among them; owned by the Plane."""

    __slots__ = ("_limit", "_limit_per_client", "_open")

    def __init__(self, limits: LimitSettings) -> None:
        self._limit = limits.connections
        self._limit_per_client = limits.connections_per_client
        self._open: dict[str, int] = {}

    def change(self, limits: LimitSettings) -> None:
        """Hold new connections against other limits."""
        self._limit = limits.connections
        self._limit_per_client = limits.connections_per_client

    def over(self, origin: Origin, connections: int) -> Limit | None:
        """The limit that one more connection from there would be over; `connections` are open now."""
        if self._limit and connections >= self._limit:
            return Limit.CONNECTIONS
        if self._limit_per_client and not origin.trusted:
            open_now = self._open.get(client_key(origin.address), 0)
            if open_now >= self._limit_per_client:
                return Limit.CONNECTIONS_PER_CLIENT
        return None

    def arrived(self, origin: Origin) -> str:
        """Count a connection; return what `left` is to be told when it ends."""
        if origin.trusted or not self._limit_per_client:
            return ""
        client = client_key(origin.address)
        self._open[client] = self._open.get(client, 0) + 1
        return client

    def left(self, client: str) -> None:
        """A connection has ended."""
        if not client:
            return
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Clients {len(self._open)}>"
