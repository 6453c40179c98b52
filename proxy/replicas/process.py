"""What the operating system gives a replica: a process and a port.

A process is the leader of its own session, so that a terminal's Ctrl-C reaches only the supervisor, and of
its own process group, so that what it started can be ended with it. Nothing here knows of Chainlit.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, cast

from proxy.replicas.output import LineSplitter

LOOPBACK = "127.0.0.1"
LAST_WORDS = 1.0  # seconds to read on after the end: a daemon that the app left may hold the pipe for ever


class Process(asyncio.SubprocessProtocol):
    """One child process and its output; made by a replica for each of its lives."""

    pid: int
    returncode: int | None = None  # set when it ended; negative: the signal that killed it

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._lines = LineSplitter()
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended {self.returncode}"
        return f"<Process {self.pid} {state}>"

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
        on_line: Callable[[str], None],
    ) -> Self:
        """Starts `command`; its standard output and error arrive line by line at `on_line`.

        Must be called in a thread that lives as long as the supervisor: Linux takes the end of the thread
        that started a process for the end of its parent. Raises OSError if the system refuses. When
        cancelled, lets the start end, as uvloop would else leave the process, and ends what was started.
        """
        process = cls(on_line)
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                lambda: process,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                env=env,
            )
        )
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(process._abandon)  # also when cancelled again
            await asyncio.wait([starting])
            if starting.exception() is None:
                await process.wait()
            raise
        return process

    def _abandon(self, starting: asyncio.Future[Any]) -> None:
        """Nobody wants the process that was started, if it was."""
        if not starting.cancelled() and starting.exception() is None:
            self.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # both streams are one
        """A piece of output."""
        for line in self._lines.feed(data):
            self._on_line(line)

    def process_exited(self) -> None:
        """The process ended; what is left of its group ends with it."""
        self.returncode = self._transport.get_returncode()
        self._kill_group()
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # the end is told by the code
        """The process ended and its output is read to the end."""
        for line in self._lines.flush():
            self._on_line(line)
        self._closed.set()

    async def ended_within(self, seconds: float) -> bool:
        """Waits at most `seconds` for the end; returns whether it came."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return self._exited.is_set()

    async def wait(self) -> int:
        """Waits for the end and the rest of the output. Returns the return code."""
        await self._exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._closed.wait()
        self._transport.close()
        return self.returncode or 0

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109  # after it something happens
        """Ends the process: SIGTERM, and SIGKILL to its group after `timeout` seconds, or when cancelled."""
        try:
            if self.returncode is None:
                self._signal(signal.SIGTERM)
                self._signal(signal.SIGCONT)  # one that is stopped would not see the first
                await self.ended_within(timeout)
        finally:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """SIGKILL to the process and its group."""
        if self.returncode is None:
            self._kill_group()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._transport.send_signal(number)

    def _kill_group(self) -> None:
        with suppress(OSError):  # the group is empty, or (macOS) what is left of it is ending
            os.killpg(self.pid, signal.SIGKILL)


class Port:
    """A free loopback port. On Linux it is also held, so that until a replica listens nobody else gets it.

    A socket that is bound with SO_REUSEADDR but does not listen keeps Linux from handing the port out, and
    lets a server that sets SO_REUSEADDR, as uvicorn does, bind and listen. Elsewhere the port may be lost
    between two lives of a replica; `is_free` tells.
    """

    def __init__(self) -> None:
        self._holder = _bound(0)
        self.number: int = self._holder.getsockname()[1]
        if sys.platform != "linux":
            self._holder.close()

    def __repr__(self) -> str:
        return f"<Port {self.number}>"

    def is_free(self) -> bool:
        """Whether a server could listen there now."""
        try:
            _bound(self.number).close()
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Gives the port back; may be called twice."""
        self._holder.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
    except OSError:
        sock.close()
        raise
    return sock
