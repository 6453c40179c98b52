"""Compressed websockets: to the client they are, to everybody else they are plain ones."""

import asyncio

import pytest

from proxy.dataplane.compressed import Compressed
from proxy.errors import Limit
from tests.dataplane.chat import Chat, Tab, chats, connect_packet
from tests.dataplane.deflated import Socket, in_frames, packed, said
from tests.dataplane.frames import ACCEPT, frame, upgrade
from tests.dataplane.frames import Socket as Plain
from tests.dataplane.peers import Message, Peer
from tests.dataplane.shared_chat import Case, play
from tests.dataplane.test_streaming import BOUND, held
from tests.dataplane.world import World, run
from tests.test_metrics import scrape, value

ON = {"compress": True}
WEBSOCKET = b"/ws/socket.io/?EIO=4&transport=websocket"
FIELD = b"permessage-deflate; client_no_context_takeover"
EXTENSIONS = b"sec-websocket-extensions"
TOKEN = b'42["stream_token",{"id":"b7a3a1c2-4a5f-4bb1-9d52-1d2a5a0d2f11","token":" %d"}]'
LONG = b'42["echo","' + bytes(range(35, 91)) * 3000 + b'"]'  # what is kept whole


async def answer(world: World, path: bytes = WEBSOCKET, *lines: bytes) -> tuple[Message, Message, Peer, Peer]:
    """What the backend was asked and the client was answered; both sides of the websocket."""
    client = (await world.client()).say(upgrade(path))
    backend = await world.backend.accept()
    asked = await backend.request()
    backend.say(ACCEPT[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    answered = await client.response()
    assert answered.status == 101
    return asked, answered, client, backend


async def connected(world: World) -> tuple[Chat, Socket]:
    """An instance, and the websocket of a client that has connected to it."""
    chat = chats(world)["a"]
    peer = await Tab(world).upgrade()
    answered = await peer.response()
    assert answered.get(EXTENSIONS) == FIELD
    socket = Socket(peer)
    assert (await socket.hear()).startswith(b"0")
    socket.say(connect_packet("session-s"))
    assert (await socket.hear()).startswith(b"40")
    return chat, socket


def side(chat: Chat) -> Plain:
    """The instance's side."""
    socket = list(chat.transports.values())[-1].socket
    assert socket is not None
    return socket


def test_both_directions() -> None:
    """Tokens are short on the wire; the instance is offered nothing, and sees plain frames."""

    async def test(world: World) -> None:
        chat, socket = await connected(world)
        assert chat.asked("upgrade")[0].all(EXTENSIONS) == []
        for number in range(30):
            side(chat).say(TOKEN % number)
            assert await socket.hear() == TOKEN % number
        assert max(socket.sizes[-20:]) < 16
        socket.say(b'42["question"]')
        assert await socket.hear() == b'42["echo","a"]'
        assert chat.heard[-1] == b'42["question"]'
        site = world.plane.site
        assert (site.stats.compressed, len(site.contexts)) == (1, 1)
        assert site.contexts.packed < site.contexts.plain / 4
        socket.peer.reset()
        await world.until(lambda: not site.contexts)

    run(test, websocket=ON)


def test_compression_is_counted() -> None:
    """Websockets that have it, and what it saves on the wire."""

    async def test(world: World) -> None:
        chat, socket = await connected(world)
        for number in range(3):
            side(chat).say(TOKEN % number)
            await socket.hear()
        samples = scrape(world)
        assert value(samples, "compressed_websockets_total") == 1
        assert value(samples, "compression_contexts") == 1
        plain, packed = (value(samples, "compressed_bytes_total", form=form) for form in ("plain", "packed"))
        assert plain > packed > 0

    run(test, websocket={"compress": True})


def test_off_by_default() -> None:
    """Then nothing is agreed, and the websocket has its own transport."""

    async def test(world: World) -> None:
        asked, answered, *_ = await answer(world)
        assert asked.all(EXTENSIONS) == answered.all(EXTENSIONS) == []
        (tunnel,) = world.plane.tunnels
        transport: object = tunnel.down.transport
        assert not isinstance(transport, Compressed)
        assert world.plane.site.stats.compressed == 0

    run(test)


def test_other_websockets_agree_with_their_backend() -> None:
    """What is no websocket of Chainlit's page passes as it is, offer and answer."""

    async def test(world: World) -> None:
        asked, answered, client, backend = await answer(world, b"/ws", b"Sec-WebSocket-Extensions: theirs")
        assert asked.get(EXTENSIONS) == b"permessage-deflate"
        assert answered.get(EXTENSIONS) == b"theirs"
        backend.say(b"\xc1\x01x")
        assert await client.read(3) == b"\xc1\x01x"

    run(test, websocket=ON)


def test_a_backend_that_answers_unasked() -> None:
    """Its client hears what it says, and nothing of ours besides."""

    async def test(world: World) -> None:
        _, answered, *_ = await answer(world, WEBSOCKET, b"Sec-WebSocket-Extensions: theirs")
        assert answered.all(EXTENSIONS) == [b"theirs"]

    run(test, websocket=ON)


def test_what_is_said_ahead() -> None:
    """Frames that come right behind the client's head are read as those after them."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(WEBSOCKET) + said(connect_packet("session-s")))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT + frame(b'0{"sid":"abc"}'))
        assert (await client.response()).status == 101
        assert await Plain(backend, client=False).hear() == connect_packet("session-s")

    run(test, websocket=ON)


@pytest.mark.parametrize("compress", [False, True])
def test_all_is_said_ahead(compress: bool) -> None:
    """Whoever says all before the answer to the upgrade is heard, and then has said all."""

    async def test(world: World) -> None:
        opening = connect_packet("session-s")
        packet = said(opening) if compress else frame(opening, masked=True)
        client = (await world.client()).say(upgrade(WEBSOCKET) + packet)
        client.half_close()
        backend = await world.backend.accept()
        await backend.request()
        await world.until(lambda: world.connection()._said_all)
        backend.say(ACCEPT + frame(b'0{"sid":"abc"}'))
        assert (await client.response()).status == 101
        assert await Plain(backend, client=False).hear() == opening
        backend.half_close()
        await backend.gone()

    run(test, affinity={"linger": 0}, websocket={"compress": compress})


@pytest.mark.parametrize(
    ("wrong", "code", "limit"),
    [
        (in_frames(b"\xff" * 40), 1007, 0),
        (said(b"42[]", 2)[:8] + b"\xc0\x80\x00\x00\x00\x00", 1002, 0),
        (frame(b"x", opcode=9 | 0x40, masked=True), 1002, 0),
        (said(b"0" * 1_100_000), 1009, 1),
        (in_frames(packed(b"0" * 1_100_000), 60, 70), 1009, 1),
    ],
    ids=["no deflate", "RSV1 on a continuation", "RSV1 on a ping", "a bomb", "a bomb in fragments"],
)
@pytest.mark.parametrize("opened", [True, False])
def test_what_cannot_be_read(wrong: bytes, code: int, limit: int, opened: bool) -> None:
    """The client is told why, and answers; its instance hears nothing of that, but that it has left."""

    async def test(world: World) -> None:
        if opened:
            chat, socket = await connected(world)
        else:
            chat, socket = chats(world)["a"], Socket(await Tab(world).upgrade())
            assert (await socket.peer.response()).status == 101
            assert (await socket.hear()).startswith(b"0")
            if limit:  # it is over those of the opening before
                return
        before = list(chat.heard)
        socket.peer.say(wrong)
        assert (await socket.hear())[:2] == code.to_bytes(2, "big")
        assert chat.heard == before
        socket.peer.say(frame(code.to_bytes(2, "big"), opcode=8, masked=True))
        await socket.peer.gone()
        await world.until(lambda: not world.plane.tunnels)
        assert world.plane.site.stats.limits[Limit.INFLATED] == limit

    run(test, websocket=ON)


def test_reserved_bits_on_a_plain_websocket() -> None:
    """Where nothing was agreed they end it, as ever."""

    async def test(world: World) -> None:
        chats(world)
        peer = await Tab(world).upgrade()
        assert (await peer.response()).status == 101
        socket = Plain(peer, client=True)
        assert (await socket.hear()).startswith(b"0")
        peer.say(said(connect_packet("session-s")))
        await peer.gone()

    run(test)


def test_the_proxy_speaks_in_order() -> None:
    """A ping of the proxy's own, and its goodbye, come between what the instance says."""

    async def test(world: World) -> None:
        chat, socket = await connected(world)
        (tunnel,) = world.plane.tunnels
        side(chat).say(TOKEN % 1)
        assert await socket.hear() == TOKEN % 1
        tunnel.say_ping()
        side(chat).say(TOKEN % 2)
        assert [await socket.hear(), await socket.hear()] == [b"2", TOKEN % 2]
        socket.say(b"3", b'42["then"]')
        assert await socket.hear() == b'42["echo","a"]'
        assert chat.heard[-1] == b'42["then"]'
        assert b"3" not in list(chat.transports.values())[-1].quiet
        tunnel.say_goodbye()
        assert await socket.hear() == (1012).to_bytes(2, "big")
        socket.say((1012).to_bytes(2, "big"), opcode=8)
        await socket.peer.gone()

    run(test, websocket=ON)


def test_a_client_that_has_said_all() -> None:
    """Behind what it said its half-close passes, as on any websocket."""

    async def test(world: World) -> None:
        chat, socket = await connected(world)
        socket.say(b'42["last"]')
        socket.peer.half_close()
        await world.until(lambda: chat.heard[-1] == b'42["last"]')
        await side(chat).peer.gone()

    run(test, affinity={"linger": 0}, websocket=ON)


def test_a_slow_instance_stops_its_client() -> None:
    """Of what is inflated no more is held than of any websocket, however short it was on the wire."""

    async def test(world: World) -> None:
        *_, client, backend = await answer(world)
        client.say(said(connect_packet("session-s")))
        reader = Plain(backend, client=False)
        assert await reader.hear() == connect_packet("session-s")
        backend.say(frame(b'40{"sid":"x"}'))
        (tunnel,) = world.plane.tunnels
        await world.until(lambda: tunnel.opening is None)
        message = b'42["say","%b"]' % b"".join(b"%d " % (number * number) for number in range(2000))
        count = 900  # 15 MB
        client.say(b"".join(said(message) for _ in range(count)))
        await world.until(lambda: tunnel.down.paused)
        assert held(world) < BOUND
        whole, at = message * count, 0
        while at < len(whole):  # they may come in fragments
            part = await reader.hear()
            assert whole.startswith(part, at)
            at += len(part)
            assert held(world) < BOUND
        await world.until(lambda: not tunnel.down.paused)

    run(test, debug=False, websocket=ON)


def test_a_slow_client_stops_its_instance() -> None:
    """It is told as much as it takes, and then all of it, in order."""

    async def test(world: World) -> None:
        chat, socket = await connected(world)
        (tunnel,) = world.plane.tunnels

        async def stream() -> None:
            for number in range(3000):
                await side(chat).peer.say_slowly(
                    frame(b'42["echo","%d' % number + bytes(8000) + b'"]', opcode=1)
                )
                await side(chat).peer.say_slowly(frame(LONG[:-3] + b'%d"]' % number))

        writing = asyncio.create_task(stream())
        await world.until(lambda: tunnel.up.paused)
        assert held(world) < BOUND
        writing.cancel()
        for number in range(20):
            assert (await socket.hear()).startswith(b'42["echo","%d\x00' % number)
            assert await socket.hear() == LONG[:-3] + b'%d"]' % number

    run(test, debug=False, narrow=True, websocket=ON)


@pytest.mark.parametrize("planned", [False, True])
def test_a_hand_over(planned: bool) -> None:
    """Another instance goes on in the middle of one stream of compressed messages."""

    async def test(case: Case) -> None:
        socket = case.socket
        for number in range(5):
            case.old().say(TOKEN % number)
            await case.hears(TOKEN % number)
        if planned:
            case.send_away()
        else:
            case.kill()
        await case.greeted()
        case.old("b").say(TOKEN % 5)
        await case.hears(TOKEN % 5)
        assert len(case.world.plane.site.contexts) == 1
        assert isinstance(socket, Socket)

    play(test, compress=True)
