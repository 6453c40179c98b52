"""An instance that ends waits for no poll, and parts with those who poll as with those on websockets.

uvicorn waits until every request is answered before it ends, and a poll that waits for news is answered at
the next ping: after 25 seconds (engineio/async_socket.py: poll). It listens no more by then, so nothing but
that ping can come. Here each client that polls is left when uvicorn begins to end, as websockets are by
uvicorn itself: its `disconnect` handlers run, so that the state of its session is stored, and its poll is
answered with a packet that says nothing. What it asks next reaches another instance.

`behind` is for what an app does when a client has said goodbye: no longer is the client kept for it, but it
is waited for as ever.

Knows nothing of Chainlit.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial, wraps
from typing import Any
from weakref import WeakSet

READS = 0.05  # seconds for what clients have just said: a transport that is left takes nothing
WRITES = 0.5  # seconds in which what a session has is stored; a poll is not kept for longer

log = logging.getLogger("chainlit_proxy.sessions")
_MARK = "_chainlit_proxy_ending"  # on what replaces uvicorn's

SOCKETS: WeakSet[Any] = WeakSet()
"""Those of python-engineio in this process, of which each puts itself in."""

_BEHIND: set[asyncio.Task[None]] = set()  # what goes on when its client is not kept for it any more
_LAST: list[Callable[[], Awaitable[None]]] = []  # what is done when the clients have gone


async def behind(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Waits so long for work, which goes on behind that; uvicorn waits for it before it ends."""
    task = asyncio.create_task(work)
    _BEHIND.add(task)
    task.add_done_callback(_BEHIND.discard)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        task.result()


def at_the_end(work: Callable[[], Awaitable[None]]) -> None:
    """Has it done when a uvicorn's clients have gone, before its app ends: Chainlit's ends the process."""
    _LAST.append(work)


async def _end(app: Callable[[], Awaitable[None]]) -> None:
    for work in _LAST:
        try:
            await work()
        except Exception:
            log.exception("an instance has not ended in order")
    await app()


def leave_polls() -> None:
    """Has a uvicorn that ends leave the sockets here; once in a process."""
    try:
        server: Any = importlib.import_module("uvicorn").Server
        shut_down = server.shutdown
    except (ImportError, AttributeError):
        return
    if hasattr(shut_down, _MARK):
        return

    @wraps(shut_down)
    async def shutdown(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            leave(SOCKETS, self.server_state.tasks)
            wait_for(_BEHIND, self.server_state.tasks)
            self.lifespan.shutdown = partial(_end, self.lifespan.shutdown)
        except Exception:
            log.exception("polling clients could not be told to connect anew")
        await shut_down(self, *arguments, **named)

    setattr(shutdown, _MARK, True)
    server.shutdown = shutdown


def leave(sockets: Iterable[Any], tasks: set[asyncio.Task[Any]]) -> None:
    """Leaves all that poll; `tasks` are those that uvicorn waits for."""
    packets = importlib.import_module("engineio.packet")
    polling = [
        each for each in sockets if not (each.upgraded or each.upgrading or each.closing or each.closed)
    ]
    nothing = packets.Packet(packets.NOOP)
    wait_for([asyncio.create_task(_leave(socket, nothing)) for socket in polling], tasks)


async def _leave(socket: Any, nothing: Any) -> None:
    await asyncio.sleep(READS)
    socket.last_words = [nothing]
    closing = asyncio.ensure_future(socket.close(wait=False, abort=True))
    await asyncio.wait([closing], timeout=WRITES)
    await socket.queue.put(None)
    await closing


def wait_for(awaited: Iterable[asyncio.Task[Any]], tasks: set[asyncio.Task[Any]]) -> None:
    """Adds to those that uvicorn waits for."""
    for task in list(awaited):
        tasks.add(task)
        task.add_done_callback(tasks.discard)
