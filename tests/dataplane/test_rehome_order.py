"""Re-homing under every order of a client's first requests: the JavaScript client sends them all at once.

The session lives on `b`, the handshake went to `a` by a guess. Whatever is said first, and whatever `a`
has answered by then, the client ends up at `b` without noticing.
"""

from itertools import permutations

import pytest

from tests.dataplane.chat import Chat, Tab, chats, connect_packet
from tests.dataplane.frames import Socket
from tests.dataplane.peers import Peer
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")
CONNECTED = b'40{"sid":"b"}'
STEPS = ("post", "poll", "upgrade", "probe")
ORDERS = [order for order in permutations(STEPS) if order.index("upgrade") < order.index("probe")]


class Page:
    """The JavaScript client's side of it."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.peers: dict[str, Peer] = {}
        self.socket: Socket | None = None

    async def step(self, name: str) -> None:
        """Say one thing."""
        if name == "post":
            self.peers["post"] = await self.tab.post(CONNECT)
        elif name == "poll":
            self.peers["poll"] = await self.tab.poll()
        elif name == "upgrade":
            self.peers["upgrade"] = await self.tab.upgrade()
        else:
            self.socket = await self.tab.socket(self.peers["upgrade"])
            self.socket.say(b"2probe")

    async def finish(self) -> None:
        """What engine.io-client does then: hear the CONNECT's answer, upgrade, and speak on the websocket."""
        assert (await self.peers["post"].response()).body == b"ok"
        await self.tab.listen(CONNECTED, self.peers["poll"])
        assert self.socket is not None
        assert await self.socket.hear() == b"3probe"
        self.socket.say(b"5", b'42["hi"]')
        assert await self.socket.hear() == b'42["echo","b"]'


def settle(world: World, instances: dict[str, Chat], *, known: bool) -> None:
    """The session lives on b; either the directory knows, or b says so when it is asked."""
    instances["b"].sessions.add("session-S")
    if known:
        session = world.router.directory.assign("session-S", world.known("b"), world.now())
        world.router.directory.opened(session)
        world.router.directory.closed(session, world.now())


def arrived(instances: dict[str, Chat]) -> int:
    """How many requests that are no handshake or question have come to the instances."""
    kinds = ("post", "poll", "upgrade")
    return sum(len(chat.asked(kind)) for chat in instances.values() for kind in kinds)


def check(instances: dict[str, Chat]) -> None:
    """All that was said, was said to b, once."""
    assert instances["a"].heard == []
    assert instances["b"].heard == [CONNECT, b'42["hi"]']
    (transport,) = instances["b"].transports.values()
    assert transport.quiet == [b"2probe", b"5"]


@pytest.mark.parametrize("known", [True, False], ids=["directory", "locate"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_order_one_after_another(order: tuple[str, ...], known: bool) -> None:
    """Each step has had its effect before the next one comes."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=known)
        page = Page(tab := Tab(world, world.cookie("a")))
        await tab.handshake()
        for number, name in enumerate(order):
            await page.step(name)
            wanted = number + 1 - ("probe" in order[: number + 1])
            await world.until(lambda wanted=wanted: arrived(instances) >= wanted)  # type: ignore[misc]
            if name == "post":
                await world.until(lambda: len(instances["b"].heard) == 1)
        await page.finish()
        check(instances)

    run(test, "ab", debug=False)


@pytest.mark.parametrize("known", [True, False], ids=["directory", "locate"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_order_all_at_once(order: tuple[str, ...], known: bool) -> None:
    """Nothing waits for anything but the 101, without which no client can probe."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=known)
        page = Page(tab := Tab(world, world.cookie("a")))
        await tab.handshake()
        for name in order:
            await page.step(name)
        await page.finish()
        check(instances)

    run(test, "ab")


@pytest.mark.parametrize("held", ["upgrade", "poll"])
@pytest.mark.parametrize("order", list(permutations(STEPS[:3])), ids="-".join)
def test_order_while_the_wrong_backend_is_slow(order: tuple[str, ...], held: str) -> None:
    """What still waits for the wrong backend's answer is asked again at the right one."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        instances["a"].hold(held)
        page = Page(tab := Tab(world, world.cookie("a")))
        await tab.handshake()
        for name in order:
            await page.step(name)
            await world.breathe()
        await page.step("probe")
        await page.finish()
        check(instances)

    run(test, "ab", debug=False)


@pytest.mark.parametrize("held", ["handshake", "upgrade", "post"])
def test_while_the_right_backend_is_slow(held: str) -> None:
    """The client waits for the right backend, and what it says meanwhile is kept for it."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        page = Page(tab := Tab(world, world.cookie("a")))
        await tab.handshake()
        await page.step("poll")
        await page.step("upgrade")
        await page.step("probe")
        assert page.socket is not None
        await world.until(lambda: instances["a"].transports[b"a-sid-0"].quiet)
        gate = instances["b"].hold(held)
        await page.step("post")
        await world.until(lambda: instances["b"].asked(held))
        await world.breathe()
        gate.set()
        await page.finish()
        check(instances)

    run(test, "ab")


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("announced", [True, False])
def test_session_that_is_at_the_right_backend_already(order: tuple[str, ...], announced: bool) -> None:
    """Where the guess was right, or the session is new, everything stays where it is."""

    async def test(world: World) -> None:
        instances = chats(world)
        if announced:
            world.router.directory.announce("session-S", world.now())
        else:
            instances["b"].sessions.add("session-S")
        page = Page(tab := Tab(world, world.cookie("b")))
        await tab.handshake()
        for name in order:
            await page.step(name)
        await page.finish()
        check(instances)
        assert world.plane.site.stats.rehomes == 0
        asked = [len(chat.asked("locate")) for chat in instances.values()]
        assert asked == ([0, 0] if announced else [1, 0])  # the one that it is at need not be asked

    run(test, "ab", debug=False)
