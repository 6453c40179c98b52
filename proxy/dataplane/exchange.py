"""One request and its response. Read this file first: it follows a request through the house.

`start` tells what kind of request it is. Where the body names the session it is read before anything is
decided; then the router decides (`_go`), a connection is taken from the pool or opened (`_send`), and the
answer is passed on as it comes. A polling handshake's answer gets the pin written into its sid. The poll
that carries the CONNECT packet may move its transport to another backend (`rehome`). What fails before
a byte of the response has come is tried again where that is safe.
"""

from asyncio import Task
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision, Outcome, Void
from proxy.affinity.evidence import Evidence, Kind
from proxy.affinity.router import Asked, Locate, Located
from proxy.dataplane import duties, failures, inspection, polls, requests, responses, upgrade
from proxy.dataplane.dates import dated
from proxy.dataplane.pool import Pool
from proxy.dataplane.request_body import NO_BODY, RequestBody
from proxy.dataplane.tunnel import Tunnel
from proxy.dataplane.upstream import Upstream
from proxy.errors import NoBackend, ProxyError
from proxy.wire.body import Framer
from proxy.wire.engineio import query_sid
from proxy.wire.forwarding import response_head
from proxy.wire.head import RequestHead, ResponseHead
from proxy.wire.turns import GZIP, TASK

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.seen import Known


class Exchange:
    """One request and its response; created by the client's connection, ends itself."""

    # Set on the instance only where it differs.
    session_id: str | None = None  # set when the request names its session
    decision: Decision | None = None  # set when a backend was chosen
    upstream: Upstream | None = None  # set while a connection serves it
    status = 0  # of the response, 0 before its head has come
    first_byte = 0.0  # seconds from the request's head to the response's
    bytes_in = 0  # of the request's body, or from the client through the tunnel
    bytes_out = 0  # of the response's body, or from the backend through the tunnel
    tunnel: Tunnel | None = None  # set when the one that it became has ended
    keep = True  # whether the client's connection serves another request after this one
    ended = False
    wants_upgrade = False
    inspected = False  # whether the body was read for its session
    error = ""  # why it was refused or cut off, for the log
    failures = 0  # tries that failed
    is_last_try = False  # set when a kept connection broke: it is said once more, over a new one
    avoid: frozenset[str] = frozenset()  # backends that did not accept in time
    _attempt = 0  # counts tries and redirects, so that a late connection is recognised
    _rewriter: responses.Rewriter | None = None  # set when the response's body is changed
    _work: Task[None] | None = None  # the latest that was awaited for it

    def __init__(self, down: "Downstream", head: RequestHead, known: "Known") -> None:
        self.down = down
        self.plane = plane = down.plane
        self.head = head
        self.known = known
        self.request_id = known.request_id or plane.request_id()
        self.started = monotonic()
        fields = head.fields
        if fields.upgrade:
            self.wants_upgrade = head.wants_upgrade
        self.body = RequestBody(fields, plane.limits.body) if fields.chunked or fields.length else NO_BODY
        self.kind = kind = plane.paths.kind(head.method, head.path)
        self.sid = query_sid(head.query) if kind is Kind.SOCKETIO else None

    @property
    def backend(self) -> Backend:
        """The backend that was chosen."""
        assert self.decision is not None
        return self.decision.backend

    @property
    def is_poll(self) -> bool:
        """Whether it waits for Engine.IO packets."""
        return self.sid is not None and self.head.method == b"GET"

    @property
    def is_handshake(self) -> bool:
        """Whether it opens an Engine.IO session."""
        return self.kind is Kind.SOCKETIO and self.sid is None and self.head.method == b"GET"

    # The way down

    def start(self, rest: bytes) -> bytes:
        """Begin; `rest` came behind the head. Return what of it belongs to the next request."""
        if not self.body.done and (rest or self.body.is_announced_too_long):
            try:
                part, rest = self.body.feed(rest)
            except ProxyError as error:
                self.refuse(error)
                return b""
            self.body.hold(part)
        if not self.body.done:
            self._set_deadline()
        asks = self.head.fields.expect or self.head.fields.max_forwards
        if inspection.refuses(self) or (asks and duties.settled(self)):
            pass
        elif self.kind.key is not None:
            inspection.begin(self)
        else:
            self.go()
        return b"" if self.ended and not self.body.done else rest

    def more(self, data: bytes) -> bytes:
        """More of the body came. Return what of `data` belongs to the next request."""
        if self.ended:
            return b""
        try:
            part, rest = self.body.feed(data)
        except ProxyError as error:
            self.refuse(error)
            return b""
        if self.upstream is not None and not self.body.is_inspected:
            self.body.streamed = True
            self.upstream.transport.write(part)
        else:
            inspection.hold(self, part)
        self._set_deadline()
        return rest

    def go(self, located: Located = Asked.NOT_YET) -> None:
        """Decide where the request goes and send it there."""
        try:
            decision = self._decide(located)
        except NoBackend as error:
            self.refuse(error)
            return
        if isinstance(decision, Void):
            self.plane.stats.decided(Evidence.SID, Outcome.VOID)
            polls.tell_unknown(self)
            return
        if isinstance(decision, Locate):
            self.locate(decision, self.go)
            return
        self.plane.stats.decided(decision.evidence, decision.outcome)
        self.choose(decision)
        engine = decision.engine
        if self.kind is Kind.SOCKETIO and self.head.method == b"POST" and not self.inspected:
            inspection.begin(self)
            return
        if engine is not None and not engine.decided:
            engine.waiting.add(self)
        self.send()

    def _decide(self, located: Located) -> Decision | Locate | Void:
        router = self.plane.router
        if self.sid is not None:
            decision = router.by_sid(self.sid, self.started)
            if decision is not None:
                return decision
        now, hints = monotonic(), self.known.hints
        if self.kind is Kind.SOCKETIO:
            return router.handshake(hints, now, located, self.avoid)
        if self.session_id is not None:
            return router.by_session(self.session_id, Evidence.SESSION, now, located, self.avoid, hints)
        return router.plain(hints, now, self.avoid)

    def choose(self, decision: Decision) -> None:
        """Take a decision; its Engine.IO session counts this request as under way."""
        if self.decision is not None and self.decision.engine is not None:
            self.decision.engine.polls -= 1
        if decision.engine is not None:
            decision.engine.polls += 1
        self.decision = decision

    def locate(self, question: Locate, then: Callable[[Located], None]) -> None:
        """Ask the backends, then go on with what they said."""
        self.spawn(self._ask(question, then))

    async def _ask(self, question: Locate, then: Callable[[Located], None]) -> None:
        found = await self.plane.locate(question, self)
        if not self.ended:
            then(found)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run work for this exchange; it is refused if that fails by a fault of ours."""
        self._work = self.plane.spawn(work, lambda: self.refuse(ProxyError("internal error")))

    def send(self) -> None:
        """Send the request to the chosen backend, over an idle connection or a new one."""
        self._attempt += 1
        pool = self.plane.pool(self.backend)
        # An upgrade is never said twice, so it gets a connection that cannot have been closed meanwhile.
        upstream = None if self.wants_upgrade or self.is_last_try else pool.take()
        if upstream is None:
            if self._attempt == 1:
                self._set_deadline()  # however many tries it takes
            self.spawn(self._connect(pool, self._attempt))
        else:
            self._write(upstream)

    async def _connect(self, pool: Pool, attempt: int) -> None:
        try:
            upstream = await pool.connect()
        except ProxyError as error:
            self.plane.failed(pool.backend, error)
            if not self.ended and attempt == self._attempt:
                failures.recover(self, error)
            return
        if self.ended or attempt != self._attempt:
            pool.freed(upstream)
        else:
            self._write(upstream)

    def _write(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.down.resume()  # before it is written to: a backend that is slow to read pauses it again
        upstream.send(self, self.head.method, self.body.say(requests.head(self)))
        self._set_deadline()

    def _set_deadline(self) -> None:
        timeouts = self.plane.timeouts
        if self.status == 0:
            self.down.deadline = monotonic() + (timeouts.response if self.body.done else timeouts.body)

    def redirect(self) -> None:
        """As Waiting: this poll's transport has moved to another backend, ask there."""
        decision = self.decision
        if self.ended or self.status or decision is None or decision.engine is None:
            return
        if self.upstream is not None:
            self.upstream.abandon(self)
            self.upstream = None
        self.choose(Decision(decision.engine.backend, Evidence.SID, Outcome.REHOMED, engine=decision.engine))
        self.send()

    def decided(self) -> None:
        """As Waiting: this poll's transport stays."""

    # The way up

    def informed(self, head: ResponseHead) -> None:
        """As User: relay a 1xx response to those who know them."""
        if self.head.minor == 1 and not (self.inspected and head.status == 100):
            self.down.transport.write(response_head(head, self.head, self.request_id, close=False))

    def responded(self, head: ResponseHead, framer: Framer, data: bytes) -> None:
        """As User: the head came."""
        self._got_head(head)
        ends_by_close = not framer.done and head.fields.length is None and not head.fields.chunked
        self.keep = self.keep and self.head.keeps_alive and self.body.done and not ends_by_close
        extra, plane = b"", self.plane
        if self.sid is None or self.head.minor == 0 or plane.lingers.by_session or plane.timing:
            self._rewriter = responses.rewriter(self, head)
            extra = responses.own_fields(self, head) if self._rewriter is None else b""
        if self.sid is not None and self._rewriter is None and (TASK in data or GZIP in data):
            polls.note_turn(self, data)
        if self._rewriter is None:
            close = not self.keep or plane.leaving
            top = response_head(head, self.head, self.request_id, close=close, extra=extra)
            self.bytes_out += len(data)
            self.down.transport.write(top + data)
        else:
            self._rewriter.take(data)
        if framer.done:
            self._whole()
        elif not self.down.writable:
            self.stop_receiving()

    def received(self, data: bytes) -> None:
        """As User: more of the body came."""
        if self._rewriter is not None:
            self._rewriter.take(data)
        else:
            self.bytes_out += len(data)
            self.down.transport.write(data)
            if self.sid is not None and (TASK in data or GZIP in data):
                polls.note_turn(self, data)
        assert self.upstream is not None
        if self.upstream.body_done:
            self._whole()

    def _got_head(self, head: ResponseHead) -> None:
        self.status = head.status
        self.first_byte = monotonic() - self.started
        self.plane.stats.first_byte[self.backend.name].add(self.first_byte)
        self.down.deadline = inf

    def _whole(self) -> None:
        """The response is whole."""
        is_spare = self.wants_upgrade and self.plane.pool(self.backend).has_idle
        if self.upstream is not None and (is_spare or not self.body.done):
            self.upstream.spoil()
        all_said = self._rewriter is None or self._rewriter.finish()
        if not self.down.writable:
            self.go_on_receiving()  # the connection is for others now, however slow this client is
        self.upstream = None
        if all_said:
            self.close_up()

    def close_up(self) -> None:
        """The response is said: the client's connection is free."""
        self._end()
        self.down.ended(keep=self.keep, linger=not self.body.done)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """As User: 101, the exchange becomes a tunnel. Raises BadResponse if it asked for none."""
        upgrade.check(self, head)
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        self._got_head(head)
        if self.decision is not None and self.decision.engine is not None:
            self.decision.engine.waiting.discard(self)  # from here on the opening waits
        upgrade.switch(self, upstream, head, rest)

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """The tunnel that it became has ended."""
        self.tunnel, (self.bytes_in, self.bytes_out) = tunnel, tunnel.received
        self.plane.stats.tunnel_lives[tunnel.pool.backend.name].add(monotonic() - self.started)
        self.plane.tunnel_closed(tunnel)
        if not self.ended:
            self._end()

    def stop_sending(self) -> None:
        """As User: the backend reads slowly."""
        self.down.pause()

    def go_on_sending(self) -> None:
        """As User."""
        self.down.resume()

    def stop_receiving(self) -> None:
        """The client reads slowly."""
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.pause_reading()

    def go_on_receiving(self) -> None:
        """The client has caught up."""
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.resume_reading()

    def failed(self, error: ProxyError) -> None:
        """As User: the backend's connection broke or broke the protocol."""
        self.upstream = None
        self.plane.failed(self.backend, error)
        failures.recover(self, error)

    def refuse(self, error: ProxyError) -> None:
        """Answer with an error; if part of a response is out, cut it off (RFC 9112 section 8)."""
        if self.ended:
            return
        self.error = error.reason
        self.plane.stats.refused(error)
        if self.status:
            self._end()
            self.down.abort()
        else:
            failures.refuse(self, error)

    def answer(self, status: int, response: bytes, *, keep: bool = True) -> None:
        """Give the proxy's own response."""
        if self.upstream is not None:
            self.upstream.abandon(self)
            self.upstream = None
        self.status = status
        self.first_byte = monotonic() - self.started
        self.down.transport.write(dated(response))
        self._end()
        self.down.ended(keep=keep and self.body.done and self.head.keeps_alive, linger=not self.body.done)

    def abort(self) -> None:
        """The client is gone."""
        if self._work is not None:
            self._work.cancel()
        if self.upstream is not None:
            self.upstream.abandon(self)
            self.upstream = None
        self._end()

    def _end(self) -> None:
        """Leave everything that knows of this exchange, and log it; once."""
        if self.ended:
            return
        self.ended = True
        self.bytes_in = self.bytes_in or self.body.size
        backend = ""
        if self.decision is not None:
            backend = self.decision.backend.name
            if self.decision.engine is not None:
                self.decision.engine.polls -= 1
                self.decision.engine.waiting.discard(self)
        self.plane.stats.answered(backend, self.head.method, self.status)
        if self.plane.access is not None:
            self.plane.access(self)

    def __repr__(self) -> str:
        method, path = self.head.method.decode("ascii"), self.head.path.decode("ascii")
        return f"<Exchange {method} {path} {self.decision} status={self.status} ended={self.ended}>"
