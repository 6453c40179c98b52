"""A client whose polls connected through another proxy speaks here before that one's word has come."""

from proxy.affinity.engine import Elsewhere
from proxy.affinity.pins import split_pin
from proxy.dataplane.arrivals import Held
from tests.dataplane.chat import Chat, Tab, chats
from tests.dataplane.peers import Peer
from tests.dataplane.test_rehome_order import settle
from tests.dataplane.world import World, run

HI = b'42["hi"]'


async def tab_of(world: World) -> tuple[dict[str, Chat], Tab]:
    """Its handshake went to `a` by a guess, its session lives on `b`, and others share the directory."""
    instances = chats(world)
    settle(world, instances, known=True)
    world.router.shared = world.plane.site.shared.up = True
    tab = Tab(world, world.cookie("a"))
    await tab.handshake()
    return instances, tab


def hear_of(world: World, instances: dict[str, Chat], tab: Tab) -> None:
    """Another proxy tells that it has moved the transport."""
    transport = instances["b"]._mint()
    session = world.router.directory.get("session-S", world.now())
    assert session is not None
    told = Elsewhere(session, world.known("b"), transport.sid, world.now())
    world.router.engines.connected_elsewhere(split_pin(tab.sid)[1], told)


def test_a_post_waits_for_it() -> None:
    """It is said where the word leads, once."""

    async def test(world: World) -> None:
        instances, tab = await tab_of(world)
        peer = await tab.post(HI)
        await world.until(lambda: len(world.plane.site.arrivals) == 1)
        hear_of(world, instances, tab)
        assert (await peer.response()).body == b"ok"
        assert not instances["a"].asked("post")
        assert (instances["a"].heard, instances["b"].heard) == ([], [HI])
        assert (await (await tab.post(HI)).response()).body == b"ok"
        assert instances["b"].heard == [HI, HI]

    run(test, "ab")


def test_a_post_waits_in_vain_for_a_moment_only() -> None:
    """Nobody else may have seen its CONNECT: it goes where its pin says, and the next one waits no more."""

    async def test(world: World) -> None:
        instances, tab = await tab_of(world)
        for number in range(2):
            assert (await (await tab.post(HI)).response()).body == b"ok"
            assert len(instances["a"].heard) == number + 1
        assert world.plane.site.arrivals.counts[Held.IN_VAIN] == 1

    run(test, "ab")


def test_clients_that_leave_meanwhile_are_forgotten() -> None:
    """However many begin to say something and go."""

    async def test(world: World) -> None:
        _, tab = await tab_of(world)
        for _ in range(20):
            peer: Peer = await tab.post(HI)
            await world.until(lambda: len(world.plane.site.arrivals) == 1)
            peer.reset()
            await world.until(lambda: len(world.plane.site.arrivals) == 0)
        (engine,) = world.router.engines._bare.values()
        assert len(engine.waiting) == 1

    run(test, "ab")


def test_a_websocket_waits_for_it() -> None:
    """What it says to Chainlit behind its upgrade is said at the other backend, and not at the first."""

    async def test(world: World) -> None:
        instances, tab = await tab_of(world)
        socket = await tab.socket(await tab.upgrade())
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5", HI)
        await world.until(lambda: instances["a"].asked("upgrade"))
        await world.breathe()
        assert instances["a"].heard == []
        hear_of(world, instances, tab)
        assert await socket.hear() == b'42["echo","b"]'
        assert (instances["a"].heard, instances["b"].heard) == ([], [HI])

    run(test, "ab")
