"""Another instance goes on with a session whose client polls, under the sid that the client knows.

The sid becomes an alias of a new one, as after a re-home. What the new instance says meanwhile, first of all
that the session is connected, is the transport's backlog, which its client's next polls get. The client's
requests wait for the end. A POST that broke at the instance before is answered as if it had been taken: the
user's messages in it are said again.

Where its requests may come through other proxies, these are told of it, and what the new instance says stays
there until the client asks for it itself (see `handing_over`).
"""

from contextlib import suppress
from time import monotonic
from typing import Protocol, cast

from proxy.affinity.actions import Connected, ToBackend, ToClient
from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision, EngineSession
from proxy.affinity.handing_over import (
    Acknowledge,
    Failure,
    GiveUp,
    GoneOn,
    HandingOver,
    HandOverAction,
    Part,
    said_again,
)
from proxy.dataplane.fetch import fetch, tell
from proxy.dataplane.hand_over import GREETS, OPENS, PARTS, HandOver, Place, Waits
from proxy.dataplane.hand_over_counts import Counts, Reason
from proxy.dataplane.patience import within
from proxy.dataplane.pool import Pool
from proxy.dataplane.resuming import keep_for_polls
from proxy.dataplane.upstream_heads import PollHeads
from proxy.errors import BadResponse, ProxyError
from proxy.wire.engineio import MOST_PACKETS, PING, SEPARATOR, open_sid
from proxy.wire.head import ResponseHead
from proxy.wire.turns import turns_in

MOVES = 45.0  # seconds for which a request waits while its transport moves: no client waits longer
_DISCONNECT = b"41"
_LARGEST = 1 << 22  # bytes that its client is to hear: an instance may greet with all elements of a thread


class Others(Protocol):
    """Other proxies, to which the transport's requests may come."""

    @property
    def is_on(self) -> bool:
        """Whether there are any, and they hear."""
        ...

    def begun(self, engine: EngineSession) -> None:
        """It is handed over by this process."""
        ...

    def failed(self, engine: EngineSession) -> None:
        """That led nowhere."""
        ...


class PollHandOver(HandOver):
    """That of one transport."""

    def __init__(
        self,
        site: Place,
        waits: Waits,
        counts: Counts,
        engine: EngineSession,
        reason: Reason,
        others: Others,
    ) -> None:
        assert engine.session is not None
        super().__init__(site, waits, counts, engine.session, engine.backend, reason)
        self._engine = engine
        self._heads = cast("PollHeads", engine.kept)
        self._others = others
        self.quiet = others.is_on  # whether its client's polls bring all of it
        self._streamed = engine.streamed if self.session.in_turn else ""

    def begin(self) -> None:
        """As HandOver."""
        self._engine.hand_over = self
        self._site.router.engines.note_plain(self._engine)
        if self.quiet:
            self._others.begun(self._engine)
        super().begin()

    def ended(self) -> None:
        """As HandOver."""
        self._engine.hand_over = None
        self._site.router.engines.note_plain(self._engine)
        self._site.arrivals.release(transport_key(self._engine))

    def give_up(self) -> None:
        """As HandOver: the client is told that its sid is unknown, and connects anew."""
        self._site.router.engines.void(self._engine, monotonic())
        if self.quiet:
            self._others.failed(self._engine)

    async def _try(self, decision: Decision) -> Failure | None:
        engine, backend = self._engine, decision.backend
        again = [] if self.quiet else engine.untaken.again()
        machine = HandingOver(engine.connect, again, self._streamed, planned=self.planned, quiet=self.quiet)
        try:
            async with within(max(0.1, self._left) + GREETS, self._site.stood):
                failure = await _Talk(self, decision, machine, self._heads, max(0.1, self._left)).run()
        except ProxyError as error:
            failure = self.failed(backend, error)
        except TimeoutError:
            failure = Failure.BROKEN
        if failure is None:
            self._counts.said_again += len(again)
        return self.tried(failure, machine)

    def connected(self, decision: Decision) -> None:
        """An instance has taken the session."""
        assert decision.claim is not None
        self._site.router.resumed(decision.claim, monotonic())

    async def part(self) -> None:
        """Have the instance before put down what it has: its POST is answered when that is done."""
        self.planned = False
        engine = self._engine
        pool = self._site.pool(engine.backend)
        with suppress(ProxyError):
            await tell(pool, b"POST", self._heads.post(engine.upstream_sid, _DISCONNECT), PARTS)

    def gone_on(
        self,
        backend: Backend,
        sid: bytes,
        head: ResponseHead,
        said: list[bytes],
        being_answered: list[bytes],
    ) -> None:
        """The session goes on under another sid; its client is to hear what was `said`.

        Messages that the instance is answering may have to be said again, if that is lost, too.
        """
        engine, router = self._engine, self._site.router
        engine.streams("")
        if self.quiet:
            router.engines.rehome(engine, backend, sid)
            router.engines.tell(engine)
            return
        engine.untaken.went_on(being_answered)
        engine.owed_pongs += said.count(PING)
        router.engines.rehome(engine, backend, sid)
        keep_for_polls(router, engine, head, said)

    def again(self) -> list[bytes]:
        """What is said again when all is done: others may have to say more."""
        packets = self._engine.untaken.again_later(monotonic()) if self.quiet else []
        self._counts.said_again += len(packets)
        return [said_again(packet) for packet in packets]

    def hear(self, packet: bytes) -> None:
        """The instance tells of a turn, perhaps."""
        for begins in turns_in(packet):
            self.session.hear(monotonic(), begins=begins)

    def pool(self, backend: Backend) -> Pool:
        """As of the site."""
        return self._site.pool(backend)


class _Talk:
    """What is said to one instance, in an Engine.IO session of its own."""

    def __init__(
        self, over: PollHandOver, decision: Decision, machine: HandingOver, heads: PollHeads, seconds: float
    ) -> None:
        """Each answer has so many seconds until it has taken the session."""
        self._over, self._decision, self._machine = over, decision, machine
        self._heads, self._seconds = heads, seconds
        self._pool = over.pool(decision.backend)
        self._sid = b""
        self._said: list[bytes] = []  # for the client
        self._room = _LARGEST  # bytes that may still come
        self._head: ResponseHead | None = None  # of the last answer to a poll

    async def run(self) -> Failure | None:
        """Until the session goes on there, which is None. Raises ProxyError."""
        response, body = await fetch(self._pool, b"GET", self._heads.handshake, min(OPENS, self._seconds))
        sid = open_sid(body) if response.status == 200 else None
        if sid is None:
            raise BadResponse(f"the backend answered {response.status} to a handshake")
        self._sid, actions = sid, self._machine.opened()
        while True:
            ended, failure = await self._do(actions)
            if ended:
                return failure
            actions = []
            for packet in await self._poll():
                actions += self._machine.hear(packet, packet, binary=packet[:1] == b"b")

    async def _poll(self) -> list[bytes]:
        head = self._heads.poll(self._sid)
        self._head, body = await fetch(self._pool, b"GET", head, self._seconds, self._room)
        if self._head.status != 200:
            raise BadResponse(f"the backend answered {self._head.status} to a poll")
        self._room -= len(body)
        return body.split(SEPARATOR)

    async def _do(self, actions: list[HandOverAction]) -> tuple[bool, Failure | None]:
        """Do these; return whether it has ended, and how."""
        packets: list[bytes] = []
        ended, failure = False, None
        for action in actions:
            match action:
                case ToBackend(packet):
                    packets.append(packet)
                case ToClient(packet) | Acknowledge(packet):
                    self._over.hear(packet)
                    self._said.append(packet)
                case Connected():
                    self._seconds = GREETS
                    self._over.connected(self._decision)
                    if not self._over.quiet:
                        self._said.append(PING)  # its client counts from the last one
                case Part():
                    await self._over.part()
                    return await self._do(self._machine.parted())
                case GoneOn():
                    ended = True
                case GiveUp(why):
                    return True, why
        for said in (packets, self._over.again() if ended else []):
            for at in range(0, len(said), MOST_PACKETS):
                await self._post(SEPARATOR.join(said[at : at + MOST_PACKETS]))
        if ended and self._head is not None:
            answered = self._machine.being_answered
            self._over.gone_on(self._decision.backend, self._sid, self._head, self._said, answered)
        return ended, failure

    async def _post(self, content: bytes) -> None:
        head = await tell(self._pool, b"POST", self._heads.post(self._sid, content), self._seconds)
        if head.status != 200:
            raise BadResponse(f"the backend answered {head.status} to a repeated message")


def transport_key(engine: EngineSession) -> str:
    """What requests of a transport wait for; no session is called so."""
    return "sid " + engine.sid.decode("latin-1")
