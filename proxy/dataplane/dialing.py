"""Opens a connection for an exchange, without a task where nothing has to be looked up or agreed on.

Most backends are an address, without TLS: a socket sets out there (`net.reach`), is there at once if the
backend is on this machine, and is else looked at when it can be written to or its time is up. The name of a
host, TLS and a socket file take a task, which awaits the pool.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from proxy import net
from proxy.borders import Border, Where, Work, fault
from proxy.dataplane.patience import Timer
from proxy.dataplane.pool import Pool
from proxy.dataplane.upstream import CLOSED_AT_ONCE, Upstream
from proxy.errors import ConnectTimeout, ProxyError, UpstreamClosed

Then = Callable[[Upstream | ProxyError], None]
"""Is told what came of it: a connection, or why there is none."""


class Dial(Protocol):
    """One that is under way."""

    def cancel(self) -> object:
        """Nobody is to be told any more; what is open is closed."""
        ...


class Place(Protocol):
    """What it needs of the site."""

    loop: asyncio.AbstractEventLoop

    def spawn(self, work: Work, give_up: Callable[[], None]) -> asyncio.Task[None]:
        """Run work; if it fails by a fault of ours, `give_up`."""
        ...


def dial(site: Place, pool: Pool, then: Then, give_up: Callable[[], None]) -> Dial:
    """Open a connection to a pool's backend within `timeouts.connect`, and tell `then`: later, and once.

    `give_up` is called if `then` fails by a fault of ours.
    """
    backend = pool.backend
    if backend.path or backend.tls or not net.is_address(backend.host):
        return site.spawn(lambda: _await(pool, then), give_up)
    return _PlainDial(site.loop, pool, then, give_up)


async def _await(pool: Pool, then: Then) -> None:
    try:
        upstream = await pool.connect()
    except ProxyError as error:
        then(error)
    else:
        then(upstream)


class _PlainDial:
    """A connection to an address, without TLS."""

    __slots__ = ("_begun", "_give_up", "_loop", "_making", "_pool", "_sock", "_then", "_timer", "_upstream")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pool: Pool, then: Then, give_up: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._then: Then | None = then  # None: nobody is to be told
        self._give_up = give_up
        self._begun = monotonic()
        self._sock: socket.socket | None = None  # set until its transport is made
        self._timer: Timer | None = None  # set while it is on its way
        self._making: Coroutine[Any, Any, object] | None = None  # set from then on, driven without a task
        self._upstream: Upstream | None = None  # set with that
        backend = pool.backend
        try:
            self._sock = net.begin(backend.host)
            if self._is_there() or self._is_there():
                self._make()
            else:
                self._timer = Timer(pool.stood, pool.connect_timeout, self._late)
                loop.add_writer(self._sock, self._look)
        except ProxyError as error:
            loop.call_soon(self._fail, error)  # later: whoever is told may dial anew

    def _is_there(self) -> bool:
        """Raises ProxyError."""
        assert self._sock is not None
        return net.reach(self._sock, self._pool.backend.host, self._pool.backend.port)

    def _look(self) -> None:
        try:
            if not self._is_there():
                return
        except ProxyError as error:
            self._fail(error)
            return
        self._wait_no_more()
        self._make()

    def _late(self) -> None:
        self._fail(ConnectTimeout(f"no connection within {self._pool.connect_timeout:g} s"))

    def _make(self) -> None:
        """Have the loop make a transport of the socket: it needs a turn for that."""
        self._upstream = upstream = Upstream(self._pool)
        self._making = self._loop.create_connection(lambda: upstream, sock=self._sock)
        self._making.send(None).add_done_callback(self._made)

    def _made(self, _: object) -> None:
        making, upstream = self._making, self._upstream
        assert making is not None
        assert upstream is not None
        if upstream.transport.is_closing():
            making.close()  # it lets go of the socket, whose number may be another's by now
            self._tell(UpstreamClosed(CLOSED_AT_ONCE))
            return
        with suppress(StopIteration):
            making.send(None)
        if self._then is None:
            upstream.transport.abort()
        else:
            self._pool.opened(upstream, self._begun)
            self._tell(upstream)

    def _fail(self, error: ProxyError) -> None:
        self._drop()
        self._tell(error)

    def _tell(self, what: Upstream | ProxyError) -> None:
        then, self._then = self._then, None
        if then is not None:
            try:
                then(what)
            except Exception as error:
                fault(Where.TASK, error)
                with Border(Where.TASK):
                    self._give_up()

    def _wait_no_more(self) -> None:
        if self._timer is not None and self._sock is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.remove_writer(self._sock)

    def _drop(self) -> None:
        self._wait_no_more()
        if self._sock is not None:
            self._sock.close()

    def cancel(self) -> None:
        """As Dial; one whose transport is being made is closed by `_made`."""
        self._then = None
        if self._making is None:
            self._drop()

    def __repr__(self) -> str:
        state = "making" if self._making is not None else "waiting" if self._timer is not None else "over"
        return f"<Dial to {self._pool.backend.name} {state}>"
