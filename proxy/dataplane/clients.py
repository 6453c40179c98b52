"""Who a client is, and how much of the proxy each one has at the moment.

A client is an address, or a network of 64 bits in IPv6: that is what one customer gets, who may take another
address for each connection. Trusted proxies are nobody's client; theirs are told apart by `client_address`.
"""

import asyncio
import ipaddress
import math
import socket

from proxy.config.sections import LimitSettings
from proxy.dataplane.buckets import Buckets
from proxy.dataplane.dates import dated
from proxy.errors import Limit, OverLimit
from proxy.wire import reply
from proxy.wire.forwarding import UNIX, Origin

_RETRY_AFTER = 5  # seconds: connections end by themselves, but not at once
_IPV6_CUSTOMER = 8  # bytes

LIMIT_REPLIES = {
    limit: reply.error(status, reason, retry_after=_RETRY_AFTER)
    for limit, status, reason in (
        (Limit.CONNECTIONS, 503, "too many connections"),
        (Limit.CONNECTIONS_PER_CLIENT, 429, "too many connections of one client"),
    )
}
_REFUSALS = {limit: answer.http1(close=True) for limit, answer in LIMIT_REPLIES.items()}


def refusal(limit: Limit) -> bytes:
    """What a connection in HTTP/1.1 that is one too many is told before anything is read of it."""
    return dated(_REFUSALS[limit])


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Who is at the other end of a connection, "" where nobody knows any more: it has been reset."""
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        return str(peer[0])
    sock = transport.get_extra_info("socket")
    return UNIX if sock is not None and sock.family == socket.AF_UNIX else ""


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
        """The limit that a client's request is over; `opens` says that it opens a Socket.IO session.

        A request that is counted for nobody, whose client is "", is over none.
        """
        if not client:
            return None
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


class Ticket:
    """One connection, as Clients counts it; whoever holds it gives it back once, more often does no harm."""

    __slots__ = ("_client", "_clients")

    def __init__(self, clients: "Clients", client: str) -> None:
        self._clients: Clients | None = clients
        self._client = client

    def give_back(self) -> None:
        """The connection has ended, or is counted otherwise from now on."""
        clients, self._clients = self._clients, None
        if clients is not None:
            clients.left(self._client)

    def __repr__(self) -> str:
        return f"<Ticket {self._client} {'given back' if self._clients is None else 'held'}>"


class Clients:
    """The open connections of each client from accept on, tunnels among them; owned by the Site."""

    __slots__ = ("_limit", "_limit_per_client", "_open", "total")

    def __init__(self, limits: LimitSettings) -> None:
        self.total = 0  # of connections
        self._open: dict[str, int] = {}
        self.configure(limits)

    def configure(self, limits: LimitSettings) -> None:
        """Hold new connections against other limits."""
        self._limit = limits.connections
        self._limit_per_client = limits.connections_per_client

    def over(self, origin: Origin) -> Limit | None:
        """The limit that one more connection from there would be over."""
        if self._limit and self.total >= self._limit:
            return Limit.CONNECTIONS
        if self._limit_per_client and not origin.trusted:
            open_now = self._open.get(client_key(origin.address), 0)
            if open_now >= self._limit_per_client:
                return Limit.CONNECTIONS_PER_CLIENT
        return None

    def arrived(self, origin: Origin) -> Ticket:
        """Count a connection until its ticket is given back."""
        self.total += 1
        client = ""
        if self._limit_per_client and not origin.trusted:
            client = client_key(origin.address)
            self._open[client] = self._open.get(client, 0) + 1
        return Ticket(self, client)

    def left(self, client: str) -> None:
        """A connection has ended; called by its ticket."""
        self.total -= 1
        if not client:
            return
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Clients {len(self._open)}, {self.total} connections>"
