"""A program that runs a whole proxy with 128 file descriptors, and more clients than these allow."""

import asyncio
import logging
import resource

from tests.dataplane.peers import SMALL, Peer, get
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

DESCRIPTORS = 128


async def connect(world: World) -> Peer:
    """A client that may have to wait until it is accepted."""
    peer = Peer(*await asyncio.open_connection(*world.address, limit=SMALL))
    world.clients.append(peer)
    return peer


async def leave(world: World, client: Peer) -> None:
    """A client leaves, and the proxy knows."""
    before = len(world.plane.connections)
    client.close()
    await world.until(lambda: len(world.plane.connections) < before)


async def crowd(world: World) -> None:
    """Clients come until the doors shut; some leave; those that waited are served."""
    plane, doors = world.plane, world.plane.listeners
    world.backend.serve(echo)
    for _ in range(2):
        clients = []
        while not doors.shut:
            clients.append(await connect(world))
            await world.until(lambda: doors.shut or plane.site.stats.connections == len(world.clients))
        assert len(clients) > 10
        accepted = len(plane.connections)
        waiting = (await connect(world)).say(get(b"/waited"))
        assert (await clients[0].say(get(b"/inside")).response()).body == b"/inside "
        assert (await clients[-1].say(get(b"/last")).response()).body == b"/last "
        await doors.reopen_if_room()  # nobody has left: nothing changes
        assert (doors.shut, len(plane.connections)) == (True, accepted)
        await leave(world, clients.pop(1))
        for _ in range(3):  # one has, and its number is low
            await doors.reopen_if_room()
            await world.breathe()
        assert (doors.shut, len(plane.connections)) == (True, accepted - 1)
        for client in clients:
            client.close()
        assert (await waiting.response()).body == b"/waited "
        await world.until(lambda: not doors.shut)
        waiting.close()
        await world.until(lambda: not plane.connections)
    assert doors.times_shut == 2


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS // 2, DESCRIPTORS))
    run(crowd)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (DESCRIPTORS, DESCRIPTORS)
    print("done")
