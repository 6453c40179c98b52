"""What a message is: bodies of every framing pass whole, and end where they end."""

import pytest

from tests.dataplane.peers import Cut, chunked, get, ok, post
from tests.dataplane.world import World, run


def test_counted_bodies_pass_both_ways() -> None:
    """A body of Content-Length bytes passes as it is, in both directions."""

    async def test(world: World) -> None:
        client = (await world.client()).say(post(b"/x", b"question"))
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.start, request.body) == (b"POST /x HTTP/1.1", b"question")
        backend.say(ok(b"answer"))
        assert (await client.response()).body == b"answer"

    run(test)


def test_chunks_and_trailers_pass_as_they_came() -> None:
    """A chunked body keeps its chunks, their extensions and its trailers, in both directions."""
    question = b"4;a=b\r\nques\r\n" + chunked(b"tion", trailers=b"X-Sum: 7\r\n")
    answer = chunked(b"ans", b"wer", trailers=b"X-Sum: 8\r\nX-More: 9\r\n")

    async def test(world: World) -> None:
        client = (await world.client()).say(
            get(b"/x", b"Transfer-Encoding: chunked", method=b"POST") + question
        )
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.body, request.raw_body, request.trailers) == (b"question", question, [b"X-Sum: 7"])
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + answer)
        response = await client.response()
        assert (response.body, response.raw_body) == (b"answer", answer)
        assert response.trailers == [b"X-Sum: 8", b"X-More: 9"]

    run(test)


def test_bodies_fed_one_byte_at_a_time() -> None:
    """Where the pieces of a message are cut says nothing: every byte may come alone."""
    question = get(b"/x", b"Transfer-Encoding: chunked", method=b"POST") + chunked(b"ab", b"c")
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"de", b"f")

    async def test(world: World) -> None:
        client = await world.client()
        for at in range(len(question)):
            await client.say_slowly(question[at : at + 1])
            await world.breathe()
        backend = await world.backend.accept()
        assert (await backend.request()).body == b"abc"
        for at in range(len(answer)):
            await backend.say_slowly(answer[at : at + 1])
            await world.breathe()
        assert (await client.response()).body == b"def"

    run(test)


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_head_has_no_body(framing: bytes) -> None:
    """An answer to HEAD has the fields of a body and none; the connection goes on after it."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", method=b"HEAD"))
        backend = await world.backend.accept()
        for number in range(2):
            assert (await backend.request()).start == b"HEAD /x HTTP/1.1"
            backend.say(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
            response = await client.response(to_head=True)
            assert framing in response.lines
            if not number:
                client.say(get(b"/x", method=b"HEAD"))

    run(test)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_204_and_304_have_no_body(status: bytes) -> None:
    """These responses end with their head, and both connections go on."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 %b\r\nETag: x\r\n\r\n" % status)
        response = await client.response()
        assert (response.status, response.get(b"etag")) == (int(status[:3]), b"x")
        client.say(get(b"/next"))
        assert (await backend.request()).target == b"/next"
        backend.say(ok())
        assert (await client.response()).body == b"ok"

    run(test)


def test_304_may_tell_a_length() -> None:
    """RFC 9110 section 15.4.5: a 304 may carry the Content-Length of what it does not send."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get() + get(b"/next"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\n\r\n")
        assert (await client.response()).get(b"content-length") == b"700"
        await backend.request()
        backend.say(ok())
        assert (await client.response()).body == b"ok"

    run(test)


def test_interim_responses_are_relayed() -> None:
    """100 and 103 go to the client as they come, before the real response."""

    async def test(world: World) -> None:
        client = (await world.client()).say(
            get(b"/x", b"Content-Length: 2", b"Expect: 100-continue", method=b"POST")
        )
        backend = await world.backend.accept()
        assert (await backend.head()).get(b"expect") == b"100-continue"
        backend.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.head()).status == 100
        client.say(b"hi")
        assert await backend.read(2) == b"hi"
        backend.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + ok())
        response = await client.response()
        assert [(i.status, i.get(b"link")) for i in response.interim] == [(103, b"</a.css>")]
        assert response.body == b"ok"

    run(test)


def test_http_1_0_knows_no_interim_responses() -> None:
    """A client of HTTP/1.0 gets only the real response, and its Expect goes nowhere."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Expect: 100-continue", version=b"1.0"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"expect") is None
        backend.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ok())
        response = await client.response()
        assert (response.interim, response.body) == ([], b"ok")

    run(test)


def test_http_1_0_gets_no_chunks() -> None:
    """A chunked response loses its chunks and ends with the connection, for a client of HTTP/1.0."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Connection: keep-alive", version=b"1.0"))
        backend = await world.backend.accept()
        assert (await backend.request()).start == b"GET / HTTP/1.1"
        backend.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        backend.say(chunked(b"ans", b"wer", trailers=b"X-Sum: 8\r\n"))
        response = await client.response()
        assert (response.body, response.get(b"transfer-encoding")) == (b"answer", None)
        assert response.get(b"connection") == b"close"

    run(test)


def test_http_1_0_keeps_its_connection_if_it_asks() -> None:
    """A client of HTTP/1.0 is closed after the answer, unless it asked to be kept and the length is told."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/", b"Connection: keep-alive", version=b"1.0"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).get(b"connection") == b"keep-alive"
        client.say(get(version=b"1.0"))
        await backend.request()
        backend.say(ok())
        assert (await client.response()).get(b"connection") == b"close"
        await client.gone()

    run(test)


def test_response_until_close() -> None:
    """A response without a length lasts until the backend closes, and so does the client's connection."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get() + get(b"/never"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\n\r\nfirst ")
        head = await client.head()
        assert head.get(b"connection") == b"close"
        assert await client.read(6) == b"first "
        backend.say(b"last").close()
        assert await client.rest() == b"last"

    run(test)


def test_response_until_close_that_is_reset() -> None:
    """A reset is no end: what it cuts off reaches the client as a cut."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\n\r\nfirst ")
        await client.head()
        assert await client.read(6) == b"first "
        backend.reset()
        with pytest.raises(Cut):
            await client.rest()

    run(test)


def test_early_response_while_the_body_is_sent() -> None:
    """The backend may answer before the body has ended; the client gets it and its connection is closed."""

    async def test(world: World) -> None:
        client = (await world.client()).say(
            get(b"/x", b"Content-Length: 1000000", method=b"POST") + b"x" * 1000
        )
        backend = await world.backend.accept()
        await backend.head()
        backend.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        response = await client.response()
        assert (response.status, response.body, response.get(b"connection")) == (413, b"big", b"close")
        client.say(b"x" * 100_000)  # it may go on for a while without losing the answer
        assert await client.rest() == b""
        client.close()
        await backend.until(b"x" * 1000)
        await backend.gone()  # never used again: its request was cut off

    run(test)


def test_body_goes_on_while_the_response_comes() -> None:
    """A response that has begun does not stop the request's body: both go on together."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"Content-Length: 6", method=b"POST") + b"one")
        backend = await world.backend.accept()
        await backend.head()
        assert await backend.read(3) == b"one"
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await client.head()
        assert await client.read(3) == b"abc"
        client.say(b"two")
        assert await backend.read(3) == b"two"
        backend.say(b"def")
        assert await client.read(3) == b"def"

    run(test)
