"""A bad link to a store: it stands still, loses answers, or is slow."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

PIECE = 16 * 1024


class RedisRelay:
    """Passes bytes between clients and a Redis, as the test says; `async with RedisRelay(port) as relay`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._go_on = asyncio.Event()
        self._go_on.set()
        self._free_at = 0.0  # when the link has passed on what it was given
        self.rate = 0  # bytes a second, of all connections together; 0: as fast as it goes
        self.losing = 0  # answers that are still to be lost, each with its connection
        self.lost = 0

    def __repr__(self) -> str:
        return f"<RedisRelay to {self._port} losing {self.losing}>"

    @property
    def url(self) -> str:
        """What a client is told."""
        assert self._server
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Nothing passes, in either direction, until `go_on`; connections are accepted."""
        self._go_on.clear()

    def go_on(self) -> None:
        """What waits passes now, also what nobody waits for any more."""
        self._go_on.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        made = [writer]
        try:
            up = await asyncio.open_connection("127.0.0.1", self._port)
            made.append(up[1])
            await self._pair(self._pass_on(reader, up[1]), self._pass_on(up[0], writer, answers=True))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in made:
                end.transport.abort()
            await asyncio.sleep(0)
        self._tasks.discard(task)

    async def _pair(self, *ways: Coroutine[Any, Any, None]) -> None:
        pair = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
            if not self._go_on.is_set():  # the client has given up: what it asked for is done all the same
                await asyncio.wait(pair)
        finally:
            for way in pair:
                way.cancel()
            await asyncio.gather(*pair, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await self._go_on.wait()
                if answers and self.losing:
                    self.losing -= 1
                    self.lost += 1
                    return
                if self.rate:
                    self._free_at = max(self._free_at, time.monotonic()) + len(data) / self.rate
                    await asyncio.sleep(self._free_at - time.monotonic())
                writer.write(data)
                await writer.drain()
