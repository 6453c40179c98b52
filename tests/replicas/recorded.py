"""A supervisor whose lines and events are kept, and can be waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.replicas import ReplicaEvent, ReplicaEventKind, Supervisor

WAIT = 60.0  # seconds: a start takes 2 s alone, several times that beside other tests


class Recorded:
    """A supervisor with all that it told."""

    def __init__(self, app: Path, count: int, state: Path, **settings: Any) -> None:
        self.lines: list[str] = []
        self.events: list[ReplicaEvent] = []
        self._told = asyncio.Event()
        self.supervisor = Supervisor(
            app, count, state=state, output=self._line, on_event=self._event, **settings
        )

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._told.set()

    def _event(self, event: ReplicaEvent) -> None:
        self.events.append(event)
        self._told.set()

    def told(self, kind: ReplicaEventKind) -> list[ReplicaEvent]:
        """The events of one kind so far."""
        return [event for event in self.events if event.kind is kind]

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until something was told that makes `condition` true."""
        async with asyncio.timeout(WAIT):
            while not condition():
                self._told.clear()
                await self._told.wait()

    async def until_ready(self, count: int) -> None:
        """Waits until `count` times a replica was ready."""
        await self.until(lambda: len(self.told(ReplicaEventKind.READY)) >= count)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Runs the supervisor around a block, and stops it."""
        task = asyncio.create_task(self.supervisor.run())
        failed = asyncio.create_task(self._end_with(task, asyncio.current_task()))
        try:
            yield self.supervisor
        finally:
            failed.cancel()
            self.supervisor.stop()
            await task

    @staticmethod
    async def _end_with(task: asyncio.Task[None], test: asyncio.Task[Any] | None) -> None:
        """Ends a test whose supervisor failed, which would else wait for nothing."""
        await asyncio.wait([task])
        assert test
        test.cancel()
