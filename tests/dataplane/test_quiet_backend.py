"""A backend that stands still is felt by what it does not answer, before any probe has failed."""

import asyncio
from collections.abc import Callable

import pytest

from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import get, ok, post
from tests.dataplane.world import World, run

TIMEOUTS = {"response": 1.5}


def unanswered(world: World) -> list[int]:
    """By backend."""
    return [backend.unanswered for backend in world.router.fleet]


# what a client says, and whether any app answers it at once
REQUESTS = [
    (get(), True),
    (get(b"/logo", method=b"HEAD"), True),
    (get(PATH + b"polling"), True),
    (upgrade(PATH + b"websocket"), True),
    (upgrade(b"/ws"), True),
    (get(b"/project/file/y?session_id=session-S"), True),
    (post(b"/project/file?session_id=session-S", b"x" * 100), False),
    (post(b"/project/action", b'{"sessionId":"session-S"}'), False),
    (post(b"/own", b"x"), False),
]


@pytest.mark.parametrize(("request_", "counts"), REQUESTS)
def test_what_an_app_answers_at_once_counts_until_it_does(request_: bytes, counts: bool) -> None:
    """Not what brings an upload or runs an action: that takes as long as it takes."""

    async def test(world: World) -> None:
        client = (await world.client()).say(request_)
        backend = await world.backend.accept()
        await backend.request()
        assert unanswered(world) == [int(counts)]
        backend.say(ok())
        await client.response(to_head=request_.startswith(b"HEAD"))
        assert unanswered(world) == [0]

    run(test)


def test_a_poll_that_waits_for_news_does_not_count() -> None:
    """Nor does what else is said on its transport, nor a websocket that is open."""

    async def test(world: World) -> None:
        (instance,) = chats(world).values()
        tab = Tab(world)
        await tab.handshake()
        assert unanswered(world) == [0]
        poll = await tab.poll()
        await world.until(lambda: instance.asked("poll"))
        assert unanswered(world) == [0]
        await (await tab.post(connect_packet("session-S"))).response()
        await poll.response()
        socket = await tab.socket()
        await world.until(lambda: world.plane.tunnels)
        assert unanswered(world) == [0]
        socket.peer.reset()

    run(test)


async def _leave(world: World) -> None:
    world.clients[-1].reset()


async def _wait(world: World) -> None:
    assert (await world.clients[-1].response()).status == 504


@pytest.mark.parametrize("how", [_leave, _wait])
def test_who_does_not_wait_any_more_is_not_counted(how: Callable[[World], object]) -> None:
    """The client has left, or was told that it was too late."""

    async def test(world: World) -> None:
        (await world.client()).say(get())
        await (await world.backend.accept()).request()
        assert unanswered(world) == [1]
        await (_leave(world) if how is _leave else _wait(world))
        await world.until(lambda: unanswered(world) == [0])

    run(test, timeouts=TIMEOUTS if how is _wait else {})


def test_a_request_that_is_tried_elsewhere_counts_there() -> None:
    """The one that refused it owes it nothing."""

    async def test(world: World) -> None:
        world.backends[0].refuse()
        client = (await world.client()).say(get(b"/", world.cookie("a")))
        backend = await world.backends[1].accept()
        await backend.request()
        assert unanswered(world) == [0, 1]
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, "ab")


def test_nobody_new_is_sent_to_one_that_stands_still() -> None:
    """One visitor is enough to feel it: half a second later all others go elsewhere."""

    async def test(world: World) -> None:
        instances = chats(world)
        held = instances["a"].hold("handshake")
        stuck = (await world.client()).say(get(PATH + b"polling", world.cookie("a")))
        await world.until(lambda: unanswered(world) == [1, 0])
        await asyncio.sleep(0.55)
        for at in range(20):
            agent = b"User-Agent: browser %d" % at
            assert (await world.ask(get(PATH + b"polling", agent))).status == 200
        assert len(instances["b"].asked("handshake")) == 20
        held.set()
        assert (await stuck.response()).status == 200
        for at in range(20):
            await world.ask(get(PATH + b"polling", b"User-Agent: another %d" % at))
        assert len(instances["a"].asked("handshake")) > 5

    run(test, "ab")
