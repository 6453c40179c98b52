"""A TCP load balancer of a test's own: each connection goes to another proxy, whoever makes it.

Where asked to it has clients make a connection for each request, so that requests alternate too.
"""

import asyncio
import itertools
import re
from collections.abc import Collection
from typing import Self, cast

from tests.support.processes import free_port

_CONNECTION = re.compile(rb"(?i)\r\nConnection: *keep-alive")
_CLOSE = b"\r\nConnection: close"


class Side(asyncio.Protocol):
    """One side of a connection; what it reads the other side writes."""

    def __init__(self, balancer: "Balancer", other: "Side | None" = None) -> None:
        self.transport: asyncio.Transport | None = None  # set while it is open
        self._balancer = balancer
        self._other = other
        self._early = b""  # what came before there was another side
        self._closes = other is None and balancer.each_request  # whether the head of its request is to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._balancer.open.add(self)
        if self._other is None:
            self._balancer.carry(self)

    def join(self, other: "Side") -> None:
        """The other side is there."""
        self._other = other
        if self.transport is None:
            other.break_off()
        elif self._early:
            other.write(self._early)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self._closes:
            self._closes = False
            data = _closing(data)
        if self._other is None:
            self._early += data
        else:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        """Pass on what the other side has read."""
        if self.transport is not None:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol: the other side ends as this one did."""
        self.transport = None
        self._balancer.open.discard(self)
        if self._other is not None and self._other.transport is not None:
            if exc is None:
                self._other.transport.close()
            else:
                self._other.break_off()

    def break_off(self) -> None:
        """End at once."""
        if self.transport is not None:
            self.transport.abort()


def _closing(head: bytes) -> bytes:
    """The head of a request that is the only one on its connection; an upgrade's stays."""
    if b"\r\nupgrade:" in head.lower():
        return head
    closing, found = _CONNECTION.subn(_CLOSE, head, count=1)
    return closing if found else head.replace(b"\r\n", _CLOSE + b"\r\n", 1)


class Balancer:
    """Knows nothing but TCP; `async with Balancer([8001, 8002])`.

    A port that refuses a connection is passed over, as by a balancer's health check.
    """

    def __init__(self, ports: Collection[int], *, each_request: bool = False) -> None:
        self.each_request = each_request
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.carried = dict.fromkeys(ports, 0)  # connections
        self.open: set[Side] = set()
        self._ports = itertools.cycle(ports)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Side(self), "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        while self.open:
            for side in list(self.open):
                side.break_off()
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def carry(self, client: Side) -> None:
        """A connection was made."""
        task = asyncio.ensure_future(self._carry(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: Side) -> None:
        loop = asyncio.get_running_loop()
        for port in itertools.islice(self._ports, len(self.carried)):
            try:
                _, proxy = await loop.create_connection(lambda: Side(self, client), "127.0.0.1", port)
            except OSError:
                continue
            self.carried[port] += 1
            client.join(proxy)
            return
        client.break_off()
