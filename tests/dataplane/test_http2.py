"""Requests and responses of clients in HTTP/2."""

import asyncio
from pathlib import Path

import pytest

from tests.dataplane.multiplexed import NAME, Browser, forwarded
from tests.dataplane.peers import Message, Peer, chunked, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

LARGE = 3_000_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def test_requests_of_one_connection(authority: Authority) -> None:
    """Many requests at once on one connection are answered each with its own, with and without bodies."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        streams = {}
        for number in range(20):
            streams[client.ask(b"/%d" % number)] = b"/%d " % number
            length = (b"content-length", b"4")
            stream = client.ask(b"/post%d" % number, length, method=b"POST", ends=False)
            client.say(stream, b"body", ends=True)
            streams[stream] = b"/post%d body" % number
        for stream, expected in streams.items():
            answer = await client.answer(stream)
            assert (answer.status, answer.body) == (200, expected)
        assert {record.request.known.origin.protocol for record in world.ended} == {"h2"}

    run(test, tls=authority.issue(NAME))


def test_head_that_goes_up(authority: Authority) -> None:
    """A backend is asked in HTTP/1.1: Host is :authority, cookies are one field, and Via names 2.0."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/x?y", (b"cookie", b"a=1"), (b"te", b"trailers"), (b"cookie", b"b=2"))
        backend = await world.backend.accept()
        message = await backend.request()
        assert message.target == b"/x?y"
        assert message.get(b"host") == NAME.encode()
        assert message.get(b"cookie") == b"a=1; b=2"
        assert message.get(b"x-forwarded-proto") == b"https"
        assert message.get(b"x-forwarded-for") == b"127.0.0.1"
        assert message.get(b"via") == b"2.0 chainlit-proxy"
        assert message.get(b"te") == b"trailers"
        backend.say(ok(b"hi", b"Connection: x-hop", b"X-Hop: 1", b"Keep-Alive: timeout=5"))
        answer = await client.answer(stream)
        assert answer.body == b"hi"
        assert answer.get(b"x-request-id")
        assert not {b"connection", b"x-hop", b"keep-alive", b"transfer-encoding"} & dict(answer.fields).keys()

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize("announced", [True, False])
def test_large_bodies_both_ways(authority: Authority, announced: bool) -> None:
    """Bodies far larger than all windows go both ways whole, with a length or without."""

    async def test(world: World) -> None:
        world.backend.serve(_echo_body)
        client = await Browser.open(world, authority)
        body = bytes(range(256)) * (LARGE // 256)
        more = [(b"content-length", b"%d" % len(body))] if announced else []
        stream = client.ask(b"/", *more, method=b"POST", ends=False)
        rest = body
        while rest:
            room = min(client.h2.local_flow_control_window(stream), len(rest))
            if room:
                client.say(stream, rest[:room], ends=room == len(rest))
                rest = rest[room:]
            else:
                await client.hear()
        assert (await client.answer(stream)).body == body

    async def _echo_body(peer: Peer, message: Message) -> None:
        peer.say(ok(message.body) if announced else b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if not announced:
            peer.say(chunked(*[message.body[at : at + 50_000] for at in range(0, len(message.body), 50_000)]))

    run(test, tls=authority.issue(NAME), debug=False)


def test_trailers_both_ways(authority: Authority) -> None:
    """Trailers of chunked bodies are passed on, up and down."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/", method=b"POST", ends=False)
        client.say(stream, b"body")
        client.h2.send_headers(stream, [(b"x-sum", b"4")], end_stream=True)
        client.flush()
        backend = await world.backend.accept()
        await backend.head()
        expected = b"4\r\nbody\r\n0\r\nx-sum: 4\r\n\r\n"
        assert await backend.read(len(expected)) == expected
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")
        answer = await client.answer(stream)
        assert (answer.body, answer.trailers) == (b"hi", {b"x-sum": b"2"})

    run(test, tls=authority.issue(NAME))


def test_informational_responses(authority: Authority) -> None:
    """1xx of a backend come through, before the response and as often as they are said."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/", (b"expect", b"100-continue"), method=b"POST", ends=False)
        backend = await world.backend.accept()
        await backend.head()
        backend.say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        while len(client.answers[stream].informed) < 2:
            await client.hear()
        hints, leave = client.answers[stream].informed
        assert (hints[b":status"], hints[b"link"], leave[b":status"]) == (b"103", b"</x>", b"100")
        client.say(stream, b"body", ends=True)
        assert await backend.read(9) == b"4\r\nbody\r\n"
        backend.say(ok(b"done"))
        assert (await client.answer(stream)).body == b"done"

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_responses_without_a_body(authority: Authority, method: bytes, status: int) -> None:
    """They end with their head, which says what it says."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(method=method)
        backend = await world.backend.accept()
        await backend.request()
        length = b"" if status == 204 else b"Content-Length: 5\r\n"
        backend.say(b"HTTP/1.1 %d X\r\nETag: x\r\n%b\r\n" % (status, length))
        answer = await client.answer(stream)
        assert (answer.status, answer.body, answer.whole, answer.reset) == (status, b"", True, None)
        assert answer.get(b"content-length") == (None if status == 204 else b"5")

    run(test, tls=authority.issue(NAME))


def test_answer_before_the_body(authority: Authority) -> None:
    """A response that is whole before its request is ends the stream with NO_ERROR, and no other."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/", (b"content-length", b"9"), method=b"POST", ends=False)
        backend = await world.backend.accept()
        await backend.head()
        backend.say(ok(b"early"))
        answer = await client.answer(stream)
        assert (answer.status, answer.body) == (200, b"early")
        while answer.reset is None:
            await client.hear()
        assert answer.reset == 0
        world.backend.serve(echo)
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_response_that_is_cut(authority: Authority, framing: bytes) -> None:
    """A response that stops before its end is reset and never ended cleanly; other streams go on."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask()
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\n%b\r\n4\r\nhalf" % framing)
        await client.answer(stream, to_head=True)
        backend.reset()
        answer = await client.answer(stream)
        assert (answer.whole, answer.reset) == (False, 2)
        world.backend.serve(echo)
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME))


def test_client_that_resets_a_request(authority: Authority) -> None:
    """Its backend's connection is closed: nobody will read the answer; the client's goes on."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask(b"/slow")
        backend = await world.backend.accept()
        await backend.request()
        client.h2.reset_stream(stream, 8)
        client.flush()
        await backend.gone()
        world.backend.serve(echo)
        assert (await client.answer(client.ask(b"/next"))).body == b"/next "

    run(test, tls=authority.issue(NAME))


def test_client_that_leaves_takes_its_requests_with_it(authority: Authority) -> None:
    """When its connection is gone, every stream's backend connection is closed."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        client.ask(b"/1")
        client.ask(b"/2")
        backends = [await world.backend.accept() for _ in range(2)]
        for backend in backends:
            await backend.request()
        client.peer.close()
        for backend in backends:
            await backend.gone()
        await world.until(lambda: not world.plane.connections)
        assert [record.status for record in world.ended] == [0, 0]

    run(test, tls=authority.issue(NAME))


def test_http1_beside_it(authority: Authority) -> None:
    """Without `tls.http2`, and for who does not offer it, HTTP/1.1 is spoken."""

    async def test(world: World) -> None:
        context = authority.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        world.clients.append(Peer(reader, writer))
        await world.until(lambda: world.plane.site.stats.connections == 1)

    run(test, tls={**authority.issue(NAME), "http2": False})


def test_behind_a_tcp_load_balancer(authority: Authority) -> None:
    """The client is who the PROXY header names, also for limits."""

    async def test(world: World) -> None:
        client = Browser(await forwarded(world, authority))
        first = client.ask()
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"x-forwarded-for") == b"203.0.113.7"
        assert (await client.answer(client.ask())).status == 429
        backend.say(ok(b"one"))
        assert (await client.answer(first)).body == b"one"
        assert {record.request.known.address for record in world.ended} == {"203.0.113.7"}

    run(
        test,
        tls=authority.issue(NAME),
        forwarded={"proxy_protocol": True},
        limits={"connections_per_client": 2},
    )
