"""The fields that go up and down: what is taken out, what is added, and whose word is believed."""

from tests.dataplane.peers import Message, get, ok, post
from tests.dataplane.world import World, run


async def seen(world: World, *lines: bytes, answer: bytes = b"") -> tuple[Message, Message]:
    """What the backend is asked and the client is answered."""
    client = (await world.client()).say(get(b"/x", *lines))
    backend = await world.backend.accept()
    request = await backend.request()
    backend.say(answer or ok()).close()
    return request, await client.response()


def test_fields_pass_in_their_order() -> None:
    """Every other field passes as it came, repeated ones too; Host stays the client's."""

    async def test(world: World) -> None:
        lines = [b"X-A: 1", b"x-b:2  ", b"X-A: 3", b'If-None-Match: "x"']
        request, response = await seen(
            world, *lines, answer=ok(b"", b"Set-Cookie: a=b", b"Date: now", b"Set-Cookie: c=d", b"Server: s")
        )
        assert request.lines[:5] == [b"Host: chat.test", *lines]
        cookies = response.all(b"set-cookie")
        assert (cookies[:2], response.get(b"date"), response.get(b"server")) == (
            [b"a=b", b"c=d"],
            b"now",
            b"s",
        )

    run(test)


def test_hop_by_hop_fields_end_here() -> None:
    """Fields of one connection, and those that Connection nominates, are not passed on, either way."""

    async def test(world: World) -> None:
        request, response = await seen(
            world,
            b"Connection: keep-alive, X-Mine",
            b"X-Mine: 1",
            b"Keep-Alive: timeout=5",
            b"TE: trailers",
            b"Proxy-Authorization: Basic x",
            b"Proxy-Connection: keep-alive",
            b"Upgrade: h2c",
            b"X-Kept: 2",
            answer=ok(
                b"",
                b"Connection: X-Theirs",
                b"X-Theirs: 1",
                b"Keep-Alive: timeout=9",
                b"Proxy-Authenticate: x",
            ),
        )
        names = {line.split(b":")[0].lower() for line in request.lines}
        gone = {b"connection", b"x-mine", b"keep-alive", b"te", b"proxy-authorization", b"proxy-connection"}
        assert not names & (gone | {b"upgrade"})
        assert b"x-kept" in names
        names = {line.split(b":")[0].lower() for line in response.lines}
        assert not names & {b"connection", b"x-theirs", b"keep-alive", b"proxy-authenticate"}

    run(test)


def test_forwarding_fields_are_made_for_strangers() -> None:
    """What a client that is not trusted says of itself is replaced by what we see."""

    async def test(world: World) -> None:
        request, _ = await seen(
            world,
            b"X-Forwarded-For: 6.6.6.6",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: evil.test",
            b"Forwarded: for=6.6.6.6",
            b"X-Request-ID: mine",
        )
        assert request.get(b"x-forwarded-for") == b"127.0.0.1"
        assert request.get(b"x-forwarded-proto") == b"http"
        assert request.get(b"x-forwarded-host") == b"chat.test"
        assert request.get(b"forwarded") == b'for=127.0.0.1;proto=http;host="chat.test"'
        assert request.get(b"x-request-id") != b"mine"

    run(test, forwarded={"trusted": []})


def test_forwarding_fields_of_trusted_proxies_are_believed() -> None:
    """A trusted proxy's word on the client stays, and it is named behind it."""

    async def test(world: World) -> None:
        request, _ = await seen(
            world,
            b"X-Forwarded-For: 1.2.3.4",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: chat.example",
            b"Forwarded: for=1.2.3.4",
            b"X-Request-ID: theirs-1",
        )
        assert request.get(b"x-forwarded-for") == b"1.2.3.4, 127.0.0.1"
        assert request.get(b"x-forwarded-proto") == b"https"
        assert request.get(b"x-forwarded-host") == b"chat.example"
        assert request.get(b"forwarded") == b'for=1.2.3.4, for=127.0.0.1;proto=http;host="chat.test"'
        assert request.get(b"x-request-id") == b"theirs-1"

    run(test)


def test_via_is_added_both_ways() -> None:
    """Via names the proxy with the version in which the message came, behind what stands there."""

    async def test(world: World) -> None:
        request, response = await seen(
            world, b"Via: 1.1 first", answer=ok(b"", b"Via: 1.0 theirs").replace(b"HTTP/1.1", b"HTTP/1.0")
        )
        assert request.get(b"via") == b"1.1 first, 1.1 chainlit-proxy"
        assert response.get(b"via") == b"1.0 theirs, 1.0 chainlit-proxy"

    run(test)


def test_request_ids() -> None:
    """Every request has an id of its own, the same towards the client, the backend and the log."""

    async def test(world: World) -> None:
        first = await seen(world, b"X-Request-ID: not\x20valid")
        second = await seen(world)
        ids = [message.get(b"x-request-id") for message in (*first, *second)]
        assert ids[0] == ids[1] != ids[2] == ids[3]
        assert [exchange.request.id for exchange in world.ended] == [ids[0], ids[2]]

    run(test)


def test_own_answers_have_a_request_id() -> None:
    """What the proxy answers itself can be found in the log too."""

    async def test(world: World) -> None:
        for request in (get(), post(b"/x", b"y"), get(b"/ws/socket.io/?sid=forged.x")):
            response = await world.ask(request)
            assert response.get(b"x-request-id") == world.ended[-1].request.id

    run(test, healthy=False, affinity={"hold": 0})


def test_absolute_target_replaces_host() -> None:
    """RFC 9112 section 3.2.2: the authority of an absolute target is the Host, and origin form goes up."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"http://other.test/x?y"))
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.target, request.get(b"host")) == (b"/x?y", b"other.test")
        backend.say(ok())
        await client.response()

    run(test)


def test_http_1_0_without_host() -> None:
    """A request of HTTP/1.0 needs no Host; the backend, asked in HTTP/1.1, gets one."""

    async def test(world: World) -> None:
        client = (await world.client()).say(b"GET /x HTTP/1.0\r\n\r\n")
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.start, request.get(b"host")) == (b"GET /x HTTP/1.1", b"localhost")
        backend.say(ok())
        await client.response()

    run(test)


def test_framing_is_written_anew() -> None:
    """Content-Length goes up as it was understood, not as it was written."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"content-length:   0002", method=b"POST") + b"hi")
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.get(b"content-length"), request.body) == (b"2", b"hi")
        backend.say(ok())
        await client.response()

    run(test)
