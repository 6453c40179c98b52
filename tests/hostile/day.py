"""The run itself: rounds of hostile actions at once, through which the twenty chats go on.

After each round everything has to be as before: the process runs and has made no mistake, both instances are
healthy, and everybody's chat answers. At the end its memory and descriptors are what they were.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.dataplane.peers import Cut
from tests.hostile.chats import DELAY, Crowd
from tests.hostile.site import Harm, Site
from tests.hostile.strangers import Action
from tests.support.clients import Clients

BOUND = 60.0  # seconds of one action
# Seconds until what is over has left the proxy: idle connections to instances, websockets that linger.
SETTLE = 30.0
# What allocators keep of the largest bursts: the log's queue when nobody reads (twice 4 MiB), answers and
# uploads that nobody takes; and the tables of some thousand clients. Minutes of walking add nothing to that.
MORE_MEMORY = 24 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """What the proxy holds."""

    descriptors: int
    memory: int  # bytes
    connections: int  # of clients
    tunnels: int  # websockets at the instances

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.memory >> 20} MiB,"
            f" {self.connections} connections, {self.tunnels} websockets"
        )


class Day:
    """A site with its crowd, made by `day`."""

    def __init__(self, site: Site, crowd: Crowd, before: Size) -> None:
        self.site = site
        self.crowd = crowd
        self.before = before  # before anybody came

    async def round(self, upset: Action, others: Sequence[Action], seed: int) -> None:
        """All actions at once, a newcomer beside them, and what has to hold afterwards."""
        site = self.site
        site.tell(" ".join(action.__name__ for action in (upset, *others)) + f" ({seed})")
        site.harm = dict.fromkeys(site.fleet.names, Harm.NOTHING)
        site.late, site.may_miss = 0.0, False
        self.crowd.begin()
        first = asyncio.create_task(self._bounded(upset, random.Random(seed)))
        works = [self._excused(action, seed + at, first) for at, action in enumerate(others, 1)]
        ends = await asyncio.gather(first, *works, self.crowd.newcomer(), return_exceptions=True)
        if failed := [end for end in ends if isinstance(end, Exception)]:
            raise ExceptionGroup("what was done was not answered as it should be", failed)
        site.tell("      done")
        await site.healthy()
        site.tell("      healthy")
        await self.crowd.settled()
        self.crowd.judge()
        await site.check()
        site.tell(
            f"      settled with {await measure(site)}; this process was {site.late:.2f} s late at most"
        )

    async def _excused(self, action: Action, seed: int, upset: asyncio.Task[None]) -> None:
        """Do it; what an instance that is harmed answers says nothing: then it is done again afterwards."""
        try:
            await self._bounded(action, random.Random(seed))
        except (AssertionError, Cut, OSError) as error:
            if max(self.site.harm.values()) < Harm.POLLS:
                raise
            self.site.tell(f"      {action.__name__} again: {error!r:.80}")
            await asyncio.wait([upset])
            await self.site.healthy()
            await self._bounded(action, random.Random(seed))

    async def _bounded(self, action: Action, chance: random.Random) -> None:
        try:
            async with asyncio.timeout(BOUND):
                await action(self.site, chance)
        except Exception as error:  # a TimeoutError is that, or one of its own peers'
            error.add_note(f"in {action.__name__}")
            raise
        self.site.tell(f"      did {action.__name__}")

    async def leave(self) -> None:
        """Everybody goes; the proxy is as it was before they came, and ends as it is told."""
        await self.crowd.leave()
        deadline = asyncio.get_running_loop().time() + SETTLE
        while True:
            now = await measure(self.site)
            if now.descriptors <= self.before.descriptors and not now.connections and not now.tunnels:
                break
            assert asyncio.get_running_loop().time() < deadline, f"{self.before}, but in the end {now}"
            await asyncio.sleep(0.2)
        self.site.tell(f"{self.before}, in the end {now}")
        assert now.memory - self.before.memory < MORE_MEMORY, f"{self.before}, but in the end {now}"
        await self.site.check()
        for proxy in self.site.proxies:
            assert await asyncio.to_thread(proxy.stop) == 0


async def measure(site: Site) -> Size:
    """What the proxy holds now."""
    connections = await site.metric("open_connections")
    return Size(*await site.size(), int(connections), int(await site.metric("backend_tunnels")))


@asynccontextmanager
async def day(folder: Path, seed: int) -> AsyncIterator[Day]:
    """A day whose twenty chats have begun; its story is told, and the end of the proxy's log if it fails."""
    site = Site(folder)
    try:
        async with site:
            before = await measure(site)
            async with Clients(site.proxy.url, DELAY) as clients, Crowd(site, clients, seed) as crowd:
                yield Day(site, crowd, before)
    except BaseException:
        print(site.log.tail(150))
        raise
    finally:
        print("\n".join(site.story))
