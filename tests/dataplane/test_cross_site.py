"""A widget on another site may read what the proxy itself answers where Chainlit has its sessions."""

from typing import Any

import pytest

from tests.dataplane.chat import PATH
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import Message, get, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

SITE = b"https://shop.example"
ORIGIN = b"Origin: " + SITE
HANDSHAKE = PATH + b"?EIO=4&transport=polling"
CROSS_SITE = (b"access-control-allow-origin", b"access-control-allow-credentials", b"vary")


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
        world.backend.serve(echo)
        client = await world.client()
        answers = [await client.say(get(HANDSHAKE, ORIGIN)).response() for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert told(answers[0]) == [None, None, None], "that is the instance's to say"
        assert told(answers[1]) == [SITE, b"true", b"Origin"]

    run(test, forwarded={"trusted": []}, limits={"requests_per_second": 0.01, "burst": 1})


@pytest.mark.parametrize("request_", [get(b"/x", ORIGIN), get(HANDSHAKE)])
def test_others_are_told_nothing_of_it(request_: bytes) -> None:
    """Answers elsewhere are as before, and who says no Origin asks for none."""

    async def test(world: World) -> None:
        assert told(await world.ask(request_)) == [None, None, None]

    run(test, healthy=False, affinity={"hold": 0})
