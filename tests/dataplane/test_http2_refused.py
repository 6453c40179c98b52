"""What a stream of HTTP/2 may hold that nobody serves, and what is owed to those that end unserved."""

import asyncio
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame

from proxy.dataplane import tunnel
from proxy.dataplane.connection import AGAIN
from proxy.dataplane.http2_stream import Stream
from proxy.errors import Limit
from tests.dataplane.frames import ACCEPT
from tests.dataplane.multiplexed import NAME, Browser, Raw, request
from tests.dataplane.peers import ok
from tests.dataplane.scripted import echo
from tests.dataplane.test_http2_websockets import ask, wanted
from tests.dataplane.test_leaving import leave
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

SHORT = 1.0  # seconds
BROKEN = [(b":method", b"no such"), (b":scheme", b"https"), (b":authority", NAME.encode()), (b":path", b"/")]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def test_a_refused_stream_keeps_no_body(authority: Authority) -> None:
    """It counts for no limit, so a client that takes no answer cannot have it hold a window of its upload."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.ask(b"/1")
        number = client.ask(b"/2", method=b"POST", ends=False)
        answer = await client.answer(number, to_head=True)
        assert answer.status == 429
        client.say(number, b"x" * 50_000)
        stats, before = world.plane.site.stats, len(world.plane.connections)
        client.ask(b"/3")
        await world.until(lambda: stats.http2_streams == 3)
        assert len(world.plane.connections) == before + 1
        (held,) = [each for each in world.plane.connections if isinstance(each, Stream) and each.id == number]
        assert not held._early

    run(test, tls=authority.issue(NAME), limits={"connections_per_client": 2}, forwarded={"trusted": []})


@pytest.mark.parametrize("path", [b"/", b"/#broken"])
def test_a_refused_head_request_has_no_content(authority: Authority, path: bytes) -> None:
    """RFC 9110 section 9.3.2: whatever refuses it, the answer to HEAD is a head."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        client.ask(b"/1")
        answer = await client.answer(client.ask(path, method=b"HEAD"))
        assert answer.status == (429 if path == b"/" else 400)
        assert answer.body == b""

    most = 2 if path == b"/" else 0
    run(test, tls=authority.issue(NAME), limits={"connections_per_client": most}, forwarded={"trusted": []})


@pytest.mark.parametrize("path", [b"/any", b"/health-of-proxy"])
def test_success_without_a_switch_opens_no_websocket(authority: Authority, path: bytes) -> None:
    """RFC 8441 section 5: there 2xx is the yes, so what is none must not be said with it."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number = ask(client, path)
        if path == b"/any":
            backend = await world.backend.accept()
            await backend.request()
            backend.say(ok(b"\x81\x05hello"))
        answer = await client.answer(number)
        assert answer.status == 502
        assert not world.plane.tunnels

    run(test, tls=wanted(authority), health={"listen_path": "/health-of-proxy"})


def test_a_goodbye_that_is_not_taken(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that opens no window for the close frame is waited for as long as any other, and no longer."""
    monkeypatch.setattr(tunnel, "_LAST_WORDS", SHORT)

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        number = ask(client)
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        await client.answer(number, to_head=True)
        (websocket,) = world.plane.tunnels
        websocket.send_away()
        await world.until(lambda: not world.plane.tunnels)
        await client.answer(number)
        assert client.answers[number].reset is not None

    run(test, tls=wanted(authority))


def test_a_body_that_stalls_within_a_frame(authority: Authority) -> None:
    """It has `timeouts.body` for its next piece, wherever the network has cut it."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number = client.ask(method=b"POST", ends=False)
        backend = await world.backend.accept()
        await backend.head()
        client.h2.send_data(number, b"x" * 1000)
        whole = client.h2.data_to_send()
        client.peer.say(whole[:500])
        (connection,) = world.plane.http2_connections
        await world.until(lambda: connection._frames.progress.is_partial)  # type: ignore[attr-defined]
        moments = world.plane.site.timeouts.head + SHORT
        connection.tick(world.plane.site.loop.time() + moments)
        client.peer.say(whole[500:])
        assert len(await backend.some()) > 0
        assert client.goaway is None
        client.peer.say(whole[:500])
        await world.until(lambda: connection._frames.progress.is_partial)  # type: ignore[attr-defined]
        connection.tick(world.plane.site.loop.time() + world.plane.site.timeouts.body + SHORT)
        assert await client.gone() == 11
        assert world.plane.site.stats.limits[Limit.SLOW_BODY] == 1

    run(test, tls=authority.issue(NAME))


def test_what_is_on_its_way_when_its_body_is_refused(authority: Authority) -> None:
    """A client says all that it has a window for before it hears of it (RFC 9113 section 5.1): no flood."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Raw.open(world, authority)
        long = request(b"/", (b"content-length", b"9000000"), method=b"POST")
        client.say(client.head(1, long, "END_HEADERS"))
        await client.wait_for(RstStreamFrame, 1)
        client.say(*[DataFrame(1, b"x" * 16_000)] * 16, client.head(3))
        assert "END_STREAM" in (await client.wait_for(DataFrame, 3)).flags

    run(test, tls=authority.issue(NAME), debug=False, limits={"body": 1000})


def test_fields_that_are_not_said_pay_for_nothing(authority: Authority) -> None:
    """What a table of compression stands for has not come: it makes no room for pings."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        large = (b"x-large", b"x" * 3000)
        client.say(client.head(1, [*BROKEN, large]))
        await client.wait_for(DataFrame, 1)
        for number in range(3, 100, 2):
            head = client.head(number, [*BROKEN, *[large] * 6])
            client.say(head, *[PingFrame(0, b"12345678")] * 600)
        last = [frame for frame in await client.frames() if isinstance(frame, GoAwayFrame)]
        assert last[0].additional_data == b"http2_overhead"

    run(test, tls=authority.issue(NAME), debug=False)


def test_tables_that_change_again_and_again(authority: Authority) -> None:
    """RFC 7541 section 4.2: of all sizes between two heads the smallest and the last are told, and kept."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        for size in [100, 200] * 100:
            client.say(SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: size}))
        client.say(PingFrame(0, b"12345678"))
        await client.wait_for(PingFrame)
        (connection,) = world.plane.http2_connections
        assert connection._frames._library.encoder.table_size_changes == [100, 200]  # type: ignore[attr-defined]

    run(test, tls=authority.issue(NAME))


def test_who_has_just_come_is_answered(authority: Authority) -> None:
    """A connection that was accepted before the end says what it wants, and hears what it is answered."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        await world.until(lambda: bool(world.plane.http2_connections))
        leaving = await leave(world)
        await world.breathe()
        number = client.ask()
        backend = await world.backend.accept()
        await backend.request()
        assert not (await asyncio.wait([leaving], timeout=AGAIN / 2))[0]
        backend.say(ok(b"last"))
        assert (await client.answer(number)).body == b"last"
        await client.gone()
        await leaving

    run(test, tls=authority.issue(NAME))
