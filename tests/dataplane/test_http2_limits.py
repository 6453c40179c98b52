"""What one client in HTTP/2 may ask for, and how those end who ask for more."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proxy.errors import Limit
from tests.dataplane.multiplexed import NAME, Browser, Raw, forwarded, request
from tests.dataplane.peers import Message, Peer, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

CALM = int(ErrorCodes.ENHANCE_YOUR_CALM)
MANY = 9000  # frames of nine bytes: more than 65536 bytes of them


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def data(number: int, content: bytes = b"", *flags: str, padding: int = 0) -> DataFrame:
    """A DATA frame."""
    frame = DataFrame(number, content, pad_length=padding)
    for flag in (*flags, *(["PADDED"] if padding else [])):
        frame.flags.add(flag)
    return frame


def settings() -> Iterator[Frame]:
    """SETTINGS without an end."""
    for _ in range(MANY):
        yield SettingsFrame(0)


def pings() -> Iterator[Frame]:
    """PINGs."""
    for _ in range(MANY):
        yield PingFrame(0, b"12345678")


def priorities() -> Iterator[Frame]:
    """PRIORITY of a stream that is nobody's."""
    for _ in range(MANY):
        yield PriorityFrame(7, depends_on=3, stream_weight=1)


def empty() -> Iterator[Frame]:
    """DATA without content."""
    for _ in range(MANY):
        yield data(1)


def bytewise() -> Iterator[Frame]:
    """DATA of one byte each: a body that is nearly all frames."""
    for _ in range(MANY):
        yield data(1, b"x")


def padding() -> Iterator[Frame]:
    """DATA that is padding."""
    for _ in range(MANY // 20):
        yield data(1, b"", padding=255)


def windows() -> Iterator[Frame]:
    """Windows opened by a byte."""
    for _ in range(MANY):
        yield WindowUpdateFrame(0, window_increment=1)


def windows_of_nobody() -> Iterator[Frame]:
    """Windows of a stream that has ended: the library tells of none of them."""
    for _ in range(MANY):
        yield WindowUpdateFrame(3, window_increment=1)


def unknown() -> Iterator[Frame]:
    """Frames that nobody knows."""
    for _ in range(MANY):
        yield ExtensionFrame(0xEE, 0, 0)


FLOODS = [settings, pings, priorities, empty, bytewise, padding, windows, windows_of_nobody, unknown]


@pytest.mark.parametrize("flood", FLOODS)
def test_floods(authority: Authority, flood: "type[Iterator[Frame]]") -> None:
    """A connection that says more than 64 KiB of anything but requests and bodies ends, and that is counted.

    CVE-2019-9512 (PING), -9515 (SETTINGS), -9518 (empty frames), -9513 (PRIORITY), and their like.
    """

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        client.say(client.head(1, request(b"/", method=b"POST"), "END_HEADERS"))
        client.say(client.head(3, request(b"/ws/socket.io/?EIO=4&transport=polling&sid=nobodys.sid")))
        answered = await client.wait_for(DataFrame, 3)
        assert "END_STREAM" in answered.flags
        client.say(*flood())
        last = [frame for frame in await client.frames() if isinstance(frame, GoAwayFrame)]
        assert [(frame.error_code, frame.additional_data) for frame in last] == [(CALM, b"http2_overhead")]
        assert world.plane.site.stats.limits[Limit.HTTP2_OVERHEAD] == 1

    run(test, tls=authority.issue(NAME), debug=False)


def test_what_a_browser_says_is_no_flood(authority: Authority) -> None:
    """Windows that are opened for an answer are paid for by the answer, however long it is."""

    async def test(world: World) -> None:
        world.backend.serve(_large)
        client = await Browser.open(world, authority)
        for _ in range(4):
            answer = await client.answer(client.ask())
            assert len(answer.body) == 5_000_000
        assert world.plane.site.stats.limits[Limit.HTTP2_OVERHEAD] == 0

    async def _large(peer: Peer, _: Message) -> None:
        await peer.say_slowly(ok(b"x" * 5_000_000))

    run(test, tls=authority.issue(NAME), debug=False, limits={"http2_overhead": 1})


def test_rapid_reset(authority: Authority) -> None:
    """CVE-2023-44487: who asks and resets again and again is cut off, and the backend is spared."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        for number in range(1, 1000, 2):
            client.say(client.head(number), RstStreamFrame(number, error_code=8))
        frames = await client.frames()
        assert isinstance(frames[-1], GoAwayFrame)
        assert (frames[-1].error_code, frames[-1].additional_data) == (CALM, b"http2_resets")
        assert world.plane.site.stats.limits[Limit.HTTP2_RESETS] == 1
        await world.until(lambda: not world.plane.connections)

    run(test, tls=authority.issue(NAME), debug=False)


def window_too_far(client: Raw, number: int) -> list[Frame]:
    """A window that is opened beyond all measure."""
    return [client.head(number), WindowUpdateFrame(number, window_increment=2**31 - 1)]


def data_behind_the_end(client: Raw, number: int) -> list[Frame]:
    """A body of a request that has ended."""
    return [client.head(number), data(number, b"x")]


def head_behind_the_end(client: Raw, number: int) -> list[Frame]:
    """A second head of a request that has ended."""
    return [client.head(number), client.head(number)]


def short_body(client: Raw, number: int) -> list[Frame]:
    """A body that ends before it is whole, by trailers."""
    head = client.head(number, request(b"/", (b"content-length", b"3"), method=b"POST"), "END_HEADERS")
    return [head, client.head(number, [(b"x", b"y")])]


@pytest.mark.parametrize("provoke", [window_too_far, data_behind_the_end, head_behind_the_end, short_body])
def test_made_you_reset(authority: Authority, provoke: Callable[[Raw, int], list[Frame]]) -> None:
    """CVE-2025-8671: a stream that we have to reset for what its client did is counted as one it resets."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        resets, number, last = 0, -1, None
        while not isinstance(last, GoAwayFrame):
            if resets % 50 == 0:
                client.say(
                    *[f for number in range(number + 2, number + 102, 2) for f in provoke(client, number)]
                )
                number += 100
            last = await client.hear()
            assert last is not None
            resets += isinstance(last, RstStreamFrame)
        assert (last.error_code, last.additional_data) == (CALM, b"http2_resets")
        assert resets <= 250
        assert world.plane.site.stats.limits[Limit.HTTP2_RESETS] == 1
        assert world.plane.site.clients.total <= 1

    run(test, tls=authority.issue(NAME), debug=False)


def test_broken_rules_are_counted(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """By the error that the client was told; the log says so."""

    async def test(world: World) -> None:
        for frame in (b"\0\0\0\0\0\0\0\0\0", b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", b"\0\0\1\6\0\0\0\0\0x"):
            assert isinstance((await (await Raw.open(world, authority, frame)).frames())[-1], GoAwayFrame)
        assert world.plane.site.stats.http2_errors == {"protocol_error": 2, "frame_size_error": 1}
        world.plane._report_limits(100.0)

    with caplog.at_level(logging.WARNING, "proxy.dataplane"):
        run(test, tls=authority.issue(NAME))
    assert "clients broke rules of HTTP/2: protocol_error 2, frame_size_error 1" in caplog.messages


def test_a_page_that_is_left_resets_all_of_it(authority: Authority) -> None:
    """A hundred requests that are given up at once are no attack."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        streams = [client.ask(b"/%d" % number) for number in range(100)]
        await world.until(lambda: world.plane.site.stats.http2_streams == 100)
        for stream in streams:
            client.h2.reset_stream(stream, 8)
        client.flush()
        world.backend.serve(echo)
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME), debug=False)


def test_continuation_flood(authority: Authority) -> None:
    """CVE-2024-27316 and its like: a block of fields without an end is cut off when it is too long."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        client.say(client.head(1, None, "END_STREAM"))
        for _ in range(60):
            client.say(ContinuationFrame(1, b"\0\1a" + b"\x7f\x80\x7f" + b"x" * 16000))
        frames = await client.frames()
        assert isinstance(frames[-1], GoAwayFrame)
        assert frames[-1].error_code == CALM
        assert world.plane.site.stats.limits[Limit.HEAD] == 1

    run(test, tls=authority.issue(NAME))


def test_many_empty_continuations(authority: Authority) -> None:
    """As many frames without content: the library takes no more than 64 of them."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        client.say(client.head(1, None, "END_STREAM"), *[ContinuationFrame(1, b"") for _ in range(100)])
        frames = await client.frames()
        assert isinstance(frames[-1], GoAwayFrame)
        assert frames[-1].error_code == int(ErrorCodes.PROTOCOL_ERROR)

    run(test, tls=authority.issue(NAME))


def test_hpack_bomb(authority: Authority) -> None:
    """CVE-2016-6581: a few bytes that stand for many fields are not unpacked beyond twice `limits.head`."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        head = client.head(1, [*request(), (b"x-large", b"x" * 3000)])
        head.data += b"\xbe" * 2000  # the newest entry of the table, again and again
        client.say(head)
        frames = await client.frames()
        assert isinstance(frames[-1], GoAwayFrame)
        assert frames[-1].error_code == CALM
        assert world.plane.site.stats.limits[Limit.HEAD] == 1

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize(
    ("fields", "limit"),
    [([(b"x-large", b"x" * 33_000)], Limit.HEAD), ([(b"x-%d" % n, b"") for n in range(100)], Limit.HEADERS)],
)
def test_heads_that_are_too_long(
    authority: Authority, fields: list[tuple[bytes, bytes]], limit: Limit
) -> None:
    """They are answered 431, and the connection goes on."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        assert (await client.answer(client.ask(b"/", *fields))).status == 431
        assert world.plane.site.stats.limits[limit] == 1
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME))


def test_more_streams_than_are_offered(authority: Authority) -> None:
    """Who opens more streams than SETTINGS_MAX_CONCURRENT_STREAMS allows is cut off."""

    async def test(world: World) -> None:
        client = await Raw.open(world, authority)
        offered = await client.wait_for(SettingsFrame)
        assert offered.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 3
        client.say(*[client.head(number) for number in (1, 3, 5, 7)])
        frames = await client.frames()
        assert isinstance(frames[-1], GoAwayFrame)
        assert frames[-1].error_code == int(ErrorCodes.PROTOCOL_ERROR)
        assert world.plane.site.stats.limits[Limit.HTTP2_STREAMS] == 1

    run(test, tls=authority.issue(NAME), limits={"http2_streams": 3})


def test_streams_count_as_connections(authority: Authority) -> None:
    """`limits.connections_per_client` holds for the connection and its open streams together."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        first, second = client.ask(b"/1"), client.ask(b"/2")
        refused = await client.answer(client.ask(b"/3"))
        assert (refused.status, refused.get(b"retry-after")) == (429, b"5")
        assert world.plane.site.stats.limits[Limit.CONNECTIONS_PER_CLIENT] == 1
        for backend in [await world.backend.accept() for _ in range(2)]:
            backend.say(ok((await backend.request()).target))
        assert {(await client.answer(stream)).body for stream in (first, second)} == {b"/1", b"/2"}
        client.ask(b"/4")
        await world.until(lambda: world.plane.site.stats.http2_streams == 4)
        assert world.plane.site.stats.limits[Limit.CONNECTIONS_PER_CLIENT] == 1

    run(test, tls=authority.issue(NAME), limits={"connections_per_client": 3}, forwarded={"trusted": []})


def test_a_connection_too_many_is_told_in_its_protocol(authority: Authority) -> None:
    """Whose it is, is known by the PROXY header: then it is counted as in HTTP/1.1, and told by GOAWAY."""

    async def test(world: World) -> None:
        for is_over in (False, True):
            peer = await forwarded(world, authority)
            if is_over:
                frames: list[Any] = await Raw(peer).frames()
                assert [type(frame) for frame in frames] == [SettingsFrame, GoAwayFrame]
                assert (frames[1].error_code, frames[1].additional_data) == (CALM, b"connections_per_client")
        assert world.plane.site.stats.limits[Limit.CONNECTIONS_PER_CLIENT] == 1
        assert (world.plane.site.stats.connections, len(world.plane.connections)) == (2, 1)

    run(
        test,
        tls=authority.issue(NAME),
        forwarded={"proxy_protocol": True},
        limits={"connections_per_client": 1},
    )


def test_rates_of_requests(authority: Authority) -> None:
    """`limits.requests_per_second` holds as in HTTP/1.1."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        answers = [await client.answer(client.ask()) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]

    run(
        test,
        tls=authority.issue(NAME),
        limits={"requests_per_second": 0.01, "burst": 2},
        forwarded={"trusted": []},
    )


def test_body_that_is_too_large(authority: Authority) -> None:
    """`limits.body` holds for what is announced and for what comes."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/", (b"content-length", b"1001"), method=b"POST", ends=False)
        assert (await client.answer(stream)).status == 413
        stream = client.ask(b"/", method=b"POST", ends=False)
        client.say(stream, b"x" * 1001)
        assert (await client.answer(stream)).status == 413

    run(test, tls=authority.issue(NAME), limits={"body": 1000})
