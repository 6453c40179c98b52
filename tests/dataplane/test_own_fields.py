"""What the proxy tells in responses when it is asked to: which backend, how long, and by what evidence."""

import re

import pytest

from proxy.config import Config
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import Message, get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

TOLD = (b"x-chainlit-backend", b"server-timing")
BOTH = {"backend": True, "timing": True}
TIMING = re.compile(rb'backend;dur=[0-9]+\.[0-9], affinity;desc="([a-z_]+/[a-z_]+)"')


def evidence(answer: Message) -> bytes:
    """What a response says of how its backend was chosen."""
    match = TIMING.fullmatch(answer.get(b"server-timing") or b"")
    assert match, answer
    return match[1]


def test_nothing_is_told_by_default() -> None:
    """Neither line is there unless it is asked for."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        answer = await world.ask(get())
        assert [answer.get(name) for name in TOLD] == [None, None]

    run(test)


@pytest.mark.parametrize("dated", [True, False])
def test_a_response_names_its_backend(dated: bool) -> None:
    """Also one like that before it, and one without a Date; each has the line once."""

    async def test(world: World) -> None:
        date = (b"Date: Tue, 24 Nov 2026 23:00:00 GMT",) if dated else ()
        client = await world.client()
        backend = None
        for _ in range(2):
            client.say(get())
            backend = backend or await world.backend.accept()
            await backend.request()
            backend.say(ok(b"x", *date))
            answer = await client.response()
            assert answer.all(b"x-chainlit-backend") == [b"a"]
            assert len(answer.all(b"date")) == 1
            assert answer.get(b"server-timing") is None

    run(test, responses={"backend": True})


def test_every_kind_of_response() -> None:
    """A page, a handshake that is written anew and a poll tell; the answers of the proxy itself do not."""

    async def test(world: World) -> None:
        chats(world)
        page = await world.ask(get(b"/x", world.cookie("a")))
        assert (page.get(b"x-chainlit-backend"), evidence(page)) == (b"a", b"pin_cookie/pinned")
        tab = Tab(world, world.cookie("a"))
        handshake = await world.ask(get(PATH + b"polling", world.cookie("a")))
        await tab.handshake()
        assert (handshake.get(b"x-chainlit-backend"), evidence(handshake)) == (b"a", b"pin_cookie/pinned")
        await (await tab.post(connect_packet("session-s"))).response()
        post = await (await tab.post(b"42[]")).response()
        assert (post.get(b"x-chainlit-backend"), evidence(post)) == (b"a", b"sid/pinned")
        refused = await world.ask(get(PATH + b"polling&sid=forged.x"))
        assert [refused.get(name) for name in TOLD] == [None, None]

    run(test, responses=BOTH)


def test_a_websocket_tells_too() -> None:
    """The answer to an upgrade is a response of the backend."""

    async def test(world: World) -> None:
        client = (await world.client()).say(
            upgrade(b"/ws", b"Cookie: chainlit_pin=" + world.known("a").token)
        )
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        answer = await client.response()
        assert (answer.get(b"x-chainlit-backend"), evidence(answer)) == (b"a", b"pin_cookie/pinned")

    run(test, responses=BOTH)


def test_a_reload_turns_it_on_and_off() -> None:
    """Responses tell what the present configuration wants, over the same connections."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        for wanted in (False, True, False):
            config = Config.model_validate({"responses": {"backend": wanted, "timing": wanted}})
            await world.plane.configure(config, [world.listening], None)
            answer = await world.ask(get())
            assert [answer.get(name) is not None for name in TOLD] == [wanted, wanted]

    run(test)
