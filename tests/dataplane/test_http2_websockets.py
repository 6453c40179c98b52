"""Websockets on streams of HTTP/2 (RFC 8441), where they are wanted."""

from pathlib import Path

import pytest
from h2.settings import SettingCodes

from proxy.dataplane.http2_stream import Stream
from proxy.dataplane.leg import MOVING
from proxy.errors import Limit
from tests.dataplane.chat import PATH, chats, connect_packet
from tests.dataplane.frames import ACCEPT, frame
from tests.dataplane.multiplexed import NAME, Browser
from tests.dataplane.peers import Peer
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

LARGE = 3_000_000
SHORT = 1.0  # seconds


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def wanted(authority: Authority) -> dict[str, object]:
    """The section `tls`."""
    return {**authority.issue(NAME), "http2_websockets": True}


def ask(client: Browser, path: bytes = b"/any") -> int:
    """Ask for a websocket, as Chromium does."""
    return client.ask(
        path,
        (b":protocol", b"websocket"),
        (b"origin", b"https://" + NAME.encode()),
        (b"sec-websocket-version", b"13"),
        method=b"CONNECT",
        ends=False,
    )


async def opened(world: World, client: Browser) -> tuple[int, Peer]:
    """A websocket that leads to the backend."""
    number = ask(client)
    backend = await world.backend.accept()
    await backend.request()
    backend.say(ACCEPT)
    await client.answer(number, to_head=True)
    return number, backend


async def heard(client: Browser, number: int, size: int) -> bytes:
    """So many bytes of what a websocket says."""
    answer = client.answers[number]
    while len(answer.body) < size:
        await client.hear()
    return answer.body


def test_both_ways(authority: Authority) -> None:
    """The backend is asked in HTTP/1.1, and what is said passes both ways beside other requests."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number = ask(client)
        backend = await world.backend.accept()
        request = await backend.request()
        assert request.start == b"GET /any HTTP/1.1"
        assert (request.get(b"upgrade"), request.get(b"host")) == (b"websocket", NAME.encode())
        assert len(request.get(b"sec-websocket-key") or b"") == 24
        backend.say(ACCEPT + b"early")
        answer = await client.answer(number, to_head=True)
        names = {name for name, _ in answer.fields}
        assert answer.status == 200
        assert not names & {b"sec-websocket-accept", b"connection", b"upgrade", b"transfer-encoding"}
        assert await heard(client, number, 5) == b"early"
        client.say(number, b"hello")
        assert await backend.some() == b"hello"
        backend.say(b"hello back")
        assert await heard(client, number, 15) == b"earlyhello back"
        assert len(world.plane.tunnels) == 1
        assert not [each for each in world.plane.connections if isinstance(each, Stream)]
        backend.close()
        assert (await client.answer(number)).whole
        await world.until(lambda: not world.plane.tunnels)
        assert [record.request.known.origin.protocol for record in world.ended] == ["h2"]

    run(test, tls=wanted(authority))


@pytest.mark.parametrize("how", ["end", "reset", "connection"])
def test_a_client_that_leaves(authority: Authority, how: str) -> None:
    """Its backend sees the end, and nothing of the websocket is left."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number, backend = await opened(world, client)
        if how == "end":
            client.say(number, b"", ends=True)
        elif how == "reset":
            client.h2.reset_stream(number, 8)
            client.flush()
        else:
            client.peer.close()
        await backend.gone()
        await world.until(lambda: not world.plane.tunnels)
        await world.until(lambda: world.plane.site.clients.total == (how != "connection"))

    run(test, tls=wanted(authority))


def test_a_slow_client_pauses_its_backend(authority: Authority) -> None:
    """What its windows hold back is bounded; who takes nothing for `timeouts.write` is cut off."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority, slow=True)
        number, backend = await opened(world, client)
        for _ in range(LARGE // 10_000):
            backend.say(b"x" * 10_000)
        (tunnel,) = world.plane.tunnels
        await world.until(lambda: tunnel.up.paused)
        assert tunnel.down.unsent < LARGE / 2
        while client.answers[number].reset is None:
            await client.hear()
        await world.until(lambda: not world.plane.tunnels)

    run(test, tls=wanted(authority), debug=False, timeouts={"write": SHORT})


def test_who_is_not_read_is_not_heard(authority: Authority) -> None:
    """What has come within the windows waits, and the end behind it, as when a hand-over reads no client."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number, backend = await opened(world, client)
        (tunnel,) = world.plane.tunnels
        (connection,) = world.plane.http2_connections
        tunnel.down.pause(MOVING)
        client.say(number, b"one")
        client.say(number, b"two", ends=True)
        await world.until(lambda: connection.streams[number].heard_all)  # type: ignore[attr-defined]
        assert tunnel.frames == (0, 0)
        tunnel.down.resume(MOVING)
        assert await backend.read(6) == b"onetwo"
        await backend.gone()
        await world.until(lambda: not world.plane.tunnels)

    run(test, tls=wanted(authority))


def test_large_messages(authority: Authority) -> None:
    """Larger than all windows, both ways."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number, backend = await opened(world, client)
        backend.say(b"x" * LARGE)
        assert await heard(client, number, LARGE) == b"x" * LARGE
        left, came = LARGE, 0
        while left or came < LARGE:
            if room := min(client.h2.local_flow_control_window(number), left):
                client.say(number, b"y" * room)
                left -= room
            elif left:
                await client.hear()
            if came < LARGE - left:
                came += len(await backend.some())
        assert came == LARGE

    run(test, tls=wanted(authority), debug=False)


def test_a_session(authority: Authority) -> None:
    """A session that opens by a websocket is known by its CONNECT, and counted as any other."""

    async def test(world: World) -> None:
        (chat,) = chats(world).values()
        client = await Browser.open(world, authority)
        number = ask(client, PATH + b"websocket")
        answer = await client.answer(number, to_head=True)
        assert answer.status == 200
        client.say(number, frame(connect_packet("session-0001"), masked=True))
        await world.until(lambda: any(packet.startswith(b"40") for packet in chat.heard))
        await world.until(lambda: any(tunnel.session for tunnel in world.plane.tunnels))
        client.say(number, frame(b'42["hello"]', masked=True))
        await world.until(lambda: b'42["hello"]' in chat.heard)

    run(test, tls=wanted(authority))


def test_they_end_with_the_process(authority: Authority) -> None:
    """A client is told by a close frame to connect anew, as in HTTP/1.1."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number, _ = await opened(world, client)
        (tunnel,) = world.plane.tunnels
        tunnel.send_away()
        assert (await heard(client, number, 4))[:4] == b"\x88\x02\x03\xf4"  # 1012

    run(test, tls=wanted(authority))


def test_a_backend_that_refuses(authority: Authority) -> None:
    """Its answer is the client's, and the stream ends."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number = ask(client)
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        answer = await client.answer(number)
        assert (answer.status, answer.body) == (403, b"no")
        assert not world.plane.tunnels

    run(test, tls=wanted(authority))


@pytest.mark.parametrize("protocol", [b"websocket", b"connect-udp"])
@pytest.mark.parametrize("offered", [False, True])
def test_what_is_offered(authority: Authority, protocol: bytes, offered: bool) -> None:
    """SETTINGS say whether; what is not offered is refused, and the connection goes on."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        await client.hear()
        assert client.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == int(offered)
        if not (offered and protocol == b"websocket"):
            number = client.ask(b"/any", (b":protocol", protocol), method=b"CONNECT", ends=False)
            assert (await client.answer(number)).status == 400
            assert client.goaway is None
        assert world.plane.site.stats.limits[Limit.HTTP2_RESETS] == 0

    run(test, tls={**authority.issue(NAME), "http2_websockets": offered})
