"""Long bodies: they pass as they come, in bounded memory, at the speed of the slower side."""

import asyncio
import hashlib
import socket

from tests.dataplane.chat import HOLDS
from tests.dataplane.peers import WAIT, Message, Peer, get, ok
from tests.dataplane.world import World, run

MIB = 1 << 20
BLOCK = bytes(range(256)) * 256  # 64 KiB
LONG = 24 * MIB  # more than both kernels' buffers of both connections hold
BOUND = MIB  # what the proxy itself may hold of one direction: high-water mark and one read


def upload_head(length: int) -> bytes:
    """The head of a long upload."""
    return get(b"/project/file?session_id=session-s", b"Content-Length: %d" % length, method=b"POST")


def held(world: World) -> int:
    """Bytes that wait in this process to be written to either side."""
    downs = [connection.leg.transport for connection in world.plane.connections]
    ups = [upstream.transport for pool in world.plane.site._pools.values() for upstream in pool._all]
    tunnels = [end for tunnel in world.plane.tunnels for end in (tunnel.down.transport, tunnel.up.transport)]
    return max((t.get_write_buffer_size() for t in (*downs, *ups, *tunnels)), default=0)


async def send(peer: Peer, length: int) -> str:
    """Send so many bytes as fast as they are taken; their digest."""
    digest = hashlib.sha256()
    for number in range(length // len(BLOCK)):
        block = number.to_bytes(4, "big") + BLOCK[4:]
        digest.update(block)
        peer.writer.write(block)
        await peer.writer.drain()
    return digest.hexdigest()


async def receive(peer: Peer, length: int, world: World) -> str:
    """Read so many bytes; their digest. What the proxy holds meanwhile is bounded."""
    digest = hashlib.sha256()
    while length:
        block = await peer.reader.read(min(length, 1 << 18))
        assert block
        digest.update(block)
        length -= len(block)
        assert held(world) < BOUND
    return digest.hexdigest()


def test_long_upload_passes_in_bounded_memory() -> None:
    """A body of many MiB goes up whole while the proxy never holds more than a part of it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        backend = await world.backend.accept()
        await backend.head()
        async with asyncio.timeout(WAIT):
            sent, got = await asyncio.gather(send(client, LONG), receive(backend, LONG, world))
        assert sent == got
        backend.say(ok(b"stored"))
        assert (await client.response()).body == b"stored"

    run(test, debug=False)


def test_long_download_passes_in_bounded_memory() -> None:
    """A body of many MiB comes down whole while the proxy never holds more than a part of it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/public/film"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        await client.head()
        async with asyncio.timeout(WAIT):
            sent, got = await asyncio.gather(send(backend, LONG), receive(client, LONG, world))
        assert sent == got

    run(test, debug=False)


def test_client_that_stops_reading_stops_the_backend() -> None:
    """What the client does not read is not read from the backend; when it goes on, so does the backend."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/public/film"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        sending = asyncio.create_task(send(backend, LONG))
        connection = world.connection()
        await world.until(lambda: not connection.leg.writable and not world.upstream().transport.is_reading())
        assert held(world) < BOUND
        assert not sending.done()
        await client.head()
        got = await receive(client, LONG, world)
        assert got == await sending

    run(test, debug=False)


def test_backend_that_stops_reading_stops_the_client() -> None:
    """What the backend does not read is not read from the client; when it goes on, so does the client."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        backend = await world.backend.accept()
        sending = asyncio.create_task(send(client, LONG))
        connection = world.connection()
        await world.until(lambda: not connection.transport.is_reading())
        assert held(world) < BOUND
        assert not sending.done()
        await backend.head()
        got = await receive(backend, LONG, world)
        assert got == await sending
        backend.say(ok())
        assert (await client.response()).body == b"ok"

    run(test, debug=False)


def test_body_waits_in_bounds_while_its_backend_is_not_known() -> None:
    """Until it is known where a request goes, its client is read no further than a bit."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        sending = asyncio.create_task(send(client, LONG))
        asked = [await backend.accept() for backend in world.backends]
        for question in asked:
            assert (await question.request()).target == b"/project/file/x?session_id=session-s"
        connection = world.connection()
        await world.until(lambda: not connection.transport.is_reading())
        assert connection.exchange is not None
        assert connection.exchange.body.held_size < BOUND
        asked[0].say(HOLDS)
        await asked[0].head()
        got = await receive(asked[0], LONG, world)
        assert got == await sending
        asked[0].say(ok())
        assert (await client.response()).body == b"ok"

    run(test, "ab", debug=False)


def test_held_body_that_the_backend_does_not_read() -> None:
    """A long held body that goes up in one piece is no leave to read on while the backend takes nothing."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/mcp", b"Content-Length: %d" % LONG, method=b"POST"))
        sending = asyncio.create_task(send(client, LONG))
        backend = await world.backend.accept()
        await world.until(lambda: held(world) > 0 and any(c.leg.paused for c in world.plane.connections))
        await world.breathe()
        connection = world.connection()
        assert not connection.transport.is_reading()
        before = held(world)
        assert not sending.done()
        await backend.head()
        got = await receive_unbounded(backend, LONG)
        assert got == await sending
        assert before < 12 * MIB
        backend.say(ok())
        assert (await client.response()).body == b"ok"

    run(test, debug=False, limits={"inspect": 8 * MIB})


async def receive_unbounded(peer: Peer, length: int) -> str:
    """Read so many bytes; their digest."""
    digest = hashlib.sha256()
    while length:
        block = await peer.reader.read(min(length, 1 << 18))
        assert block
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


def test_connection_serves_on_after_a_slow_client() -> None:
    """A backend's connection that waited for a slow client is as good as any when the response is whole."""

    async def test(world: World) -> None:
        slow = (await world.client(slow=True)).say(get(b"/public/film"))
        backend = await world.backend.accept()
        await backend.request()
        connection = world.connection()
        connection.transport.set_write_buffer_limits(high=1)  # whatever the client does not take is too much
        backend.say(ok(BLOCK * 2))
        await world.until(lambda: not connection.leg.writable)
        upstream = world.upstream()
        assert (await slow.response()).body == BLOCK * 2
        assert world.upstream() is upstream
        assert upstream.transport.is_reading()
        (await world.client()).say(get(b"/next"))
        await backend.request()
        backend.say(ok())
        assert (await world.clients[-1].response()).body == b"ok"

    run(test, debug=False, narrow=True)


def test_answer_before_the_body_is_read() -> None:
    """A connection on which a request still waits to be sent is not used for the next one."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"Transfer-Encoding: chunked", method=b"POST"))
        client.say(b"1\r\nx\r\n")
        backend = await world.backend.accept()
        await world.until(lambda: any(pool._all for pool in world.plane.site._pools.values()))
        upstream = world.upstream()
        upstream.transport.set_write_buffer_limits(high=1)  # whatever is not sent is too much
        upstream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        backend.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection = world.connection()
        client.say(b"30000\r\n" + BLOCK * 3 + b"\r\n0\r\n\r\n")
        await backend.head()
        exchange = connection.exchange
        assert exchange is not None
        while not exchange.body.done:
            await backend.some()
        assert upstream.transport.get_write_buffer_size() > 0
        backend.say(ok())
        assert (await client.response()).body == b"ok"
        client.say(get(b"/next"))
        fresh = await world.backend.accept()
        await fresh.request()
        fresh.say(ok(b"next"))
        assert (await client.response()).body == b"next"

    run(test, debug=False)


def test_backend_that_stops_in_the_middle_of_a_body() -> None:
    """A backend that has said all without an answer has failed, even while a body waits to be sent."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        sending = asyncio.create_task(send(client, LONG))
        backend = await world.backend.accept()
        connection = world.connection()
        seen = 0
        while seen < 5:  # the kernel's buffers grow a few times before nothing moves any more
            seen = 0 if connection.transport.is_reading() else seen + 1
            await asyncio.sleep(0.01)
        backend.half_close()
        assert (await client.response()).status == 502
        sending.cancel()
        await asyncio.wait([sending])

    run(test, debug=False)


def test_client_that_asks_and_does_not_read() -> None:
    """Requests sent ahead wait while their client does not read the answers to those before them."""

    async def test(world: World) -> None:
        answers = 0

        async def answer(peer: Peer, _: Message) -> None:
            nonlocal answers
            answers += 1
            peer.say(ok(BLOCK))

        world.backend.serve(answer)
        client = await world.client(slow=True)
        client.say(get(b"/public/film") * 500)
        connection = world.connection()
        await world.until(lambda: not connection.leg.writable)
        seen = -1
        while seen != answers:
            seen = answers
            await asyncio.sleep(0.05)
        assert held(world) < BOUND
        assert answers < 20
        for _ in range(500):
            assert (await client.response()).body == BLOCK

    run(test, debug=False, narrow=True)
