"""Sending sessions away: who is at rest, how the client is told, and where it is taken then."""

import asyncio

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.session import Session
from proxy.wire.engineio import UNKNOWN_SESSION
from tests.dataplane.chat import Chat, Tab, chats, connect_packet
from tests.dataplane.frames import Socket, frame
from tests.dataplane.peers import get, post
from tests.dataplane.world import World, run

START, END = b'42["task_start",{}]', b'42["task_end",{}]'
RESTART = (1012).to_bytes(2, "big")
LONG = 10.0  # seconds: an app that was asked would have told by then


async def open_socket(world: World, session: str = "session-S", at: str = "a") -> Socket:
    """A websocket of a session that lives on a backend."""
    tab = Tab(world, world.cookie(at))
    socket = await tab.socket()
    await socket.hear()
    socket.say(connect_packet(session))
    assert await socket.hear() == b'40{"sid":"%b"}' % at.encode()
    await world.until(lambda: on(world, at))
    return socket


async def open_poll(world: World, at: str = "a") -> Tab:
    """A polling transport of a session that lives on a backend."""
    tab = Tab(world, world.cookie(at))
    await tab.handshake()
    await (await tab.post(connect_packet("session-S"))).response()
    await tab.listen(b'40{"sid":"%b"}' % at.encode())
    return tab


def on(world: World, name: str) -> list[Session]:
    """The sessions that are open on a backend."""
    return world.plane.evictions.sessions_on(world.known(name))


def session(world: World) -> Session:
    """The only one."""
    (found,) = world.router.directory.sessions()
    return found


def still(world: World) -> bool:
    """Whether the sessions are at rest; nobody has said anything for a while."""
    for tunnel in world.plane.tunnels:
        tunnel.tick(world.now())
        tunnel.spoke_at = world.now() - LONG
    for engine in world.router.engines._named.values():
        engine.said_at -= LONG
    for found in world.router.directory.sessions():
        found.ended_at -= LONG
    return bool(world.plane.evictions.at_rest(on(world, "a")))


def drain(world: World, name: str = "a") -> None:
    """The operator wants a backend to be empty."""
    world.parts.fleet.set_admin_state(world.known(name), AdminState.DRAIN)


def test_websocket_is_told_to_connect_anew() -> None:
    """The client gets a close frame with 1012 behind the last frame, the backend an end of the connection."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        drain(world)
        assert still(world)
        world.plane.evictions.send_away(on(world, "a"))
        assert await socket.hear() == RESTART
        assert (world.known("a").sessions, world.known("a").tunnels) == (0, 0)
        assert world.plane.evictions.sent_away == {"a": 1}
        socket.say(RESTART, opcode=8)
        socket.peer.close()

    run(test, "ab")


def test_poll_that_waits_is_told_that_its_sid_is_unknown() -> None:
    """So is every later request with that sid, while the client has not connected anew."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await open_poll(world)
        poll = await tab.poll()
        await world.until(lambda: len(instances["a"].asked("poll")) == 2)
        drain(world)
        assert still(world)
        world.plane.evictions.send_away(on(world, "a"))
        for request in (poll, await tab.poll(), await tab.post(b'42["lost"]'), await tab.upgrade()):
            answer = await request.response()
            assert (answer.status, answer.body) == (400, UNKNOWN_SESSION)
        assert b'42["lost"]' not in instances["a"].heard
        assert world.known("a").sessions == 0

    run(test, "ab")


@pytest.mark.parametrize("guess", ["a", "b"])
def test_session_moves_once_and_stays_there(guess: str) -> None:
    """Wherever its next handshake goes, its CONNECT is taken to another backend, and later ones there too."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        drain(world)
        still(world)
        world.plane.evictions.send_away(on(world, "a"))
        await socket.hear()
        socket.peer.close()
        for _ in range(2):
            tab = Tab(world, world.cookie(guess))
            again = await tab.socket()
            await again.hear()
            again.say(connect_packet("session-S"))
            assert await again.hear() == b'40{"sid":"b"}'
            again.peer.close()
        assert session(world).left == ("a",)
        assert (await world.ask(post(b"/project/file?session_id=session-S", b"x"))).status == 200
        assert [len(instances[name].asked("post")) for name in "ab"] == [0, 1]

    run(test, "ab")


def test_session_goes_home_where_nobody_else_takes_it() -> None:
    """A session that was sent away is better served by a backend that drains than by nobody."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        drain(world)
        still(world)
        world.plane.evictions.send_away(on(world, "a"))
        await socket.hear()
        socket.peer.close()
        world.parts.fleet.set_admin_state(world.known("b"), AdminState.MAINTENANCE)
        tab = Tab(world, b"Cookie: X-Chainlit-Session-id=session-S")
        again = await tab.socket()
        await again.hear()
        again.say(connect_packet("session-S"))
        assert await again.hear() == b'40{"sid":"a"}'

    run(test, "ab")


def test_placed_session_goes_elsewhere() -> None:
    """A session that was placed on a backend and has not come yet never comes there."""

    async def test(world: World) -> None:
        chats(world)
        world.router.directory.assign("session-S", world.known("a"), world.now())
        assert world.known("a").sessions == 1
        drain(world)
        world.plane.evictions.forget_placed(world.known("a"))
        assert world.known("a").sessions == 0
        socket = await Tab(world).socket()
        await socket.hear()
        socket.say(connect_packet("session-S"))
        assert await socket.hear() == b'40{"sid":"b"}'

    run(test, "ab")


def test_turn_on_a_websocket() -> None:
    """Between task_start and task_end a session is not at rest, however the events are cut into pieces."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (transport,) = instances["a"].transports.values()
        assert transport.socket is not None
        peer = transport.socket.peer
        for number, (event, answering) in enumerate(((START, True), (END, False)) * 12):
            told = frame(event)
            cut = number % len(told)
            peer.say(told[:cut])
            await asyncio.sleep(0.005)
            peer.say(told[cut:])
            assert await socket.hear() == event
            assert session(world).in_turn is answering
            assert still(world) is not answering

    run(test, "ab")


@pytest.mark.parametrize("cut", [0, 4, 12, 40])
@pytest.mark.parametrize("packed", [False, True])
def test_turn_by_polling(packed: bool, cut: int) -> None:
    """The same by polls, whose long answers Engine.IO compresses, and which may come in pieces."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await open_poll(world)
        instances["a"].packed, instances["a"].cut = packed, cut
        (transport,) = instances["a"].transports.values()
        for event, answering in ((START, True), (END, False)):
            transport.queue.append(b'42["long","' + bytes(range(97, 123)) * 100 + b'"]')
            transport.push(event)
            assert (await (await tab.poll()).response()).status == 200
            assert session(world).in_turn is answering
            assert still(world) is not answering

    run(test)


def test_nobody_leaves_in_the_middle_of_a_request() -> None:
    """An upload under way, or bytes that came since the last look, are no rest."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        instances["a"].hold("post")
        assert still(world)
        upload = (await world.client()).say(post(b"/project/file?session_id=session-S", b"content"))
        await world.until(lambda: instances["a"].asked("post"))
        assert not still(world)
        upload.reset()
        await world.until(lambda: still(world))
        socket.say(b'42["hello"]')
        await socket.hear()
        assert not world.plane.evictions.at_rest(on(world, "a"))
        (tunnel,) = world.plane.tunnels
        tunnel.tick(world.now())
        assert not world.plane.evictions.at_rest(on(world, "a")), (
            "the app has had no time to say that it answers"
        )

    run(test, "ab")


def test_frame_under_way_is_finished_first() -> None:
    """Forced out in the middle of a frame, a client gets the rest of it before the close frame."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (transport,) = instances["a"].transports.values()
        assert transport.socket is not None
        text = b'42["stream_token","' + b"x" * 70_000 + b'"]'
        told = frame(text)
        drain(world)
        (tunnel,) = world.plane.tunnels
        transport.socket.peer.say(frame(b'42["before"]'))
        assert await socket.hear() == b'42["before"]'
        world.plane.evictions.send_away(on(world, "a"))
        transport.socket.peer.say(told[:30_000])
        await world.until(lambda: tunnel.received[1] > 20_000)
        assert not tunnel.is_closed
        transport.socket.peer.say(told[30_000:])
        assert await socket.hear() == text
        assert await socket.hear() == RESTART

    run(test, "ab")


@pytest.mark.parametrize("in_frame", [False, True])
def test_one_who_says_nothing_more_is_between_two_frames(in_frame: bool) -> None:
    """Its client is told after a second, but closed without a word in the middle of a frame."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (transport,) = instances["a"].transports.values()
        assert transport.socket is not None
        (tunnel,) = world.plane.tunnels
        tunnel.active = True
        tunnel.send_away()
        begun = frame(b'42["x"]')[:5] if in_frame else b""
        transport.socket.peer.say(begun)
        if in_frame:
            assert await socket.peer.rest() == begun
        else:
            assert await socket.hear() == RESTART
        await world.until(lambda: tunnel.is_closed)

    run(test)


def test_tunnels_of_the_app_itself_are_cut_last() -> None:
    """A websocket that belongs to no session keeps a backend from being empty until it is cut."""

    async def test(world: World) -> None:
        Chat(world.backend)
        tab = Tab(world)
        socket = await tab.socket()
        socket.say(b'42["no session"]')
        await world.until(lambda: world.plane.tunnels)
        assert not world.plane.evictions.is_empty(world.known("a"))
        world.plane.evictions.cut(world.known("a"))
        await world.until(lambda: world.plane.evictions.is_empty(world.known("a")))
        assert (await world.ask(get(b"/project/file/x?session_id=session-Q"))).status == 401

    run(test)


def learn(world: World, name: str, *, sent_away: bool = False) -> None:
    """Another proxy tells where the only session lives, and that it may not stay there."""
    known = session(world)
    before = "ab".replace(name, "") if not sent_away else ""
    a, now = world.known(name), world.now()
    world.router.directory.learn("session-S", a, tuple(before), now, sent_away=sent_away)
    world.plane.evictions.follow(known)


def test_who_has_no_connection_of_a_session_does_not_move_it() -> None:
    """Where proxies share sessions, the one that a session is connected to knows whether it is at rest."""

    async def test(world: World) -> None:
        chats(world)
        tab = await open_poll(world)
        drain(world)
        assert on(world, "a"), "between two polls it may come back any moment"
        assert still(world)
        world.router.shared = True
        assert on(world, "a")
        assert not still(world)
        poll = await tab.poll()
        await world.until(lambda: still(world))
        poll.reset()
        (engine,) = world.router.engines._named.values()
        await world.until(lambda: not engine.polls)
        engine.seen -= LONG
        assert not on(world, "a")
        assert world.plane.evictions.is_empty(world.known("a")), "it is another's to empty"

    run(test, "ab")


@pytest.mark.parametrize("sent_away", [True, False])
def test_what_another_proxy_moved_ends_here(sent_away: bool) -> None:
    """A websocket is told to connect anew, whether its session was sent away or is elsewhere already."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        still(world)
        learn(world, "a" if sent_away else "b", sent_away=sent_away)
        assert await socket.hear() == RESTART
        socket.peer.close()
        await world.until(lambda: not world.plane.tunnels)
        assert world.plane.evictions.sent_away == {}, "that is counted where it was decided"

    run(test, "ab")


def test_a_poll_is_told_what_another_proxy_decided() -> None:
    """Its sid is unknown from then on, at this proxy too."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await open_poll(world)
        poll = await tab.poll()
        await world.until(lambda: len(instances["a"].asked("poll")) == 2)
        learn(world, "a", sent_away=True)
        for request in (poll, await tab.poll()):
            answer = await request.response()
            assert (answer.status, answer.body) == (400, UNKNOWN_SESSION)

    run(test, "ab")


def test_what_is_where_the_session_lives_goes_on() -> None:
    """A word of where it lives already ends nothing."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        still(world)
        learn(world, "a")
        (tunnel,) = world.plane.tunnels
        assert not tunnel.is_closed
        socket.say(b'42["hello"]')
        assert await socket.hear()

    run(test, "ab")


def test_what_a_client_left_behind_is_cut() -> None:
    """A websocket of a session that lives elsewhere by now does not keep its backend from being empty."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        still(world)
        drain(world)
        world.router.directory.assign("session-S", world.known("b"), world.now())
        assert not world.plane.evictions.is_empty(world.known("a"))
        world.plane.evictions.cut(world.known("a"))
        assert await socket.hear() == RESTART
        assert world.plane.evictions.is_empty(world.known("a"))

    run(test, "ab")
