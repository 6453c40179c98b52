"""What the plane, evictions and the end of the process need of a client's connection, in either protocol."""

from typing import Protocol

from proxy.dataplane.exchange import Exchange
from proxy.dataplane.leg import Leg

AGAIN = 0.5  # seconds in which a client that has connected or was answered asks: within a round trip or two


class Connection(Protocol):
    """A client's connection in either protocol, or a stream of one, which is looked at as another."""

    @property
    def exchange(self) -> Exchange | None:
        """What is under way on it."""
        ...

    @property
    def leg(self) -> Leg:
        """Its transport."""
        ...

    @property
    def waits_for_news(self) -> bool:
        """Whether all that is under way on it may be ended without loss."""
        ...

    def leave(self) -> None:
        """The process is to end: take nothing new."""
        ...

    def tick(self, now: float) -> None:
        """Act when a time is over."""
        ...

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        ...

    def forget(self) -> None:
        """What was read of fields is read anew."""
        ...

    def cut(self) -> None:
        """End at once."""
        ...


class Multiplexed(Connection, Protocol):
    """A connection in HTTP/2, whose streams are connections as well: its module is loaded where TLS is."""

    port: int  # of its listener

    @property
    def requests(self) -> int:
        """How many are open on it, without those that have become websockets."""
        ...
