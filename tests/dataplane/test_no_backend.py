"""No backend takes requests: they are held until one does, else the client is told when to come again."""

import asyncio
from collections.abc import Callable

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.dataplane import arrivals
from proxy.dataplane.arrivals import Held
from tests.dataplane.chat import PATH, chats
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import Peer, get, post
from tests.dataplane.scripted import echo
from tests.dataplane.test_leaving import leave
from tests.dataplane.test_standstill import GAP
from tests.dataplane.world import World, run

AT_ONCE = {"hold": 0}
LONG = {"hold": 15}
UPLOAD = b"/project/file?session_id=session-S"
Change = Callable[[World], None]


async def held(world: World, *requests: bytes) -> list[Peer]:
    """These requests are held."""
    clients = [(await world.client()).say(request) for request in requests]
    await world.until(lambda: len(world.plane.site.arrivals) == len(requests))
    return clients


def counts(world: World) -> dict[Held, int]:
    """How waits have ended."""
    return {how: count for how, count in world.plane.site.arrivals.counts.items() if count}


def test_whatever_comes_is_held_until_a_backend_is_back() -> None:
    """A page, handshakes on both transports, a button and an upload: nobody is told that nobody was there."""

    async def test(world: World) -> None:
        (instance,) = chats(world).values()
        action = post(b"/project/action", b'{"sessionId":"session-S"}')
        requests = (get(), get(PATH + b"polling"), upgrade(PATH + b"websocket"), action)
        clients = await held(world, *requests, post(UPLOAD, b"x" * 300_000))
        assert not instance.backend.peers
        sizes = [c.exchange.body.held_size for c in world.plane.connections if c.exchange is not None]
        assert max(sizes) < 300_000, "what is still to come of a body is not read"
        world.observe("a", Observation.ANSWERED)
        assert [(await client.response()).status for client in clients] == [200, 200, 101, 200, 200]
        bodies = [len(request.body) for request in instance.asked("post")]
        assert sorted(bodies) == [25, 300_000]
        assert counts(world) == {Held.BACK: 5}

    run(test, healthy=False, affinity=LONG)


def _drained(world: World) -> None:
    world.observe("a", Observation.ANSWERED)
    world.parts.fleet.set_admin_state(world.known("a"), AdminState.DRAIN)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (_drained, lambda world: world.parts.fleet.set_admin_state(world.known("a"), AdminState.READY)),
        (
            lambda world: world.observe("a", Observation.SILENT),
            lambda world: world.observe("a", Observation.DENIED),
        ),
    ],
    ids=["it is ready again", "it is the last resort"],
)
def test_any_change_that_lets_a_backend_take_sessions_counts(before: Change, change: Change) -> None:
    """Not only one that has been down: also one that was drained, and one that answers badly."""

    async def test(world: World) -> None:
        before(world)
        chats(world)
        (client,) = await held(world, get(PATH + b"polling"))
        change(world)
        assert (await client.response()).status == 200

    run(test, healthy=False, affinity=LONG)


def test_one_that_dies_again_is_waited_for_again() -> None:
    """Who is sent to a backend that does not listen after all is held as before, not refused."""

    async def test(world: World) -> None:
        world.backend.refuse()
        world.backends[1].serve(echo)
        (client,) = await held(world, get(b"/x"))
        world.observe("a", Observation.ANSWERED)
        await world.until(lambda: not world.known("a").takes_sessions and len(world.plane.site.arrivals))
        world.observe("b", Observation.ANSWERED)
        assert (await client.response()).body == b"/x "
        assert counts(world) == {Held.BACK: 2}

    run(test, "ab", healthy=False, affinity=LONG)


def test_nobody_is_held_for_longer_than_configured() -> None:
    """When the time is up a request is refused as it would have been at once, however often it was held."""

    async def test(world: World) -> None:
        world.observe("a", Observation.ANSWERED)
        session = world.router.directory.assign("session-S", world.known("a"), world.now())
        world.router.directory.opened(session)
        world.observe("a", Observation.ENDED)
        world.router.directory.closed(session, world.now())
        began = world.now()
        page, upload = await held(world, get(b"/", b"Accept: text/html"), post(UPLOAD, b"x"))
        assert b'http-equiv="refresh"' in (answer := await page.response()).body
        assert (answer.status, (await upload.response()).status) == (503, 503)
        assert world.now() - began >= 0.4
        assert counts(world) == {Held.IN_VAIN: 2}, "neither is held twice"

    run(test, healthy=False, affinity={"hold": 0.4})


def test_a_wait_is_nobodys_delay() -> None:
    """Neither a client nor a backend is late with anything meanwhile; afterwards each has all of its time."""

    async def test(world: World) -> None:
        clients = await held(world, get(), post(UPLOAD, b"x" * 300_000), get(b"/x", b"Expect: 100-continue"))
        await asyncio.sleep(1.5)
        assert len(world.plane.site.arrivals) == len(clients)
        world.observe("a", Observation.ANSWERED)
        assert [(await client.response()).status for client in clients] == [504, 504, 504]
        assert world.suspected == []

    run(test, healthy=False, affinity=LONG, timeouts={"response": 0.5, "body": 0.5})


@pytest.mark.interpreted
def test_they_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may end an instance that has just started: the others are held again, and went not there."""
    monkeypatch.setattr(arrivals, "_BETWEEN", 1.0)
    monkeypatch.setattr(arrivals, "_ALL", 60.0)

    async def test(world: World) -> None:
        (instance,) = chats(world).values()
        clients = await held(world, get(), get(), get())
        world.observe("a", Observation.ANSWERED)
        await world.until(lambda: len(world.plane.site.arrivals) == 2)
        world.observe("a", Observation.ENDED)
        await world.until(lambda: len(world.plane.site.arrivals) == 2 and counts(world) == {Held.BACK: 2})
        assert len(instance.backend.requests) == 1
        world.observe("a", Observation.ANSWERED)
        assert [(await client.response()).status for client in clients] == [200] * 3

    run(test, healthy=False, affinity=LONG)


def test_who_leaves_is_forgotten() -> None:
    """A client that does not wait has cost nothing, and makes room; one more than may be held is refused."""

    async def test(world: World) -> None:
        (client,) = await held(world, get())
        assert (await world.ask(get())).status == 503
        client.reset()
        await world.until(lambda: not len(world.plane.site.arrivals))
        (client,) = await held(world, get())
        chats(world)
        world.observe("a", Observation.ANSWERED)
        assert (await client.response()).status == 200
        assert counts(world) == {Held.TOO_MANY: 1, Held.BACK: 1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "_MOST", 1)
        run(test, healthy=False, affinity=LONG)


def test_a_process_that_is_to_end_holds_nobody() -> None:
    """Who is held is answered at once, and so is who comes while the process leaves."""

    async def test(world: World) -> None:
        (client,) = await held(world, get())
        leaving = await leave(world)
        assert (await client.response()).status == 503
        await client.gone()
        await leaving
        assert counts(world) == {Held.IN_VAIN: 1}

    run(test, healthy=False, affinity=LONG)


def test_a_process_that_stood_still_goes_on_holding() -> None:
    """The time in which it did not run is not part of a wait."""

    async def test(world: World) -> None:
        chats(world)
        (client,) = await held(world, get())
        world.stand_still(GAP)
        await asyncio.sleep(0.1)
        world.observe("a", Observation.ANSWERED)
        assert (await client.response()).status == 200

    run(test, healthy=False, affinity={"hold": 0.5})


def test_no_backend() -> None:
    """While no backend takes requests, they are answered 503 with the time to come again."""

    async def test(world: World) -> None:
        response = await world.ask(get(b"/x"))
        assert (response.status, response.get(b"retry-after")) == (503, b"2")
        assert b"<html" not in response.body
        head = await world.ask(get(b"/x", method=b"HEAD"), to_head=True)
        assert head.status == 503

    run(test, healthy=False, affinity=AT_ONCE)


def test_browser_is_shown_a_page_that_waits() -> None:
    """A browser that asks for a page gets one that comes again by itself; its scripts get none."""

    async def test(world: World) -> None:
        page = await world.ask(get(b"/", b"Accept: text/html,application/xhtml+xml"))
        assert (page.status, page.get(b"retry-after")) == (503, b"2")
        assert b'http-equiv="refresh"' in page.body
        assert page.get(b"cache-control") == b"no-store"
        poll = await world.ask(get(b"/ws/socket.io/?EIO=4&transport=polling", b"Accept: text/html"))
        assert (poll.status, b"<html" in poll.body) == (503, False)

    run(test, healthy=False, affinity=AT_ONCE)


def test_backends_that_all_refuse() -> None:
    """When every backend refuses, the request is answered 503, not 502: it may come again."""

    async def test(world: World) -> None:
        for backend in world.backends:
            backend.refuse()
        assert (await world.ask(get())).status == 503

    run(test, "abc", affinity=AT_ONCE)
