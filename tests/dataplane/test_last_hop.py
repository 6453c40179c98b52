"""What a proxy owes every message besides passing it on: Date, Max-Forwards, Expect, TE, Upgrade by lists."""

from email.utils import parsedate_to_datetime
from time import time

import pytest

from tests.dataplane.chat import PATH
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import chunked, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run


def is_now(date: bytes | None) -> bool:
    """Whether a Date is that of now, by a clock that may be a little off."""
    return date is not None and abs(parsedate_to_datetime(date.decode()).timestamp() - time()) < 30


def test_a_response_without_a_date_gets_one() -> None:
    """RFC 9110 section 6.6.1: the time of arrival is told for a backend that does not; equal heads alike."""

    async def test(world: World) -> None:
        client = await world.client()
        backend = None
        for _ in range(3):
            client.say(get())
            backend = backend or await world.backend.accept()
            await backend.request()
            backend.say(ok())
            assert is_now((await client.response()).get(b"date"))

    run(test)


def test_a_date_of_the_backend_stays() -> None:
    """A Date that came is passed on as it is, and none is added."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"", b"Date: Sun, 06 Nov 1994 08:49:37 GMT"))
        assert (await client.response()).get(b"date") == b"Sun, 06 Nov 1994 08:49:37 GMT"

    run(test)


def test_own_answers_have_a_date() -> None:
    """What the proxy answers itself is dated, before and after a head was understood."""

    async def test(world: World) -> None:
        for request in (get(), b"GET\r\n\r\n", get(b"/ws/socket.io/?sid=forged.x")):
            assert is_now((await world.ask(request)).get(b"date"))

    run(test, healthy=False, affinity={"hold": 0})


def test_the_last_hop_of_options() -> None:
    """RFC 9110 section 7.6.2: OPTIONS with Max-Forwards 0 is answered here, and the connection goes on."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"*", b"Max-Forwards: 0", method=b"OPTIONS"))
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"")
        client.say(get(b"/x", b"Max-Forwards: 00", method=b"OPTIONS"))
        assert (await client.response()).status == 200
        assert not world.backend.peers

    run(test)


def test_the_last_hop_of_trace() -> None:
    """RFC 9110 section 9.3.8: TRACE shows the request as it came, without its credentials."""

    async def test(world: World) -> None:
        lines = (b"Max-Forwards: 0", b"X-A: 1", b"Cookie: a=b", b"Authorization: Bearer x")
        answer = await world.ask(get(b"/x?y", *lines, method=b"TRACE"))
        assert (answer.status, answer.get(b"content-type")) == (200, b"message/http")
        assert answer.body == b"TRACE /x?y HTTP/1.1\r\nHost: chat.test\r\nMax-Forwards: 0\r\nX-A: 1\r\n\r\n"
        assert not world.backend.peers

    run(test)


@pytest.mark.parametrize(
    ("method", "lines", "left"),
    [
        (b"OPTIONS", (b"Max-Forwards: 3",), b"2"),
        (b"TRACE", (b"Max-Forwards: 1",), b"0"),
        (b"OPTIONS", (b"Max-Forwards: 2", b"Connection: Upgrade", b"Upgrade: websocket"), b"1"),
        (b"GET", (b"Max-Forwards: 0",), b"0"),
        (b"GET", (b"Max-Forwards: x",), b"x"),
        (b"OPTIONS", (), None),
    ],
)
def test_a_hop_is_taken_off(method: bytes, lines: tuple[bytes, ...], left: bytes | None) -> None:
    """Max-Forwards counts down for TRACE and OPTIONS, and says nothing for other methods."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", *lines, method=method))
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.get(b"max-forwards"), request.get(b"upgrade")) == (left, None)
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test)


@pytest.mark.parametrize("lines", [(b"Max-Forwards: 1", b"Max-Forwards: 1"), (b"Max-Forwards: -1",)])
def test_hops_that_are_no_number(lines: tuple[bytes, ...]) -> None:
    """A Max-Forwards that counts and cannot be counted is refused."""

    async def test(world: World) -> None:
        assert (await world.ask(get(b"/x", *lines, method=b"OPTIONS"))).status == 400

    run(test)


@pytest.mark.parametrize(
    "expect", [b"Expect: cake", b"Expect: 100-continue, cake", b"Expect: 100-continue=x"]
)
def test_unknown_expectations_are_refused(expect: bytes) -> None:
    """RFC 9110 section 10.1.1: an expectation that nobody can meet is 417, also with a body."""

    async def test(world: World) -> None:
        for request in (get(b"/x", expect), post(b"/x", b"body", expect)):
            assert (await world.ask(request)).status == 417
        assert not world.backend.peers

    run(test)


def test_known_expectations_pass() -> None:
    """100-continue is known however it is written and however often; an old client expects nothing."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"Expect: 100-Continue", b"Expect: 100-continue"))
        backend = await world.backend.accept()
        assert (await backend.request()).all(b"expect") == [b"100-Continue", b"100-continue"]
        backend.say(ok()).close()
        assert (await client.response()).status == 200
        client = (await world.client()).say(get(b"/x", b"Expect: cake", version=b"1.0"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"expect") is None
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((b"Connection: TE", b"TE: gzip;q=0.5, Trailers"), (b"TE", b"trailers")),
        ((b"Connection: close, te", b"TE: trailers"), (b"TE", b"trailers")),
        ((b"Connection: TE", b"TE: gzip"), (None, None)),
        ((b"TE: trailers",), (None, None)),
    ],
)
def test_te_is_said_anew(lines: tuple[bytes, ...], said: tuple[bytes | None, bytes | None]) -> None:
    """RFC 9110 section 10.1.4: a client that takes trailers is believed if Connection nominates its TE."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", *lines))
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.get(b"connection"), request.get(b"te")) == said
        backend.say(ok())
        await client.response()

    run(test)


@pytest.mark.parametrize(("version", "announced"), [(b"1.1", b"X-Sum"), (b"1.0", None)])
def test_trailer_goes_with_the_trailers(version: bytes, announced: bytes | None) -> None:
    """RFC 9110 section 6.6.2: Trailer passes where trailers do, and not where the chunks are taken off."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", version=version))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
        backend.say(chunked(b"abc", trailers=b"X-Sum: 6\r\n"))
        answer = await client.response()
        assert (answer.get(b"trailer"), answer.body) == (announced, b"abc")
        assert answer.trailers == ([b"X-Sum: 6"] if announced else [])

    run(test)


@pytest.mark.parametrize(
    ("granted", "status"),
    [(b"websocket", 101), (b"Chat/2", 101), (b"chat", 502), (b"other", 502), (b"websocket, chat/2", 502)],
)
def test_one_of_the_offered_protocols_is_granted(granted: bytes, status: int) -> None:
    """RFC 9110 section 7.8: a client offers a list, and a switch is to exactly one member of it."""

    async def test(world: World) -> None:
        request = upgrade(b"/ws").replace(b"Upgrade: websocket", b"Upgrade: chat/2, WebSocket")
        client = (await world.client()).say(request)
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"upgrade") == b"chat/2, WebSocket"
        backend.say(ACCEPT.replace(b"websocket", granted))
        assert (await client.response()).status == status

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        get(),
        post(b"/x", b"1234"),
        upgrade(b"/ws"),
        upgrade(PATH + b"?EIO=4&transport=websocket"),
        get(PATH + b"?EIO=4&transport=polling"),
        get(b"/project/file/x?session_id=12345678-aaaa"),
    ],
)
def test_a_loop_ends(request_: bytes) -> None:
    """A backend that leads back to the proxy itself is told by Via: 508 after a few rounds."""

    async def test(world: World) -> None:
        world.parts.fleet.move(world.known("a"), *world.address)
        answer = await world.ask(request_)
        assert answer.status == 508
        assert b"a loop: a backend leads back to this proxy" in answer.body
        stats = world.plane.site.stats
        world.guests = stats.connections - len(world.clients)
        assert 0 < world.guests < 30
        world.plane.site.moved(world.known("a"))

    run(test)


@pytest.mark.parametrize(
    "via", [b"1.1 chainlit-proxy", b"1.1 chainlit-proxy, 1.1 google, 1.1 chainlit-proxy"]
)
def test_a_few_proxies_are_no_loop(via: bytes) -> None:
    """A proxy of ours before another one is a way to build a site."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        assert (await world.ask(get(b"/", b"Via: " + via))).status == 200

    run(test)


def test_a_balancer_is_told_the_proxys_own_health() -> None:
    """`health.listen_path` is answered here, also without a backend; it is 503 once the proxy is to end."""
    path = b"/.chainlit-proxy/healthz"

    async def test(world: World) -> None:
        client = await world.client()
        for method in (b"GET", b"HEAD", b"OPTIONS"):
            client.say(get(path + b"?x=1").replace(b"GET", method, 1))
            answer = await client.response(to_head=method == b"HEAD")
            assert (answer.status, answer.body) == (200, b"" if method == b"HEAD" else b"alive\n")
        world.plane.site.leaving = True
        client.say(get(path))
        assert (await client.response()).status == 503

    run(test, healthy=False, health={"listen_path": path.decode()}, affinity={"hold": 0})


def test_without_a_path_for_it_health_is_the_apps() -> None:
    """No path is taken from the app unless one is named."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/.chainlit-proxy/healthz"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"the app"))
        assert (await client.response()).body == b"the app"

    run(test)
