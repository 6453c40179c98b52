"""Requests of a session whose instance is gone wait until it has connected to another one."""

import asyncio
from pathlib import Path

import pytest

from proxy.affinity.health import Observation
from proxy.borders import Work
from proxy.borders import held as held_work
from proxy.dataplane import arrivals
from proxy.dataplane.arrivals import Held
from proxy.dataplane.dialing import Dial
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import Socket
from tests.dataplane.multiplexed import NAME, Browser
from tests.dataplane.peers import Peer, get, post
from tests.dataplane.test_evictions import drain, on, open_poll, open_socket, still
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

UPLOAD = b"/project/file?session_id=session-S"
PATIENCE = 2.0


async def lost(world: World) -> None:
    """The session's instance dies, and its websocket with it."""
    client = await open_socket(world)
    world.observe("a", Observation.ENDED)
    client.peer.close()
    await world.until(lambda: not world.plane.tunnels)


async def connect(world: World) -> Socket:
    """The page connects anew, to the instance that is left."""
    again = await Tab(world, world.cookie("b")).socket()
    await again.hear()
    again.say(connect_packet("session-S"))
    assert await again.hear() == b'40{"sid":"b"}'
    return again


async def held(world: World, *requests: bytes, before: int = 0) -> list[Peer]:
    """These requests are held, beside some before them."""
    clients = [(await world.client()).say(request) for request in requests]
    await world.until(lambda: len(world.plane.site.arrivals) == before + len(requests))
    return clients


def test_they_are_sent_where_the_session_has_connected() -> None:
    """An upload, a button and an element in the second before: each meets an instance that knows it."""

    async def test(world: World) -> None:
        instances = chats(world)
        await lost(world)
        before = len(instances["b"].backend.requests)
        action = post(b"/project/action", b'{"sessionId":"session-S"}')
        clients = await held(world, post(UPLOAD, b"x" * 1000), action, get(UPLOAD.replace(b"?", b"/x?")))
        await asyncio.sleep(0.2)
        assert len(instances["b"].backend.requests) == before
        await connect(world)
        answers = [await client.response() for client in clients]
        assert [answer.status for answer in answers] == [200, 200, 404]
        assert b"File not found" in answers[2].body, "by then the instance holds the session"
        assert len(instances["b"].asked("post")) == 2
        assert world.plane.site.arrivals.counts[Held.CONNECTED] == 3
        assert (await world.ask(action)).status == 200

    run(test, "ab", affinity={"hold": PATIENCE})


def test_they_wait_for_a_client_that_polls() -> None:
    """A drain has sent it away; its CONNECT by a poll lets go of what was held."""

    async def test(world: World) -> None:
        instances = chats(world)
        await open_poll(world)
        drain(world)
        assert still(world)
        world.plane.evictions.send_away(on(world, "a"))
        (client,) = await held(world, post(UPLOAD, b"x"))
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        assert (await client.response()).status == 200
        assert [len(instances[name].asked("post")) for name in "ab"] == [1, 2]

    run(test, "ab")


def test_they_are_sent_all_the_same_when_nobody_comes() -> None:
    """When the time is up they go where the session would; a body that was too long to be held follows."""

    async def test(world: World) -> None:
        instances = chats(world)
        await lost(world)
        began = world.now()
        (client,) = await held(world, post(UPLOAD, b"x" * 300_000))
        assert (await client.response()).status == 200
        assert 0.3 <= world.now() - began < PATIENCE
        (request,) = instances["b"].asked("post")
        assert len(request.body) == 300_000
        assert world.plane.site.arrivals.counts[Held.IN_VAIN] == 1

    run(test, "ab", affinity={"hold": 0.3})


def test_who_has_been_gone_for_long_is_not_waited_for() -> None:
    """Nobody connects for a page that was closed: what names its session is answered at once."""

    async def test(world: World) -> None:
        chats(world)
        await lost(world)
        (session,) = world.router.directory.sessions()
        session.lose_sight(world.now() - 60)
        assert (await world.ask(post(UPLOAD, b"x"))).status == 200
        assert not any(world.plane.site.arrivals.counts.values())

    run(test, "ab")


@pytest.mark.parametrize("hold", [0, 5])
def test_so_many_are_held_at_once(hold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is sent at once, as all are with `affinity.hold: 0`; a client that leaves makes room."""
    monkeypatch.setattr(arrivals, "_MOST", 1)

    async def test(world: World) -> None:
        chats(world)
        await lost(world)
        if hold:
            (client,) = await held(world, post(UPLOAD, b"x"))
            assert (await world.ask(post(UPLOAD, b"y"))).status == 200
            assert world.plane.site.arrivals.counts[Held.TOO_MANY] == 1
            client.reset()
        else:
            assert (await world.ask(post(UPLOAD, b"y"))).status == 200

    run(test, "ab", affinity={"hold": hold})


def test_one_client_takes_a_quarter_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one asks for beyond that goes on at once; others are held."""
    monkeypatch.setattr(arrivals, "_PER_CLIENT", 2)

    async def test(world: World) -> None:
        chats(world)
        await lost(world)
        one, other = b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-For: 192.0.2.2"
        clients = await held(world, *[post(UPLOAD, b"x", one)] * 2)
        assert (await world.ask(post(UPLOAD, b"y", one))).status == 200
        assert world.plane.site.arrivals.counts[Held.TOO_MANY] == 1
        more = await held(world, post(UPLOAD, b"x", other), before=2)
        await connect(world)
        assert [(await client.response()).status for client in (*clients, *more)] == [200] * 3
        assert not world.plane.site.arrivals._held_of

    run(test, "ab", affinity={"hold": PATIENCE}, forwarded={"trusted": ["127.0.0.1"]})


def test_an_instance_that_is_back_has_forgotten_its_sessions() -> None:
    """A replica that was started again at once knows a session only when that has connected."""

    async def test(world: World) -> None:
        instances = chats(world)
        await lost(world)
        world.observe("a", Observation.ANSWERED)
        (client,) = await held(world, post(UPLOAD, b"x"))
        again = await Tab(world, world.cookie("a")).socket()
        await again.hear()
        again.say(connect_packet("session-S"))
        assert await again.hear() == b'40{"sid":"a"}'
        assert (await client.response()).status == 200
        assert len(instances["a"].asked("post")) == 1

    run(test)


class Guest:
    """A request that may be held, as `arrivals.Guest`."""

    ended = False
    held_for = 0.0
    whose = "somebody"

    def __init__(self) -> None:
        self.has_gone_on = asyncio.Event()
        self.stay: Dial | None = None
        self.work: asyncio.Task[None] | None = None

    def halt(self, stay: Dial) -> None:
        """As Guest."""
        self.stay = stay

    def go_on(self) -> None:
        """As Guest."""
        self.has_gone_on.set()

    def spawn(self, work: Work) -> None:
        """As Guest."""
        self.work = asyncio.create_task(held_work(work, lambda: None))


def test_what_happens_before_the_event_loop_turns_is_not_missed() -> None:
    """Its session connects, or its hand-over ends, in the moment in which it is held: it goes on at once."""

    async def test(world: World) -> None:
        arrivals, guest = world.plane.site.arrivals, Guest()
        assert arrivals.hold(guest, PATIENCE, "session-S")
        arrivals.release("session-S")
        async with asyncio.timeout(PATIENCE / 4):
            await guest.has_gone_on.wait()
        assert arrivals.counts[Held.CONNECTED] == 1
        assert 0 <= guest.held_for < PATIENCE

    run(test, "a")


def test_who_leaves_before_the_event_loop_turns_is_held_no_more() -> None:
    """Nothing is kept of it, and it does not go on."""

    async def test(world: World) -> None:
        arrivals, guest = world.plane.site.arrivals, Guest()
        assert arrivals.hold(guest, PATIENCE, "session-S")
        assert guest.stay is not None
        guest.stay.cancel()
        arrivals.release("session-S")
        assert not len(arrivals)
        assert not arrivals._held_of
        assert not arrivals._sessions
        assert guest.work is None

    run(test, "a")


def test_who_is_answered_meanwhile_is_held_no_more(tmp_path: Path) -> None:
    """A stream of HTTP/2 goes on with its body: too long, it is refused at once, and its place is free."""
    authority = Authority(tmp_path)

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        number = client.ask(b"/upload", method=b"POST", ends=False)
        arrivals = world.plane.site.arrivals
        await world.until(lambda: len(arrivals) == 1)
        client.say(number, b"x" * 2000)
        assert (await client.answer(number, to_head=True)).status == 413
        assert not len(arrivals)
        assert not arrivals._backends

    run(
        test,
        healthy=False,
        affinity={"hold": 19},
        limits={"body": 1000},
        tls=authority.issue(NAME),
    )
