"""Listeners whose trusted peers say first whom a connection is for: `forwarded.proxy_protocol`.

Each connection of an address in `forwarded.trusted`, and each on a unix socket, has to begin with a PROXY
header within `timeouts.head`; without one it is closed, for nobody would know whose it is. Anybody else
speaks HTTP at once, and is refused with a header as with any other bytes that are no request. The header is
taken off the socket before the event loop has it, byte for byte, so that what follows may be TLS.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from proxy.dataplane.dates import dated
from proxy.wire import reply
from proxy.wire.forwarding import UNIX
from proxy.wire.proxy_protocol import LONGEST, ProxyHeaderError, read_proxy_header

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane

log = logging.getLogger("proxy.dataplane")

_AT_ONCE = 64  # connections accepted in one turn of the loop, so that others have theirs
_PAUSE = 0.5  # seconds without accepting after the system had no descriptor for us
_REPORT = 60.0  # seconds between two lines on connections without a header

_REFUSAL = reply.error(
    400,
    "a connection of a trusted proxy has to begin with a PROXY header",
    request_id=b"",
    wants_page=False,
    close=True,
)
"""What a trusted peer is told that says something else; on a TLS listener it could not read it."""


class Greeter:
    """Accepts the connections of one listening socket; made by the Doors, which close it."""

    def __init__(
        self,
        plane: "Plane",
        sock: socket.socket,
        client: Callable[..., asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """`client` makes the protocol of a connection, from its header's address or else its peer's."""
        self.plane = plane
        self.tls = None if sock.family == socket.AF_UNIX else tls
        self.greetings: set[Greeting] = set()
        self._sock = sock
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._report_next = 0.0
        self._wakes: asyncio.TimerHandle | None = None  # set while nothing is accepted
        self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be accepted: %s", error.strerror)
                self._loop.remove_reader(self._sock)
                self._wakes = self._loop.call_later(_PAUSE, self._loop.add_reader, self._sock, self._accept)
                return
            sock.setblocking(False)
            address = UNIX if self._sock.family == socket.AF_UNIX else str(peer[0])
            if self.plane.origin(address).trusted:
                self.greetings.add(Greeting(self, sock, address))
            else:
                self.admit(sock, address)

    def admit(self, sock: socket.socket, client: str) -> None:
        """Let HTTP begin, with TLS before it where the listener has it."""
        self.plane.spawn(self._admit(sock, client), sock.close)

    async def _admit(self, sock: socket.socket, client: str) -> None:
        options = {} if self.tls is None else {"ssl_handshake_timeout": self.plane.timeouts.head}
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._client(client), sock, ssl=self.tls, **options
            )
        except OSError:
            sock.close()  # it has gone, or speaks no TLS: nobody is left to be told

    def refused(self, peer: str, why: str) -> None:
        """A trusted peer did not say whom it is for."""
        self.plane.stats.proxy_headers_refused += 1
        now = monotonic()
        if now >= self._report_next:
            self._report_next = now + _REPORT
            log.warning("%s sent no valid PROXY header: %s; see forwarded.proxy_protocol", peer, why)

    def close(self) -> None:
        """Accept nothing more, and let go who has not said whom it is for."""
        if self._wakes is not None:
            self._wakes.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for greeting in list(self.greetings):
            greeting.close()

    def __repr__(self) -> str:
        return f"<Greeter greetings={len(self.greetings)}>"


class Greeting:
    """A connection of a trusted peer until its header is whole; owned by its Greeter."""

    __slots__ = ("_begun", "_greeter", "_loop", "_peer", "_sock", "_timer")

    def __init__(self, greeter: Greeter, sock: socket.socket, peer: str) -> None:
        self._greeter = greeter
        self._sock = sock
        self._peer = peer
        self._begun = b""  # of the header, taken off the socket
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(greeter.plane.timeouts.head, self._late)
        self._loop.add_reader(sock, self._look)

    def _look(self) -> None:
        try:
            # Only looked at: what stands behind the header is for those who come after us.
            data = self._sock.recv(LONGEST, socket.MSG_PEEK)
            if not data:
                self.close()  # a load balancer that looks whether somebody listens
                return
            header = read_proxy_header(self._begun + data)
            mine = len(data) if header is None else header.length - len(self._begun)
            self._begun += self._sock.recv(mine)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._end()
            self._greeter.admit(self._sock, header.client or self._peer)

    def _late(self) -> None:
        self._greeter.refused(self._peer, "it did not come in time")
        self.close()

    def _refuse(self, why: str) -> None:
        self._greeter.refused(self._peer, why)
        if self._greeter.tls is None:
            try:
                self._sock.recv(LONGEST)  # unread bytes would reset the connection and take the answer away
                self._sock.send(dated(_REFUSAL))
            except OSError:
                pass
        self.close()

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._greeter.greetings.discard(self)

    def close(self) -> None:
        """Let the connection go."""
        self._end()
        self._sock.close()
