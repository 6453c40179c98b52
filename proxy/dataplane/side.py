"""One side of a websocket whose session is not known yet: all that comes is heard by its opening."""

from typing import Protocol

from proxy.affinity.decision import Decision
from proxy.dataplane.ends import End, Stream
from proxy.dataplane.leg import Leg


class Owner(Protocol):
    """What an opening needs of the exchange that became its tunnel."""

    def choose(self, decision: Decision) -> None:
        """Take a decision."""
        ...

    def let_go(self) -> None:
        """What was read of the request's fields is needed no more."""
        ...


class Watcher(Protocol):
    """Who reads a tunnel before it is plain: see `opening`."""

    def received(self, side: "Side", data: bytes) -> None:
        """Bytes came."""
        ...

    def side_ended(self, side: "Side") -> bool:
        """A side has said all; return whether the other may go on."""
        ...

    def lost(self, side: "Side") -> None:
        """A connection is gone."""
        ...


class Side(End):
    """One side of a tunnel that is not plain yet; counts from the CONNECT on."""

    __slots__ = ("_opening",)

    def __init__(self, opening: Watcher, stream: Stream, leg: Leg, peer: Leg) -> None:
        super().__init__(stream, leg, peer)
        self._opening = opening

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.last = data
        self._opening.received(self, data)

    def eof_received(self) -> bool:
        """As asyncio.Protocol: a side may say no more while the answer to CONNECT is awaited, as later."""
        self.ended = True
        return self._opening.side_ended(self) and super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._opening.lost(self)
