"""Ids that nothing is called: refused before a backend hears of them, counted, and told in the log once."""

import logging

import pytest

from proxy.errors import Odd
from tests.dataplane.chat import PATH, SEPARATOR, Tab, chats, connect_packet
from tests.dataplane.frames import frame
from tests.dataplane.peers import get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

ODD = [connect_packet(""), connect_packet("../../x"), connect_packet("/tmp/x"), b'40{"sessionId":7}']
JSON = b'{"sessionId":"../../x"}'


def refused(world: World, odd: Odd = Odd.SESSION) -> int:
    """How often."""
    return world.plane.site.stats.odd_ids[odd]


@pytest.mark.parametrize("packet", ODD)
@pytest.mark.parametrize("before", [(), (b'42["hi"]',), (b"40/chat,",), (connect_packet("session-S"), b"41")])
def test_websocket(packet: bytes, before: tuple[bytes, ...]) -> None:
    """The client is told by a close frame (RFC 6455: 1008), whatever it has said before."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await Tab(world).socket()
        await socket.hear()
        socket.say(*before, packet)
        while (said := await socket.hear()).startswith(b"4"):
            pass
        assert said[:2] == (1008).to_bytes(2, "big")
        await world.until(lambda: not world.plane.tunnels)
        assert packet not in instances["a"].heard
        assert refused(world) == 1

    run(test)


def test_websocket_of_a_transport_that_is_known() -> None:
    """A polling transport that has connected upgrades; what it says then is looked at like the rest."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world)
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        socket.say(b"5", b"41")
        socket.peer.say(frame(b"4", masked=True, final=False))
        socket.peer.say(frame(ODD[1][1:], opcode=0, masked=True))
        assert (await socket.hear())[:2] == (1008).to_bytes(2, "big")
        assert ODD[1] not in instances["a"].heard
        assert refused(world) == 1

    run(test)


@pytest.mark.parametrize("packet", ODD)
@pytest.mark.parametrize("connected", [False, True])
def test_polling(packet: bytes, connected: bool) -> None:
    """A POST with an odd CONNECT anywhere in it is a 400, the first of its transport and any later one."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world)
        await tab.handshake()
        if connected:
            await (await tab.post(connect_packet("session-S"))).response()
        answer = await (await tab.post(b"3", b"41", packet)).response()
        assert answer.status == 400
        assert b"session id" in answer.body
        assert packet not in instances["a"].heard
        assert refused(world) == 1
        assert not any(engine.polls for engine in world.router.engines.settled.values())

    run(test)


RESERVED = b'40/chainlit-proxy,{"sessionId":"session-S"}'


@pytest.mark.parametrize("before", [(), (b"40/chat,",), (connect_packet("session-S"),)])
def test_the_namespace_of_the_proxy_on_a_websocket(before: tuple[bytes, ...]) -> None:
    """A client may not speak in the proxy's name, before its session has connected nor afterwards."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await Tab(world).socket()
        await socket.hear()
        for packet in before:
            socket.say(packet)
            await socket.hear()
        socket.say(RESERVED)
        assert (await socket.hear())[:2] == (1008).to_bytes(2, "big")
        await world.until(lambda: not world.plane.tunnels)
        assert RESERVED not in instances["a"].heard
        assert refused(world, Odd.NAMESPACE) == 1

    run(test)


@pytest.mark.parametrize("connected", [False, True])
def test_the_namespace_of_the_proxy_by_polls(connected: bool) -> None:
    """The same in a POST, of a transport whose session is known too."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world)
        await tab.handshake()
        if connected:
            await (await tab.post(connect_packet("session-S"))).response()
            await tab.listen(b'40{"sid":"a"}')
        answer = await (await tab.post(b"3", RESERVED)).response()
        assert answer.status == 400
        assert RESERVED not in instances["a"].heard
        assert refused(world, Odd.NAMESPACE) == 1

    run(test)


def test_polling_without_a_pin() -> None:
    """A sid that names no backend of ours leads to one all the same, and its POST is read."""

    async def test(world: World) -> None:
        chats(world)
        answer = await world.ask(post(PATH + b"polling&sid=a-sid-0", b"3" + SEPARATOR + ODD[0]))
        assert (answer.status, refused(world)) == (400, 1)
        assert not world.backend.requests

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        post(b"/project/action", JSON),
        post(b"/project/element", b'{"sessionId":"session-S","sessionId":"session-T"}', method=b"PUT"),
        post(b"/mcp", b'{"sessionId":""}', method=b"DELETE"),
        post(b"/feedback", b'{"sessionId":["a"]}', method=b"PUT"),
        post(b"/set-session-cookie", b'{"session_id":"../../x"}'),
        post(b"/project%2Faction", JSON),
        post(b"/project/file?session_id=", b"content"),
        post(b"/project/file?session_id=session-S&session_id=..%2Fx", b"content"),
        get(b"/project/file/x?session%5fid=%2Ftmp"),
    ],
)
def test_endpoints_of_chainlit(request_: bytes) -> None:
    """Chainlit is never asked for a session that is none."""

    async def test(world: World) -> None:
        assert (await world.ask(request_)).status == 400
        assert refused(world) == 1
        assert not world.backend.requests

    run(test)


@pytest.mark.parametrize(
    "request_",
    [
        get(b"/who?session_id=u:1"),
        get(b"/", b"X-Session-Id: ../../x"),
        get(b"/", b"Cookie: X-Chainlit-Session-id=../../x"),
        post(b"/api/things", JSON),
        post(b"/project/action", b"{}"),
    ],
)
def test_what_names_no_session_passes(request_: bytes) -> None:
    """Other endpoints may call anything a session, and Chainlit reads neither the cookie nor the fields."""

    async def test(world: World) -> None:
        client = (await world.client()).say(request_)
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200
        assert not refused(world)
        assert not len(world.router.directory)

    run(test)


def test_a_long_sid() -> None:
    """A sid is at most 200 characters long; it would be kept, twice."""

    async def test(world: World) -> None:
        answer = await world.ask(get(PATH + b"polling&sid=" + b"a" * 201))
        assert (answer.status, refused(world, Odd.SID)) == (400, 1)
        assert not world.backend.requests

    run(test)


@pytest.mark.parametrize("target", [PATH + b"polling&sid=", PATH.replace(b".io", b"%2Eio") + b"polling"])
def test_handshakes_by_other_names_count(target: bytes) -> None:
    """An empty sid is none, and the decoded path decides: both are handshakes for the limits."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        assert [(await world.ask(get(target))).status for _ in range(2)] == [200, 429]

    run(test, limits={"sessions_per_minute": 1}, forwarded={"trusted": []})


def test_one_line_tells(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells how many there were, once a minute, and never what they said."""

    async def test(world: World) -> None:
        for _ in range(3):
            await world.ask(post(b"/project/action", JSON))
        with caplog.at_level(logging.WARNING):
            world.plane._report_limits(world.now())
            await world.ask(post(b"/project/action", JSON))
            world.plane._report_limits(world.now())
        told = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
        assert told == ["clients were refused for malformed ids: session 3"]

    run(test)
