"""What goes wrong with the store of sessions: one action each, which also mends it.

Nobody may notice anything of it: the instances have all that they need. While it goes on, the networks of
half of the clients fail, so that they come back to their instances and these ask the store who has the
session; and afterwards the store has all that is live, before the next harm is done.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from tests.hostile.shared import DELAY, Action, SharedSite
from tests.hostile.store import HostileStore

SHORT, LONG = 1.3, 3.0  # seconds: one operation of the store takes too long, or both tries of it
RETURN = 1.5 * DELAY  # seconds in which every client that was cut has come back
AWAY = 1.0  # seconds in which nobody listens there
HANG_UPS = 40
OFTEN = 0.05  # seconds between two of these


@asynccontextmanager
async def noticed(site: SharedSite) -> AsyncIterator[None]:
    """What is done inside goes on while clients come back and everybody is answered; then it is over."""
    yield
    await site.talks.cut()
    await site.talks.settled()


async def stalls(site: SharedSite, seconds: float) -> None:
    """Stands still for so long while clients come back."""
    site.store.pause()
    try:
        await site.talks.cut()
        await asyncio.sleep(RETURN + seconds)  # this is the event
    finally:
        site.store.resume()


async def stands_still(site: SharedSite, chance: Random) -> None:
    """One answer comes too late: it counts all the same."""
    await stalls(site, SHORT)


async def stands_still_for_long(site: SharedSite, chance: Random) -> None:
    """No answer comes, and those of before come when nobody waits for them any more."""
    await stalls(site, LONG)


async def is_full(site: SharedSite, chance: Random) -> None:
    """Takes nothing more, though it can be read."""
    async with noticed(site):
        await asyncio.to_thread(site.store.fill)
    await asyncio.to_thread(site.store.make_room)


async def is_read_only(site: SharedSite, chance: Random) -> None:
    """Takes nothing more, in other words."""
    async with noticed(site):
        await asyncio.to_thread(site.store.make_read_only)
    await asyncio.to_thread(site.store.make_writable)


async def loses_connections(site: SharedSite, chance: Random) -> None:
    """Hangs up on everybody again and again."""

    async def hang_up() -> None:
        for _ in range(HANG_UPS):
            await asyncio.to_thread(site.store.hang_up)
            await asyncio.sleep(OFTEN)

    hanging_up = asyncio.create_task(hang_up())
    async with noticed(site):
        pass
    await hanging_up


async def forgets(site: SharedSite, chance: Random) -> None:
    """Is empty from one moment to the next, and tells nobody."""
    async with noticed(site):
        await asyncio.to_thread(site.store.empty)


async def comes_back_empty(site: SharedSite, chance: Random) -> None:
    """Is away for a moment, and has kept nothing."""
    site.store.kill9()
    try:
        await site.talks.cut()
        await asyncio.sleep(AWAY)  # this is the event
    finally:
        site.store.launch()
    await site.until(site.store.answers, "the store answers")


async def fails_over(site: SharedSite, chance: Random) -> None:
    """Dies, and one that had its data takes its place, which can be read before it can be written."""
    store, spare = site.store, HostileStore(site.folder / f"spare-{len(site.spares)}")
    site.spares.append(spare)
    spare.follow(store)
    spare.launch()
    await site.until(spare.is_copy, "the spare has everything")
    store.kill9()
    await asyncio.to_thread(spare.make_writable)
    store.follow(spare)
    store.launch()
    await site.until(store.is_copy, "its successor has everything")
    store.follow(None)
    async with noticed(site):
        pass
    await asyncio.to_thread(store.make_writable)
    spare.kill9()


async def loses_its_files(site: SharedSite, chance: Random) -> None:
    """The folder of the files cannot be used for a while: what is uploaded then is only where it is."""
    assert site.files
    away = site.folder / "files-away"
    await asyncio.to_thread(site.files.rename, away)
    await asyncio.to_thread(site.files.touch)
    try:
        async with noticed(site):
            pass
    finally:
        await asyncio.to_thread(site.files.unlink)
        await asyncio.to_thread(away.rename, site.files)


def unnoticed(action: Action) -> Action:
    """The action, after which the store has everything."""

    async def done(site: SharedSite, chance: Random) -> None:
        await action(site, chance)
        await site.stored()

    done.__name__, done.__doc__ = action.__name__, action.__doc__
    return done


# These do all that the others do.
WHOLE: list[Action] = [
    unnoticed(action)
    for action in (
        stands_still,
        is_full,
        forgets,
        stands_still_for_long,
        comes_back_empty,
        loses_connections,
        fails_over,
    )
]
ACTIONS: list[Action] = [*WHOLE, unnoticed(is_read_only)]
FILES: list[Action] = [unnoticed(loses_its_files)]
