"""Every head of the parsers' tables, fed to a connection one byte at a time: it means the same.

The bytes are handed to the connection as if each had come in a segment of its own.
"""

import pytest

from tests.dataplane.peers import Cut, Message, Peer, get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run
from tests.wire import test_fields as fields
from tests.wire import test_head as heads


def wire(text: str) -> bytes:
    """A head as it travels."""
    return text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n"


GOOD = [wire(f"{line}\nHost: {host}") for line, host, *_ in heads.TARGETS]
GOOD += [b"GET / HTTP/1.1\r\nHost: a\r\n" + block + b"\r\n" for block, _ in fields.ACCEPTED]
BAD = [wire(text) for text, _ in heads.REFUSED]
BAD += [
    b"GET / HTTP/1.1\r\nHost: a\r\n" + block + b"\r\n"
    for block, _ in fields.REFUSED
    if block[-1:] in {b"\r", b"\n"} and b"\r\n\r\n" not in b"\r\n" + block  # else it is another head
]
BAD += [start for start, _ in heads.HOPELESS]


async def told(world: World, request: bytes) -> Message:
    """What a connection is answered that is fed these bytes one by one."""
    client = await world.client()
    connection = world.connection()
    for byte in request:
        connection.data_received(bytes((byte,)))
    answer = await client.response()
    client.close()
    await world.until(lambda: not world.plane.connections)
    return answer


@pytest.mark.parametrize("known", [False, True])
def test_good_requests(known: bool) -> None:
    """The backend is asked for what was meant, also where the same fields were read before."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        for request in GOOD:
            whole = (await world.ask(request)) if known else None
            answer = await told(world, request)
            assert answer.status == 200, request
            assert whole is None or whole.body == answer.body, request

    run(test, debug=False)


def test_bad_requests() -> None:
    """They are refused with 400 and the connection closed, and no backend hears of them."""

    async def test(world: World) -> None:
        for request in BAD:
            answer = await told(world, request)
            assert (answer.status, answer.get(b"connection")) == (400, b"close"), request
        assert world.backend.peers == []

    run(test, debug=False)


async def answered(world: World, response: bytes) -> Message:
    """What a client gets of a response that comes byte by byte."""
    client = (await world.client()).say(get(b"/x"))
    backend = await world.backend.accept()
    await backend.request()
    upstream = world.upstream()
    for byte in response:
        upstream.data_received(bytes((byte,)))
        if upstream.user is None:
            break  # refused: the rest would be what nobody asked for
    answer = await client.response()
    client.close()
    await ended(world, backend)
    return answer


async def ended(world: World, backend: Peer) -> None:
    """Let go of the backend's connection, so that the next one is the only one."""
    backend.close()
    await world.until(lambda: not any(pool._all for pool in world.plane.site._pools.values()))


def test_good_responses() -> None:
    """Status and fields arrive as from one piece."""

    async def test(world: World) -> None:
        for line, status, *_ in heads.STATUS:
            answer = await answered(world, line + b"\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")
            assert (answer.status, answer.get(b"x-a"), answer.body) == (status, b"b", b"ok"), line

    run(test, debug=False)


def test_bad_responses() -> None:
    """They become 502."""

    async def test(world: World) -> None:
        for head in heads.BAD_RESPONSES:
            assert (await answered(world, head + b"\r\n\r\n")).status == 502, head

    run(test, debug=False)


def test_a_response_that_is_fed_on_after_its_refusal() -> None:
    """What comes of it later reaches nobody, and no other client."""

    async def test(world: World) -> None:
        first = (await world.client()).say(get(b"/first"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n")
        assert (await first.response()).status == 502
        backend.say(ok(b"poison"))
        second = (await world.client()).say(get(b"/second"))
        fresh = await world.backend.accept()
        assert (await fresh.request()).target == b"/second"
        fresh.say(ok(b"clean"))
        assert (await second.response()).body == b"clean"
        with pytest.raises(Cut):
            await backend.request()

    run(test)
