"""A client whose polls may come through several proxies: what is for it waits until the proxy has left.

With a real Socket.IO server and a transport of its own, without Chainlit.
"""

# mypy: disable-error-code="no-untyped-call"

import asyncio
from typing import Any

import socketio
from engineio.async_socket import AsyncSocket

from proxy.sessions.hand_over import AGAIN, HandOvers

OURS = "/chainlit-proxy,"
MESSAGE = '{"message":{"id":"m1"}}'


class Site:
    """A server, its hand-overs and what came to its sessions; as Sessions."""

    def __init__(self) -> None:
        self.server = socketio.AsyncServer(async_mode="asgi")
        self.hand_overs = HandOvers(self.server, self)
        self.hand_overs.install()
        self.again: list[tuple[str, Any]] = []
        self.accepts = True
        self.server.on("connect", self._connect)
        self.transport = AsyncSocket(self.server.eio, "engine")
        self.server.eio.sockets["engine"] = self.transport

    async def _connect(self, socket: str, *_: Any) -> None:
        transport = self.hand_overs.of(socket)
        if not self.accepts:
            raise ConnectionRefusedError("nothing is held")
        if transport is not None:
            self.hand_overs.accept(transport, socket)
        await self.server.emit("connected", to=socket)

    async def greet(self, socket: str, streaming: str | None) -> bool:
        """As Sessions."""
        await self.server.emit("greeting", {"file": b"binary"}, to=socket)
        return True

    async def say_again(self, socket: str, event: str, payload: Any, *, begun: bool) -> bool:
        """As Sessions."""
        self.again.append((event, payload))
        return True

    async def say(self, packet: str) -> None:
        """The proxy or the client says a packet."""
        await self.server._handle_eio_message("engine", packet)
        for _ in range(10):
            await asyncio.sleep(0)

    def heard(self) -> list[str]:
        """What a poll brings now."""
        found = []
        while not self.transport.queue.empty():
            found.append(str(self.transport.queue.get_nowait().encode(b64=True)))
        return found


async def joined(site: Site, told: str) -> None:
    """The proxy has joined."""
    await site.server._handle_eio_connect("engine", {})
    await site.say(f"0{OURS}{told}")
    (packet,) = site.heard()
    assert packet.startswith(f'40{OURS}{{"sid"')


def test_all_of_it_waits_in_order() -> None:
    """The proxy hears of its own namespace only; then the client hears the rest, a ping first."""

    async def scenario() -> None:
        site = Site()
        await joined(site, '{"quiet":true}')
        await site.say("0{}")
        assert site.heard() == []
        await site.say(f'2{OURS}0["resume",{{"streaming":null}}]')
        assert site.heard() == [f"43{OURS}0[true]"]
        await site.say(f"1{OURS}")
        await site.server.emit("later")
        ping, *connects, greeting, binary, later = site.heard()
        assert ping == "2"
        assert sorted(packet[:10] for packet in connects) == ['40{"sid":"', '42["connec']
        assert greeting.startswith('451-["greeting"')
        assert binary.startswith("b")
        assert later == '42["later"]'

    asyncio.run(scenario())


def test_a_refusal_is_not_for_the_client() -> None:
    """It is told by the answer to `resume`, and the transport is of no use to anybody."""

    async def scenario() -> None:
        site = Site()
        site.accepts = False
        await joined(site, '{"quiet":true}')
        await site.say("0{}")
        await site.say(f'2{OURS}0["resume",{{"streaming":null}}]')
        assert site.heard() == [f"43{OURS}0[false]"]

    asyncio.run(scenario())


def test_any_other_hand_over_hears_all() -> None:
    """That of a websocket, which one proxy has."""

    async def scenario() -> None:
        site = Site()
        await joined(site, "")
        await site.say("0{}")
        assert len(site.heard()) == 2

    asyncio.run(scenario())


def test_what_is_said_again() -> None:
    """It comes to the session as a message that may be known, and is acknowledged to a client that asks."""

    async def scenario() -> None:
        site = Site()
        await joined(site, '{"quiet":true}')
        await site.say("0{}")
        await site.say(f'2{OURS}0["resume",{{"streaming":null}}]')
        await site.say(f"1{OURS}")
        site.heard()
        await site.say(f'27["{AGAIN}","client_message",{MESSAGE}]')
        assert site.heard() == ["437[]"]
        await site.say(f'2["{AGAIN}","edit_message",{MESSAGE}]')
        for odd in (f'"stop",{MESSAGE}', '"client_message",{}', '"client_message"', "{}"):
            await site.say(f'2["{AGAIN}",{odd}]')
        assert site.heard() == []
        assert [event for event, _ in site.again] == ["client_message", "edit_message"]

    asyncio.run(scenario())
