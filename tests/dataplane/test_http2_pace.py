"""Who has to wait for whom in HTTP/2: windows, slow clients and slow backends, and what is too late."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from proxy.dataplane.http2_stream import Stream
from proxy.errors import Limit
from tests.dataplane.multiplexed import NAME, Browser, Raw, request
from tests.dataplane.peers import Message, Peer, ok
from tests.dataplane.scripted import echo
from tests.dataplane.test_streaming import held
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

LONG = 100_000_000
SHORT = 1.0  # seconds
STREAMS = 50


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def streams(world: World) -> list[Stream]:
    """Those that are open."""
    return [each for each in world.plane.connections if isinstance(each, Stream)]


async def upload(client: Browser, stream: int, is_enough: Callable[[], bool], size: int = LONG) -> None:
    """Send as much of a body as windows have room for, until it is whole or enough."""
    while size and not is_enough():
        room = min(client.h2.local_flow_control_window(stream), size)
        if room:
            size -= room
            client.say(stream, b"x" * room, ends=not size)
            await asyncio.sleep(0.01)
        else:
            await client.hear()


def test_a_slow_reader_pauses_its_backend(authority: Authority) -> None:
    """While a client opens no window its backend is not read from, and others on the connection go on."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        client.say(client.head(1))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        for _ in range(100):
            backend.say(b"x" * 100_000)
        await world.until(lambda: world.upstream().leg.paused)
        taken = 0
        while taken < 65_535:
            frame = await client.wait_for(DataFrame, 1)
            taken += len(frame.data)
        assert taken == 65_535
        assert sum(stream.leg.unsent for stream in streams(world)) < 500_000
        client.say(
            WindowUpdateFrame(1, window_increment=1_000_000), WindowUpdateFrame(0, window_increment=2_000_000)
        )
        while taken < 1_000_000:
            frame = await client.wait_for(DataFrame, 1)
            taken += len(frame.data)
        world.backend.serve(echo)
        client.say(client.head(3, request(b"/other")))
        while (await client.wait_for(DataFrame, 3)).data != b"/other ":
            pass

    run(test, tls=authority.issue(NAME), debug=False)


def test_a_backend_that_does_not_read_stops_its_upload(authority: Authority) -> None:
    """The stream's window stays shut, and the connection's is open: another upload goes through."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stuck = client.ask(b"/stuck", (b"content-length", b"%d" % LONG), method=b"POST", ends=False)
        backend = await world.backend.accept()
        await backend.head()
        backend.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await upload(client, stuck, lambda: any(stream.leg.paused for stream in streams(world)))
        world.backend.serve(_count)
        other = client.ask(b"/other", method=b"POST", ends=False)
        await upload(client, other, lambda: False, 3_000_000)
        assert (await client.answer(other)).body == b"3000000"
        await upload(client, stuck, lambda: not client.h2.local_flow_control_window(stuck))
        assert (await client.answer(client.ask(b"/last", method=b"POST"))).body == b"0"
        assert client.h2.local_flow_control_window(stuck) == 0
        assert held(world) < 2_000_000

    async def _count(peer: Peer, message: Message) -> None:
        peer.say(ok(b"%d" % len(message.body)))

    run(test, tls=authority.issue(NAME), debug=False)


def test_a_client_that_opens_no_window(authority: Authority) -> None:
    """Slow windows: a stream of which nothing is taken for `timeouts.write` is reset, whole or not."""

    async def test(world: World) -> None:
        client = await Raw.open(
            world, authority, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        )
        client.say(client.head(1))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"whole"))
        reset = await client.wait_for(RstStreamFrame, 1)
        assert reset.error_code == 2
        assert world.plane.site.stats.limits[Limit.SLOW_READ] == 1
        assert [record.status for record in world.ended] == [200]

    run(test, tls=authority.issue(NAME), timeouts={"write": SHORT})


def test_many_streams_that_open_no_window(authority: Authority) -> None:
    """CVE-2019-9517 and its like: all of them together are held in bounded memory, for a bounded time."""

    async def test(world: World) -> None:
        world.backend.serve(_large)
        client = await Raw.open(
            world, authority, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        )
        client.say(*[client.head(number) for number in range(1, 2 * STREAMS, 2)])
        waiting: list[int] = []

        def all_were_reset() -> bool:
            waiting.append(sum(stream.leg.unsent for stream in streams(world)))
            return world.plane.site.stats.limits[Limit.SLOW_READ] == STREAMS

        await world.until(all_were_reset)
        assert 65_536 < max(waiting) < STREAMS * 400_000
        assert streams(world) == []
        await world.until(lambda: not any(pool._all for pool in world.plane.site.pools()))

    async def _large(peer: Peer, _: Message) -> None:
        await peer.say_slowly(ok(b"x" * 1_000_000))

    run(test, tls=authority.issue(NAME), debug=False, timeouts={"write": SHORT})


def test_a_client_that_opens_its_window_byte_by_byte(authority: Authority) -> None:
    """It takes what there is, and is answered: each byte in a frame, until it has all."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Raw.open(
            world, authority, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1})
        )
        client.say(client.head(1, request(b"/abc")))
        found = b""
        while found != b"/abc ":
            found += (await client.wait_for(DataFrame, 1)).data
            client.say(WindowUpdateFrame(1, window_increment=1))

    run(test, tls=authority.issue(NAME))


def test_a_client_that_reads_nothing(authority: Authority) -> None:
    """With windows wide open and nothing read, the connection ends after `timeouts.write`."""

    async def test(world: World) -> None:
        wide = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        client = await Raw.open(world, authority, wide, WindowUpdateFrame(0, window_increment=2**30))
        client.peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.say(client.head(1))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
        for _ in range(300):
            backend.say(b"x" * 100_000)
        await world.until(lambda: not world.plane.connections)
        assert world.plane.site.stats.limits[Limit.SLOW_READ] == 1

    run(test, tls=authority.issue(NAME), debug=False, timeouts={"write": SHORT})


def test_a_body_that_does_not_come(authority: Authority) -> None:
    """`timeouts.body` holds for a stream alone."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/", method=b"POST", ends=False)
        assert (await client.answer(stream)).status == 408
        assert world.plane.site.stats.limits[Limit.SLOW_BODY] == 1
        world.backend.serve(echo)
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME), timeouts={"body": SHORT})


def test_a_backend_that_does_not_answer(authority: Authority) -> None:
    """`timeouts.response` holds for a stream alone."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask()
        await (await world.backend.accept()).request()
        assert (await client.answer(stream)).status == 504

    run(test, tls=authority.issue(NAME), timeouts={"response": SHORT})


@pytest.mark.parametrize("says", ["nothing", "half a frame", "half a block"])
def test_a_head_that_does_not_come(authority: Authority, says: str) -> None:
    """Who says nothing, or never the rest of it, is closed after `timeouts.head`, also beside a request."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        if says != "nothing":
            client.say(client.head(1))
            await (await world.backend.accept()).request()
            head = client.head(3, None, "END_STREAM")
            client.say(head.serialize()[:-1] if says == "half a frame" else head)
        last = (await client.frames())[-1]
        assert isinstance(last, GoAwayFrame)
        slow = Limit.IDLE if says == "nothing" else Limit.SLOW_HEAD
        assert world.plane.site.stats.limits[slow] == 1

    run(test, tls=authority.issue(NAME), timeouts={"head": SHORT})


def test_idle_connections_end(authority: Authority) -> None:
    """Without a stream for `timeouts.idle` it ends with GOAWAY, whatever else is said."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        await client.answer(client.ask())
        assert await client.gone() == 0
        assert world.plane.site.stats.limits[Limit.IDLE] == 1

    run(test, tls=authority.issue(NAME), timeouts={"idle": SHORT})


@pytest.mark.parametrize("informed", [1, 2000])
def test_interim_responses_that_nobody_reads(authority: Authority, informed: int) -> None:
    """They are held back at their backend, as a body is."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        client.peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.ask()
        backend = await world.backend.accept()
        await backend.request()
        for _ in range(informed):
            backend.say(b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % (b"x" * 10_000))
        if informed > 1:
            await world.until(lambda: world.upstream().leg.paused)
            assert held(world) < 3_000_000

    run(test, tls=authority.issue(NAME), debug=False)
