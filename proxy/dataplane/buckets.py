"""How fast each client may do something: one token bucket per client, in a table of bounded size.

A bucket is kept as the time at which it will be full again (the generic cell rate algorithm): one number per
client, and a client whose time has passed need not be remembered. Nothing here knows a clock.
"""

from collections import OrderedDict
from itertools import islice

MOST_CLIENTS = 65_536  # some 10 MB; who was not seen for longest is forgotten, and starts with a full bucket


class Bucket:
    """The bucket of one connection, from which any number may be taken at once; owned by it."""

    __slots__ = ("_interval", "_slack", "full")

    def __init__(self, rate: float, burst: float) -> None:
        """As Buckets."""
        self._interval = 1 / rate
        self._slack = self._interval * burst
        self.full = 0.0  # when it is full again

    def take(self, count: float, now: float) -> bool:
        """Take tokens, or with a negative `count` put some in; return whether there were as many."""
        self.full = max(self.full, now) + count * self._interval
        return self.full - now <= self._slack

    def __repr__(self) -> str:
        return f"<Bucket full at {self.full}>"


class Buckets:
    """The buckets of all clients for one limit; owned by the Plane."""

    __slots__ = ("_full", "_interval", "_most", "_slack")

    def __init__(self, rate: float, burst: int, most: int = MOST_CLIENTS) -> None:
        """`rate` tokens come per second, at most `burst` are in a bucket."""
        self._interval = 1 / rate  # seconds until the next token
        self._slack = self._interval * (burst - 1 + 1e-6)  # sums of floats are a little off
        self._most = most
        self._full: OrderedDict[str, float] = (
            OrderedDict()
        )  # when each bucket is full again, the longest not seen first

    def take(self, client: str, now: float) -> float:
        """Take a token; return 0, or the seconds after which there will be one."""
        table = self._full
        full = table.get(client)
        if full is None:
            if len(table) >= self._most:
                table.popitem(last=False)
        else:
            table.move_to_end(client)
        if full is None or full < now:
            full = now
        wait = full - now - self._slack
        if wait > 0:
            return wait
        table[client] = full + self._interval
        return 0.0

    def give_back(self, client: str) -> None:
        """A token that was taken was not needed."""
        if client in self._full:
            self._full[client] -= self._interval

    def sweep(self, now: float, most: int = 1000) -> None:
        """Forget clients whose bucket is full, looking at the `most` that were not seen for longest."""
        for client in list(islice(self._full, most)):
            if self._full[client] <= now:
                del self._full[client]

    def __len__(self) -> int:
        return len(self._full)

    def __repr__(self) -> str:
        return f"<Buckets clients={len(self._full)}>"
