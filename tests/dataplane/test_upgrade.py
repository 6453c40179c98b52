"""Upgrades: asked for, granted, refused, and never said twice."""

import pytest

from tests.dataplane.chat import Tab, chats
from tests.dataplane.frames import ACCEPT, Socket, upgrade
from tests.dataplane.peers import Cut, Message, Peer, get, ok
from tests.dataplane.world import World, run


def test_upgrade_is_asked_for_and_granted_as_it_is() -> None:
    """Connection, Upgrade and the fields of the handshake pass both ways on a path that is not Chainlit's."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws", b"Sec-WebSocket-Protocol: chat, superchat"))
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.get(b"connection"), request.get(b"upgrade")) == (b"Upgrade", b"websocket")
        assert request.get(b"sec-websocket-extensions") == b"permessage-deflate"
        assert request.get(b"sec-websocket-protocol") == b"chat, superchat"
        backend.say(ACCEPT.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"))
        response = await client.response()
        assert (response.get(b"connection"), response.get(b"upgrade")) == (b"Upgrade", b"websocket")
        assert response.get(b"sec-websocket-accept") == b"x"
        assert response.get(b"sec-websocket-protocol") == b"chat"

    run(test)


def test_refused_upgrade_passes_status_fields_and_body() -> None:
    """A backend that does not switch answers like any other request, and both connections go on."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 4\r\n\r\nnope")
        response = await client.response()
        assert (response.status, response.get(b"x-why"), response.body) == (403, b"no", b"nope")
        client.say(get())
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200
        assert world.plane.site.stats.tunnels == 0

    run(test)


def test_many_refused_upgrades_leave_nothing_behind() -> None:
    """Refused upgrades cost no descriptor, pool entry or count, however many there are."""

    async def test(world: World) -> None:
        async def refuse(peer: Peer, _: object) -> None:
            peer.say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        world.backend.serve(refuse)
        client = await world.client()
        for _ in range(200):
            client.say(upgrade(b"/ws/socket.io/?EIO=4&transport=websocket"))
            assert (await client.response()).status == 403
        await world.until(lambda: len(world.plane.site.pool(world.known("a"))._all) <= 200)
        assert not world.plane.tunnels

    run(test, debug=False)


def test_fields_of_a_websocket_push_out_no_others() -> None:
    """Its key never comes again, so that what was read of it is not kept for other connections."""

    async def test(world: World) -> None:
        async def answer(peer: Peer, request: Message) -> None:
            peer.say(ACCEPT if request.get(b"upgrade") else ok())

        world.backend.serve(answer)
        known = []
        for request in (get(), upgrade(b"/ws"), upgrade(b"/ws/socket.io/?EIO=4&transport=websocket")):
            client = (await world.client()).say(request)
            await client.response()
            known.append(len(world.plane.site.heads))
        assert known == [1, 1, 1]

    run(test)


def test_switch_to_another_protocol_is_no_answer() -> None:
    """A 101 to something else than was asked for becomes 502."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT.replace(b"websocket", b"other"))
        assert (await client.response()).status == 502
        await backend.gone()

    run(test)


@pytest.mark.parametrize(
    ("chosen", "status"), [(b"other", 101), (b"OTHER", 101), (b"websocket, other", 502), (b"", 502)]
)
def test_one_of_several_protocols_is_chosen(chosen: bytes, status: int) -> None:
    """Not all of them: what a list of two would be is no websocket, and nobody would look at its packets."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/ws", b"Connection: Upgrade", b"Upgrade: websocket, other"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT.replace(b"Upgrade: websocket", b"Upgrade: " + chosen))
        assert (await client.response()).status == status
        client.close()
        backend.close()
        await world.until(lambda: not world.plane.tunnels)

    run(test)


def test_upgrade_is_never_said_twice() -> None:
    """An upgrade that the backend may have heard is not tried again: a session may have begun (502)."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get())
        kept = await world.backend.accept()
        await kept.request()
        kept.say(ok())
        await client.response()
        client.say(upgrade(b"/ws"))
        fresh = await world.backend.accept()  # not the kept one, which might just be closing
        await fresh.request()
        fresh.close()
        assert (await client.response()).status == 502

    run(test)


def test_upgrade_that_was_refused_a_connection_goes_elsewhere() -> None:
    """Where nothing was sent, an upgrade may be tried on another backend."""

    async def test(world: World) -> None:
        world.backends[0].refuse()
        client = (await world.client()).say(upgrade(b"/ws", world.cookie("a")))
        backend = await world.backends[1].accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101

    run(test, "ab")


def test_client_of_a_body_gets_no_tunnel() -> None:
    """An upgrade with a body is answered as if it were none: the wish may be ignored."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws", b"Content-Length: 2") + b"hi")
        backend = await world.backend.accept()
        request = await backend.request()
        assert (request.get(b"upgrade"), request.get(b"connection"), request.body) == (None, None, b"hi")
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test)


def test_no_compression_is_offered_where_the_first_message_is_read() -> None:
    """On the Socket.IO path the backend is offered no compression: its CONNECT must be readable."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws/socket.io/?EIO=4&transport=websocket"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"sec-websocket-extensions") is None
        backend.say(ACCEPT)
        assert (await client.response()).get(b"sec-websocket-extensions") is None
        Socket(backend, client=False).say(b"0{}")
        assert await Socket(client, client=True).hear() == b"0{}"

    run(test)


def test_client_that_leaves_before_the_101() -> None:
    """An upgrade whose client is gone is given up."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        client.reset()
        await world.until(lambda: not world.plane.connections)
        backend.say(ACCEPT)
        await backend.gone()
        with pytest.raises(Cut):
            await client.head()

    run(test)


def test_an_upgrade_that_comes_to_nothing_is_let_go_of() -> None:
    """A client may go on by polling and try again as often as it likes: nothing of it adds up."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        engine = world.router.engines.get(b"a-sid-0")
        assert engine is not None
        for _ in range(3):
            socket = await tab.socket()
            socket.say(b"2probe")
            assert await socket.hear() == b"3probe"
            assert len(engine.waiting) == 1
            socket.peer.reset()
            await world.until(lambda: not world.plane.tunnels)
        assert (engine.waiting, engine.tunnels) == (set(), 0)

    run(test)


def test_the_head_of_a_websocket_is_not_remembered() -> None:
    """Its key never comes again: thousands of them would push out the heads that polls are answered with."""

    async def test(world: World) -> None:
        client = await world.client()
        client.say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        await client.response()
        known = world.plane.site.pool(world.known("a")).heads
        before = dict(known)
        assert before
        await world.websocket()
        assert known == before

    run(test)
