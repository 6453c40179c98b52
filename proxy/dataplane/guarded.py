"""The client's side of a Socket.IO websocket: no CONNECT that names an odd session reaches the backend."""

import asyncio
from collections.abc import Callable

from proxy.dataplane.tunnel import End, Tunnel
from proxy.errors import OddId
from proxy.wire.guard import Guard, is_plain
from proxy.wire.websocket import POLICY_VIOLATION, FrameError


class ClientEnd(End):
    """Its last words tell whether the client has left or was lost."""

    __slots__ = ("_guard", "_refused")

    def __init__(self, tunnel: Tunnel, peer: asyncio.Transport, refused: Callable[[OddId], None]) -> None:
        """`refused` counts an odd session."""
        super().__init__(tunnel, peer)
        self._guard = Guard()
        self._refused = refused

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.received += len(data)
        self.reads += 1
        self.last = data
        self._tunnel.active = True
        if self._guard.between and is_plain(data):
            self._write(data)
        else:
            self._look(data)

    def _look(self, data: bytes) -> None:
        try:
            passed = self._guard.feed(data)
        except OddId as error:
            self._refused(error)
            refuse(self._tunnel, error)
        except FrameError:
            self._tunnel.close()
        else:
            if passed:
                self._write(passed)

    def eof_received(self) -> bool:
        """As asyncio.Protocol: a page says goodbye before it closes."""
        self.ended = True
        return not self._tunnel.client_lost(self.last) and self._tunnel.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol; when it ended its half, its backend was told."""
        if self.ended or not self._tunnel.client_lost(self.last):
            self._tunnel.close()


def refuse(tunnel: Tunnel, error: OddId) -> None:
    """Tell the client why its websocket ends; the backend hears nothing of it."""
    tunnel.say_goodbye(POLICY_VIOLATION, error.reason.encode())
