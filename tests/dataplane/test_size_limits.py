"""Header count and body size, and that every limit is counted when a client is over it."""

import pytest

from proxy.errors import Limit
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import chunked, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run


def hits(world: World) -> dict[str, int]:
    """What was counted, by limit, zeros left out."""
    return {limit.value: count for limit, count in world.plane.site.stats.limits.items() if count}


@pytest.mark.parametrize(("fields", "status"), [(10, 200), (11, 431)])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_number_of_fields(fields: int, status: int, version: bytes) -> None:
    """A request with more fields than limits.headers is answered 431 and closed; Host is one of them."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        lines = [b"A%d: b" % number for number in range(fields - 1)]
        client = (await world.client()).say(get(b"/x", *lines, version=version))
        assert (await client.response()).status == status
        if status == 431:
            await client.gone()
        assert hits(world) == ({"headers": 1} if status == 431 else {})

    run(test, limits={"headers": 10})


@pytest.mark.parametrize("path", [b"/x", b"/mcp"])
def test_announced_body_that_is_too_large(path: bytes) -> None:
    """A Content-Length over limits.body is answered 413 before any of the body has come, and closed."""

    async def test(world: World) -> None:
        lines = (b"Content-Length: 101", b"Expect: 100-continue")
        client = (await world.client()).say(get(path, *lines, method=b"POST"))
        response = await client.response()
        assert (response.status, response.get(b"connection"), response.interim) == (413, b"close", [])
        await client.gone()
        assert (world.backend.peers, hits(world)) == ([], {"body": 1})

    run(test, limits={"body": 100})


@pytest.mark.parametrize("body", [b"b" * 100, b""])
def test_body_of_the_limit_passes(body: bytes) -> None:
    """A body of exactly limits.body bytes is passed on, and the connection serves the next request."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await world.client()).say(post(b"/x", body))
        assert (await client.response()).body == b"/x " + body
        assert (await client.say(get(b"/y")).response()).body == b"/y "
        assert hits(world) == {}

    run(test, limits={"body": 100})


def test_chunked_body_that_becomes_too_large() -> None:
    """A chunked body is refused as soon as it is over; its backend sees it cut off, not ended."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        client.say(b"3\r\nabc\r\n")
        backend = await world.backend.accept()
        await backend.until(b"abc\r\n")
        client.say(b"64\r\n" + b"d" * 100)
        response = await client.response()
        assert (response.status, response.get(b"connection")) == (413, b"close")
        await client.gone()
        assert b"0\r\n" not in await backend.rest()
        assert hits(world) == {"body": 1}

    run(test, limits={"body": 100})


@pytest.mark.parametrize("path", [b"/x", b"/mcp"])
def test_chunked_body_that_is_too_large_at_once(path: bytes) -> None:
    """A chunked body that came whole with its head is refused too, and no backend hears of it."""

    async def test(world: World) -> None:
        client = await world.client()
        client.say(get(path, b"Transfer-Encoding: chunked", method=b"POST") + chunked(b"a" * 100))
        assert (await client.response()).status == 413
        await client.gone()
        assert (world.backend.peers, hits(world)) == ([], {"body": 1})

    run(test, limits={"body": 100})


def test_body_that_becomes_too_large_after_the_answer_began() -> None:
    """Where part of an answer is out, it is cut off: no second answer is written into it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        client.say(b"3\r\nabc\r\n")
        backend = await world.backend.accept()
        await backend.until(b"abc\r\n")
        backend.say(ok(b"abcdef")[:-1])
        await client.until(b"abcde")
        client.say(b"64\r\n" + b"d" * 100)
        await client.gone()
        assert hits(world) == {"body": 1}

    run(test, limits={"body": 100})


def test_no_limit_of_the_body() -> None:
    """With limits.body 0 any length passes."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Content-Length: 999999999999", method=b"POST"))
        request = await (await world.backend.accept()).head()
        assert request.get(b"content-length") == b"999999999999"
        client.close()

    run(test, limits={"body": 0})


def test_slow_clients_are_counted() -> None:
    """Heads and bodies that do not come in time, and connections that are not used, each by their name."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        assert (await world.ask(b"GET / HT")).status == 408
        assert (await world.ask(get(b"/x", b"Content-Length: 9", method=b"POST"))).status == 408
        await (await world.client()).gone()
        assert hits(world) == {Limit.SLOW_HEAD: 1, Limit.SLOW_BODY: 1, Limit.IDLE: 1}

    run(test, timeouts={"head": 0.2, "body": 0.2})


def test_large_heads_and_idle_tunnels_are_counted() -> None:
    """A head over limits.head, and a tunnel that was silent for timeouts.tunnel_idle."""

    async def test(world: World) -> None:
        assert (await world.ask(get(b"/" + b"x" * 2000))).status == 431
        client = (await world.client()).say(upgrade(b"/any"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await client.response()).status == 101
        await client.gone()
        assert hits(world) == {"head": 1, "tunnel_idle": 1}

    run(test, limits={"head": 1024}, timeouts={"tunnel_idle": 0.2})


@pytest.mark.parametrize("path", [b"/x", b"/mcp"])
def test_body_of_chunk_framing(path: bytes) -> None:
    """A body of more chunk sizes than content gets 400, read here or not, and is counted."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(path, b"Transfer-Encoding: chunked", method=b"POST"))
        client.say(b"1\r\na\r\n" * 10_000)
        assert (await client.response()).status == 400
        assert world.plane.site.stats.limits[Limit.FRAMING] == 1

    run(test)


@pytest.mark.parametrize("connected", [False, True])
def test_too_many_packets(connected: bool) -> None:
    """A payload of more packets than limits.packets gets 413, the first of its transport or a later one."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world)
        await tab.handshake()
        if connected:
            await (await tab.post(connect_packet("session-S"))).response()
        heard = len(instances["a"].heard)
        answer = await (await tab.post(*[b"3"] * 20, connect_packet("session-T"))).response()
        assert answer.status == 413
        assert len(instances["a"].heard) == heard
        assert world.plane.site.stats.limits[Limit.PACKETS] == 1
        assert (await (await tab.post(*[b"3"] * 19, b'42["hi"]')).response()).status == 200

    run(test, limits={"packets": 20})


def test_connect_behind_many_packets() -> None:
    """An app that takes more packets than python-engineio has its CONNECT found behind them."""

    async def test(world: World) -> None:
        instances = chats(world)
        instances["b"].sessions.add("session-S")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(*[b"3"] * 30, connect_packet("session-S"))).response()
        assert connect_packet("session-S") in instances["b"].heard
        assert connect_packet("session-S") not in instances["a"].heard

    run(test, "ab")
