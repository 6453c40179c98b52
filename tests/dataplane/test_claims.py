"""A CONNECT opens its session when its backend has taken it, on a websocket and in a POST."""

import pytest

from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket
from tests.dataplane.peers import Cut
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")


@pytest.mark.parametrize("status", [b"400 Bad Request", b"500 Internal Server Error", b""])
def test_forged_posts_leave_no_trace(status: bytes) -> None:
    """A CONNECT in a made-up transport, which its backend refuses, opens and places nothing."""

    async def test(world: World) -> None:
        directory = world.router.directory
        real = directory.assign("real-session", world.known("a"), world.now())
        directory.opened(real)
        directory.closed(real, world.now())

        async def refuse(peer: object, _: object) -> None:
            if not status:
                peer.reset()  # type: ignore[attr-defined]
            peer.say(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)  # type: ignore[attr-defined]

        for backend in world.backends:
            backend.serve(refuse)
        tab = Tab(world)
        for number in range(100):
            tab.sid = world.pin("a") + b".made-up-%d" % number
            await (await tab.post(connect_packet(f"made-up-{number}"))).response()
        assert [world.known(name).sessions for name in "ab"] == [0, 0]
        assert directory.sessions() == [real]
        assert len(world.router.claims) == 0

    run(test, "ab", affinity={"locate": "never", "directory": {"size": 4}})


def test_what_is_said_in_made_up_transports_is_not_kept() -> None:
    """Their backend does not know them, so nothing of it will be said again."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world)
        for number in range(5):
            tab.sid = world.pin("a") + b".made-up-%d" % number
            assert (await (await tab.post(b"40/admin,", b"42/admin," + b"x" * 1000)).response()).status == 400
        assert len(world.router.engines) == 5
        assert all(engine.said is None for engine in world.router.engines._bare.values())

    run(test)


def test_a_transport_has_one_session() -> None:
    """Of several that are named on it at once nobody knows which was taken: none of them is load.

    Nor are they while their answers wait for a poll that may never come: one of them is.
    """

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        gate = instances["a"].hold("post")
        posts = [await tab.post(connect_packet(f"session-{number}")) for number in range(5)]
        await world.until(lambda: len(instances["a"].asked("post")) == 5)
        assert (len(world.router.claims), world.known("a").claimed) == (1, 1)
        gate.set()
        assert [(await post.response()).status for post in posts] == [200] * 5
        assert (world.known("a").sessions, world.known("a").claimed) == (0, 1)
        await tab.listen(b'40{"sid":"a"}')
        await (await tab.post(b'42["hi"]')).response()
        await tab.listen(b'42["echo","a"]')
        assert (world.known("a").sessions, len(world.router.directory), len(world.router.claims)) == (0, 0, 0)

    run(test)


def test_a_post_whose_client_leaves_opens_nothing() -> None:
    """The backend may have heard it; who has it is found when it is next named."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        gate = instances["a"].hold("post")
        post = await tab.post(CONNECT)
        await world.until(lambda: instances["a"].asked("post"))
        assert len(world.router.claims) == 1
        post.reset()
        await world.until(lambda: len(world.router.claims) == 0)
        assert world.known("a").sessions == 0
        gate.set()

    run(test, "ab")


def test_an_answer_to_connect_in_a_poll_counts_before_that_of_its_post() -> None:
    """Whatever tells first that the backend has taken it."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        gate = instances["a"].hold("post")
        post = await tab.post(CONNECT)
        await world.until(lambda: instances["a"].asked("post"))
        next(iter(instances["a"].transports.values())).push(b'40{"sid":"early"}')
        await tab.listen(b'40{"sid":"early"}')
        await world.until(lambda: world.known("a").sessions == 1)
        gate.set()
        assert (await post.response()).status == 200
        session = world.router.directory.get("session-S", world.now())
        assert session is not None
        assert session.open == 1

    run(test, "a")


def test_a_refused_connect_on_a_websocket_opens_nothing() -> None:
    """And the next one, on the same websocket, does."""

    async def test(world: World) -> None:
        tab = Tab(world, world.cookie("a"))
        asked = await tab.upgrade()
        backend = await world.backends[0].accept()
        await backend.request()
        backend.say(ACCEPT)
        socket, there = await tab.socket(asked), Socket(backend, client=False)
        for number, answer in enumerate((b'44{"message":"no"}', b'40{"sid":"a"}')):
            socket.say(connect_packet(f"session-{number}"))
            await there.hear()
            assert world.known("a").sessions == 0
            there.say(answer)
            assert await socket.hear() == answer
        await world.until(lambda: world.known("a").sessions == 1)
        assert [session.id for session in world.router.directory.sessions()] == ["session-1"]

    run(test, "ab", affinity={"locate": "never"})


def test_a_closed_websocket_leaves_no_claim() -> None:
    """However it ends between its CONNECT and the answer."""

    async def test(world: World) -> None:
        for client_ends in (True, False):
            tab = Tab(world, world.cookie("a"))
            asked = await tab.upgrade()
            backend = await world.backends[0].accept()
            await backend.request()
            backend.say(ACCEPT)
            socket = await tab.socket(asked)
            socket.say(CONNECT)
            await Socket(backend, client=False).hear()
            assert len(world.router.claims) == 1
            (socket.peer if client_ends else backend).reset()
            await world.until(lambda: not world.plane.tunnels)
            assert len(world.router.claims) == 0
            with pytest.raises(Cut):
                await socket.hear()

    run(test, "ab", affinity={"locate": "never"})
