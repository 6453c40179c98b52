"""Engine.IO sessions that began by polling through this proxy, by the sid that the client knows.

An entry serves three needs: until the CONNECT packet has named the Chainlit session the transport is
*undecided* and whatever waits at its backend may have to be asked again elsewhere; after a re-home the
client's sid stands for another one at another backend; and its polls show that the session is alive.
Without an entry the pin alone tells the backend, so a proxy that lost them, or never had them, works.
Entries whose loss costs nothing are kept apart and given up first, so that made-up sids push out no others.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from proxy.affinity.backend import Backend
from proxy.affinity.claims import Claim
from proxy.affinity.decision import Decision, EngineSession, Outcome, Void
from proxy.affinity.directory import Directory
from proxy.affinity.evidence import Evidence
from proxy.affinity.pins import split_pin
from proxy.affinity.rehome import Said
from proxy.affinity.session import Session
from proxy.affinity.silence import is_silent

_QUIET = 60.0  # seconds: Engine.IO ends a polling transport after 45 s without a poll (25 s ping + 20 s)
_LAST_POLL = 5.0  # seconds: a client whose upgrade failed polls again within a round trip
_MOST = 50_000  # entries of either kind; each is some 300 bytes
_MOST_SAID = 64 << 20  # bytes of memory for what all clients have said to namespaces of apps' own


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another proxy tells of a transport."""

    session: Session | None  # None: its instance has not answered yet
    backend: Backend  # where the transport is
    upstream_sid: bytes
    at: float  # when this was told


class EngineSessions:
    """All of them; owned by the router."""

    __slots__ = (
        "_bare",
        "_directory",
        "_elsewhere",
        "_named",
        "_said",
        "followed",
        "heard",
        "let_go",
        "most",
        "most_bytes",
        "most_packets",
        "most_said",
        "settled",
    )

    def __init__(self, directory: Directory, most: int = _MOST) -> None:
        self.most = most
        self.most_packets = 64  # what a client may say before it has connected; see `limits.opening_frames`
        self.most_bytes = 1 << 18  # the same in bytes
        self.most_said = _MOST_SAID
        self._said = 0  # how much of that there is
        self._bare: OrderedDict[bytes, EngineSession] = OrderedDict()  # whose session is not known
        self._named: OrderedDict[bytes, EngineSession] = OrderedDict()  # whose session counts as open by them
        self._directory = directory
        self.settled: dict[bytes, EngineSession] = {}  # the plain ones, by what their clients say
        self.heard: Callable[[EngineSession], None] | None = None  # tells other proxies of a CONNECT
        # Told of a CONNECT that will not be answered; set by the router.
        self.let_go: Callable[[Claim], None] = lambda _: None
        # Told of one that goes on elsewhere, as another proxy has said, and whether it was settled here.
        self.followed: Callable[[EngineSession, bool], None] = lambda _engine, _was_settled: None
        self._elsewhere: OrderedDict[bytes, Elsewhere] = OrderedDict()  # of transports not met here yet

    def get(self, sid: bytes) -> EngineSession | None:
        """The entry for a client's sid (without its pin)."""
        return self._named.get(sid) or self._bare.get(sid)

    def pinned(self, pinned: bytes) -> EngineSession | None:
        """The entry for a sid as its client says it."""
        return self.get(split_pin(pinned)[1])

    def opened(self, sid: bytes, backend: Backend, now: float) -> EngineSession:
        """A handshake was answered, or a sid is met whose handshake another proxy saw."""
        before = self.get(sid)
        if before is not None:
            self.closed(before, now)
        engine = self._bare[sid] = EngineSession(sid, backend, now)
        if len(self._bare) > self.most:
            self.closed(next(iter(self._bare.values())), now)
        if self._elsewhere and (elsewhere := self._elsewhere.pop(sid, None)) is not None:
            self._follow(engine, elsewhere)
        return engine

    def connected_elsewhere(self, sid: bytes, elsewhere: Elsewhere) -> None:
        """Another proxy has moved a transport, parts of which may be here or come, or it has connected there.

        Or has handed it over since.
        """
        engine = self.get(sid)
        if engine is not None:
            self._follow(engine, elsewhere)
            return
        self._elsewhere[sid] = elsewhere
        self._elsewhere.move_to_end(sid)
        if len(self._elsewhere) > self.most:
            self._elsewhere.popitem(last=False)

    def _follow(self, engine: EngineSession, elsewhere: Elsewhere) -> None:
        was_settled, was_told = engine.decided, engine.session is not None
        if isinstance(engine.decision, Void) or engine.kept is not None or (engine.tunnels and was_told):
            return
        moved = (engine.backend, engine.upstream_sid) != (elsewhere.backend, elsewhere.upstream_sid)
        if was_told and (not moved or engine.session is not elsewhere.session):
            return
        if moved:
            self.rehome(engine, elsewhere.backend, elsewhere.upstream_sid)
        if elsewhere.session is not None and not was_told:
            elsewhere.session.came(elsewhere.at)
            self._decide(engine, elsewhere.session)
        if moved:
            self.followed(engine, was_settled)

    def is_elsewhere(self, sid: bytes) -> bool:
        """Whether another proxy has told of a transport that was not met here yet."""
        return sid in self._elsewhere

    def tell(self, engine: EngineSession) -> None:
        """Tell other proxies where a transport is."""
        if self.heard is not None and self.get(engine.sid) is engine:
            self.heard(engine)

    def polling_for_others(self, since: float) -> list[EngineSession]:
        """The transports that poll here and whose CONNECT another proxy has read."""
        return [
            engine
            for engine in self._named.values()
            if engine.kept is None and engine.seen > since and not engine.tunnels
        ]

    def decide(self, engine: EngineSession, session: Session | None) -> None:
        """The CONNECT was taken (or there is none to wait for): the transport stays at its backend.

        An entry that was given up meanwhile opens no session: nothing would close it again.
        """
        self._decide(engine, session)
        if session is not None and self.heard is not None:
            self.heard(engine)

    def _decide(self, engine: EngineSession, session: Session | None) -> None:
        engine.decided = True
        self._let_go(engine)
        if session is not None and self._bare.get(engine.sid) is engine:
            del self._bare[engine.sid]
            self._named[engine.sid] = engine
            engine.session = session
            engine.decision = Decision(engine.backend, Evidence.SID, Outcome.PINNED, session, engine)
            self._directory.opened(session)
            if len(self._named) > self.most:
                self.closed(next(iter(self._named.values())), engine.seen)
        if engine.said is not None and not engine.said.owes:
            self.forget(engine)
        self.note_plain(engine)
        waiting, engine.waiting = engine.waiting, set()
        for waiter in waiting:
            waiter.decided()

    def _let_go(self, engine: EngineSession) -> None:
        """Its CONNECT is answered no more."""
        claim, engine.claim = engine.claim, None
        if claim is not None:
            self.let_go(claim)

    def note_plain(self, engine: EngineSession) -> None:
        """It may have become plain, or is so no longer."""
        if engine.is_plain and self.get(engine.sid) is engine:
            self.settled[engine.pinned] = engine
        else:
            self.settled.pop(engine.pinned, None)

    def said(self, engine: EngineSession | None) -> Said:
        """What its client has said before it connected; of no transport, that of a websocket alone."""
        if engine is None:
            return Said(self.most_packets, self.most_bytes, opened=False)
        if engine.said is None:
            engine.said = Said(self.most_packets, self.most_bytes, opened=True)
        return engine.said

    def says(self, engine: EngineSession, packets: Iterable[bytes]) -> None:
        """Its client says these by a poll before it has connected, some to namespaces of the app's own."""
        said = self.said(engine)
        for packet in packets:
            said.counts(len(packet))
            said.say(packet, binary=packet.startswith(b"b"))
        self._weigh(engine)

    def _weigh(self, engine: EngineSession) -> None:
        """Count what is kept of its client; one that said too much, or one too many, is watched no longer."""
        said = engine.said if self.get(engine.sid) is engine else None
        weight = 0 if said is None else said.weight
        self._said += weight - engine.weight
        engine.weight = weight
        if said is not None and not engine.decided and (said.is_over or self._said > self.most_said):
            self.decide(engine, None)

    def forget(self, engine: EngineSession) -> None:
        """What its client has said will not be said again."""
        engine.said = None
        self._weigh(engine)

    def rehome(self, engine: EngineSession, backend: Backend, upstream_sid: bytes) -> None:
        """The transport goes on at `backend`: everything that waits is asked again there."""
        engine.backend = backend
        engine.decision = Decision(backend, Evidence.SID, Outcome.PINNED, engine.session, engine)
        engine.upstream_sid = upstream_sid
        for waiter in list(engine.waiting):
            waiter.redirect()

    def upgrade_ended(self, engine: EngineSession, now: float) -> None:
        """A websocket of the transport has ended: unless polls go on (a failed upgrade), so has it all."""
        if engine.tunnels == 0:
            engine.seen = min(engine.seen, now - _QUIET + _LAST_POLL)
        self._weigh(engine)

    def closed(self, engine: EngineSession, now: float) -> None:
        """The transport has ended."""
        engine.backlog = engine.kept = engine.speaks = None
        self._let_go(engine)
        self.forget(engine)
        for table in (self._bare, self._named):
            if table.get(engine.sid) is engine:
                del table[engine.sid]
                self.settled.pop(engine.pinned, None)
                if engine.session is not None:
                    self._directory.closed(engine.session, now)

    def in_use(self, since: float) -> set[Session]:
        """The sessions of which a request is under way here, or came after `since`."""
        named = self._named.values()
        return {e.session for e in named if e.session is not None and (e.polls or e.seen > since)}

    def owed(self, since: float) -> set[Session]:
        """The sessions whose next polls get what was kept for them, of clients that polled after `since`."""
        owed = (e for e in self._named.values() if e.backlog is not None and (e.polls or e.seen > since))
        return {e.session for e in owed if e.session is not None}

    def asking(self, now: float) -> set[Session]:
        """The sessions of which something is on its way that their clients have said by polls."""
        named = ((e, e.session) for e in self._named.values())
        return {s for e, s in named if s is not None and not is_silent(now, e.said_at, s, e.untaken)}

    def send_away(
        self, sessions: Collection[Session], now: float, but: Collection[EngineSession] = ()
    ) -> set[EngineSession]:
        """Sessions have to leave a backend: their transports there are void from now on. Return these."""
        sent = {
            engine
            for engine in self._named.values()
            if engine.session is not None
            and engine.hand_over is None
            and engine not in but
            and engine.session in sessions
            and engine.session.has_left(engine.backend)
        }
        for engine in sent:
            self.void(engine, now)
        return sent

    def void(self, engine: EngineSession, now: float) -> None:
        """The transport leads nowhere any more; it is known until its client has heard of that."""
        self.closed(engine, now)
        engine.session = None
        engine.decision = Void.VOID
        self._bare[engine.sid] = engine

    def kept(self) -> list[EngineSession]:
        """The transports that another backend could be told of."""
        return [e for table in (self._bare, self._named) for e in table.values() if e.kept is not None]

    def of(self, sessions: Collection[Session]) -> list[EngineSession]:
        """The transports of sessions."""
        return [engine for engine in self._named.values() if engine.session in sessions]

    def sweep(self, now: float) -> None:
        """Forget transports without a poll or a websocket for longer than Engine.IO keeps them."""
        for table in (self._bare, self._named):
            idle = [e for e in table.values() if not e.tunnels and not e.polls and e.is_idle(now - _QUIET)]
            for engine in idle:
                self.closed(engine, now)
        while self._elsewhere and next(iter(self._elsewhere.values())).at + _QUIET < now:
            self._elsewhere.popitem(last=False)

    def __len__(self) -> int:
        return len(self._bare) + len(self._named)

    def __repr__(self) -> str:
        return f"<EngineSessions named={len(self._named)} bare={len(self._bare)}>"
