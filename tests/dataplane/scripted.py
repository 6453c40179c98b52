"""Backends under the test's control: it accepts their connections itself, or lets a script answer them."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from tests.dataplane.peers import SMALL, WAIT, Cut, Message, Peer, ok

Script = Callable[[Peer, Message], Awaitable[None]]


class Backend:
    """A backend under the test's control; `accept` its connections, or let a script answer them."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.peers: list[Peer] = []  # every connection there was
        self.requests: list[Message] = []  # what scripts were asked
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", port))
        self.port = self._sock.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._fresh: asyncio.Queue[Peer] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._script: Script | None = None

    async def listen(self) -> None:
        """Accept connections; before and after, they are refused."""
        sock = self._sock.dup()
        self._server = await asyncio.start_server(self._accepted, sock=sock, limit=SMALL)

    def refuse(self) -> None:
        """Listen no more; connections that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._sock.close()

    async def stall(self) -> None:
        """Accept nothing more, but do not refuse either: the queue of connections is full."""
        assert self._server is not None
        self._server.close()
        sock = self._sock
        sock.listen(0)
        sock.setblocking(False)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            self._fillers.append(filler)

    async def accept(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(WAIT):
            return await self._fresh.get()

    def serve(self, script: Script) -> None:
        """Let `script` answer every request of every connection from now on."""
        self._script = script

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if self._script is None:
            self._fresh.put_nowait(peer)
            return
        task = asyncio.get_running_loop().create_task(self._answer(peer, self._script))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, peer: Peer, script: Script) -> None:
        with contextlib.suppress(Cut, ConnectionError, TimeoutError):
            while True:
                message = await peer.request()
                self.requests.append(message)
                await script(peer, message)
        peer.close()

    async def end(self) -> None:
        """Close everything."""
        self.refuse()
        for sock in (self._sock, *self._fillers):
            sock.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for peer in self.peers:
            peer.writer.transport.abort()


async def echo(peer: Peer, message: Message) -> None:
    """A script that answers with what was asked for."""
    peer.say(ok(message.target + b" " + message.body))
