"""What clients do that are not handed over any more, and what they may have the proxy hold."""

import pytest

from proxy.dataplane.ends import ClientEnd
from proxy.errors import Limit
from tests.dataplane.chat import Tab, connect_packet
from tests.dataplane.frames import frame
from tests.dataplane.shared_chat import Case, SharedChat, play
from tests.dataplane.test_settled_polls import settled
from tests.dataplane.world import World, run

OTHER = connect_packet("session-T")


@pytest.mark.parametrize("packets", [[b"41"], [b"41", OTHER], [OTHER], [connect_packet("session-S")]])
def test_who_leaves_or_connects_once_more(packets: list[bytes]) -> None:
    """What would be said again is not what the client is now: it would get another session than it has."""

    async def test(case: Case) -> None:
        case.socket.say(*packets)
        if packets != [b"41"]:
            await case.hears(b'40{"sid":"a"}')
        await case.world.until(lambda: not case.tunnel.can_move)
        case.kill()
        await case.socket.peer.gone()
        assert not [name for name, _ in case.story if name == "b"]

    play(test)


@pytest.mark.parametrize("settles", [True, False])
def test_who_connects_once_more_by_a_poll(settles: bool) -> None:
    """As on a websocket, whichever way the POST takes."""

    async def test(world: World) -> None:
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = SharedChat(backend)
            chat.story = []
        tab = await settled(world, world.cookie("a"))
        (engine,) = world.router.engines._named.values()
        if not settles:
            world.router.engines.settled.clear()
        assert engine.kept is not None
        await (await tab.post(OTHER)).response()
        assert engine.kept is None

    run(test, "ab", affinity={"hand_over": "always"})


def test_heads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what all clients may have the proxy keep, the longest are let go of: one of many takes all."""
    monkeypatch.setattr("proxy.dataplane.hand_overs._MOST", 20_000)

    async def test(world: World) -> None:
        chat = SharedChat(world.backends[0])
        chat.story = []
        tabs = [Tab(world, b"X-Long: " + b"x" * size) for size in (0, 12_000, 13_000)]
        for number, tab in enumerate(tabs):
            socket = await tab.socket()
            await socket.hear()
            socket.say(connect_packet(f"session-{number}"))
            await socket.hear()
        tunnels = sorted(world.plane.tunnels, key=lambda tunnel: tunnel.session.id if tunnel.session else "")
        assert all(tunnel.kept for tunnel in tunnels)
        world.plane.site.hand_overs.weigh(tunnels)
        assert [tunnel.kept is not None for tunnel in tunnels] == [True, True, False]
        assert world.plane.site.stats.limits[Limit.HAND_OVER_BYTES] == 1

    run(test, "a", affinity={"hand_over": "always"})


def test_halves_of_packets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what all clients may have the proxy hold, the longest pass before they are whole."""
    monkeypatch.setattr("proxy.dataplane.hand_overs._MOST", 50_000)
    data = frame(b'42["say","' + b"x" * 100_000 + b'"]', masked=True)

    async def test(case: Case) -> None:
        world, end = case.world, case.tunnel._down_end
        assert isinstance(end, ClientEnd)
        case.socket.peer.say(data[:60_000])
        await world.until(lambda: end.packets.waiting == 60_000)
        world.plane.site.hand_overs.weigh(world.plane.tunnels)
        assert end.packets.waiting == 0
        assert not case.tunnel.can_move
        assert world.plane.site.stats.limits[Limit.HAND_OVER_BYTES] == 1
        case.socket.peer.say(data[60_000:])
        await case.hears(b'42["echo","a"]')
        assert case.tunnel.can_move

    play(test)


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("code", [1000, 1002, 1007, 1011])
def test_an_instance_that_closes_the_websocket_of_one(code: int, answers: bool) -> None:
    """For what its client has said, perhaps: who is told so is not handed over, again and again for some."""
    said = code.to_bytes(2, "big")

    async def test(case: Case) -> None:
        case.old().say(said, opcode=8)
        assert await case.socket.hear() == said
        if answers:
            case.socket.say(said, opcode=8)
            await case.world.breathe()
        case.old().peer.close()
        await case.socket.peer.gone()
        case.socket.peer.close()
        await case.world.until(lambda: not case.world.plane.tunnels)
        assert not case.story
        assert not case.world.plane.site.hand_overs.counts.results

    play(test)


def test_who_is_handed_over_again_and_again() -> None:
    """Of the backends that it had, some are kept for the log."""

    async def test(case: Case) -> None:
        for times in range(40):
            case.old().peer.reset()
            await case.greeted("a")
            await case.arrived("a", times=times + 1)
        assert len(case.tunnel.backends) == 16

    play(test)
