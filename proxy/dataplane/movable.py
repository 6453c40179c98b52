"""A tunnel whose session another backend can go on with: see `hand_overs`."""

import asyncio
from time import monotonic
from typing import Protocol

from proxy.affinity.decision import EngineSession
from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken
from proxy.dataplane.ends import AppEnd, ClientEnd, End
from proxy.dataplane.leg import Leg
from proxy.dataplane.linger import LingeringEnd, Lingers
from proxy.dataplane.pool import Pool
from proxy.dataplane.resuming import ResumedEnd
from proxy.dataplane.stats import Stats
from proxy.dataplane.upstream_heads import Kept
from proxy.wire.engineio import PING
from proxy.wire.websocket import TEXT, server_frame


class HandOver(Protocol):
    """A hand-over that is under way: see `hand_over`."""

    def backend_lost(self) -> None:
        """The backend that the tunnel leads to is down."""
        ...

    def stop(self) -> None:
        """The tunnel has ended."""
        ...


class Preface(Protocol):
    """Who has the tunnel before it is plain."""

    def tick(self, now: float) -> None:
        """Act when a time is over."""
        ...

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        ...

    def stop(self) -> None:
        """It has ended."""
        ...


class Movable:
    """What a tunnel does for that; it sets the attributes."""

    __slots__ = (
        "_closed",
        "_down_end",
        "_lingers",
        "_up_end",
        "between",
        "down",
        "engine",
        "hand_over",
        "is_sure",
        "kept",
        "pinged_at",
        "pool",
        "session",
        "stats",
        "untaken",
        "up",
    )

    def __init__(self, down: Leg, up: Leg, pool: Pool, lingers: Lingers) -> None:
        self.down = down
        self.up = up
        self.pool = pool
        self._lingers = lingers
        self.session: Session | None = None  # set when its CONNECT was taken
        self.is_sure = True  # whether that is its client's, so that it may get what is kept of it
        self.between: asyncio.Protocol | None = None  # who makes plain what its client says, if it has to be
        self.engine: EngineSession | None = None  # set when it is the upgrade of a polling transport
        self.stats: Stats | None = None  # set for a Socket.IO websocket, whose CONNECT packets are read
        self.untaken = Untaken()  # the client's messages that its backend may not have taken
        self.kept: Kept | None = None  # what is said again to another backend; None: none can go on with it
        self.hand_over: HandOver | None = None  # while it is handed over
        self.pinged_at = monotonic()  # when its client last got Engine.IO's ping
        self._closed = False
        self._down_end: End | None = None  # set when it is watched or plain
        self._up_end: End | None = None

    def say_ping(self) -> None:
        """Say Engine.IO's ping in place of a backend that does not: only a ping tells the client to go on.

        Its answer goes nowhere. Not in the middle of a packet, nor while the client still polls.
        """
        client = self._down_end
        if isinstance(client, ClientEnd) and client.packets.upgraded and self._is_between_packets:
            client.packets.owed_pongs += 1
            self.pinged_at = monotonic()
            if self.stats is not None:
                self.stats.pings += 1
            self.down.say(server_frame(TEXT, PING))

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._closed

    @property
    def is_cut_off(self) -> bool:
        """As Connected."""
        return not self._closed and self.down.sent is not None and self.down.sent.is_cut_off

    @property
    def has_upgraded(self) -> bool:
        """Whether its client speaks here, and polls no more."""
        client = self._down_end
        return isinstance(client, ClientEnd) and client.packets.upgraded

    @property
    def _is_between_packets(self) -> bool:
        backend = self._up_end
        return isinstance(backend, AppEnd) and backend.is_between and self.down.may_write

    @property
    def can_move(self) -> bool:
        """Whether another backend could go on with it: both sides are between two packets.

        And what it may not have taken can be said again.
        """
        client = self._down_end
        return (
            self.kept is not None
            and self.untaken.are_known
            and not self._closed
            and type(self._up_end) is AppEnd
            and self._is_between_packets
            and isinstance(client, ClientEnd)
            and client.may_move
        )

    @property
    def waiting_client(self) -> ClientEnd | None:
        """Its client's side, while half a packet of it waits for the rest."""
        client = self._down_end
        if not isinstance(client, ClientEnd) or self._closed or self.hand_over is not None:
            return None
        return client if client.packets.waiting else None

    def forget(self) -> None:
        """No other backend can be told of it from now on, unless that is under way."""
        if self.hand_over is None:
            self.kept = None

    @property
    def backend_end(self) -> AppEnd | None:
        """Its backend's side, once it is the plain one of a session."""
        return self._up_end if isinstance(self._up_end, AppEnd) else None

    def go_on_at(self, end: AppEnd) -> None:
        """It was handed over: `end` takes what its new backend says, and gets what the client says."""
        self.hand_over = None
        self.read_backend_with(end)
        if isinstance(self._down_end, ClientEnd):
            self._down_end.lead_to(self.up)

    def _begin(self) -> LingeringEnd | None:
        return self._lingers.began_on(self, plain=self.between is None)

    def _owned(self, resumed: ResumedEnd, answered: bool, is_its: bool) -> None:
        """Its instance has told whether the session is its client's."""
        if self._closed or self._up_end is not resumed:
            return
        self.is_sure = is_its
        lingering = self._begin() if is_its else None
        if answered and lingering is not None:
            resumed.resume(lingering)
        else:
            resumed.go_on()

    def backend_gone(self, *, ends: bool = False) -> bool:
        """As Stream."""
        if self._closed:
            return False
        if self.hand_over is None and self.can_move:
            self.hand_over = self._lost(ends=ends)
        return self.hand_over is not None

    def client_lost(self, heard: bytes = b"") -> bool:
        """As Stream."""
        raise NotImplementedError

    def _lost(self, *, ends: bool) -> HandOver | None:
        """Its backend is lost, or says that it ends: have another go on, if one can."""
        raise NotImplementedError

    def read_backend_with(self, end: End) -> None:
        """From now on `end` takes what the backend says."""
        end.follow(self._up_end)
        self._up_end = end
        self.up.read_with(end)
