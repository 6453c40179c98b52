"""A Socket.IO websocket from its 101 until its session has connected; then it is a plain tunnel.

What is decided is in `affinity.opening`; here are its transports and its time. When its session lives on
another backend, a websocket is opened there with this client's own head; the present one goes on until that
is open, and then ends. A side that reads slowly stops the reading of the other, as in any tunnel.
"""

import asyncio
from functools import partial
from time import monotonic

from proxy.affinity.actions import (
    Action,
    Ask,
    Close,
    Connected,
    Hold,
    Open,
    Refuse,
    Refused,
    Settle,
    ToBackend,
    ToClient,
)
from proxy.affinity.backend import Backend
from proxy.affinity.claims import Claim
from proxy.affinity.opening import Opening as Machine
from proxy.affinity.opening import State
from proxy.affinity.router import Asked, Locate, Located
from proxy.affinity.session import Session
from proxy.dataplane import lost_connect, upstream_heads
from proxy.dataplane.farewells import refuse_opening
from proxy.dataplane.fetch import open_websocket
from proxy.dataplane.leg import OPENING
from proxy.dataplane.patience import Timer
from proxy.dataplane.request import Request
from proxy.dataplane.resuming import resumes, take_backlog
from proxy.dataplane.side import Owner, Side
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import Limit, NoBackend, ProxyError, Retry

_MOST_MOVES = 8  # backends tried for one CONNECT: each try ends one backend's life, so this is never reached
_WORD = 1.0  # seconds in which another proxy tells of the CONNECT that it has seen


class Opening:
    """Created by the exchange at 101; ends by making its tunnel plain, or by closing it."""

    __slots__ = (
        "_claim",
        "_deadline",
        "_down",
        "_has_opened",
        "_machine",
        "_moves",
        "_opens",
        "_owner",
        "_request",
        "_session_id",
        "_site",
        "_target",
        "_todo",
        "_tunnel",
        "_up",
        "_word",
        "_work",
    )

    def __init__(self, site: Site, owner: Owner, request: Request, tunnel: Tunnel) -> None:
        engine, engines = tunnel.engine, site.router.engines
        connected = engine is not None and engine.decided
        said = engines.said(None if connected else engine)
        hopes = site.hand_overs.far.hopes_for(engine)  # that another proxy tells of the CONNECT it has seen
        self._machine = Machine(said, upgrade=engine is not None, connected=connected, told=not hopes)
        self._word = Timer(site.stood, _WORD, self._no_word) if hopes else None  # set while it does
        self._site = site
        self._owner = owner
        self._request = request
        self._tunnel = tunnel
        self._down: Side | None = Side(self, tunnel, tunnel.down, tunnel.up)
        self._up: Side | None = Side(self, tunnel, tunnel.up, tunnel.down)
        self._session_id = ""  # that the CONNECT names
        self._has_opened = tunnel.engine is not None  # whether the backend has opened an Engine.IO session
        self._opens: asyncio.Future[None] | None = None  # set while that is awaited
        self._claim: Claim | None = None  # set while the CONNECT is on its way
        self._target: Backend | None = None  # where it moves
        self._moves = 0
        self._todo: list[Action] = []  # an empty deque has 760 bytes
        self._work: asyncio.Task[None] | None = None  # without an end there is no need of it
        if self._sid:  # nobody has read what its polls have said
            site.connecting[self._sid] = True
        self._wait()

    def start(self, rest: bytes, early: bytes) -> None:
        """Begin; `rest` came behind the backend's head, `early` behind the client's."""
        tunnel = self._tunnel
        tunnel.opening = self
        down, up = self._down, self._up
        assert down is not None
        assert up is not None
        tunnel.watch(down, up)
        if tunnel.engine is not None:
            tunnel.engine.waiting.add(self)
        if rest:
            up.data_received(rest)
        if early and self._tunnel.opening is self:  # what a checker holds of `tunnel.opening` is out of date
            down.data_received(early)
        elif early:  # it is plain already
            tunnel.pass_on(early)
        if tunnel.down.is_closing() or tunnel.up.is_closing():
            tunnel.close()

    def received(self, side: Side, data: bytes) -> None:
        """Bytes came."""
        tunnel, machine = self._tunnel, self._machine
        tunnel.active = True
        watching = machine.state is State.WATCHING
        if side is self._down:
            actions = machine.client(data)
        elif side is self._up:
            actions = machine.backend(data)
        else:
            return  # of a backend where it was before
        if not watching or machine.state is not State.WATCHING:
            side.received += len(data)
            side.reads += 1
        self._do(actions)
        self._note_open()

    def _note_open(self) -> None:
        """The backend may have opened an Engine.IO session for it."""
        if self._has_opened or not self._machine.sid:
            return
        machine, site = self._machine, self._site
        self._has_opened, self._tunnel.pool.ping_overdue = True, machine.ping_overdue
        if self._opens is not None:
            self._opens.set_result(None)
        site.paths.opened(self._request.head.path)
        if self._tunnel.opening is self:
            site.connecting.setdefault(machine.sid, False)
        if machine.state is State.WATCHING:  # its client has all of its time from here on
            self._wait()

    @property
    def _sid(self) -> bytes:
        """Of a websocket whose polls, if it has any, have no pin; b"" if it is not known."""
        return b"" if self._tunnel.engine is not None else self._request.sid or self._machine.sid

    def side_ended(self, side: Side) -> bool:
        """A side has said all; return whether the other may go on: not if it ended in a message."""
        machine = self._machine
        whole = not (machine.unread if side is self._up else machine.unsaid)
        if whole and (machine.state is State.CONNECTING or machine.state is State.CONNECTED):
            return side is self._up or not self._client_lost()
        self.lost(side)
        return False

    def lost(self, side: Side) -> None:
        """A connection is gone; while another backend is tried the present one is not needed."""
        tunnel = self._tunnel
        if side is self._down:
            if side.ended or not self._client_lost():
                tunnel.close()
        elif side is self._up and self._machine.state is not State.MOVING:
            tunnel.close()

    def _client_lost(self) -> bool:
        """Whether the backend's side is kept: for a session that was lost before, and is lost once more."""
        claim, machine = self._claim, self._machine
        if claim is None or machine.state is not State.CONNECTING:
            return False
        self._claim = None  # it is no more ended with the tunnel
        if lost_connect.keep(self._site, self._tunnel, claim, self._request, self._sid, machine.unread):
            return True
        self._claim = claim
        return False

    def redirect(self) -> None:
        """As Waiting: a poll has moved the transport to another backend."""
        self._do(self._machine.moved())

    def decided(self) -> None:
        """As Waiting: a poll has named the session and it stays."""
        engine = self._tunnel.engine
        assert engine is not None
        if self._word is not None and engine.session is None:
            engine.waiting.add(self)
        else:
            self._do(self._machine.word_has_come())
            self._do(self._machine.settled(resumes=resumes(self._site.lingers, engine)))

    def _no_word(self) -> None:
        self._word = None
        self._do(self._machine.word_has_come())
        if self._tunnel.engine is not None and self._tunnel.engine.decided:
            self.decided()

    def _wait(self) -> None:
        self._deadline = monotonic() + self._site.timeouts.opening

    def tick(self, now: float) -> None:
        """As Preface: act when time is up; not while a poll's CONNECT is on its way."""
        if self._deadline <= now:
            self._wait()
            engine = self._tunnel.engine
            if engine is None or engine.claim is None or engine.claim.said:
                self._do(self._machine.late())

    def move_on(self, gap: float) -> None:
        """As Preface."""
        self._deadline += gap

    def stop(self) -> None:
        """As Preface: the tunnel has ended."""
        if self._tunnel.engine is not None:
            self._tunnel.engine.waiting.discard(self)  # its polls may go on, and try again
        self._down = self._up = None
        if self._word is not None:
            self._word.cancel()
        if self._work is not None:
            self._work.cancel()
        self._site.connecting.pop(self._sid, None)
        self._refused()

    def _do(self, actions: list[Action]) -> None:
        """Do these behind those that are being done."""
        idle = not self._todo
        self._todo.extend(actions)
        if not idle:
            return
        while self._todo and not self._tunnel.is_closed:
            self._act(self._todo[0])
            if self._todo:
                self._todo.pop(0)

    def _act(self, action: Action) -> None:
        tunnel = self._tunnel
        match action:
            case ToClient(data):
                tunnel.down.write(data)
            case ToBackend(data):
                tunnel.up.write(data)
            case Ask(session_id):
                self._session_id = session_id
                self._decide()
            case Connected():
                self._connected()
            case Settle():
                self._settle(action)
            case Open(fresh):
                self._work = self._site.spawn(partial(self._open, fresh=fresh), tunnel.close)
            case Hold(on):
                (tunnel.down.pause if on else tunnel.down.resume)(OPENING)
            case Refused():
                if self._claim is None and tunnel.engine is not None:
                    self._site.answered(tunnel.engine, taken=False)
                self._refused()
            case Refuse(why):
                refuse_opening(tunnel, self._site.stats, why)
            case Close():
                tunnel.close()

    def _decide(self, located: Located = Asked.NOT_YET) -> None:
        here = self._tunnel.pool.backend
        try:
            decision = self._site.router.connect(self._session_id, here, monotonic(), located)
        except NoBackend:
            self._tunnel.close()
            return
        if isinstance(decision, Locate):
            self._work = self._site.spawn(partial(self._locate, decision), self._tunnel.close)
            return
        if (door := self._site.door) is not None and door.refuses(decision.claim, self._request):
            refuse_opening(self._tunnel, self._site.stats, Limit.MOST_SESSIONS)
            return
        self._site.stats.decided(decision.evidence, decision.outcome)
        self._owner.choose(decision)
        self._claim = decision.claim
        if decision.backend is here:
            self._do(self._machine.stays())
        else:
            self._target = decision.backend
            self._do(self._machine.moves())

    async def _locate(self, question: Locate) -> None:
        """Ask where the session is; behind OPEN, which tells below which root Chainlit is.

        A client need not wait for that before it says CONNECT, and a backend may never say it.
        """
        if not self._has_opened:
            self._opens = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._opens], timeout=self._site.config.affinity.locate_timeout)
        found = await self._site.locate(question, self._request)
        if not self._tunnel.is_closed:
            self._decide(found)

    async def _open(self, *, fresh: bool) -> None:
        """Open a websocket to another backend in place of the present one."""
        site, tunnel, engine = self._site, self._tunnel, self._tunnel.engine
        if fresh or engine is None:
            assert self._target is not None
            backend, sid = self._target, None
        else:
            backend, sid = engine.backend, engine.upstream_sid
        self._moves += 1
        pool = site.pool(backend)
        try:
            head = upstream_heads.upgrade_head(self._request, sid)
            upstream, rest = await open_websocket(pool, head, site.timeouts.response)
        except ProxyError as error:
            site.report(backend, error)
            self._failed(backend, error, fresh=fresh)
            return
        if tunnel.is_closed:
            upstream.transport.abort()
            return
        pool.release(upstream)
        before = tunnel.up
        tunnel.move(pool, upstream.leg)
        self._up = side = Side(self, tunnel, upstream.leg, tunnel.down)
        tunnel.read_backend_with(side)
        side.ended = False
        before.read_with(asyncio.Protocol())
        before.abort()
        if fresh:
            site.stats.rehomes += 1
        self._do(self._machine.opened(rest))
        self._note_open()
        if not tunnel.is_closed:
            upstream.leg.resume(OPENING)

    def _failed(self, backend: Backend, error: ProxyError, *, fresh: bool) -> None:
        """It could not be opened; where nobody is any more, nothing was said, and it is decided again."""
        tunnel = self._tunnel
        if tunnel.is_closed:
            return
        again = fresh and error.retry is Retry.IF_UNSENT and not backend.holds_pins
        if not again or self._moves > _MOST_MOVES:
            tunnel.close()  # it may only be slow: the client tries again
            return
        self._refused()
        self._decide()
        if tunnel.up.is_closing():
            tunnel.close()

    def _connected(self) -> None:
        """The backend has taken the CONNECT, or that of a poll."""
        tunnel, site, engine = self._tunnel, self._site, self._tunnel.engine
        claim, self._claim = self._claim, None
        session = None if claim is None else site.taken(claim, engine, self._sid)
        if session is not None:
            self._begin(session)
        if engine is None or engine.backend is not tunnel.pool.backend or engine.decided:
            return
        if claim is None:
            site.answered(engine, taken=True)
        else:
            site.router.engines.decide(engine, session)

    def _begin(self, session: Session) -> None:
        self._tunnel.session = session
        self._site.router.directory.opened(session)

    def _refused(self) -> None:
        """The CONNECT leads to nothing."""
        if self._claim is not None:
            self._site.router.refused(self._claim)
            self._claim = None

    def _settle(self, action: Settle) -> None:
        """The session is known, or will not be: pass what was held, and look no more."""
        tunnel, router, engine = self._tunnel, self._site.router, self._tunnel.engine
        owed = b""
        if self._word is not None:
            self._word.cancel()
        self._site.connecting.pop(self._sid, None)
        self._refused()
        tunnel.opening = None
        if engine is not None:
            engine.waiting.discard(self)
            if engine.backend is tunnel.pool.backend and not engine.decided:
                router.engines.decide(engine, None)
            if tunnel.session is None and engine.session is not None:
                self._begin(engine.session)
            owed = take_backlog(engine, router) if tunnel.down.may_write else b""
        for side, rest in ((self._down, action.to_backend), (self._up, action.to_client)):
            if rest and side is not None:  # it is counted when it goes on
                side.received -= len(rest)
                side.reads -= 1
        self._down = self._up = None
        if not self._machine.said.names_others:
            self._site.hand_overs.keep(tunnel, self._request, self._machine.connect)
        ask = self._site.owner_of(tunnel.session, tunnel.pool.backend, self._request)
        self._owner.let_go()
        upgraded, said, heard = engine is None or self._machine.upgraded, action.to_backend, action.to_client
        tunnel.plain(said, heard, answered=action.answered, upgraded=upgraded, owed=owed, ask=ask)

    def __repr__(self) -> str:
        return f"<Opening to {self._tunnel.pool.backend.name} {self._machine!r}>"
