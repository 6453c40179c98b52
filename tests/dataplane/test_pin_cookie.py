"""The pin cookie: one per browser, set when it changes, and nobody's business but ours."""

import pytest

from proxy.affinity.health import Observation
from tests.dataplane.peers import Message, Peer, get, ok
from tests.dataplane.world import World, run

HANDSHAKE = b"/ws/socket.io/?EIO=4&transport=polling"
OPEN = b'0{"sid":"abc","upgrades":["websocket"]}'


PAGE = b"Content-Type: text/html; charset=utf-8"


def serve(world: World, *lines: bytes, body: bytes = b"ok", kind: bytes = PAGE) -> None:
    """Every backend answers the same, with its name in a field; a page, if nothing else is said."""
    for backend in world.backends:
        name = backend.name.encode()

        async def answer(peer: Peer, _: Message, name: bytes = name) -> None:
            peer.say(ok(body, b"X-Name: " + name, kind, *lines))

        backend.serve(answer)


def pins(message: Message) -> list[bytes]:
    """The pin cookies that a response sets."""
    return [cookie for cookie in message.all(b"set-cookie") if cookie.startswith(b"chainlit_pin=")]


def test_cookie_is_set_once() -> None:
    """A browser without a pin gets one for the backend that answered; with it, no other."""

    async def test(world: World) -> None:
        serve(world)
        first = await world.ask(get())
        (cookie,) = pins(first)
        token = world.pin((first.get(b"x-name") or b"").decode())
        assert cookie == b"chainlit_pin=" + token + b"; Path=/; HttpOnly; SameSite=Lax"
        assert first.get(b"cache-control") == b"private"
        again = await world.ask(get(b"/", b"Cookie: chainlit_pin=" + token))
        assert (pins(again), again.get(b"cache-control")) == ([], None)
        assert again.get(b"x-name") == first.get(b"x-name")

    run(test, "abc")


@pytest.mark.parametrize(
    "said", [b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: https,http", b"X-Forwarded-Proto: wss"]
)
def test_cookie_over_tls_lives_in_a_widget_too(said: bytes) -> None:
    """Behind a trusted proxy that speaks TLS with its clients the cookie is that of a secure site."""

    async def test(world: World) -> None:
        serve(world)
        (cookie,) = pins(await world.ask(get(b"/", said)))
        assert cookie.endswith(b"; Path=/; HttpOnly; Secure; SameSite=None; Partitioned")

    run(test)


@pytest.mark.parametrize(
    ("lines", "pinned"),
    [
        ([b"Content-Type: text/html"], True),
        ([b"content-type: TEXT/HTML;charset=utf-8", b'ETag: "x"'], True),
        ([b"Content-Type: application/json"], True),
        ([b"Content-Type: application/json", b'ETag: "x"'], False),
        ([b"Content-Type: application/json", b"Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"], False),
        ([b"Content-Type: text/javascript"], False),
        ([b"Content-Type: text/css", b"Cache-Control: max-age=31536000, immutable"], False),
        ([b"Content-Type: image/svg+xml"], False),
        ([b"X-No-Type: 1"], False),
    ],
)
def test_files_that_a_cache_may_keep_set_none(lines: list[bytes], pinned: bool) -> None:
    """Pages and answers of the app's own set a pin; what is the same for everybody stays so."""

    async def test(world: World) -> None:
        serve(world, *lines[1:], kind=lines[0])
        answer = await world.ask(get(b"/assets/index-abc.js"))
        assert bool(pins(answer)) is pinned
        own = [line.partition(b": ")[2] for line in lines if line.startswith(b"Cache-Control")]
        assert answer.all(b"cache-control") == ([b"private"] if pinned else own)

    run(test)


@pytest.mark.parametrize(
    ("caching", "pinned"),
    [
        (b"no-store", True),
        (b"max-age=60, PRIVATE", True),
        (b'private="set-cookie", max-age=60', True),
        (b"public, max-age=600", False),
        (b"max-age=600", False),
        (b"s-maxage=60", False),
        (b"no-cache", False),
    ],
)
def test_cookie_leaves_the_backends_caching_alone(caching: bytes, pinned: bool) -> None:
    """Where the backend says how to cache, that stands: what a cache may keep for everybody sets no pin."""

    async def test(world: World) -> None:
        serve(world, b"Cache-Control: " + caching, body=OPEN)
        answer = await world.ask(get())
        assert (len(pins(answer)), answer.all(b"cache-control")) == (pinned, [caching])
        assert pins(await world.ask(get(HANDSHAKE))), "nobody keeps a handshake"

    run(test)


def test_an_answer_that_nothing_has_changed_sets_none() -> None:
    """A cache adds what a 304 says to the page that it has for everybody."""

    async def test(world: World) -> None:
        async def answer(peer: Peer, _: Message) -> None:
            peer.say(b"HTTP/1.1 304 Not Modified\r\n" + PAGE + b"\r\n\r\n")

        world.backend.serve(answer)
        answered = await world.ask(get(b"/", b'If-None-Match: "x"'))
        assert (pins(answered), answered.get(b"cache-control")) == ([], None)

    run(test)


def test_cookie_is_not_passed_to_the_backend() -> None:
    """The backend sees all cookies but ours, however they are written."""

    async def test(world: World) -> None:
        serve(world)
        await world.ask(get(b"/1", b"Cookie: a=1; chainlit_pin=x; b=2", b"Cookie: chainlit_pin=y"))
        await world.ask(get(b"/2", b"Cookie: chainlit_pin=x"))
        assert [request.all(b"cookie") for request in world.backend.requests] == [[b"a=1; b=2"], []]

    run(test)


def test_cookie_of_a_backend_that_is_down_is_replaced() -> None:
    """A pin that holds no more is replaced by that of the backend that answered."""

    async def test(world: World) -> None:
        serve(world)
        world.observe("a", Observation.REFUSED)
        answer = await world.ask(get(b"/", world.cookie("a")))
        assert answer.get(b"x-name") == b"b"
        assert pins(answer)[0].startswith(b"chainlit_pin=" + world.pin("b"))

    run(test, "ab")


def test_forged_cookie_is_only_a_missing_one() -> None:
    """A pin that names no backend is replaced like a missing one."""

    async def test(world: World) -> None:
        serve(world)
        answer = await world.ask(get(b"/", b'Cookie: chainlit_pin="../../etc"'))
        assert (answer.status, len(pins(answer))) == (200, 1)

    run(test)


def test_handshake_moves_the_cookie_and_requests_do_not() -> None:
    """A handshake begins the browser's newest connection; a request that went elsewhere says nothing."""

    async def test(world: World) -> None:
        serve(world, body=OPEN)
        world.router.directory.assign("session-S", world.known("b"), world.now())
        request = await world.ask(get(b"/project/file/x?session_id=session-S", world.cookie("a")))
        assert (request.get(b"x-name"), pins(request)) == (b"b", [])
        handshake = await world.ask(get(HANDSHAKE, world.cookie("a") + b"; X-Chainlit-Session-id=session-S"))
        assert handshake.get(b"x-name") == b"b"
        assert pins(handshake)[0].startswith(b"chainlit_pin=" + world.pin("b"))

    run(test, "ab")


def test_polls_do_not_touch_the_cookie() -> None:
    """A poll of another tab's transport neither sets nor moves the browser's pin."""

    async def test(world: World) -> None:
        serve(world)
        for cookie in (b"X-None: 1", world.cookie("a")):
            poll = await world.ask(get(HANDSHAKE + b"&sid=" + world.pin("b") + b".x", cookie))
            assert (poll.get(b"x-name"), pins(poll)) == (b"b", [])

    run(test, "ab")


def test_cookie_can_be_switched_off_and_renamed() -> None:
    """affinity.cookie.enabled: false sets none; affinity.cookie.name is its name."""

    async def off(world: World) -> None:
        serve(world)
        assert pins(await world.ask(get())) == []

    async def renamed(world: World) -> None:
        serve(world)
        (cookie,) = (await world.ask(get())).all(b"set-cookie")
        assert cookie.startswith(b"mine=")
        await world.ask(get(b"/", b"Cookie: mine=x; chainlit_pin=y"))
        assert world.backend.requests[-1].get(b"cookie") == b"chainlit_pin=y"

    run(off, affinity={"cookie": {"enabled": False}})
    run(renamed, affinity={"cookie": {"name": "mine"}})


def test_cookie_that_is_switched_off_is_not_read() -> None:
    """affinity.cookie.enabled: false also means that what a client sends of it says nothing."""

    async def test(world: World) -> None:
        serve(world)
        names = {(await world.ask(get(b"/", world.cookie(name)))).get(b"x-name") for name in "abcd"}
        assert len(names) == 1

    run(test, "abcd", affinity={"cookie": {"enabled": False}})
