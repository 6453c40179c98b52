"""What all hostile clients share: connections from addresses of their own, and what they may be answered."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Protocol

from tests.dataplane.chat import PATH, connect_packet
from tests.dataplane.frames import Socket, upgrade
from tests.dataplane.peers import Cut, Message, Peer, get
from tests.hostile.site import Site

MOMENT, MOMENTS = 0.05, 20  # so many of these seconds without a byte show that nothing more is taken


class Ground(Protocol):
    """Where strangers need nothing but the proxy's port."""

    @property
    def port(self) -> int:
        """Where clients connect."""
        ...


Action = Callable[[Site, Random], Awaitable[None]]
Simple = Callable[[Ground, Random], Awaitable[None]]  # an action anywhere
# Loopback addresses that ordinary users do not have: what is counted by client is not counted for these.
_addresses = itertools.cycle([f"127.0.0.{number}" for number in range(60, 90)])


def next_address() -> str:
    """Where the next stranger comes from."""
    return next(_addresses)


@asynccontextmanager
async def stranger(site: Ground, address: str = "", port: int = 0) -> AsyncIterator[Peer]:
    """A connection to the proxy, or to the second one's port, which is reset in the end if it is open."""
    local = (address or next_address(), 0)
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port or site.port, local_addr=local))
    try:
        yield peer
    finally:
        await let_go(peer)


async def let_go(peer: Peer) -> None:
    """Reset a connection, and wait until it is gone from this process too."""
    peer.reset()
    with contextlib.suppress(ConnectionError):
        await peer.writer.wait_closed()


@asynccontextmanager
async def strangers(site: Ground, count: int) -> AsyncIterator[list[Peer]]:
    """So many at once, all of one address."""
    address = next_address()
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stranger(site, address)) for _ in range(count)]


async def answered(peer: Peer, request: bytes) -> Message:
    """The answer to a request."""
    return await peer.say(request).response()


async def status(peer: Peer, request: bytes) -> int:
    """The status of the answer, 0 if the connection was closed without one."""
    try:
        return (await answered(peer, request)).status
    except Cut:
        return 0


async def websocket(peer: Peer, sid: bytes = b"", path: bytes = PATH) -> Socket:
    """A websocket, after its 101."""
    answer = await answered(peer, upgrade(path + b"websocket" + (b"&sid=" + sid if sid else b"")))
    assert answer.status == 101, answer
    return Socket(peer, client=True)


async def session(peer: Peer, name: str) -> Socket:
    """A websocket whose session is connected."""
    socket = await websocket(peer)
    await socket.hear()
    socket.say(connect_packet(name))
    assert (await socket.hear()).startswith(b"40")
    return socket


async def polling_sid(peer: Peer) -> bytes:
    """A new polling transport of a stranger."""
    answer = await answered(peer, get(PATH + b"polling"))
    assert answer.status == 200, answer
    return answer.body.partition(b'"sid":"')[2].partition(b'"')[0]


async def stuck(peer: Peer) -> int:
    """Wait until nothing more is taken of what a peer says; how many bytes of it are left."""
    sizes = [-1]
    while len(set(sizes[-MOMENTS:])) > 1 or len(sizes) < MOMENTS:
        sizes.append(peer.writer.transport.get_write_buffer_size())
        await asyncio.sleep(MOMENT)
    return sizes[-1]
