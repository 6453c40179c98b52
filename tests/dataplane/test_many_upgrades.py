"""Upgrades that are refused, by the thousand: each is answered whole, and nothing of them stays."""

import asyncio
from pathlib import Path

from proxy.affinity.health import Observation
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import Peer
from tests.dataplane.world import World, run

MANY = 10_000
AT_ONCE = 4
ANSWERS = {  # what the backend says, by what it is asked for
    b"/ws/0": b"HTTP/1.1 403 Forbidden\r\nX-Why: 0\r\nContent-Length: 4\r\n\r\nnope",
    b"/ws/1": b"HTTP/1.1 500 Oops\r\nX-Why: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
    b"/ws/2": b"HTTP/1.1 404 Gone\r\nX-Why: 2\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    b"/ws/3": b"HTTP/1.1 503 Later\r\nX-Why: 3\r\nContent-Length: 0\r\n\r\n",
}
EXPECTED = [(403, b"0", b"nope"), (500, b"1", b"bad"), (404, b"2", b"no"), (503, b"3", b"")]


class Refusing(asyncio.Protocol):
    """A backend's connection: refuses what it is asked for, in the way that the path says."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol; a head comes in one piece here."""
        self.transport.write(ANSWERS[data.split(b" ", 2)[1]])
        if b"/ws/2" in data[:16]:
            self.transport.close()


def descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_ten_thousand_refused_upgrades_leave_nothing_open() -> None:
    """Each passes status, fields and body; afterwards there are as many descriptors as before."""

    async def test(world: World) -> None:
        world.backend.refuse()
        server = await asyncio.get_running_loop().create_server(Refusing, "127.0.0.1", 0)
        world.parts.fleet.move(world.known("a"), "127.0.0.1", server.sockets[0].getsockname()[1])
        world.observe("a", Observation.ANSWERED)
        clients = [await world.client() for _ in range(AT_ONCE)]
        pool = world.plane.site.pool(world.known("a"))

        async def ask(client: Peer, times: int) -> None:
            for turn in range(times):
                kind = turn % len(EXPECTED)
                answer = await client.say(upgrade(b"/ws/%d" % kind)).response()
                assert (answer.status, answer.get(b"x-why"), answer.body) == EXPECTED[kind]

        await asyncio.gather(*(ask(client, 25) for client in clients))
        before = descriptors()
        await asyncio.gather(*(ask(client, MANY // AT_ONCE) for client in clients))
        await world.until(lambda: len(pool._all) <= 1)  # one is kept for others
        await world.until(lambda: descriptors() <= before)
        assert not world.plane.tunnels
        assert not world.plane.site.stats.upstream_errors
        server.close()

    run(test, debug=False)
