"""A widget on another site may read what the proxy itself answers where Chainlit has its sessions."""

import asyncio
from typing import Any

import pytest

from proxy.affinity.health import Observation
from proxy.config import Config
from tests.dataplane.chat import PATH
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import Message, Peer, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

SITE = b"https://shop.example"
ORIGIN = b"Origin: " + SITE
HANDSHAKE = PATH + b"?EIO=4&transport=polling"
CROSS_SITE = (b"access-control-allow-origin", b"access-control-allow-credentials", b"vary")


LEAVE = (b"Access-Control-Allow-Origin: " + SITE, b"Access-Control-Allow-Credentials: true")


async def grant(peer: Peer, _request: Message) -> None:
    """As an instance answers a handshake whose page may read it."""
    peer.say(handshaken(*LEAVE))


def told(answer: Message) -> list[bytes | None]:
    """What a browser looks at before a script may read an answer."""
    return [answer.get(name) for name in CROSS_SITE]


@pytest.mark.parametrize(
    ("request_", "status", "settings"),
    [
        (get(HANDSHAKE, ORIGIN), 503, {}),
        (upgrade(PATH + b"?EIO=4&transport=websocket", ORIGIN), 503, {}),
        (get(HANDSHAKE + b"&sid=forged.x", ORIGIN), 400, {}),
        (post(HANDSHAKE + b"&sid=forged.x", b"40", ORIGIN), 400, {}),
        (post(HANDSHAKE + b"&sid=x", b"4" * 2000, ORIGIN), 413, {"limits": {"body": 1000}}),
        (post(b"/project/file?session_id=session-S", b"x" * 2000, ORIGIN), 413, {"limits": {"body": 1000}}),
        (post(b"/project/action", b'{"sessionId":"session-S"}', ORIGIN), 503, {}),
        (post(b"/set-session-cookie", b'{"session_id":"session-S"}', ORIGIN), 503, {}),
    ],
    ids=[
        "no backend",
        "websocket",
        "unknown",
        "unknown POST",
        "too large",
        "upload",
        "button",
        "announcement",
    ],
)
def test_its_script_may_read_a_refusal(request_: bytes, status: int, settings: dict[str, Any]) -> None:
    """The Origin is echoed, with leave for requests with cookies; no cache gives it to another site."""

    async def test(world: World) -> None:
        answer = await world.ask(request_)
        assert answer.status == status
        assert told(answer) == [SITE, b"true", b"Origin"]

    run(test, healthy=False, affinity={"hold": 0}, **settings)


def test_its_script_may_read_that_it_asks_too_often() -> None:
    """429 with its time, which the widget waits for."""

    async def test(world: World) -> None:
        world.backend.serve(grant)
        client = await world.client()
        answers = [await client.say(get(HANDSHAKE, ORIGIN)).response() for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert told(answers[0]) == [SITE, b"true", None], "that is the instance's to say"
        assert told(answers[1]) == [SITE, b"true", b"Origin"]

    run(test, forwarded={"trusted": []}, limits={"requests_per_second": 0.01, "burst": 1})


@pytest.mark.parametrize("request_", [get(b"/x", ORIGIN), get(HANDSHAKE)])
def test_others_are_told_nothing_of_it(request_: bytes) -> None:
    """Answers elsewhere are as before, and who says no Origin asks for none."""

    async def test(world: World) -> None:
        assert told(await world.ask(request_)) == [None, None, None]

    run(test, healthy=False, affinity={"hold": 0})


def handshaken(*lines: bytes) -> bytes:
    """An instance's answer to a handshake."""
    return ok(b'0{"sid":"x","upgrades":[]}', *lines)


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        (LEAVE, True),
        ((b"Access-Control-Allow-Origin: *",), True),
        ((b"Access-Control-Allow-Origin: https://other.example",), False),
        ((), False),
    ],
)
def test_an_origin_that_the_instances_refuse(said: tuple[bytes, ...], allowed: bool) -> None:
    """`allow_origins` of Chainlit counts for the proxy's own answers too, as soon as it was heard of."""

    async def test(world: World) -> None:
        instance = asyncio.create_task(world.backend.accept())
        client = (await world.client()).say(get(HANDSHAKE, ORIGIN))
        backend = await instance
        for answers in (said, LEAVE):
            await backend.request()
            backend.say(handshaken(*answers))
            assert (await client.response()).status == 200
            refusal = await world.ask(post(HANDSHAKE + b"&sid=x", b"4" * 2000, ORIGIN))
            assert refusal.status == 413
            expected = [SITE, b"true", b"Origin"] if allowed or answers is LEAVE else [None, None, None]
            assert told(refusal) == expected
            if answers is said:
                client.say(get(HANDSHAKE, ORIGIN))

    run(test, limits={"body": 1000})


def preflight(path: bytes, *lines: bytes, method: bytes = b"POST", origin: bytes = SITE) -> bytes:
    """What a browser asks before a script may send JSON to another site."""
    asked = b"Access-Control-Request-Method: " + method
    return get(path, b"Origin: " + origin, asked, *lines, method=b"OPTIONS")


ACTION = b"/project/action"
HEADERS = b"Access-Control-Request-Headers: content-type"
GRANTED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Origin\r\nX-Other: x\r\n%b\r\n\r\nOK"


def test_leave_is_said_again_while_no_instance_is_there() -> None:
    """A widget whose preflight was granted before may ask, and reads the 503; any other question is new."""

    async def test(world: World) -> None:
        instance = asyncio.create_task(world.backend.accept())
        client = (await world.client()).say(preflight(ACTION, HEADERS))
        backend = await instance
        await backend.request()
        backend.say(GRANTED % b"\r\n".join((*LEAVE, b"Access-Control-Allow-Methods: POST")))
        assert (await client.response()).status == 200
        world.backend.refuse()
        world.observe("a", Observation.REFUSED)
        again = await world.ask(preflight(ACTION, HEADERS))
        assert (again.status, again.get(b"access-control-allow-methods")) == (200, b"POST")
        assert told(again) == [SITE, b"true", b"Origin"]
        assert again.get(b"x-other") is None
        world.plane.site.config = Config(affinity={"hold": 0.1})  # type: ignore[arg-type]
        action = post(ACTION, b'{"sessionId":"session-S"}', ORIGIN)
        assert told(await world.ask(action)) == [SITE, b"true", b"Origin"]
        others = [
            preflight(ACTION),
            preflight(ACTION, HEADERS, method=b"DELETE"),
            preflight(ACTION, HEADERS, origin=b"https://evil.example"),
            preflight(b"/project/element", HEADERS),
        ]
        for other in others:
            answer = await world.ask(other)
            assert (answer.status, told(answer)) == (503, [None, None, None])

    run(test)


def test_leave_that_was_taken_back_is_not_said_again() -> None:
    """What instances answered last counts; and nothing was ever granted by the proxy itself."""

    async def test(world: World) -> None:
        instance = asyncio.create_task(world.backend.accept())
        client = (await world.client()).say(preflight(ACTION))
        backend = await instance
        for lines in (LEAVE, (b"X: y",)):
            await backend.request()
            backend.say(GRANTED % b"\r\n".join(lines))
            assert (await client.response()).status == 200
            if lines is LEAVE:
                client.say(preflight(ACTION))
        world.observe("a", Observation.REFUSED)
        assert (await world.ask(preflight(ACTION))).status == 503

    run(test, affinity={"hold": 0})


def test_what_is_learnt_is_bounded() -> None:
    """Made-up origins only push out others."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        for number in range(1100):
            site = b"https://%d.example" % number
            await client.say(get(HANDSHAKE, b"Origin: " + site)).response()
            await client.say(preflight(ACTION, origin=site)).response()
        long = b"x" * 2000
        await client.say(get(HANDSHAKE, b"Origin: " + long)).response()
        known = world.plane.site.cross_site
        assert (len(known._refused), len(known._leaves)) == (1000, 0)

    run(test, debug=False)
