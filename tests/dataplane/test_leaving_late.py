"""Those who come just before the end of the data plane."""

from tests.dataplane.peers import get, ok
from tests.dataplane.test_leaving import leave
from tests.dataplane.world import World, run


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
