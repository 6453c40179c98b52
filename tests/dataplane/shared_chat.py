"""Scripted instances that share sessions, and what a hand-over between them has to leave behind.

A `SharedChat` speaks the protocol of `affinity.handing_over` as `proxy.sessions` does. Any of its steps can
be held back: `hello` the answer in the namespace of the proxy, `restore` that to CONNECT, `resume` the
greeting, `again` what a message is acknowledged with, `part` the answer to the goodbye of a planned move.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.affinity.health import Observation
from proxy.affinity.session import Session
from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.dataplane.tunnel import Tunnel
from tests.dataplane.chat import Chat, Transport, connect_packet
from tests.dataplane.frames import Socket, frame
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.world import World, run

OWN = b"/chainlit-proxy,"
HELLO, BYE = b"40" + OWN, b"41" + OWN
GREETING = b'42["task_end",{"greets":true}]'
CONNECT = connect_packet("session-S")
RESUME = b'42/chainlit-proxy,0["resume", {"streaming": null}]'
TALK = [HELLO, CONNECT, RESUME, BYE]
AGAIN = b'42/chainlit-proxy,1["client_message",{"id":"m1"}]'
STEPS = re.compile(
    rb"""40(?P<hello>/chainlit-proxy,)|(?P<restore>40)|(?P<part>5)$
    |42/chainlit-proxy,0\["(?P<resume>resume)|42/chainlit-proxy,[1-9]\d*\["(?P<again>)""",
    re.VERBOSE,
)
ASK = b'42["client_message",{"id":"m1"}]'
BEGINS = b'42["task_start",{}]'


def step_of(packet: bytes) -> str:
    """What a packet asks for."""
    match = STEPS.match(packet)
    return (match.lastgroup or "") if match else ""


class SharedChat(Chat):
    """One instance; `story` has what it was told on all of its transports, in order."""

    story: list[tuple[str, bytes]]  # of all instances: name, packet
    shares = True  # whether it has hooks
    holds = True  # whether it can restore sessions
    resumes = True  # whether it takes them over
    takes = True  # whether it takes what is said again
    answers = False  # whether it is still answering what it took
    breaks = ""  # the step at which it is lost
    echo = True
    _event: asyncio.Task[None] | None = None  # the last one that came by a POST

    async def _take(self, transport: Transport, packet: bytes) -> None:
        step = step_of(packet)
        self.story.append((self.name.decode(), packet))
        if step and step == self.breaks and (step != "restore" or transport.proxied):
            await self.die()
        gate = self._gates.get(step)
        if transport.socket is None and step in {"resume", "again"}:  # no POST waits for an event
            self._event = asyncio.create_task(self._later(transport, packet, gate, self._event))
            return
        if gate is not None and (transport.proxied or step in {"hello", "part"}):
            await gate.wait()
        self._hear(transport, packet)

    async def _later(
        self,
        transport: Transport,
        packet: bytes,
        gate: asyncio.Event | None,
        before: asyncio.Task[None] | None,
    ) -> None:
        """An event is taken when the one before it is, and its gate is open."""
        if before is not None:
            await before
        if gate is not None:
            await gate.wait()
        self._hear(transport, packet)

    async def die(self) -> None:
        """Its process is gone: nobody listens, and all connections are reset."""
        self.backend.refuse()
        for peer in self.backend.peers:
            peer.reset()
        await asyncio.sleep(60)

    def _hear(self, transport: Transport, packet: bytes) -> None:
        if packet in {b"41", b"5"}:  # python-engineio answers an UPGRADE, and a DISCONNECT has none
            if packet == b"5":
                transport.push(b"6")
            return
        if not self.shares or not (packet[2:].startswith(OWN) or transport.proxied):
            if self.echo or packet.startswith(b"40"):
                super()._hear(transport, packet)
            else:
                transport.heard.append(packet)
            return
        transport.heard.append(packet)
        match step_of(packet):
            case "hello":
                transport.proxied = True
                transport.push(b'40%b{"sid":"own"}' % OWN)
            case "restore" if self.holds:
                self.sessions.add(json.loads(packet[2:])["sessionId"])
                transport.push(b'40{"sid":"%b"}' % self.name)
            case "restore":
                transport.push(b'44{"message":"x"}')
            case "resume":
                transport.push(GREETING)
                transport.push(b"43%b0[%b]" % (OWN, b"true" if self.resumes else b"false"))
            case "again":
                number = packet[2 + len(OWN) :].partition(b"[")[0]
                told = b"false" if not self.takes else b"true" if self.answers else b""
                transport.push(b"43%b%b[%b]" % (OWN, number, told))
            case _:
                transport.proxied = False


class Case:
    """One client at `a` and what it hears."""

    def __init__(self, world: World, chats: dict[str, SharedChat]) -> None:
        self.world = world
        self.chats = chats
        self.story = chats["a"].story
        self.socket: Socket

    @property
    def tunnel(self) -> Tunnel:
        """The only one."""
        (tunnel,) = self.world.plane.tunnels
        return tunnel

    @property
    def session(self) -> Session:
        """The only one."""
        (session,) = self.world.router.directory.sessions()
        return session

    def old(self, name: str = "a") -> Socket:
        """The last websocket that an instance has."""
        socket = list(self.chats[name].transports.values())[-1].socket
        assert socket is not None
        return socket

    def told(self, name: str) -> list[bytes]:
        """What an instance was told of Socket.IO on the transport that it has got last."""
        return list(self.chats[name].transports.values())[-1].heard

    def kill(self, name: str = "a") -> None:
        """An instance is gone: it refuses, and its connections are reset."""
        chat = self.chats[name]
        chat.backend.refuse()
        for peer in chat.backend.peers:
            peer.reset()

    async def said(self, name: str, *packets: bytes) -> None:
        """Nothing else than these was said to anybody."""
        await self.world.until(lambda: len(self.story) >= len(packets))
        assert self.story == [(name, packet) for packet in packets]

    def asked(self, step: str) -> bool:
        """Whether an instance has been asked for a step."""
        return any(step_of(packet) == step for _, packet in self.story)

    async def hears(self, *packets: bytes) -> None:
        """The client hears exactly these next."""
        for packet in packets:
            assert await self.socket.hear() == packet

    async def greeted(self, name: str = "b") -> None:
        """The client hears what it does when an instance goes on."""
        await self.hears(b"2", b'40{"sid":"%b"}' % name.encode(), GREETING)

    async def arrived(self, name: str = "b", reason: Reason = Reason.LOST, *, times: int = 1) -> None:
        """The session has gone on at an instance, and all that is counted is right."""
        await self.world.until(lambda: self.tunnel.hand_over is None, "it goes on")
        self.socket.say(b'42["still there"]')
        if self.chats[name].echo:
            await self.hears(b'42["echo","%b"]' % name.encode())
        await self.world.until(lambda: self.told(name)[-1] == b'42["still there"]')
        world, tunnel, session = self.world, self.tunnel, self.session
        for known in world.router.fleet:
            expected = (1, 1) if known.name == name else (0, 0)
            assert (known.tunnels, known.sessions) == expected, known
            assert len(world.plane.site.pool(known).passengers) == known.tunnels
        assert session.backend is world.known(name)
        assert (session.arrived, session.open, session.sent_away) == (True, 1, False)
        assert tunnel.kept is not None
        assert not tunnel.untaken.packets
        assert (tunnel.pool.backend.name, tunnel.backends[-1]) == (name, name)
        assert not tunnel.down.paused
        assert tunnel.can_move
        self.nothing_is_left()
        counts = world.plane.site.hand_overs.counts
        await world.until(lambda: counts.results == {(reason, Result.DONE): times}, f"{counts}")
        assert not any(counts.leave(known) for known in world.router.fleet)

    def nothing_is_left(self) -> None:
        """No claim, no transport of polls, no turn at a gate."""
        assert len(self.world.router.claims) == 0
        assert all(engine.tunnels == 0 for engine in self.world.router.engines._named.values())
        gates = self.world.plane.site.hand_overs.waits._gates.values()
        assert not any(gate.locked() for gate in gates)

    async def sent_away(self, result: Result, reason: Reason = Reason.LOST) -> None:
        """The client is told to connect anew, and nothing else."""
        assert await self.socket.hear() == (1012).to_bytes(2, "big")
        self.socket.say((1012).to_bytes(2, "big"), opcode=8)
        await self.socket.peer.gone()
        await self.gone(reason, result)

    async def gone(self, reason: Reason, result: Result) -> None:
        """The tunnel is no more, and all that is counted is right."""
        counts = self.world.plane.site.hand_overs.counts
        await self.world.until(lambda: not self.world.plane.tunnels)
        await self.world.until(lambda: counts.results == {(reason, result): 1}, f"{counts}")
        assert not any(counts.leave(known) for known in self.world.router.fleet)
        for known in self.world.router.fleet:
            assert known.tunnels == 0, known
        self.nothing_is_left()
        for known in self.world.router.fleet:
            assert known.sessions == 0, known

    def send_away(self) -> None:
        """The session has to leave where it is."""
        self.world.plane.evictions.send_away([self.session])

    def down(self, name: str) -> None:
        """The proxy gives an instance up, whose connections live."""
        self.world.observe(name, Observation.ENDED)
        assert not self.world.known(name).holds_pins


Test = Callable[[Case], Awaitable[None]]


def play(
    test: Test,
    names: str = "ab",
    *,
    connect: bool = True,
    mode: str = "always",
    compress: bool = False,
    **affinity: Any,
) -> None:
    """Run a test with a client whose session is at `a`; it may `compress` its websocket."""

    async def main(world: World) -> None:
        story: list[tuple[str, bytes]] = []
        chats = {}
        for backend in world.backends:
            chat = chats[backend.name] = SharedChat(backend)
            chat.story = story
        case = Case(world, chats)
        if connect:
            case.socket = await open_socket(world)
            story.clear()
        await test(case)

    run(main, names, affinity={"hand_over": mode, **affinity}, websocket={"compress": compress})


def half(packet: bytes, *, masked: bool) -> tuple[bytes, bytes]:
    """A frame in two parts."""
    data = frame(packet, masked=masked)
    return data[: len(data) // 2], data[len(data) // 2 :]


async def lose(case: Case, how: str) -> Reason:
    """The instance is lost; why that is then said to be."""
    socket = case.old()
    if how == "ended":
        socket.peer.half_close()
    elif how == "reset":
        socket.peer.reset()
    elif how.isdigit():
        socket.say(int(how).to_bytes(2, "big") + b"bye", opcode=8)
        socket.peer.close()
        return Reason.ENDED
    elif how == "down":
        case.down("a")
        return Reason.DOWN
    else:
        case.kill()
    return Reason.LOST
