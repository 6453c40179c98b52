"""Coroutines of several shapes, which are cancelled while they wait. Run as it is, and compiled.

The names of those that did not end as cancelled are printed. Beside each there is another one, as in a proxy.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

_LATER = 0.04  # seconds; half of it is behind the cancellation and before the end of what is cleaned up
Shape = Callable[[asyncio.Event], Coroutine[None, None, None]]


async def bare(over: asyncio.Event) -> None:
    """As `Site.locate`: awaits, one behind the other."""
    await asyncio.sleep(0)
    await over.wait()
    over.set()


async def caught(over: asyncio.Event) -> None:
    """As `Exchange._connect`: an await whose errors are caught, and what is done then."""
    try:
        await over.wait()
    except OSError:
        over.set()
        return
    over.set()


async def timed(over: asyncio.Event) -> None:
    """As `Opening._locate`: something is awaited for a while."""
    if not over.is_set():
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=60)
    over.set()


async def nested(over: asyncio.Event) -> None:
    """As `Pool.connect`: it awaits another one of ours, which is cancelled."""
    await caught(over)
    over.set()


async def returned(over: asyncio.Event) -> None:
    """As `upstream.connect`: the awaited is returned."""
    return await caught(over)


async def again(over: asyncio.Event) -> None:
    """As `Pool._connect`: what failed is tried again."""
    while True:
        try:
            return await caught(over)
        except OSError:
            over.set()


async def suppressed(over: asyncio.Event) -> None:
    """What fails is left alone, as in the clean-up of several."""
    with suppress(OSError):
        await over.wait()
    over.set()


async def counted(over: asyncio.Event) -> None:
    """With a `finally` that awaits nothing."""
    try:
        await caught(over)
    finally:
        asyncio.get_running_loop().time()
    over.set()


async def cleaned_up(over: asyncio.Event) -> None:
    """As `SharedDirectory._serve`: something is awaited in a `finally`."""
    try:
        await over.wait()
    finally:
        await asyncio.sleep(_LATER)
    over.set()


async def neighbour() -> None:
    """Awaits in an `except`, before and while others are cancelled."""
    try:
        raise OSError
    except OSError:
        await asyncio.sleep(_LATER / 2)


PLAIN: dict[str, Shape] = {
    "bare": bare,
    "caught": caught,
    "timed": timed,
    "nested": nested,
    "returned": returned,
    "again": again,
    "suppressed": suppressed,
    "counted": counted,
}
SHAPES: dict[str, Shape] = {**PLAIN, "cleaned_up": cleaned_up}


async def survives(shape: Shape) -> bool:
    """Whether a task goes on, or ends otherwise, when it is cancelled while it waits."""
    over = asyncio.Event()
    other = asyncio.ensure_future(neighbour())
    task = asyncio.ensure_future(shape(over))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task, other])
    return over.is_set() or not task.cancelled()


async def main() -> None:
    """Print the names of those that do not end."""
    for name, shape in SHAPES.items():
        if await survives(shape):
            print(name)
