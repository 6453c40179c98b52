"""What is refused, and what a client or a backend is late with: 400, 408, 431 and 504."""

import asyncio

import pytest

from tests.dataplane.peers import Cut, get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"CONNECT chat.test:443 HTTP/1.1\r\nHost: chat.test:443\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_bad_requests_are_refused(request_: bytes) -> None:
    """What is not strict HTTP is answered 400 at once, nothing behind it is read, no backend hears of it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(request_ + get(b"/smuggled"))
        response = await client.response()
        assert (response.status, response.get(b"connection")) == (400, b"close")
        assert await client.rest() == b""
        assert world.backend.peers == []

    run(test)


def test_bad_chunk_in_a_body_that_is_under_way() -> None:
    """A body that breaks its framing ends the request: 400, and the backend sees it cut off."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        client.say(b"3\r\nabc\r\n")
        backend = await world.backend.accept()
        await backend.until(b"abc\r\n")
        client.say(b"zz\r\n")
        assert (await client.response()).status == 400
        await client.gone()
        await backend.gone()

    run(test)


@pytest.mark.parametrize("whole", [True, False])
def test_head_that_is_too_large(whole: bool) -> None:
    """A head beyond limits.head is answered 431, as soon as that is clear."""

    async def test(world: World) -> None:
        client = await world.client()
        client.say(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 2000 + (b"\r\n\r\n" if whole else b""))
        assert (await client.response()).status == 431
        await client.gone()

    run(test, limits={"head": 1024})


def test_head_of_the_limit_passes() -> None:
    """Many small pieces of a head under the limit are one request."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        for piece in (b"GET /x HTTP/1.1\r\nHost: x\r\nA: ", *[b"b" * 100] * 9, b"\r\n\r", b"\n"):
            client.say(piece)
            await world.breathe()
        assert (await client.response()).body == b"/x "

    run(test, limits={"head": 1024})


def test_slow_head_is_refused() -> None:
    """A head that is not whole in time is answered 408, though its bytes keep coming."""

    async def test(world: World) -> None:
        client = (await world.client()).say(b"GET / HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                client.say(b"A: b\r\n")
                await asyncio.sleep(0.05)

        task = asyncio.create_task(trickle())
        assert (await client.response()).status == 408
        task.cancel()
        await asyncio.wait([task])

    run(test, timeouts={"head": 0.3})


def test_connection_that_says_nothing_is_closed() -> None:
    """A connection without a request is closed without a word after timeouts.head."""

    async def test(world: World) -> None:
        await (await world.client()).gone()

    run(test, timeouts={"head": 0.2})


def test_idle_connection_is_closed() -> None:
    """A kept connection without a further request is closed without a word after timeouts.idle."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await world.client()).say(get() + b"\r\n")  # old clients send an empty line behind
        await client.response()
        await client.gone()

    run(test, timeouts={"idle": 0.3})


@pytest.mark.parametrize("path", [b"/x", b"/mcp"])
def test_slow_body_is_refused(path: bytes) -> None:
    """A body whose next piece does not come in time is answered 408, whether it is read here or not."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await world.client()).say(get(path, b"Content-Length: 9", method=b"POST"))
        response = await client.response()
        assert (response.status, response.get(b"connection")) == (408, b"close")

    run(test, timeouts={"body": 0.3})


def test_client_that_does_not_take_the_last_answer() -> None:
    """A client that reads no more does not hold a connection for ever that was closed for it."""

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(get(b"/", b"Connection: close"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"x" * 60_000))
        await world.until(lambda: not world.plane.connections)
        with pytest.raises(Cut):
            await client.response()

    run(test, narrow=True, timeouts={"write": 0.2})


def test_client_that_takes_the_last_answer_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it takes of an answer begins its time anew, to the last byte."""
    monkeypatch.setattr("proxy.dataplane.downstream._LINGER", 0.2)

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(get(b"/", b"Connection: close"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"x" * 60_000))
        heard = b""
        while len(heard) < 60_000:
            await asyncio.sleep(0.1)
            heard += await client.read(2000)
        assert (heard + await client.rest()).endswith(b"x" * 60_000)

    run(test, narrow=True, timeouts={"write": 0.6})


def test_slow_response_is_given_up() -> None:
    """A backend that does not answer in time is answered for: 504, and its connection is closed."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        assert (await client.response()).status == 504
        await backend.gone()

    run(test, timeouts={"response": 0.3})
