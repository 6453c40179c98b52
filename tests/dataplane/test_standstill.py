"""Time in which this process did not run is nobody's: what came meanwhile is read before anybody is late."""

import asyncio
import socket
import time

from proxy.dataplane.patience import never, within
from proxy.errors import Limit
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.peers import SMALL, Peer, get
from tests.dataplane.scripted import echo
from tests.dataplane.test_evictions import END, RESTART, START, open_socket
from tests.dataplane.test_linger import CONNECTED, collected, first, lose, tokens
from tests.dataplane.test_proxy_protocol import LINE, ON
from tests.dataplane.world import World, run

GAP = 1.6  # seconds: longer than the times below, and long enough to be noticed


def test_who_holds_a_session_is_heard() -> None:
    """A backend that answered the question meanwhile keeps its session: nobody takes it for new."""

    async def test(world: World) -> None:
        instances = chats(world)
        instances["b"].sessions.add("session-S")
        held = instances["b"].hold("locate")
        socket = await Tab(world, world.cookie("a")).socket()
        await socket.hear()
        socket.say(connect_packet("session-S"))
        await world.until(lambda: instances["b"].asked("locate"))
        held.set()
        world.stand_still(GAP)
        assert await socket.hear() == b'40{"sid":"b"}'

    run(test, "ab", affinity={"locate_timeout": 0.3})


def test_a_websocket_that_is_opened_elsewhere() -> None:
    """The move goes on."""

    async def test(world: World) -> None:
        instances = chats(world)
        instances["b"].sessions.add("session-S")
        held = instances["b"].hold("upgrade")
        socket = await Tab(world, world.cookie("a")).socket()
        await socket.hear()
        socket.say(connect_packet("session-S"))
        await world.until(lambda: instances["b"].asked("upgrade"))
        held.set()
        world.stand_still(GAP)
        assert await socket.hear() == b'40{"sid":"b"}'

    run(test, "ab", timeouts={"response": 0.3})


def test_a_connection_that_is_opened() -> None:
    """A backend that we did not see accept is asked once more, and the client's websocket goes on."""

    async def test(world: World) -> None:
        chats(world)
        await open_socket(world, at="b")
        backend = world.backends[1]
        await backend.stall()
        socket = await Tab(world, world.cookie("a")).socket()
        await socket.hear()
        socket.say(connect_packet("session-S"))
        (opening,) = (tunnel.opening for tunnel in world.plane.tunnels if tunnel.opening)
        await world.until(lambda: "moving" in repr(opening))
        world.stand_still(GAP)
        await backend.listen()
        assert await socket.hear() == b'40{"sid":"b"}'
        assert world.plane.site.stats.rehomes == 1

    run(test, "ab", timeouts={"connect": 0.3})


def test_what_an_app_said_last_to_a_lost_client() -> None:
    """It waits in the socket when the time for it is up: the client still gets it, in order."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        await lose(world, socket)
        for packet in tokens(0, 3):
            old.push(packet)
        await collected(world, 3)
        (one,) = world.plane.site.lingers.by_session.values()
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        one.up.pause()  # as if nothing of it were read yet
        old.push(b'42["last"]')
        again.say(connect_packet("session-S"))
        await world.until(lambda: one._resumer)
        await world.breathe()
        world.stand_still(GAP)
        asyncio.get_running_loop().call_soon(one.up.resume)
        assert [await again.hear() for _ in range(5)] == [CONNECTED, *tokens(0, 3), b'42["last"]']

    run(test, "ab")


def test_a_header_of_a_load_balancer() -> None:
    """The PROXY header that came meanwhile is read."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = Peer(*await asyncio.open_connection(*world.address, limit=SMALL))
        world.clients.append(client)
        await world.until(lambda: world.plane.listeners._greetings)
        world.stand_still(GAP)
        await asyncio.sleep(0)  # the timer is due before anything is read
        client.say(LINE + get())
        assert (await client.response()).status == 200
        assert world.plane.site.stats.proxy_headers_refused == 0

    run(test, timeouts={"head": 1.0}, **ON)


def test_what_came_by_then_is_read_first() -> None:
    """Also after a wait for a core, which is no standstill: the loop looks at its timers before it reads."""

    async def test(world: World) -> None:
        one, other = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)

        def come() -> None:
            other.send(b"answer")
            time.sleep(0.6)

        with other:
            async with within(0.5, never):
                await world.as_it_reads(come)
                assert await reader.readexactly(6) == b"answer"
            writer.close()

    run(test)


def test_leaving_takes_as_long_as_ever() -> None:
    """An answer that is under way is finished, and its client told to connect anew."""

    async def test(world: World) -> None:
        instances = chats(world)
        client = await open_socket(world)
        app = first(instances)
        app.push(START)
        assert await client.hear() == START
        leaving = asyncio.create_task(world.plane.leave(3))
        await world.breathe()
        world.stand_still(3 + GAP)
        app.push(END)
        assert await client.hear() == END
        assert await client.hear() == RESTART
        client.peer.close()
        await leaving
        assert not world.plane.site.stats.limits[Limit.SLOW_READ]

    run(test)
