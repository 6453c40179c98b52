"""Who may be moved: nobody who would lose something by it."""

from tests.dataplane.chat import chats
from tests.dataplane.test_evictions import on, open_socket, still
from tests.dataplane.world import World, run


def test_who_has_just_connected_is_not_at_rest() -> None:
    """Its page says hello next, and the app greets it: in between it would be greeted by nobody."""

    async def test(world: World) -> None:
        chats(world)
        await open_socket(world)
        assert not world.plane.evictions.at_rest(on(world, "a"))
        assert still(world)

    run(test, "ab")
