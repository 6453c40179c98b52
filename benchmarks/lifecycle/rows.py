"""The works of `make bench-lifecycle`: what happens to instances and proxies while a crowd talks."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.lifecycle.crowd import Crowd
from benchmarks.lifecycle.peer import Peer
from tests.support.instances import ChainlitInstance, Fleet

RELOADS = 20
BAD = 4  # every so manieth reload is of a bad file
WITHIN = 20.0  # seconds for an instance to be emptied
STOP = 30.0  # seconds for an instance to end
LEAVE = 15  # seconds for a replaced process to end, in the row where it has to
STREAM = 25  # seconds of the long answer
SHUTDOWN = 30  # seconds that the proxy has to end, as by default
GONE = 5.0  # seconds that it may be late


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a work is done: the proxy, the instances behind it, and all instances there are."""

    peer: Peer
    fleet: Fleet
    crowd: Crowd

    @property
    def first(self) -> ChainlitInstance:
        """The instance to which things happen."""
        return self.fleet["a"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    name: str
    words: str
    work: Callable[[Stage], Awaitable[None]]
    instances: str = "abc"  # behind the proxy at first
    patience: float = 60.0  # seconds after the work in which everybody should be usable
    leave: int = 0  # seconds that a replaced process of the proxy has; 0: it may stay
    ours: bool = False  # whether it is done with our proxy only, and tells how long clients were offline
    held: bool = False  # whether somebody else holds the proxy's socket


async def killed(stage: Stage) -> None:
    """An instance is gone at once."""
    stage.crowd.since = time.time()
    stage.first.kill9()


async def hung(stage: Stage) -> None:
    """An instance does not answer any more, with its connections open."""
    stage.crowd.since = time.time()
    stage.first.pause()


async def deployed(stage: Stage) -> None:
    """An instance is emptied, stopped, started again and put back."""
    await stage.peer.take_out(stage.first, WITHIN)
    stage.first.send(signal.SIGTERM)
    await asyncio.to_thread(stage.first.wait, STOP)
    stage.first.launch()
    await asyncio.to_thread(stage.first.wait_ready)
    await stage.peer.put_back(stage.first)


async def reloaded(stage: Stage) -> None:
    """The configuration is read many times, some of them with a mistake in it."""
    for number in range(1, RELOADS + 1):
        await stage.peer.reload(stage.peer.instances, bad=number % BAD == 0)


async def upgraded(stage: Stage) -> None:
    """The proxy's program is replaced."""
    await stage.peer.upgrade()


async def replaced(stage: Stage) -> None:
    """The proxy's program is replaced, and its old process ends."""
    await stage.peer.upgrade()
    await asyncio.sleep(LEAVE + GONE)


async def restarted(stage: Stage) -> None:
    """The proxy is stopped and started while one client's answer is under way."""
    async with stage.crowd.long_answer(STREAM):
        await stage.peer.restart()


async def scaled(stage: Stage) -> None:
    """A third instance comes."""
    await stage.peer.reload([stage.fleet[name] for name in "abc"])


ROWS = [
    Row("killed", "one of three instances killed with -9", killed),
    Row("hung", "one of three instances stopped with SIGSTOP", hung),
    Row("deployed", f"one of three instances taken out (at most {WITHIN:g} s), stopped, put back", deployed),
    Row("reloaded", f"{RELOADS} reloads, {RELOADS // BAD} of them of a bad file", reloaded),
    Row("upgraded", "the proxy's process replaced, the old one may stay", upgraded),
    Row("replaced", f"the proxy's process replaced, the old one gone in {LEAVE} s", replaced, leave=LEAVE),
    Row(
        "activated",
        f"the proxy restarted while one answer of {STREAM} s is under way, its socket held by systemd",
        restarted,
        leave=SHUTDOWN,
        ours=True,
        held=True,
    ),
    Row(
        "restarted",
        f"the proxy stopped and started while one answer of {STREAM} s is under way",
        restarted,
        leave=SHUTDOWN,
        ours=True,
    ),
    Row("scaled", "from two instances to three", scaled, "ab"),
]
