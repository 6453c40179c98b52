"""Websockets between a real client and a real server: everything that they say passes as it was said."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from proxy.affinity.health import Observation
from tests.dataplane.peers import WAIT
from tests.dataplane.world import World, run

BIG = 16 << 20  # bytes
PLAIN = "/ws/other"
WATCHED = "/ws/socket.io/?EIO=4&transport=websocket"  # here the first message is read
both = pytest.mark.parametrize("path", [PLAIN, WATCHED], ids=["plain", "watched"])

Handler = Callable[[ServerConnection], Awaitable[None]]
Connect = Callable[..., Any]


async def echo(connection: ServerConnection) -> None:
    """Answer every message with itself."""
    async for message in connection:
        await connection.send(message)


async def greet(connection: ClientConnection) -> None:
    """Connect to Socket.IO's main namespace: before, a client may say only so much."""
    await connection.send("40")
    assert await connection.recv() == "40"


def through(
    handler: Handler, test: Callable[[Connect], Awaitable[None]], *, compress: bool = False, **options: Any
) -> None:
    """Run a test with a websocket server as the only backend; it is given what connects by the proxy.

    Afterwards nothing may be held against the backend: every end of a websocket here is a graceful one.
    """

    async def whole(world: World) -> None:
        @asynccontextmanager
        async def connected(path: str, *, by_aiohttp: bool = False, **wishes: Any) -> AsyncIterator[Any]:
            world.guests += 1
            url = f"ws://{world.address[0]}:{world.address[1]}{path}"
            if by_aiohttp:
                async with aiohttp.ClientSession() as session, session.ws_connect(url, **wishes) as client:
                    yield client
                return
            async with asyncio.timeout(WAIT), connect(url, max_size=None, proxy=None, **wishes) as connection:
                yield connection

        world.backend.refuse()
        async with serve(handler, "127.0.0.1", 0, max_size=None, **options) as server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            known = world.known("a")
            world.parts.fleet.move(known, host, port)
            world.observe("a", Observation.ANSWERED)
            await test(connected)
            await world.until(lambda: not world.plane.tunnels)
            assert not world.plane.site.stats.upstream_errors
            assert world.suspected == []
            assert known.takes_sessions
            for pool in world.plane.site._pools.values():
                pool.close_all()

    run(whole, debug=False, websocket={"compress": compress})


@both
def test_subprotocols_pass(path: str) -> None:
    """The client's list reaches the server, and the server's choice the client."""
    chat, other = Subprotocol("chat.v2"), Subprotocol("other")

    async def test(connected: Connect) -> None:
        async with connected(path, subprotocols=[other, chat]) as connection:
            assert connection.subprotocol == "chat.v2"
            await connection.send("hi")
            assert await connection.recv() == "hi"

    through(echo, test, subprotocols=[chat])


@both
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, "x" * 123), (4999, "é")])
def test_close_codes_of_the_client_pass(path: str, code: int, reason: str) -> None:
    """The server hears why the client went."""
    heard: list[tuple[int | None, str | None]] = []

    async def listen(connection: ServerConnection) -> None:
        await connection.wait_closed()
        heard.append((connection.close_code, connection.close_reason))

    async def test(connected: Connect) -> None:
        async with connected(path) as connection:
            await connection.close(code, reason)
            assert (connection.close_code, connection.close_reason) == (code, reason)

    through(listen, test)
    assert heard == [(code, reason)]


@both
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "broken"), (1012, ""), (4000, "app")])
def test_close_codes_of_the_server_pass(path: str, code: int, reason: str) -> None:
    """The client hears why the server went, after all that it said before."""

    async def leave(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, reason)

    async def test(connected: Connect) -> None:
        async with connected(path) as connection:
            assert await connection.recv() == "last words"
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (code, reason)

    through(leave, test)


@both
@pytest.mark.parametrize("parts", [["a", "", "bc", "d" * 70_000, "e"], [b"\x00", b"\xff" * 300_000, b""]])
def test_fragments_stay_as_they_were_cut(path: str, parts: list[str] | list[bytes]) -> None:
    """A message in fragments arrives in the same fragments, in both directions."""

    async def repeat(connection: ServerConnection) -> None:
        await connection.send(await connection.recv())
        heard = [part async for part in connection.recv_streaming()]
        assert heard[: len(parts)] == parts  # the client ends a fragmented message by an empty one
        await connection.send(parts)
        await connection.wait_closed()

    async def test(connected: Connect) -> None:
        async with connected(path, compression=None) as connection:
            await greet(connection)
            await connection.send(parts)
            assert [part async for part in connection.recv_streaming()][: len(parts)] == parts

    through(repeat, test, compression=None)


@both
def test_large_messages_pass(path: str) -> None:
    """A message of 16 MiB in one frame passes both ways."""

    async def test(connected: Connect) -> None:
        async with connected(path, compression=None) as connection:
            await greet(connection)
            message = bytes(range(256)) * (BIG // 256)
            await connection.send(message)
            assert await connection.recv() == message

    through(echo, test, compression=None)


def test_compression_is_between_the_two_ends() -> None:
    """Where nothing is read, extensions are for the two ends; where the proxy reads, there are none."""

    async def test(connected: Connect) -> None:
        for path, names in ((PLAIN, ["permessage-deflate"]), (WATCHED, [])):
            async with connected(path) as connection:
                assert [extension.name for extension in connection.protocol.extensions] == names
                await connection.send("a" * 100_000)
                assert await connection.recv() == "a" * 100_000

    through(echo, test)


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"client_max_window_bits": 9},
        {"server_max_window_bits": 10},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
    ],
)
def test_compression_is_between_the_client_and_the_proxy(wishes: dict[str, Any]) -> None:
    """With `websocket.compress` a real client has it, whatever it wishes, and the instance has none."""
    seen: list[list[str]] = []

    async def look(connection: ServerConnection) -> None:
        seen.append([extension.name for extension in connection.protocol.extensions])
        await echo(connection)

    async def test(connected: Connect) -> None:
        offers = [ClientPerMessageDeflateFactory(**wishes)]
        async with connected(WATCHED, extensions=offers, compression=None) as connection:
            (extension,) = connection.protocol.extensions
            assert extension.remote_no_context_takeover is ("server_no_context_takeover" in wishes)
            await greet(connection)
            for size in (0, 1, 31, 32, 1000, 100_000, 300_000):
                for message in ("a" * size, bytes(range(256)) * (size // 256)):
                    await connection.send(message)
                    assert await connection.recv() == message
            await (await connection.ping(b"x"))

    through(look, test, compress=True)
    assert seen == [[]]


def test_a_client_of_aiohttp_has_it_too() -> None:
    """It is what python-socketio connects with; it compresses where it may, and reads what comes."""

    async def test(connected: Connect) -> None:
        async with connected(WATCHED, by_aiohttp=True, compress=15) as client:
            assert client.compress
            await client.send_str("40")
            assert await client.receive_str() == "40"
            for number in range(50):
                token = f'42["stream_token",{number},"{"x" * 100}"]'
                await client.send_str(token)
                assert await client.receive_str() == token

    through(echo, test, compress=True)


@both
def test_pings_and_pongs_pass(path: str) -> None:
    """A ping of either side is answered by the other side, with its own payload, also inside a message."""
    answered: list[float] = []

    async def ping(connection: ServerConnection) -> None:
        answered.append(await (await connection.ping(b"from the server" + b"." * 110)))
        await echo(connection)

    async def test(connected: Connect) -> None:
        async with connected(path, ping_interval=None) as connection:

            async def with_a_ping_inside() -> AsyncIterator[str]:
                yield "one "
                await (await connection.ping(b"from the client"))
                yield "message"

            await connection.send(with_a_ping_inside())
            assert await connection.recv() == "one message"
            await connection.pong(b"nobody asked")
            await (await connection.ping(b""))

    through(ping, test, ping_interval=None)
    assert len(answered) == 1


def test_refused_websockets_are_answered() -> None:
    """The server's own refusal reaches the client with its status and body."""

    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(403, "not you\n")

    async def test(connected: Connect) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with connected(WATCHED):
                raise AssertionError("it was let in")
        assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not you\n")

    through(echo, test, process_request=refuse)
