"""Polls of a settled transport go a shorter way, on which they meet the same rules."""

import pytest

from proxy.affinity.backend import AdminState
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.peers import get, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run


async def settled(world: World, *fields: bytes) -> Tab:
    """A tab whose CONNECT was answered."""
    tab = Tab(world, *fields)
    await tab.handshake()
    assert (await (await tab.post(connect_packet("session-S"))).response()).status == 200
    await tab.listen(b'40{"sid":"a"}')
    return tab


def target(tab: Tab) -> bytes:
    """Where it polls."""
    return PATH + b"polling&sid=" + tab.sid


def test_many_requests_on_one_connection() -> None:
    """POST and GET in turn are each answered with their own answer, and counted and logged once."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await settled(world)
        client = await world.client()
        before = world.plane.site.stats.sid_pinned
        for number in range(5):
            packet = b'42["%d"]' % number
            assert (await client.say(post(target(tab), packet)).response()).body == b"ok"
            assert (await client.say(get(target(tab))).response()).body == b'42["echo","a"]'
        assert [request.body for request in instances["a"].asked("post")][1:] == [
            b'42["%d"]' % number for number in range(5)
        ]
        assert world.plane.site.stats.sid_pinned == before + 10
        assert [engine.polls for engine in world.router.engines.settled.values()] == [0]

    run(test, "a")


def test_pipelined_requests_are_answered_in_order() -> None:
    """What came behind the body is the next request."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world)
        client = (await world.client()).say(post(target(tab), b'42["x"]') + get(target(tab)))
        assert [(await client.response()).body for _ in range(2)] == [b"ok", b'42["echo","a"]']

    run(test, "a")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"Content-Length: 101", 413),
        (b"Transfer-Encoding: gzip", 400),
        (b"Expect: nothing", 417),
    ],
)
def test_what_is_refused_is_refused_here_too(request_line: bytes, status: int) -> None:
    """A settled transport opens no way around the limits and the framing."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world)
        client = (await world.client()).say(get(target(tab), request_line, method=b"POST") + b"b" * 101)
        assert (await client.response()).status == status
        await client.gone()

    run(test, "a", limits={"body": 100})


def test_a_client_that_closes_is_told_so() -> None:
    """`Connection: close` ends the connection behind the answer."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world)
        client = (await world.client()).say(post(target(tab), b'42["x"]', b"Connection: close"))
        response = await client.response()
        assert (response.status, response.get(b"connection")) == (200, b"close")
        await client.gone()

    run(test, "a")


def test_a_backend_that_holds_no_pins_is_not_asked() -> None:
    """The poll is told that its sid is unknown, as on the longer way."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world, world.cookie("a"))
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.MAINTENANCE)
        answer = await (await tab.post(b'42["x"]')).response()
        assert answer.status == 400

    run(test, "ab")


@pytest.mark.parametrize("farewell", [b"1", b"41\x1e1"])
def test_who_says_that_it_leaves_is_no_load(farewell: bytes) -> None:
    """Engine.IO's CLOSE ends the session's use of its backend at once, and the backend hears it."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await settled(world)
        assert world.known("a").sessions == 1
        assert (await (await tab.post(farewell)).response()).body == b"ok"
        assert world.known("a").sessions == 0
        assert instances["a"].asked("post")[-1].body == farewell
        assert world.router.engines.settled == {}

    run(test, "a")


def test_a_closed_transport_is_forgotten() -> None:
    """What ended is no longer settled: the next request is decided anew."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world)
        (engine,) = world.router.engines.settled.values()
        assert tab.sid in world.router.engines.settled
        world.router.engines.closed(engine, world.now())
        assert world.router.engines.settled == {}

    run(test, "a")


def test_one_that_is_refused_leaves_its_transport_as_it_was() -> None:
    """A limit of rates refuses it before it was decided: nothing of it is under way at the transport."""

    async def test(world: World) -> None:
        chats(world)
        tab = await settled(world)
        client, answers = await world.client(), []
        while 429 not in answers:
            answers.append((await client.say(post(target(tab), b'42["x"]')).response()).status)
        assert [engine.polls for engine in world.router.engines.settled.values()] == [0]

    run(test, "a", forwarded={"trusted": []}, limits={"requests_per_second": 1, "burst": 8})


@pytest.mark.parametrize(
    "query",
    [
        b"xsid=%b&sid=%b",
        b"sid=&sid=%b",
        b"sid=%b&xsid=%b",
        b"a=sid=%b&sid=%b",
        b"sid=%b&sid=other",
    ],
)
def test_only_the_sid_loses_its_pin(query: bytes) -> None:
    """Other fields of the query that end in its name, or hold it, pass as they are."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        pinned = world.pin("a") + b".nobody"
        said = query.replace(b"%b", pinned)
        answer = await world.ask(get(b"/ws/socket.io/?" + said))
        at = 4 if said.startswith(b"sid=" + pinned) else said.index(b"&sid=" + pinned) + 5
        passed = said[:at] + b"nobody" + said[at + len(pinned) :]
        assert answer.body == b"/ws/socket.io/?" + passed + b" "

    run(test)
