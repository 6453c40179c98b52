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
