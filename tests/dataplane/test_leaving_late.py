"""Those who come just before the end of the data plane."""

import asyncio
import os

import pytest

from proxy.dataplane import downstream
from tests.dataplane.peers import Cut, Peer, get, ok
from tests.dataplane.test_leaving import leave
from tests.dataplane.world import World, run


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that a busy machine lets wait is no client that is late."""
    monkeypatch.setattr(downstream, "AGAIN", 2.0)


@pytest.mark.usefixtures("unhurried")
def test_who_has_just_come_is_answered() -> None:
    """A connection that was accepted before the end is not closed before it could say what it wants."""

    async def test(world: World) -> None:
        client, silent = await world.client(), await world.client()
        leaving = await leave(world)
        await world.breathe()
        client.say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"last"))
        assert (await client.response()).body == b"last"
        await client.gone()
        await silent.gone()
        await leaving

    run(test)


@pytest.mark.usefixtures("unhurried")
def test_who_was_just_answered_may_ask_again() -> None:
    """Its next request may be on its way: on a connection that is closed it would be lost."""

    async def test(world: World) -> None:
        client = await world.client()
        client.say(get(b"/first"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"first"))
        assert (await client.response()).body == b"first"
        leaving = await leave(world)
        await world.breathe()
        client.say(get(b"/again"))
        await backend.request()
        backend.say(ok(b"again"))
        answer = await client.response()
        assert (answer.body, answer.get(b"connection")) == (b"again", b"close")
        await client.gone()
        await leaving

    run(test)


def test_what_came_while_the_process_waited_for_a_core_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is in the socket when the time for it is up has come in time."""
    monkeypatch.setattr(downstream, "AGAIN", 1.0)

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/first"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"first"))
        assert (await client.response()).body == b"first"
        leaving = await leave(world)
        await world.until(lambda: world.plane.site.leaving)

        def ask_late() -> None:
            os.write(client.writer.get_extra_info("socket").fileno(), get(b"/again"))
            world.stand_still(1.1)

        await world.as_it_reads(ask_late)
        await backend.request()
        backend.say(ok(b"again"))
        assert (await client.response()).body == b"again"
        await client.gone()
        await leaving

    run(test)


def test_short_requests_hold_nobody_up() -> None:
    """There is always one under way, as on a busy site: all are answered, and the end comes soon."""

    async def test(world: World) -> None:
        asked = 0

        async def answer(peer: Peer, request: object) -> None:
            await asyncio.sleep(0.05)
            peer.say(ok(b"short"))

        async def ask() -> None:
            nonlocal asked
            while True:
                try:
                    client = Peer(*await asyncio.open_connection(*world.address))
                    answer = await client.say(get()).response()
                except (OSError, Cut):  # nobody accepts any more
                    return
                assert answer.body == b"short"
                asked += 1
                client.close()

        world.backend.serve(answer)
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for _ in range(12):
                tasks.create_task(ask())
                await asyncio.sleep(0.01)
            await world.until(lambda: asked > 8)
            await world.plane.leave(30, 0.2, 0)
        world.guests += world.plane.site.stats.connections - len(world.clients)  # that came by themselves

    run(test)
