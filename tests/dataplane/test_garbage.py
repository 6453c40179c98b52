"""What has ended is freed at once: nothing of it keeps each other until the garbage collector finds it."""

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from proxy.dataplane.record import Record
from tests.dataplane.chat import chats
from tests.dataplane.frames import Socket
from tests.dataplane.test_evictions import open_poll, open_socket
from tests.dataplane.world import World, run

_GOODBYE = b"\x88\x82\x37\xfa\x21\x3d\x34\x13"  # a close frame of 1001, from a client


@contextmanager
def collected(world: World) -> Iterator[list[str]]:
    """What of the proxy's the garbage collector finds after the block; told when it is over."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        world.ended[:] = [cast("Record", SimpleNamespace(status=each.status)) for each in world.ended]
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [repr(each) for each in gc.garbage if type(each).__module__.startswith("proxy.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def plain(world: World) -> Socket:
    """A websocket that is none of Chainlit's."""
    client, _ = await world.websocket()
    return client


async def alone(world: World) -> Socket:
    """One that says CONNECT itself."""
    chats(world)
    return await open_socket(world)


async def upgraded(world: World) -> Socket:
    """One that takes over from polls."""
    chats(world)
    tab = await open_poll(world)
    poll = await tab.poll()
    socket = await tab.socket()
    socket.say(b"2probe")
    assert await socket.hear() == b"3probe"
    await poll.response()
    socket.say(b"5")
    return socket


def _leave(socket: Socket) -> None:
    socket.peer.say(_GOODBYE)
    socket.peer.close()


def _reset(socket: Socket) -> None:
    socket.peer.reset()


@pytest.mark.parametrize(
    ("begin", "end"),
    [(plain, _reset), (alone, _leave), (alone, _reset), (upgraded, _leave), (upgraded, _reset)],
)
def test_a_websocket(begin: Callable[[World], Awaitable[Socket]], end: Callable[[Socket], None]) -> None:
    """Whoever made it, whoever ends it."""

    async def test(world: World) -> None:
        with collected(world) as found:
            socket = await begin(world)
            end(socket)
            await world.until(lambda: not world.plane.tunnels)
            for client in world.clients:
                client.reset()
            await world.until(lambda: not world.plane.connections)
            del socket
            await world.breathe()
        assert found == []

    run(test, debug=False, affinity={"linger": 0})
