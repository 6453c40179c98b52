"""Re-homing a polling transport: its sid becomes an alias, and what can go wrong on the way."""

import asyncio

import pytest

from proxy.affinity.health import Observation, Verdict
from tests.dataplane.chat import PATH, SEPARATOR, Chat, Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT
from tests.dataplane.peers import get, post
from tests.dataplane.test_rehome_order import settle
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")


def test_sid_is_an_alias_from_then_on() -> None:
    """Every later request of the client's old sid goes to the new backend under the new one's sid."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        assert (await (await tab.post(CONNECT)).response()).body == b"ok"
        await tab.listen(b'40{"sid":"b"}')
        for number in range(3):
            assert (await (await tab.post(b'42["%d"]' % number)).response()).status == 200
        await tab.listen(b'42["echo","b"]')
        assert [len(instances["a"].asked(kind)) for kind in ("handshake", "post", "poll")] == [1, 0, 0]
        sids = {r.target.rpartition(b"sid=")[2] for r in instances["b"].asked("post")}
        assert sids == {b"b-sid-0"}
        assert world.known("b").sessions == 1
        assert (world.known("a").sessions, world.plane.site.stats.rehomes) == (0, 1)

    run(test, "ab")


def test_a_poll_whose_body_is_gone_is_not_said_again() -> None:
    """What was passed on of it cannot be said to the new backend: its client connects anew."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        target = PATH + b"polling&sid=" + tab.sid
        poll = (await world.client()).say(get(target, b"Content-Length: 200") + b"x" * 100)
        connections = world.plane.connections
        await world.until(lambda: any(at.exchange and at.exchange.upstream for at in connections))
        poll.say(b"x" * 50)
        await world.until(lambda: any(at.exchange and at.exchange.body.streamed for at in connections))
        assert (await (await tab.post(CONNECT)).response()).body == b"ok"
        async with asyncio.timeout(5):  # at once, and not when the new backend has waited in vain
            assert (await poll.response()).status == 400
        assert instances["b"].asked("poll") == []

    run(test, "ab")


def test_new_handshake_is_made_in_the_clients_name() -> None:
    """Chainlit judges a connection by its handshake's fields: the new one carries those of this client."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a") + b"; access_token=jwt", b"User-Agent: tab", b"Origin: https://x")
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        (request,) = instances["b"].asked("handshake")
        assert request.start == b"GET " + PATH + b"polling HTTP/1.1"
        assert (request.get(b"cookie"), request.get(b"user-agent")) == (b"access_token=jwt", b"tab")
        assert (request.get(b"origin"), request.get(b"x-forwarded-for")) == (b"https://x", b"127.0.0.1")
        assert (request.get(b"content-length"), request.get(b"content-type")) == (None, None)

    run(test, "ab")


def test_locate_asks_in_the_clients_name() -> None:
    """With a login a backend answers only the client's own cookies."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=False)
        tab = Tab(world, world.cookie("a") + b"; access_token=jwt")
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        (request,) = instances["b"].asked("locate")
        assert request.target == b"/project/file/x?session_id=session-S"
        assert request.get(b"cookie") == b"access_token=jwt"

    run(test, "ab")


def test_locate_does_not_wait_for_a_blocked_backend() -> None:
    """A backend that does not answer has said nothing: the session counts as new after locate_timeout."""

    async def test(world: World) -> None:
        instances = chats(world)
        instances["b"].hold("locate")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        assert instances["a"].heard == [CONNECT]

    run(test, "ab", affinity={"locate_timeout": 0.1})


def test_right_backend_refuses_the_move() -> None:
    """If the session's backend is gone, the session goes on where the client is."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await world.backends[1].end()
        assert (await (await tab.post(CONNECT)).response()).body == b"ok"
        await tab.listen(b'40{"sid":"a"}')
        assert world.known("b").health.verdict is Verdict.DOWN
        assert world.router.directory.moves == {"b": 1}

    run(test, "ab")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"0" * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ACCEPT,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_right_backend_gives_no_session(answer: bytes) -> None:
    """A backend that is there but opens no session may only be slow: 502, and the client connects anew."""

    async def test(world: World) -> None:
        wrong = Chat(world.backends[0])
        settle(world, {"a": wrong, "b": wrong}, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        sent = await tab.post(CONNECT)
        right = await world.backends[1].accept()
        await right.request()
        right.say(answer).half_close()
        assert (await sent.response()).status == 502
        assert wrong.heard == []

    run(test, "ab")


def test_right_backend_does_not_answer() -> None:
    """A client waits no longer for its move than for any response."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        instances["b"].hold("handshake")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        assert (await (await tab.post(CONNECT)).response()).status == 504

    run(test, "ab", timeouts={"response": 0.3})


@pytest.mark.parametrize("held", ["handshake", "locate"])
def test_client_that_leaves_while_it_is_moved(held: str) -> None:
    """A client may leave at any time; nothing is kept or asked for it."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=held != "locate")
        instances["b"].hold(held)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        poll = await tab.poll()
        socket = await tab.socket()
        sent = await tab.post(CONNECT)
        await world.until(lambda: instances["b"].asked(held))
        for peer in (sent, poll, socket.peer):
            peer.reset()
        await world.until(lambda: not world.plane.connections and not world.plane.tunnels)

    run(test, "ab")


def test_wrong_backend_goes_down_while_its_client_is_moved() -> None:
    """The move goes on: nothing of the old backend is needed any more."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        gate = instances["b"].hold("handshake")
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        sent = await tab.post(CONNECT)
        await world.until(lambda: instances["b"].asked("handshake"))
        world.observe("a", Observation.REFUSED)
        gate.set()
        assert (await sent.response()).body == b"ok"
        await tab.listen(b'40{"sid":"b"}')

    run(test, "ab")


def test_session_of_a_backend_that_is_down_stays_with_its_client() -> None:
    """A session whose backend is down begins anew where the client's handshake went."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        world.observe("b", Observation.REFUSED)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        await tab.listen(b'40{"sid":"a"}')
        assert instances["a"].heard == [CONNECT]
        assert world.known("a").sessions == 1

    run(test, "ab")


def test_guess_by_chainlits_cookie() -> None:
    """The cookie of the newest tab places the handshake; CONNECT corrects it for an older tab."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        instances["a"].sessions.add("session-T")
        world.router.directory.assign("session-T", world.known("a"), world.now())
        newest = Tab(world, b"Cookie: X-Chainlit-Session-id=session-T")
        await newest.handshake()
        assert len(instances["a"].asked("handshake")) == 1
        await (await newest.post(CONNECT)).response()
        assert instances["b"].heard == [CONNECT]

    run(test, "ab")


# what is said, and whether that ends the waiting for a session
FIRST = [
    (b'42["hi"]', True),  # it goes on with what began at another proxy
    (b"40", True),
    (b"3", False),
    (b"2" + SEPARATOR + b"3", False),
    (b"", False),
    (b'40/admin,{"a":1}', False),
    (b'40/admin,{"sessionId":"session-X"}', False),
]


@pytest.mark.parametrize(("payload", "decided"), FIRST)
def test_first_post_without_a_session(payload: bytes, decided: bool) -> None:
    """Neither a heartbeat nor an app's own namespace ends it: the session may still be named."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        peer = (await world.client()).say(post(PATH + b"polling&sid=" + tab.sid, payload))
        assert (await peer.response()).status == 200
        assert instances["a"].asked("post")[0].body == payload
        engine = world.router.engines.get(b"a-sid-0")
        assert engine is not None
        assert engine.decided is decided

    run(test, "ab")


def test_an_event_in_a_poll_ends_the_waiting_for_a_session() -> None:
    """Chainlit's namespace speaks to those that have connected: this one has, at another proxy."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        transport = instances["a"].transports[b"a-sid-0"]
        for packet, decided in ((b"2", False), (b'42/admin,["x"]', False), (b'42["x"]', True)):
            transport.push(packet)
            await tab.listen(packet)
            engine = world.router.engines.get(b"a-sid-0")
            assert engine is not None
            assert engine.decided is decided
        assert len(world.router.engines.settled) == 1

    run(test, "a")


def test_transport_that_another_proxy_opened() -> None:
    """A pinned sid that this proxy never saw works without any memory of it."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        world.router.engines.closed(world.router.engines._bare[b"a-sid-0"], world.now())
        poll = await tab.poll()
        assert (await (await tab.post(connect_packet("session-T"))).response()).status == 200
        await tab.listen(b'40{"sid":"a"}', poll)
        assert instances["a"].heard == [connect_packet("session-T")]

    run(test, "ab")


def test_handshake_that_ends_its_backend() -> None:
    """A handshake that was heard over a kept connection is made at no other backend."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        assert (await world.ask(get(PATH + b"polling", world.cookie("b")))).status == 200
        (kept,) = world.backends[1].peers
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        instances["b"].hold("handshake")
        sent = await tab.post(CONNECT)
        await world.until(lambda: len(instances["b"].asked("handshake")) == 2)
        world.backends[1].refuse()
        kept.reset()
        assert (await sent.response()).status == 502
        assert world.known("b").health.verdict is Verdict.DOWN
        assert len(instances["a"].asked("handshake")) == 1
        assert instances["a"].heard == []

    run(test, "ab")


def test_every_backend_is_gone_while_it_is_moved() -> None:
    """A handshake that was heard is not made elsewhere; with no backend left, clients are told to wait."""

    async def test(world: World) -> None:
        instances = chats(world)
        settle(world, instances, known=True)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        instances["b"].hold("handshake")
        sent = await tab.post(CONNECT)
        await world.until(lambda: instances["b"].asked("handshake"))
        world.observe("a", Observation.REFUSED)
        world.backends[1].refuse()
        world.observe("b", Observation.ENDED)
        assert (await sent.response()).status == 502
        assert (await world.ask(get(PATH + b"polling"))).status == 503

    run(test, "ab", affinity={"hold": 0.1})
