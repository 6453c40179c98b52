"""The instance that a session leaves in a planned move, until it has put down what it has.

See `websocket_hand_over`. What it still says for the client goes on in whole packets; what it says of its own
end does not.
"""

import asyncio

from proxy.dataplane.ends import AppEnd
from proxy.dataplane.tunnel import Tunnel
from proxy.wire.engineio import NOOP, PING
from proxy.wire.packets import GOODBYES, BackendPackets
from proxy.wire.websocket import FrameError

_OF_ITS_END = (NOOP, PING, *GOODBYES)  # what it says that is not for the client


class _Packets(BackendPackets):
    """What the instance before says at last; its goodbye is not for the client."""

    __slots__ = ("has_parted",)

    def __init__(self) -> None:
        super().__init__()
        self.has_parted = False

    def _hear(self, payload: bytes) -> bool:
        self.has_parted = self.has_parted or payload == NOOP or payload in GOODBYES
        return payload not in _OF_ITS_END


class PartingEnd(AppEnd):
    """The side of the instance before while it puts down what it has; its client gets what it still says."""

    __slots__ = ("_last", "over")

    def __init__(self, tunnel: Tunnel, before: AppEnd) -> None:
        assert tunnel.session is not None
        super().__init__(tunnel, tunnel.up, tunnel.down, tunnel.session, tunnel.untaken)
        self._packets = self._last = _Packets()
        self.over = asyncio.Event()  # set when it says no more
        if before.rest:
            self._pass(before.rest)
        if before.words:
            self.end()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.received += len(data)
        self.reads += 1
        if not self.over.is_set():
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        packets = self._last
        try:
            passed, whole = packets.feed_whole(data)
        except FrameError:
            self.end()
            return
        if passed := passed.removesuffix(packets.goodbye):
            self._find_turns(passed)
            self.peer.say(passed, whole=whole)
        if packets.has_parted or packets.goodbye:
            self.end()

    def eof_received(self) -> bool:
        """As asyncio.Protocol."""
        self.end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.end()

    def end(self) -> None:
        """It says no more."""
        self.over.set()
