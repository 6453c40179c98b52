"""A TCP relay between the proxy and one instance, which passes everything on until a test has it misbehave.

It knows nothing of HTTP but the paths below `/odd/`: what the proxy asks for there is answered by the relay
itself, in one of the ways of `answers`, and the connection is of no other use afterwards.
"""

import asyncio
import contextlib
import socket
from typing import Self

from tests.dataplane.peers import Peer
from tests.hostile.answers import answer
from tests.support.processes import free_port

PIECE = 1 << 16
SINGLY = 60  # bytes of each piece that are passed on one by one; with more this process would be measured
BACKLOG = 128
ODD = b" /odd/"


class Pair:
    """One connection of the proxy and the one to the instance that it stands for."""

    def __init__(self, relay: "Relay", proxy: Peer, instance: Peer) -> None:
        self._relay = relay
        self.proxy = proxy
        self.instance = instance
        self.mute = False  # whether nothing more of the instance is for the proxy
        self.dies = False  # whether what the instance says next is cut in its middle

    async def carry(self) -> None:
        """Pass on both directions until both have ended, or one breaks."""
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._up())
                ways.create_task(self._down())
        except* OSError:  # one side is gone, or has to go
            self.proxy.reset()
        finally:
            self.instance.writer.transport.abort()
            self.proxy.writer.close()

    async def _up(self) -> None:
        while data := await self.proxy.reader.read(PIECE):
            if ODD in data.partition(b"\r\n")[0]:
                await self._odd(data)
                raise ConnectionAbortedError
            await self._pass_on(self.instance, data)
        self.instance.half_close()

    async def _odd(self, head: bytes) -> None:
        self.mute = True
        name = head.partition(ODD)[2].partition(b" ")[0].decode()
        with contextlib.suppress(ConnectionError):
            await answer(name, self.proxy)

    async def _down(self) -> None:
        while data := await self.instance.reader.read(PIECE):
            if self.dies:
                self.proxy.say(data[: len(data) // 2])
                raise ConnectionAbortedError
            if not self.mute:
                await self._pass_on(self.proxy, data)
        if not self.mute:
            self.proxy.half_close()

    async def _pass_on(self, peer: Peer, data: bytes) -> None:
        singly = SINGLY if self._relay.bytewise else 0
        for byte in data[:singly]:
            if peer.writer.is_closing():
                raise ConnectionAbortedError
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        peer.writer.write(data[singly:])
        await peer.writer.drain()

    def half_close(self) -> None:
        """The instance says no more, and still reads."""
        if not self.mute:
            self.mute = True
            with contextlib.suppress(OSError):  # it is gone already
                self.proxy.half_close()


class Relay:
    """All connections of the proxy to one instance; owned by the site, as `async with`."""

    def __init__(self, name: str, target: int) -> None:
        self.name = name
        self.target = target
        self.port = free_port()
        self.pairs: set[Pair] = set()
        self.bytewise = False  # whether what either side says arrives byte by byte, as far as SINGLY
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._carrying: dict[asyncio.Task[None], Peer] = {}
        self._fillers: list[socket.socket] = []

    def __repr__(self) -> str:
        return f"<Relay {self.name} {len(self.pairs)} connections>"

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def open(self) -> None:
        """Listen."""
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Listen no more and break off everything, as a process that ends."""
        assert self._socket
        assert self._accepting
        self._accepting.cancel()
        for task in list(self._carrying):
            task.cancel()
        await asyncio.wait([self._accepting, *self._carrying])
        for sock in (*self._fillers, self._socket):
            sock.close()
        self._fillers = []

    async def deafen(self) -> None:
        """Accept nothing more, with a backlog that is full: who connects now hears nothing at all."""
        assert self._socket
        assert self._accepting
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self._socket.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def hear(self) -> None:
        """Accept again."""
        assert self._socket
        for filler in self._fillers:
            filler.close()
        self._fillers = []
        self._socket.listen(BACKLOG)
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._socket
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            try:
                proxy = Peer(*await asyncio.open_connection(sock=sock))
            except asyncio.CancelledError:
                sock.close()
                raise
            task = asyncio.create_task(self._carry(proxy))
            self._carrying[task] = proxy
            task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        proxy = self._carrying.pop(task)
        if task.cancelled():
            proxy.writer.transport.abort()

    async def _carry(self, proxy: Peer) -> None:
        try:
            instance = Peer(*await asyncio.open_connection("127.0.0.1", self.target))
        except OSError:
            proxy.reset()
            return
        pair = Pair(self, proxy, instance)
        self.pairs.add(pair)
        try:
            await pair.carry()
        finally:
            self.pairs.discard(pair)
