"""One request and its response. Read this file first: it follows a request through the house.

`start` looks at what the request names. Where the body names the session it is read before anything is
decided; then the router decides (`go`), a connection is taken from the pool or opened (`send`), and the
answer is passed on as it comes. A polling handshake's answer gets the pin written into its sid. The poll
that carries the CONNECT packet may move its transport to another backend (`rehome`). What fails before
a byte of the response has come is tried again where that is safe (`affinity.retry`). Nearly all requests are
polls of a transport that has settled at its backend: for them `start` has a short way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from proxy.affinity import retry
from proxy.affinity.decision import Decision, EngineSession, Outcome, Void
from proxy.affinity.evidence import Evidence, Kind
from proxy.affinity.retry import Next
from proxy.affinity.router import Asked, Locate, Located
from proxy.dataplane import inspection, rehome, settled, upstream_heads
from proxy.dataplane.dialing import Dial, dial
from proxy.dataplane.last_hop import last_hop
from proxy.dataplane.poll_hand_over import MOVES, transport_key
from proxy.dataplane.pool import Pool
from proxy.dataplane.request import Request
from proxy.dataplane.request_body import MOST_HELD, NO_BODY
from proxy.dataplane.upgrade import Upgrade
from proxy.dataplane.upstream import Upstream
from proxy.errors import NoBackend, ProxyError, UpstreamClosed
from proxy.wire import reply

_PAUSE = 0.2  # seconds until a backend is tried again that is waited for: it may fail at once each time


class Exchange(Upgrade):
    """One request and its response; created by the client's connection, ends itself."""

    # As in Relay, set on the instance only where it differs.
    session_id: str | None = None  # set when the request names its session
    _failures = 0  # tries that failed
    _has_waited = False  # set when it has waited for its session to connect
    held_for = 0.0  # seconds in which nobody could take it
    has_said = False  # set when it has brought a message of the user, which a hand-over says again
    _is_said = False  # set when it broke, and what it said is said again by others
    _is_last_try = False  # set when a kept connection broke: it is said once more, over a new one
    _avoid: tuple[str, ...] = ()  # backends that did not accept in time
    _attempt = 0  # counts tries and redirects, so that a late connection is recognised

    # The way down

    def start(self, rest: bytes) -> bytes:
        """Begin; `rest` came behind the head. Return what of it belongs to the next request."""
        request, body = self.request, self.body
        decision = settled.decision_of(request, self.site, len(rest)) if request.sid is not None else None
        try:
            if not body.done and (rest or body.is_announced_too_long):
                part, rest = body.feed(rest)
                body.hold(part)
            if decision is not None:
                self._start_settled(decision)
                return rest
            self._start(request)
        except ProxyError as error:
            self.refuse(error)
        return b"" if self.ended and not body.done else rest

    def _start_settled(self, decision: Decision) -> None:
        body, engine = self.body, decision.engine
        assert engine is not None
        engine.seen = self.request.started
        if body is not NO_BODY:
            self.has_said = settled.hear(body.whole, self.request, engine, self.site)
            if engine.owed_pongs and rehome.only_answers_ours(engine, body.whole):
                self._answer(reply.OK)
                return
        self.site.stats.sid_pinned += 1
        self.choose(decision)
        self.send()

    def _start(self, request: Request) -> None:
        head, body = request.head, self.body
        expects = bool(head.fields.expect) and head.minor == 1
        self._waits_for_leave = expects and not body.done and not body.size
        if not body.done:
            self.turn()
        self.session_id = inspection.named_in_head(request)
        if head.fields.expect or head.fields.max_forwards or head.fields.via:
            answer = last_hop(head)
            if answer is not None:
                self._answer(answer)
                return
        if head.path == self.site.health_path and head.method in reply.CHECKS:
            self._answer(reply.LEAVING if self.site.leaving else reply.ALIVE)
            return
        if request.kind.key is not None:
            self._inspect()
        else:
            self.go()

    def more(self, data: bytes) -> bytes:
        """More of the body came. Return what of `data` belongs to the next request."""
        if self.ended:
            return b""
        self._waits_for_leave = False
        try:
            part, rest = self.body.feed(data)
            if self.upstream is not None and not self.body.is_inspected:
                self.body.streamed = True
                self.upstream.transport.write(part)
                if self.body.done:
                    self.upstream.leg.draw_from(None)
            else:
                self._hold(part)
        except ProxyError as error:
            self.refuse(error)
            return b""
        self.turn()
        return rest

    def _inspect(self) -> None:
        """Read the body for its session before anything of it is sent."""
        self.body.inspect()
        self.client.resume()  # it was paused if much of it came while its backend was looked for
        if self.body.done:
            self._body_is_read()
        elif self._waits_for_leave:
            self._waits_for_leave = False
            self.client.go_ahead()
            self.turn()

    def _hold(self, part: bytes) -> None:
        """Keep a part of the body: it is being read, or no connection is there yet."""
        body = self.body
        body.hold(part)
        if not body.is_inspected:
            if body.held_size > MOST_HELD:
                self.client.pause()
        elif inspection.is_too_long(self.request, body.held_size, self.site.limits.inspect):
            body.content()
            self._inspected = True
            self.go()
        elif body.done:
            self._body_is_read()

    def _body_is_read(self) -> None:
        """The body is whole: go on with the session that it names."""
        request = self.request
        content = self.body.content()
        named = inspection.named_in_body(request, content, self.site.limits.packets)
        self._inspected = True
        if request.kind is Kind.SOCKETIO:
            rehome.read_post(self, content, is_connect=named is not None)
            return
        if request.kind is not Kind.ANNOUNCES:
            self.session_id = named
        elif named is not None:
            self.site.router.directory.announce(named, monotonic())
            if self.site.door is not None:
                self.site.door.announced(named, request)
        self.go()

    def go(self, located: Located = Asked.NOT_YET) -> None:
        """Decide where the request goes and send it there."""
        request, site = self.request, self.site
        if self._waits_for_session() or (request.sid is not None and self._waits_for_transport()):
            return
        if site.door is not None and (answer := site.door.turns_away(request)) is not None:
            self._answer(answer)
            return
        try:
            decision = self._decide(located)
        except NoBackend as error:
            if site.cross_site.leave(request) is not None or not site.arrivals.hold(
                self, site.config.affinity.hold
            ):
                self.refuse(error)
            return
        if isinstance(decision, Void):
            site.stats.decided(Evidence.SID, Outcome.VOID)
            self.tell_unknown()
            return
        if isinstance(decision, Locate):
            self.locate(decision, self.go)
            return
        site.stats.decided(decision.evidence, decision.outcome)
        engine = decision.engine
        if self._is_said or (self.has_said and engine is not None and engine.upstream_sid != self._said_to):
            self._answer(reply.OK)
            return
        self.choose(decision)
        self._watched = engine is not None and not engine.is_plain
        if request.is_post and not self._inspected:
            self._inspect()
            return
        polls = request.is_poll and not request.wants_upgrade
        if polls and engine is not None and engine.backlog is not None:
            self._say_backlog(engine)
            return
        if engine is not None and not engine.decided and not request.is_post:
            engine.waiting.add(self)
        self.send()

    def _waits_for_session(self) -> bool:
        """Whether its session has lost its instance a moment ago: then it goes on when that has connected."""
        session_id, site = self.session_id, self.site
        patience = site.config.affinity.hold
        if session_id is None or self._has_waited or self.request.kind is Kind.SOCKETIO:
            return False
        if not site.router.is_coming(session_id, monotonic(), patience):
            return False
        self._has_waited = True
        return site.arrivals.hold(self, patience, session_id)

    def _waits_for_transport(self) -> bool:
        """Whether its transport is handed over to another backend: then it goes on when that is done."""
        hand_overs, sid = self.site.hand_overs, self.request.sid or b""
        engine = self.site.router.engines.pinned(sid) or hand_overs.far.meet(sid)
        return engine is not None and hand_overs.has_polls(engine) and self.wait_for(engine)

    def wait_for(self, engine: EngineSession) -> bool:
        """Its transport is handed over: go on when that is done; whether it may wait."""
        self._leave_upstream()
        self._is_said = self._is_said or self.has_said
        return self.site.arrivals.hold(self, MOVES, transport_key(engine))

    def wait_to_say(self, engine: EngineSession, seconds: float) -> bool:
        """Its transport is on its way: read it anew when that is told; whether it may wait."""
        waits = self.site.arrivals.hold(self, seconds, transport_key(engine))
        self._inspected = self._inspected and not waits
        return waits

    def follow(self, engine: EngineSession) -> None:
        """Its transport is handed over while it waits for news: it is to ask the next backend."""
        if not self.status and not self.ended and not self.wait_for(engine):
            self.tell_unknown()

    @property
    def whose(self) -> str:
        """As Guest."""
        return self.request.known.client

    def halt(self, stay: Dial) -> None:
        """As Guest: what was tried before counts no more, and who was chosen has it no more."""
        self._attempt += 1
        self._let_go()
        self._work = stay
        self._failures, self._avoid = 0, ()
        self._is_held = True
        if not self.body.done:
            self.client.pause()
        self.turn()

    def go_on(self) -> None:
        """As Guest."""
        self._is_held = False
        self.client.resume()
        self.turn()
        self.go()

    def _decide(self, located: Located) -> Decision | Locate | Void:
        request, router = self.request, self.site.router
        if request.sid is not None:
            decision = router.by_sid(request.sid, request.started)
            if decision is not None:
                return decision
        now, hints = monotonic(), request.known.hints
        if request.kind is Kind.SOCKETIO:
            return router.handshake(hints, now, located, self._avoid)
        if self.session_id is not None:
            return router.by_session(self.session_id, Evidence.SESSION, now, located, self._avoid, hints)
        anywhere = request.head.method in (b"GET", b"HEAD") and not request.wants_upgrade
        return router.plain(hints, now, self._avoid, anywhere=anywhere)

    def locate(self, question: Locate, then: Callable[[Located], None]) -> None:
        """Ask the backends, then go on with what they said."""
        self.spawn(lambda: self._ask(question, then))

    async def _ask(self, question: Locate, then: Callable[[Located], None]) -> None:
        found = await self.site.locate(question, self.request)
        if not self.ended:
            then(found)

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work for this exchange; it is refused if that fails by a fault of ours."""
        self._work = self.site.spawn(work, self._broke)

    def send(self) -> None:
        """Send the request to the chosen backend, over an idle connection or a new one."""
        self._attempt = attempt = self._attempt + 1
        pool = self.site.pool(self.backend)
        # An upgrade is never said twice, so it gets a connection that cannot have been closed meanwhile.
        upstream = None if self.request.wants_upgrade or self._is_last_try else pool.take()
        if upstream is None:
            if attempt == 1:
                self.turn()  # however many tries it takes
            self._work = dial(self.site, pool, lambda got: self._connected(pool, attempt, got), self._broke)
        else:
            self._write(upstream)

    def _connected(self, pool: Pool, attempt: int, got: Upstream | ProxyError) -> None:
        if isinstance(got, ProxyError):
            self.site.report(pool.backend, got)  # who hears of it may send this exchange elsewhere
        is_wanted = not self.ended and attempt == self._attempt
        if is_wanted:
            self._work = None
        if isinstance(got, Upstream):
            (self._write if is_wanted else pool.freed)(got)
        elif is_wanted:
            self._recover(got)

    def _write(self, upstream: Upstream) -> None:
        self.upstream = upstream
        request, body, engine = self.request, self.body, self._engine
        sid = self._said_to = engine.upstream_sid if engine is not None else None
        head = upstream_heads.own_head(request, sid, inspected=self._inspected)
        if body is not NO_BODY:
            self.client.resume()  # before it is written to: a backend that is slow to read pauses it again
            head = body.say(head)
            if not body.done:
                upstream.leg.draw_from(self.client)
        upstream.send(self, request.head.method, head)
        self.turn()

    def redirect(self) -> None:
        """As Waiting: this poll's transport has moved to another backend, ask there."""
        engine = self._engine
        if self.ended or self.status or engine is None or self._is_held:
            return
        if self.body.streamed:  # some of it can be said to nobody else
            self.tell_unknown()
            return
        self._leave_upstream()
        self.choose(Decision(engine.backend, Evidence.SID, Outcome.REHOMED, engine=engine))
        self.send()

    def decided(self) -> None:
        """As Waiting: this poll's transport stays."""

    # What goes wrong

    def _recover(self, error: ProxyError) -> None:
        """As Relay: try again if that is safe, else tell the client."""
        if self.ended:
            return
        if self.decision is None or self.status:
            self.refuse(error)
            return
        request, engine = self.request, self._engine
        broke = isinstance(error, UpstreamClosed) and not (self.body.streamed or request.wants_upgrade)
        if engine is not None and broke and self._goes_on(engine):
            return
        then = retry.after(
            error,
            self.decision,
            request.head.method,
            poll=request.is_poll,
            upgrade=request.wants_upgrade,
            resayable=not self.body.streamed,
            tries_left=len(self.site.router.fleet) - self._failures,
        )
        if then is Next.UNKNOWN:
            self.error = error.reason
            self.tell_unknown()
        elif then is Next.REFUSE or self._is_last_try:
            self.refuse(error)
        else:
            self._failures += 1
            self.site.stats.retries[self.backend.name] += 1
            self._try_again(then)

    def _goes_on(self, engine: EngineSession) -> bool:
        """Whether it may go on with its transport, which another backend goes on with, or will."""
        has_moved = engine.upstream_sid != self._said_to
        if not has_moved and not self.site.hand_overs.polls_lost(engine):
            return False
        self._is_said = self.request.is_post  # it may have been heard: see `poll_hand_over`
        if has_moved and engine.hand_over is None:
            self.go()
            return True
        return self.wait_for(engine)

    def _try_again(self, then: Next) -> None:
        if then is Next.SAME:
            self._is_last_try = True
            self.send()
        elif then is Next.LATER:
            decision = self.decision
            self.spawn(lambda: self._go_later(decision))
        else:
            if then is Next.ELSEWHERE:
                self._avoid += (self.backend.name,)
            self.go()

    async def _go_later(self, decision: Decision | None) -> None:
        """Try again where no connection could be opened, unless it went elsewhere meanwhile."""
        await asyncio.sleep(_PAUSE)
        if not self.ended and self.decision is decision:
            self.go()
