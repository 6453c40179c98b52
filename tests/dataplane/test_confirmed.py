"""What a client says is true once its instance has said so: by the answer to its CONNECT, not to its POST."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.affinity.health import Observation
from tests.dataplane.chat import Chat, Tab, chats, connect_packet
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.test_linger import CONNECTED, collected, first, lingering, lose, tokens
from tests.dataplane.test_linger_refused import REFUSED
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")


class Pair:
    """Two proxies before the same instances, which share a directory."""

    def __init__(self, here: World, there: World) -> None:
        self.here, self.there = here, there

    def pass_words(self) -> None:
        """Each hears what the other one has said; in place of Redis."""
        here, there = self.here.plane.site.shared, self.there.plane.site.shared
        while here._messages or there._messages:
            for teller, hearer in ((here, there), (there, here)):
                while teller._messages:
                    hearer._take(teller._messages.popleft())


@asynccontextmanager
async def pair(here: World) -> AsyncIterator[Pair]:
    """The world's own proxy, and another one."""
    urls = [{"name": b.name, "url": f"http://127.0.0.1:{b.port}"} for b in here.backends]
    there = World("", {"backends": urls}, here.errors)
    await there.start(healthy=True, narrow=False, shared=False)
    for backend in here.backends:
        there.observe(backend.name, Observation.ANSWERED)
    for world in (here, there):
        world.router.shared = world.plane.site.shared.up = True
        world.router.engines.heard = world.plane.site.shared._connected
    yield Pair(here, there)
    for client in there.clients:
        client.reset()
    await there.until(lambda: not there.plane.connections and not there.plane.tunnels)
    there.plane.site.lingers.end_all()
    for pool in there.plane.site._pools.values():
        pool.close_all()
    await there.end()
    here.router.shared = here.plane.site.shared.up = False


def know(world: World, session: str) -> None:
    """A proxy has seen a session connect at `a`."""
    directory = world.router.directory
    directory.opened(known := directory.assign(session, world.known("a"), world.now()))
    directory.closed(known, world.now())


async def keep_some(world: World, instances: dict[str, Chat]) -> None:
    """The owner of a session is lost, and two packets are kept for it."""
    socket = await open_socket(world)
    await lose(world, socket)
    for packet in tokens(0, 2):
        first(instances).push(packet)
    await collected(world, 2)


async def tab_at(world: World, other: World) -> tuple[Tab, Tab]:
    """One client, whose requests come to two proxies."""
    here, there = Tab(world, world.cookie("a")), Tab(other, other.cookie("a"))
    there.sid = await here.handshake()
    return here, there


@pytest.mark.parametrize("taken", [True, False])
def test_a_post_opens_no_session(*, taken: bool) -> None:
    """It is answered with 200 whether its CONNECT is taken or refused; the poll tells."""

    async def test(world: World) -> None:
        instances = chats(world)
        if not taken:
            instances["a"].refused.add("session-S")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        assert (await (await tab.post(CONNECT)).response()).status == 200
        assert (world.known("a").sessions, len(world.router.claims)) == (0, 1)
        await tab.listen(CONNECTED if taken else REFUSED)
        assert (world.known("a").sessions, len(world.router.claims)) == (int(taken), 0)

    run(test, "ab", affinity={"locate": "never"})


def test_one_who_was_refused_may_name_another() -> None:
    """What counts is the session that was taken, and what is kept for that is its."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        instances["a"].refused.add("session-T")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-T"))).response()
        await tab.listen(REFUSED)
        await (await tab.post(CONNECT)).response()
        await tab.listen(tokens(1, 2)[0])
        assert tab.got == [REFUSED, CONNECTED, *tokens(0, 2)]

    run(test, "ab")


def test_a_websocket_hears_the_answer_to_a_post() -> None:
    """Who upgrades before it has polled for the answer gets there what is kept, right behind it."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        gate = instances["a"].hold("post")
        post = await tab.post(CONNECT)
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5")
        await world.until(lambda: instances["a"].transports[b"a-sid-1"].upgraded)
        gate.set()
        assert (await post.response()).status == 200
        assert [await socket.hear() for _ in range(3)] == [CONNECTED, *tokens(0, 2)]

    run(test, "ab")


def test_an_answer_that_cannot_be_read_passes() -> None:
    """An app can compress by what the proxy does not know: it does not learn of the session."""

    async def test(world: World) -> None:
        instance = chats(world)["a"]
        instance.packed, instance.packing = True, b"br"
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        heard = await (await tab.poll()).response()
        assert (heard.status, gzip.decompress(heard.body)) == (200, CONNECTED)
        assert heard.all(b"content-encoding") == [b"br"]
        assert len(world.router.claims) == 0

    run(test, "a")


def test_so_many_are_kept_before_they_are_answered() -> None:
    """Like those whose sessions are known: an instance may never answer."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        instances["a"].hold("connect")
        for number in range(1, 3):
            client = await Tab(world, world.cookie("a")).socket()
            await client.hear()
            client.say(CONNECT)
            transport = instances["a"].transports[b"a-sid-%d" % number]
            await world.until(lambda t=transport: t.heard)  # type: ignore[misc]
            client.peer.reset()
            await world.until(lambda: not world.plane.tunnels)
            assert len(world.plane.site.lingers.coming) == 1
        assert transport.socket is not None
        await world.until(transport.socket.peer.reader.at_eof, "it is let go of")

    run(test, "a", affinity={"linger_sessions": 1})


def test_a_stranger_who_is_lost_takes_nothing_along() -> None:
    """What is kept stays where it is until the instance has taken the CONNECT of whom it is kept for."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        gate = instances["a"].hold("connect")
        stranger = await Tab(world, world.cookie("a")).socket()
        await stranger.hear()
        stranger.say(CONNECT)
        transport = instances["a"].transports[b"a-sid-1"]
        await world.until(lambda: transport.heard)
        stranger.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        transport.push(REFUSED)
        assert transport.socket is not None
        await world.until(transport.socket.peer.reader.at_eof, "it is let go of")
        first(instances).push(tokens(2, 3)[0])
        await collected(world, 3)
        gate.set()
        owner = await Tab(world, world.cookie("a")).socket()
        await owner.hear()
        owner.say(CONNECT)
        assert [await owner.hear() for _ in range(4)] == [CONNECTED, *tokens(0, 3)]

    run(test, "ab")


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "bare"])
def test_a_poll_at_the_sid_of_a_websocket_confirms_nothing(*, pinned: bool) -> None:
    """Engine.IO takes POSTs for it, so the answer may be to a CONNECT that came by one."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        gate = instances["a"].hold("connect")
        tab = Tab(world, world.cookie("a"))
        stranger = await tab.socket()
        await stranger.hear()
        stranger.say(CONNECT)
        transport = instances["a"].transports[b"a-sid-1"]
        await world.until(lambda: transport.heard)
        tab.sid = (world.pin("a") + b"." if pinned else b"") + transport.sid
        await (await tab.post(connect_packet("session-T"))).response()
        gate.set()
        assert await stranger.hear() == CONNECTED
        stranger.say(b'42["hi"]')
        assert await stranger.hear() == b'42["echo","a"]'
        assert lingering(world) == 1

    run(test, "ab", affinity={"locate": "never"})


@pytest.mark.parametrize("by", ["post", "websocket", "unknown"])
def test_a_sid_without_its_pin_confirms_nothing(by: str) -> None:
    """What is said by it is of the same transport."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        instances["a"].refused.add("session-S")
        tab = Tab(world, world.cookie("a"))
        bare = (await tab.handshake()).rpartition(b".")[2]
        pinned, tab.sid = tab.sid, bare
        if by == "post":
            await (await tab.post(connect_packet("session-T"))).response()
            tab.sid = pinned
            await (await tab.post(CONNECT)).response()
            await tab.listen(CONNECTED)
            assert tab.got == [CONNECTED, REFUSED]
        else:
            engine = world.router.engines.pinned(pinned)
            assert engine is not None
            if by == "unknown":  # another proxy, or a proxy before this one, has seen its handshake
                world.router.engines.closed(engine, world.now())
            gate = instances["a"].hold("connect")
            stranger = await tab.socket()
            stranger.say(b"2probe", b"5", CONNECT)
            transport = instances["a"].transports[b"a-sid-1"]
            await world.until(lambda: transport.heard)
            gate.set()
            await (await tab.post(connect_packet("session-T"))).response()
            assert [await stranger.hear() for _ in range(2)] == [b"3probe", CONNECTED]
        await world.until(lambda: len(world.router.claims) == 0)
        assert (lingering(world), world.known("a").sessions) == (1, 0)

    run(test, "a")


@pytest.mark.parametrize("upgrades", [False, True], ids=["websocket", "upgrade"])
def test_a_poll_at_the_sid_of_one_who_is_lost_confirms_nothing(*, upgrades: bool) -> None:
    """What is kept stays where it is."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        instances["a"].hold("connect")
        tab = Tab(world, world.cookie("a"))
        if upgrades:
            await tab.handshake()
        stranger = await tab.socket()
        if upgrades:
            stranger.say(b"2probe", b"5")
        await stranger.hear()
        stranger.say(CONNECT)
        transport = instances["a"].transports[b"a-sid-1"]
        await world.until(lambda: transport.heard)
        stranger.peer.reset()
        await world.until(lambda: world.plane.site.lingers.coming)
        tab.sid = tab.sid or transport.sid
        await (await tab.post(connect_packet("session-T"))).response()
        await world.until(lambda: not world.plane.site.lingers.coming)
        first(instances).push(tokens(2, 3)[0])
        await collected(world, 3)
        assert not world.plane.site.connecting

    run(test, "a")


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told yet"])
def test_one_who_was_refused_at_another_proxy_gets_nothing(*, told: bool) -> None:
    """Whom this proxy takes for the owner was refused elsewhere, and taken as somebody else."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        instances["a"].refused.add("session-S")
        async with pair(world) as two:
            know(two.there, "session-T")
            here, there = await tab_at(world, two.there)
            await (await here.post(CONNECT)).response()
            await there.listen(REFUSED)
            if told:
                two.pass_words()
            await (await there.post(connect_packet("session-T"))).response()
            await here.listen(CONNECTED)
            two.pass_words()
            assert here.got == [CONNECTED]
            assert lingering(world) == 1
            engine = two.there.router.engines.pinned(here.sid)
            assert engine is not None
            assert told is (engine.session is not None and engine.session.id == "session-T")

    run(test, "ab")


@pytest.mark.parametrize("polls", [True, False], ids=["poll", "websocket"])
def test_the_owner_gets_it_where_there_are_other_proxies(*, polls: bool) -> None:
    """Its instance would give it the session's files, too."""

    async def test(world: World) -> None:
        instances = chats(world)
        await keep_some(world, instances)
        async with pair(world):
            tab = Tab(world, world.cookie("a"))
            if polls:
                await tab.handshake()
                await (await tab.post(CONNECT)).response()
                await tab.listen(tokens(1, 2)[0])
                heard = tab.got
            else:
                socket = await tab.socket()
                await socket.hear()
                socket.say(CONNECT)
                heard = [await socket.hear() for _ in range(3)]
            assert heard == [CONNECTED, *tokens(0, 2)]

    run(test, "ab")


def test_what_an_instance_says_at_once_is_not_kept_back() -> None:
    """The client's next poll comes to another proxy, which would not have the rest."""

    async def test(world: World) -> None:
        instances = chats(world)
        know(world, "session-S")
        async with pair(world) as two:
            here, there = await tab_at(world, two.there)
            await (await here.post(CONNECT)).response()
            for packet in tokens(0, 30):
                first(instances).push(packet)
            await there.listen(CONNECTED)
            assert there.got == [CONNECTED, *tokens(0, 30)]

    run(test, "ab")


def test_an_answer_that_another_proxy_hears_counts() -> None:
    """The one that has read the CONNECT is told, and tells where the session is."""

    async def test(world: World) -> None:
        chats(world)
        know(world, "session-S")
        async with pair(world) as two:
            here, there = await tab_at(world, two.there)
            await (await here.post(CONNECT)).response()
            await there.listen(CONNECTED)
            assert world.known("a").sessions == 0
            two.pass_words()
            assert (world.known("a").sessions, two.there.known("a").sessions) == (1, 1)

    run(test, "ab")
