"""Another instance goes on with a session while its client keeps its websocket.

The websocket passes whole packets only (`ends`), so both of its sides are between two whenever its instance
is lost. Then the client is not read for a moment, a websocket is opened to another instance with the client's
own head, and the session is resumed there. Of a planned move the instance before is told once the new one has
said that it shares sessions: by Socket.IO's goodbye, and a packet that it answers when it has put the state
down.
"""

import asyncio
from contextlib import suppress
from functools import partial
from time import monotonic

from proxy.affinity.actions import Connected, ToBackend, ToClient
from proxy.affinity.decision import Decision
from proxy.affinity.handing_over import (
    Acknowledge,
    Failure,
    GiveUp,
    GoneOn,
    HandingOver,
    HandOverAction,
    Part,
    State,
)
from proxy.dataplane.ends import AppEnd
from proxy.dataplane.fetch import open_websocket
from proxy.dataplane.hand_over import GREETS, OPENS, PARTS, HandOver, Place, Waits
from proxy.dataplane.hand_over_counts import Counts, Reason
from proxy.dataplane.leg import MOVING, OPENING, Leg
from proxy.dataplane.parting import PartingEnd
from proxy.dataplane.patience import Stood, Timer, within
from proxy.dataplane.pool import Pool
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import ProxyError
from proxy.wire.engineio import UPGRADE
from proxy.wire.messages import MessageReader
from proxy.wire.packets import BackendPackets
from proxy.wire.turns import TASK, streamed_in, turns_in
from proxy.wire.websocket import BINARY, CLOSE, TEXT, FrameError, client_frame, server_frame

_LONGEST = 1 << 22  # bytes of a message: an instance may greet with all elements of a thread
_GOODBYE = client_frame(TEXT, b"41") + client_frame(TEXT, UPGRADE)


class WebsocketHandOver(HandOver):
    """That of one tunnel; as HandOver of it."""

    def __init__(self, site: Place, waits: Waits, counts: Counts, tunnel: Tunnel, reason: Reason) -> None:
        assert tunnel.session is not None
        super().__init__(site, waits, counts, tunnel.session, tunnel.pool.backend, reason)
        self._tunnel = tunnel
        end = tunnel.backend_end
        was_cut = self.session.in_turn
        self._streamed = streamed_in(end.streamed) if end is not None and was_cut else ""
        self._parting: PartingEnd | None = None  # set while the instance before is told
        self._told: asyncio.Task[None] | None = None  # set with that
        self._new: _NewEnd | None = None  # set while an instance is tried

    def begin(self) -> None:
        """As HandOver."""
        tunnel = self._tunnel
        tunnel.down.pause(MOVING)
        tunnel.active = True
        engine, tunnel.engine = tunnel.engine, None
        if engine is not None:  # its polls are over, and its sid with them
            engine.tunnels -= 1
            self._site.router.engines.closed(engine, monotonic())
        if not self.planned:
            drop(tunnel.up)
        super().begin()

    def stop(self) -> None:
        """As HandOver of a tunnel."""
        super().stop()
        if self._told is not None:
            self._told.cancel()
        self._tunnel.down.resume(MOVING)

    def backend_lost(self) -> None:
        """As HandOver of a tunnel: the old one, or the new one that was tried."""
        if self._parting is not None:
            self._parting.end()
        elif self._new is not None and self._new.pool is self._tunnel.pool:
            self._new.fail(Failure.BROKEN)

    def give_up(self) -> None:
        """As HandOver."""
        if not self._tunnel.is_closed:
            self._tunnel.send_away()

    async def _try(self, decision: Decision) -> Failure | None:
        tunnel, kept, backend = self._tunnel, self._tunnel.kept, decision.backend
        assert kept is not None
        pool = self._site.pool(backend)
        try:
            upstream, rest = await open_websocket(pool, kept.head, min(OPENS, max(0.1, self._left)))
        except ProxyError as error:
            return self.failed(backend, error)
        pool.release(upstream)
        again = tunnel.untaken.again()
        machine = HandingOver(kept.connect, again, self._streamed, planned=self.planned)
        new = self._new = _NewEnd(self, decision, pool, upstream.leg, machine)
        try:
            new.start(rest, self._left)
            failure = await new.done
        finally:
            self._new = None
            new.stop()
        if failure is None:
            self._counts.said_again += len(again)
        elif not new.greeting.is_between:  # its client has a packet in part
            tunnel.close()
        return self.tried(failure, machine)

    def connected(self, new: "_NewEnd") -> None:
        """An instance has taken the session."""
        tunnel, claim = self._tunnel, new.decision.claim
        assert claim is not None
        self._site.router.resumed(claim, monotonic())
        if tunnel.up is not new.leg:
            drop(tunnel.up)
            tunnel.move(new.pool, new.leg)
        tunnel.say_ping()  # its client counts from the last one: that of the new instance may come too late

    def part(self, new: "_NewEnd") -> None:
        """Have the instance before put down what it has while the new one waits, or another behind that."""
        if not self.planned:
            new.parted()
        elif self._parting is None:
            tunnel = self._tunnel
            before = tunnel.backend_end
            assert before is not None
            self._parting = PartingEnd(tunnel, before)
            tunnel.read_backend_with(self._parting)
            if not tunnel.up.is_closing():
                tunnel.up.write(_GOODBYE)
            self._told = self._site.spawn(partial(self._part, self._parting), self.give_up)

    async def _part(self, parting: PartingEnd) -> None:
        tunnel, up = self._tunnel, self._tunnel.up
        with suppress(TimeoutError):
            if not up.is_closing():
                async with within(PARTS, self._site.stood):
                    await parting.over.wait()
        self.planned = False  # whatever happens now, it is done with the session
        self._parting = self._told = None
        drop(up)
        if not parting.is_between:  # its last packet is out in part
            tunnel.close()
        elif self._new is not None:
            self._new.parted()

    def tell_client(self, data: bytes, *, whole: bool = True) -> None:
        """An instance says what is for the client; `whole` tells whether it is no part of a packet."""
        if TASK in data:
            for begins in turns_in(data):
                self.session.hear(monotonic(), begins=begins)
        self._tunnel.down.say(data, whole=whole)

    @property
    def stood(self) -> Stood:
        """As of the site."""
        return self._site.stood

    def gone_on(self, new: "_NewEnd", being_answered: list[bytes], rest: bytes) -> None:
        """The session goes on: its client and the new instance, which is answering these, speak directly."""
        tunnel = self._tunnel
        end = AppEnd(tunnel, new.leg, tunnel.down, self.session, tunnel.untaken)
        tunnel.untaken.went_on(being_answered)
        tunnel.go_on_at(end)
        tunnel.down.resume(MOVING)  # before the rest, which may say that this instance ends too
        if rest:
            end.data_received(rest)


class _NewEnd(asyncio.Protocol):
    """The side of an instance that is tried, until the session goes on there."""

    def __init__(
        self, over: WebsocketHandOver, decision: Decision, pool: Pool, leg: Leg, machine: HandingOver
    ) -> None:
        self.decision, self.pool, self.leg = decision, pool, leg
        self.done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._over = over
        self._machine = machine
        self._reader = MessageReader(_LONGEST)
        self.greeting = BackendPackets()  # what its client hears until the session goes on: whole packets
        self._timer: Timer | None = None
        self._seconds = 0.0  # that it has to take the session

    def start(self, rest: bytes, seconds: float) -> None:
        """Begin; `rest` came behind its 101. It has so many seconds to take the session, few to speak."""
        self._seconds = seconds
        self._give(min(OPENS, seconds))
        self.leg.read_with(self)
        self.leg.draw_from(None)
        if rest:
            self.data_received(rest)
        self.leg.resume(OPENING)
        if self.leg.is_closing():
            self.fail(Failure.BROKEN)

    def _give(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(self._over.stood, max(0.1, seconds), self._is_late)

    def _is_late(self) -> None:
        self._over.is_silent(self.decision.backend)
        self.fail(Failure.BROKEN)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self._reader.push(data)
        try:
            while not self.done.done() and (message := self._reader.next()) is not None:
                if message.opcode == CLOSE:
                    self.fail(Failure.BROKEN)
                elif message.opcode in (TEXT, BINARY):
                    binary = message.opcode == BINARY
                    asked = self._machine.state
                    actions = self._machine.hear(message.payload, message.raw, binary=binary)
                    if asked is State.ASKING is not self._machine.state:
                        self._give(self._seconds)
                    self._do(actions)
                elif self._machine.is_connected:
                    self._greet(message.raw)
        except FrameError:
            self.fail(Failure.BROKEN)

    def _greet(self, data: bytes) -> None:
        """Raises FrameError."""
        passed, whole = self.greeting.feed_whole(data)
        if passed:
            self._over.tell_client(passed, whole=whole)

    def parted(self) -> None:
        """The instance before has put down what it has."""
        self._do(self._machine.parted())

    def _do(self, actions: list[HandOverAction]) -> None:
        for action in actions:
            match action:
                case ToClient(data):
                    self._greet(data)
                case Acknowledge(packet):
                    self._over.tell_client(server_frame(TEXT, packet))
                case ToBackend(packet):
                    if not self.leg.is_closing():
                        self.leg.write(client_frame(TEXT, packet))
                case Part():
                    self._over.part(self)
                case Connected():
                    self._give(GREETS)
                    self._over.connected(self)
                case GoneOn():
                    self.done.set_result(None)
                    rest = self.greeting.rest + self._reader.rest
                    self._over.gone_on(self, self._machine.being_answered, rest)
                case GiveUp(why):
                    self.fail(why)

    def fail(self, why: Failure) -> None:
        """The session does not go on here."""
        if not self.done.done():
            self.done.set_result(why)

    def stop(self) -> None:
        """It is no more tried: the session goes on here, or the connection is of no use."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.done.done() or self.done.cancelled() or self.done.result() is not None:
            drop(self.leg)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self.fail(Failure.BROKEN)

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self.leg.caught_up()


class _Deaf(asyncio.Protocol):
    """What an instance says that has lost its client goes nowhere."""


def drop(leg: Leg) -> None:
    """Nobody is to hear of a connection any more."""
    leg.read_with(_Deaf())
    leg.abort()
