"""A Socket.IO websocket from its 101 until its session is known; then it is a plain tunnel.

Some clients name their session on the websocket (websocket only; python-socketio upgrades first and
connects then), some have named it by a poll before. Here the client's frames are read one by one: probes
and heartbeats pass, the first Socket.IO packet decides. When it is a CONNECT for a session that lives on
another backend, a new Engine.IO session is opened there with this client's own head, its OPEN packet is
swallowed, and the CONNECT goes there. When a poll decides instead (`redirect`), what was said so far is
said again at the new backend, and answers that the client has had already are swallowed.
"""

import asyncio
from collections.abc import Coroutine
from enum import Enum
from time import monotonic
from typing import Protocol

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision
from proxy.affinity.directory import Session
from proxy.affinity.router import Asked, Locate, Located
from proxy.dataplane import upstream_heads
from proxy.dataplane.ends import refuse
from proxy.dataplane.fetch import open_websocket
from proxy.dataplane.leg import OPENING, Leg
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import NoBackend, OddId, ProxyError, Retry
from proxy.wire.engineio import connect_session, is_quiet, open_sid
from proxy.wire.websocket import CLOSE, TEXT, Frame, FrameError, FrameReader

_MOST_HELD = 1 << 20  # bytes a client may send while its session is being found
_MOST_MOVES = 8  # backends tried for one CONNECT: each try ends one backend's life, so this is never reached


class State(Enum):
    """What the opening is at."""

    WATCHING = "watching"  # frames pass, the first packet is awaited
    DECIDING = "deciding"  # the client's bytes are held
    SWALLOWING = "swallowing"  # the new backend's first frames are awaited and dropped
    DONE = "done"


class Owner(Protocol):
    """What an opening needs of the exchange that became its tunnel."""

    def choose(self, decision: Decision) -> None:
        """Take a decision."""
        ...

    def let_go(self) -> None:
        """What was read of the request's fields is needed no more."""
        ...


class Side(asyncio.Protocol):
    """One transport while the opening has it."""

    __slots__ = ("_client", "_leg", "_opening")

    def __init__(self, opening: "Opening", leg: Leg, *, client: bool) -> None:
        self._opening = opening
        self._leg = leg
        self._client = client

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self._opening.tunnel.active = True
        if self._client:
            self._opening.from_client(data)
        else:
            self._opening.from_backend(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._opening.tunnel.close()

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.fell_behind()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._leg.caught_up()


class Opening:
    """Created by the exchange at 101; ends by making its tunnel plain, or by closing it."""

    def __init__(self, site: Site, owner: Owner, request: Request, tunnel: Tunnel) -> None:
        self._site = site
        self._owner = owner
        self._request = request
        self.tunnel = tunnel
        self._client = FrameReader()
        self._server = FrameReader()
        self._said: list[bytes] = []  # frames that went to the backend
        self._answers = 0  # packets that came from it and went to the client
        self._swallow = 0  # frames of the new backend that the client must not see
        self._held = bytearray()  # what the client said since its session was named
        self._moves = 0
        self._state = State.WATCHING
        self._session: Session | None = None

    def start(self, rest: bytes, early: bytes) -> None:
        """Begin; `rest` came behind the backend's head, `early` behind the client's."""
        tunnel = self.tunnel
        tunnel.down.read_with(Side(self, tunnel.down, client=True))
        tunnel.up.read_with(Side(self, tunnel.up, client=False))
        if tunnel.engine is not None:
            tunnel.engine.waiting.add(self)
        if rest:
            self.from_backend(rest)
        if early:
            self.from_client(early)
        if tunnel.down.is_closing() or tunnel.up.is_closing():
            tunnel.close()

    def from_client(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._state is not State.WATCHING:
            self._held += data
            if len(self._held) > _MOST_HELD:
                self.tunnel.close()
            return
        self._client.push(data)
        try:
            while self._state is State.WATCHING and (frame := self._client.next()) is not None:
                self._watch(frame)
        except FrameError:
            self._settle(None)

    def from_backend(self, data: bytes) -> None:
        """Bytes of the backend."""
        self._server.push(data)
        try:
            while (frame := self._server.next()) is not None:
                if self._swallow and frame.opcode == TEXT:
                    self._swallow -= 1
                else:
                    if not self._answers and open_sid(frame.payload) is not None:
                        self._site.paths.opened(self._request.head.path)
                    self._answers += frame.opcode == TEXT
                    self.tunnel.down.write(frame.raw)
        except FrameError:
            self.tunnel.close()  # a backend that was offered no compression must set no reserved bit
            return
        if self._state is State.SWALLOWING and not self._swallow:
            self._settle(self._session)

    def redirect(self) -> None:
        """As Waiting: a poll has moved the transport to another backend."""
        if self.tunnel.is_closed:
            return
        if self._state is State.WATCHING:
            self._state = State.DECIDING
            self._spawn(self._follow())
        else:
            self.tunnel.close()

    def decided(self) -> None:
        """As Waiting: a poll has named the session and it stays."""
        if self._state is State.WATCHING:
            self._settle(self.tunnel.engine.session if self.tunnel.engine else None)

    def _watch(self, frame: Frame) -> None:
        packet = frame.payload
        if frame.opcode >= CLOSE or (frame.opcode == TEXT and is_quiet(packet)):
            self._said.append(frame.raw)
            self.tunnel.up.write(frame.raw)
            return
        try:
            named = connect_session(packet) if frame.opcode == TEXT and frame.final else None
        except OddId as error:
            self._site.stats.refused(error)
            refuse(self.tunnel, error)
            return
        self._held += frame.raw
        if named:
            self._state = State.DECIDING
            self._held += self._client.rest
            self._client.rest.clear()
            self._decide(named)
        else:
            self._settle(None)

    def _decide(self, session_id: str, located: Located = Asked.NOT_YET) -> None:
        try:
            decision = self._site.router.connect(session_id, self.tunnel.pool.backend, monotonic(), located)
        except NoBackend:
            self.tunnel.close()
            return
        if isinstance(decision, Locate):
            self._spawn(self._locate(decision))
            return
        self._site.stats.decided(decision.evidence, decision.outcome)
        self._owner.choose(decision)
        if decision.backend is self.tunnel.pool.backend and not self._moves:
            self._settle(decision.session)
        else:
            self._session = decision.session
            self._spawn(self._move(decision, session_id))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self.tunnel.work = self._site.spawn(work, self.tunnel.close)

    async def _locate(self, question: Locate) -> None:
        found = await self._site.locate(question, self._request)
        if not self.tunnel.is_closed:
            self._decide(question.session_id, found)

    async def _move(self, decision: Decision, session_id: str) -> None:
        """Open a new Engine.IO session where the session lives; its OPEN packet is the one to swallow."""
        self._moves += 1
        if await self._reopen(decision.backend, None):
            self._site.stats.rehomes += 1
            self._catch_up(1 if self._answers else 0)
        elif not self.tunnel.is_closed:
            if decision.backend.holds_pins or self._moves > _MOST_MOVES:
                self.tunnel.close()  # it may only be slow: the client tries again
            else:
                self._decide(session_id)

    async def _follow(self) -> None:
        """Go where the polls of this transport went, and say there what was said here."""
        engine = self.tunnel.engine
        assert engine is not None
        if not await self._reopen(engine.backend, engine.upstream_sid):
            self.tunnel.close()
            return
        for raw in self._said:
            self.tunnel.up.write(raw)
        self._session = engine.session
        self._catch_up(self._answers)

    def _catch_up(self, swallow: int) -> None:
        """Drop so many frames of the new backend, then go on."""
        self._swallow = swallow
        self._state = State.SWALLOWING
        self.from_backend(b"")
        if not self.tunnel.is_closed:
            self.tunnel.up.resume(OPENING)

    async def _reopen(self, backend: Backend, sid: bytes | None) -> bool:
        """Open a websocket to another backend in place of the present one; reading stays paused."""
        self.tunnel.up.read_with(asyncio.Protocol())
        self.tunnel.up.abort()
        self._server.rest.clear()  # half a frame, of which nothing is out
        pool = self._site.pool(backend)
        try:
            upstream, rest = await open_websocket(
                pool, upstream_heads.upgrade_head(self._request, sid), self._site.timeouts.response
            )
        except ProxyError as error:
            self._site.report(backend, error)
            if error.retry is not Retry.IF_UNSENT:
                self.tunnel.close()  # it was heard, so it is said to no other backend
            return False
        if self.tunnel.is_closed:
            upstream.transport.abort()
            return False
        pool.release(upstream)
        self.tunnel.move(pool, upstream.leg)
        upstream.leg.read_with(Side(self, upstream.leg, client=False))
        self._server.push(rest)
        return True

    def _settle(self, session: Session | None) -> None:
        """The session is known, or will not be: say what was held and look no more."""
        self._state = State.DONE
        tunnel = self.tunnel
        if tunnel.is_closed:
            return
        if session is not None:
            tunnel.session = session
            self._site.router.directory.opened(session)
        engine = tunnel.engine
        if engine is not None:
            engine.waiting.discard(self)
            if engine.backend is tunnel.pool.backend and not engine.decided:
                self._site.router.engines.decide(engine, session)
        held = bytes(self._held) + bytes(self._client.rest)
        if self._server.rest:
            tunnel.down.write(bytes(self._server.rest))
        self._owner.let_go()
        tunnel.plain(held)

    def __repr__(self) -> str:
        return f"<Opening {self._state.value} to {self.tunnel.pool.backend.name}>"
