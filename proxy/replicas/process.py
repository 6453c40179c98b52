"""What the operating system gives a replica: a process and a port.

A process runs below a keeper (see `keeper.py`), which ends all that it started when it ends, or when the
supervisor does. Both lead sessions of their own, so that a terminal's Ctrl-C reaches only the supervisor.
Should somebody kill a keeper, its program goes with it, and the rest comes to the supervisor (`Orphans`).
Nothing here knows of Chainlit.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

from proxy.replicas.keeper import KILL, become_subreaper, children
from proxy.replicas.output import LineSplitter

LOOPBACK = "127.0.0.1"
LAST_WORDS = 1.0  # seconds to read on after the end: what could not be killed may hold the pipe for ever
KEEPER = Path(__file__).with_name("keeper.py")
SWEEPS, SWEEP = 100, 0.02  # times that orphans are looked for, and seconds between two: they end at once


def kept(held: Sequence[int] | None, command: Sequence[str]) -> list[str]:
    """The command line of a keeper; `held` are the lifeline and what else it holds, None: it has neither."""
    descriptors = "-" if held is None else ",".join(map(str, held))
    return [sys.executable, "-I", "-S", str(KEEPER), descriptors, *command]


class Orphans:
    """What a killed keeper left; made by the supervisor.

    Where this process adopts what lost its keeper, all its children but the keepers are such. So it adopts
    only when it is told to, by who knows that it starts nothing else, and has no children to begin with.
    """

    def __init__(self) -> None:
        self.keepers: set[int] = set()
        self.starting = asyncio.Lock()  # held while a keeper is started, and not among them yet
        self._adopts = False

    def __repr__(self) -> str:
        return f"<Orphans of {self.keepers} {'adopted' if self._adopts else 'left alone'}>"

    def adopt(self) -> None:
        """From now on."""
        if sys.platform == "linux" and not list(children()):
            become_subreaper()
            self._adopts = True

    async def end(self) -> None:
        """Ends those there are."""
        async with self.starting:
            for _ in range(SWEEPS if self._adopts else 0):
                orphans = set(children()) - self.keepers
                if not orphans:
                    return
                for pid in orphans:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                        os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - does not block
                await asyncio.sleep(SWEEP)


class Process(asyncio.SubprocessProtocol):
    """One program under its keeper, and its output; made by a replica for each of its lives."""

    pid: int | None = None  # of the program; set when the keeper has told it
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
        held: Sequence[int],
        orphans: Orphans,
        on_line: Callable[[str], None],
    ) -> Self:
        """Starts `command`; its standard output and error arrive line by line at `on_line`.

        `held` are descriptors for the keeper: the lifeline, and what is held while the program lives. Raises
        OSError if the system refuses. When cancelled, lets the start end, as uvloop would else leave the
        process, and ends what was started.
        """
        process = cls(on_line)
        starting = asyncio.ensure_future(process._start(kept(held, command), env, tuple(held), orphans))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(process._abandon)  # also when cancelled again
            await asyncio.wait([starting])
            if starting.exception() is None:
                await process.wait()
            raise
        return process

    async def _start(
        self, command: Sequence[str], env: Mapping[str, str], held: tuple[int, ...], orphans: Orphans
    ) -> None:
        async with orphans.starting:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=held,
                env=env,
            )
            self._orphans = orphans
            orphans.keepers.add(self._keeper)

    def _abandon(self, starting: asyncio.Future[Any]) -> None:
        """Nobody wants the process that was started, if it was."""
        if not starting.cancelled() and starting.exception() is None:
            self.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The keeper runs."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._keeper = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # both streams are one
        """A piece of output."""
        for line in self._lines.feed(data):
            if self.pid is None and line.isdigit():
                self.pid = int(line)
            else:
                self._on_line(line)

    def process_exited(self) -> None:
        """The keeper has ended, as its program did, and all else with it."""
        self.returncode = self._transport.get_returncode()
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
        """Waits for the end of everything and the rest of the output. Returns the return code."""
        await self._exited.wait()
        self._orphans.keepers.discard(self._keeper)
        await self._orphans.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._closed.wait()
        self._transport.close()
        return self.returncode or 0

    async def stop(self, timeout: float) -> bool:  # noqa: ASYNC109  # after it something happens
        """Ends the program: SIGTERM, and SIGKILL after `timeout` seconds, or when cancelled.

        Returns whether it ended in time.
        """
        in_time = True
        try:
            if self.returncode is None:
                self._signal(signal.SIGTERM)
                in_time = await self.ended_within(timeout)
        finally:
            self.kill()
            await self.wait()
        return in_time

    def kill(self) -> None:
        """SIGKILL to the program, and to all that it started."""
        self._signal(KILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                self._transport.send_signal(number)
                self._transport.send_signal(signal.SIGCONT)  # one that is stopped would not see the first


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
