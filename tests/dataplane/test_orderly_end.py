"""Backends that end in order, or are taken out: what is under way there, and what counts for a drain."""

import asyncio

import pytest

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.health import Observation
from tests.dataplane.chat import Tab, chats
from tests.dataplane.peers import get, ok, post
from tests.dataplane.test_evictions import RESTART, START, drain, open_poll, open_socket
from tests.dataplane.world import World, run


def is_empty(world: World, name: str = "a") -> bool:
    """Whether a drain would find it empty."""
    return world.plane.evictions.is_empty(world.known(name))


def test_who_listens_no_more_goes_on_with_what_is_open() -> None:
    """A refused connection cuts neither a request nor a websocket: the backend may be ending in order."""

    async def test(world: World) -> None:
        client, app = await world.websocket()
        asked = (await world.client()).say(get(b"/slow", world.cookie("a")))
        slow = await world.backend.accept()
        await slow.request()
        world.backend.refuse()
        world.observe("a", Observation.REFUSED)
        assert not is_empty(world)
        app.say(b"still here")
        assert await client.hear() == b"still here"
        slow.say(ok(b"whole"))
        assert (await asked.response()).body == b"whole"
        assert not is_empty(world), "the websocket goes on"
        app.peer.close()
        await client.peer.rest()
        client.peer.close()
        await world.until(lambda: is_empty(world))

    run(test)


@pytest.mark.parametrize("answering", [False, True])
def test_who_listens_no_more_and_polls(answering: bool) -> None:
    """A poll that only waits is told at once, since no other request can reach its session any more."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await open_poll(world)
        (transport,) = instances["a"].transports.values()
        transport.push(START if answering else b'42["word"]')
        await (await tab.poll()).response()
        before = len(instances["a"].asked("poll"))
        poll = await tab.poll()
        await world.until(lambda: len(instances["a"].asked("poll")) > before)
        world.backend.refuse()
        world.observe("a", Observation.REFUSED)
        if answering:
            transport.push(b'42["last"]')
        assert (await poll.response()).status == (200 if answering else 400)

    run(test, "ab")


@pytest.mark.parametrize("then", [Observation.SILENT, Observation.ENDED])
def test_who_is_silent_after_it_refused_is_given_up(then: Observation) -> None:
    """One that was ending in order has no longer for that than any other that says nothing."""

    async def test(world: World) -> None:
        client, app = await world.websocket()
        world.observe("a", Observation.REFUSED)
        app.say(b"still here")
        assert await client.hear() == b"still here"
        world.parts.fleet.observe(world.known("a"), then, world.now() + 46)
        await client.peer.gone()
        await app.peer.gone()

    run(test)


def test_a_request_under_way_is_no_empty_backend() -> None:
    """Those of the app's own routes count too, and go on until they are whole."""

    async def test(world: World) -> None:
        asked = (await world.client()).say(post(b"/own", b"x", world.cookie("a")))
        backend = await world.backend.accept()
        await backend.request()
        drain(world)
        assert not is_empty(world)
        backend.say(ok(b"whole"))
        assert (await asked.response()).body == b"whole"
        await world.until(lambda: is_empty(world))

    run(test, "ab")


def test_at_the_deadline_a_request_is_cut_off() -> None:
    """One that began before; what still has to go there because nobody else takes it is served."""

    async def test(world: World) -> None:
        asked = (await world.client()).say(post(b"/own", b"x"))
        await (await world.backend.accept()).request()
        drain(world)
        deadline = world.now()
        later = (await world.client()).say(get(b"/page"))
        backend = await world.backend.accept()
        await backend.request()
        world.plane.evictions.cut(world.known("a"), deadline)
        assert (await asked.response()).status == 503
        backend.say(ok(b"page"))
        assert (await later.response()).body == b"page"

    run(test)


def test_maintenance_tells_everybody() -> None:
    """Who has not connected yet, and who hears a frame just now, is told to connect anew as well."""

    async def test(world: World) -> None:
        instances = chats(world)
        opening = await Tab(world, world.cookie("a")).socket()
        await opening.hear()
        busy = await open_socket(world)
        *_, transport = instances["a"].transports.values()
        transport.push(START)
        assert await busy.hear() == START
        world.parts.drains.maintenance(world.known("a"))
        assert world.known("a").admin_state is AdminState.MAINTENANCE
        for client in (opening, busy):
            assert await client.hear() == RESTART
            client.peer.close()

    run(test, "ab")


def test_a_drain_that_waits_for_a_request_says_so() -> None:
    """`until_empty` returns when the request is whole."""

    async def test(world: World) -> None:
        asked = (await world.client()).say(post(b"/own", b"x", world.cookie("a")))
        backend = await world.backend.accept()
        await backend.request()
        running = asyncio.create_task(world.parts.drains.run())
        waiting = asyncio.create_task(world.parts.drains.until_empty(world.known("a")))
        known: Backend = world.known("a")
        await world.until(lambda: world.parts.drains.get(known))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        backend.say(ok())
        await asked.response()
        async with asyncio.timeout(5):
            await waiting
        running.cancel()
        await asyncio.wait([running])

    run(test, "ab")
