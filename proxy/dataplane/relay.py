"""The way up: an exchange's response, from its backend to its client, and however it ends.

What comes is passed on as it comes, at the client's pace. After 101 it becomes a tunnel. Whatever ends it, a
whole response, an error, our own answer or the client's leaving: `_end` leaves all that know of it, once.
"""

from math import inf
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision, EngineSession
from proxy.affinity.evidence import Kind
from proxy.affinity.pins import join_pin
from proxy.dataplane.client import Client
from proxy.dataplane.dialing import Dial
from proxy.dataplane.rehome import Connect
from proxy.dataplane.request import Request
from proxy.dataplane.request_body import NO_BODY, RequestBody
from proxy.dataplane.response_rewrites import HandshakeAnswer, Rewriter, Unchunked, pin_fields, timing_field
from proxy.dataplane.resuming import poll_answer, say_backlog
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel
from proxy.dataplane.upstream import Upstream
from proxy.errors import Limit, OverLimit, ProxyError, Side, UpstreamTimeout
from proxy.wire import reply
from proxy.wire.body import Framer
from proxy.wire.head import ResponseHead
from proxy.wire.turns import Ear, tells


class Relay:
    """What an exchange does with what comes back; as User of its connection to the backend."""

    # Set on the instance only where it differs.
    decision: Decision | None = None  # set when a backend was chosen
    upstream: Upstream | None = None  # set while a connection serves it
    status = 0  # of the response, 0 before its head has come
    first_byte = 0.0  # seconds from the request's head to the response's
    bytes_in = 0  # of the request's body, or from the client through the tunnel
    bytes_out = 0  # of the response's body, or from the backend through the tunnel
    tunnel: Tunnel | None = None  # set when the one that it became has ended
    ended = False
    error = ""  # why it was refused or cut off, for the log
    _draws = False  # whether the response is read at its client's pace
    _keep = True  # whether the client's connection serves another request after this one
    _inspected = False  # whether the body was read for its session
    connect: Connect | None = None  # set while it brings a CONNECT that is not answered
    _is_held = False  # whether it waits for somebody who can take it
    _watched = False  # whether its transport is not plain yet
    _waits_for_leave = False  # whether the client sends its body only when the backend tells it to
    _ear: Ear | None = None  # set while an answer to a poll tells of turns, or may in its next piece
    _asked: Backend | None = None  # set while a backend has to answer it at once
    _early: tuple[ResponseHead, Framer] | None = None  # set while a poll's head is here, and no body

    def __init__(self, site: Site, client: Client, request: Request) -> None:
        self.site, self.client = site, client
        self.request = request
        self._work: Dial | None = None  # the latest that was awaited for it
        self._rewriter: Rewriter | None = None  # set when the response's body is changed
        fields = request.head.fields
        self.body = RequestBody(fields, site.limits.body) if fields.chunked or fields.length else NO_BODY

    @property
    def backend(self) -> Backend:
        """The backend that was chosen."""
        assert self.decision is not None
        return self.decision.backend

    @property
    def _engine(self) -> EngineSession | None:
        return self.decision.engine if self.decision is not None else None

    def informed(self, head: ResponseHead) -> None:
        """As User: relay a 1xx response to those who know them."""
        if head.status == 100:
            if self._inspected:
                return  # it has had its leave
            self._waits_for_leave = False
            self.turn()
        if self.request.head.minor == 1:
            self.client.inform(self.request, head)
            if self.upstream is not None:  # there may be many of them
                self._draws = True
                self.client.draw_from(self.upstream.leg)

    def responded(self, head: ResponseHead, framer: Framer, data: bytes) -> None:
        """As User: the head came.

        An instance that is lost between a poll's head and its body has said nothing, so another may go on.
        """
        request, site, engine = self.request, self.site, self._engine
        done, sid = framer.done, request.sid
        if sid is not None and not data and not done:
            self._early = head, framer
            return
        self._got_head(head)
        if not (request.head.keeps_alive and self.body.done and (done or _is_framed(head))):
            self._keep = False
        if sid is None or self._watched or request.head.minor == 0 or site.timing:
            self._begin(head, data)
        else:
            self.pass_head(head, data)
        # What is not all of the answer may tell of an app's turn in the next piece.
        if engine is not None and self._rewriter is None and (not done or tells(data, engine.streamed_mark)):
            self.note_turns(data)
        if done:
            self._whole()
        elif self.upstream is not None:
            self._draws = True
            self.client.draw_from(self.upstream.leg)

    def _begin(self, head: ResponseHead, data: bytes, extra: bytes = b"") -> None:
        """Pass on a response that may have to be changed; `extra` are further lines of its head."""
        request, site, decision = self.request, self.site, self.decision
        assert decision is not None
        if self.connect is not None:
            self.connect.answered(site.router, head.status)
            self.connect = None
        if self._watched and head.status == 400 and decision.engine is not None:
            site.router.engines.forget(decision.engine)  # its sid is made up, or is over
        extra += timing_field(decision, self.first_byte) if site.timing else b""
        if site.config.affinity.cookie.enabled:
            extra = pin_fields(request, head, decision.backend, site.router.fleet, site.cookie_name) + extra
        opens = head.status == 200 and request.is_handshake
        if opens or request.head.method == b"OPTIONS":
            site.cross_site.learn(request, head)
        if opens:
            self._rewriter = HandshakeAnswer(self, head, extra, site.config.health.evict_after)
        elif request.is_poll and head.status == 200 and self._watched:
            self._rewriter = poll_answer(self, site, request, head, data, decision.engine)
        elif head.fields.chunked and request.head.minor == 0 and request.head.method != b"HEAD":
            self._keep = False  # the end of the connection ends the body
            self._rewriter = Unchunked(self, head, extra)
        if self._rewriter is None:
            self.pass_head(head, data, extra)
        else:
            self._rewriter.take(data)

    def opened(self, sid: bytes, overdue: float) -> bytes:
        """As HandshakeSink."""
        site, backend = self.site, self.backend
        site.pool(backend).ping_overdue = overdue
        site.paths.opened(self.request.head.path)
        site.router.engines.opened(sid, backend, monotonic())
        return join_pin(backend.token, sid)

    def received(self, data: bytes) -> None:
        """As User: more of the body came."""
        if self._early is not None:
            (head, framer), self._early = self._early, None
            self.responded(head, framer, data)
            return
        if self._rewriter is not None:
            self._rewriter.take(data)
        else:
            self.pass_data(data)
            if self._ear is not None:
                self.note_turns(data)
        assert self.upstream is not None
        if self.upstream.body_done:
            self._whole()

    def pass_head(
        self,
        head: ResponseHead,
        data: bytes,
        extra: bytes = b"",
        length: int | None = None,
        *,
        unpacked: bool = False,
    ) -> None:
        """As Sink."""
        self.bytes_out += len(data)
        close = not self._keep or self.site.leaving
        self.client.respond(
            self.request, head, data, close=close, extra=extra, length=length, unpacked=unpacked
        )

    def pass_data(self, data: bytes) -> None:
        """As Sink."""
        self.bytes_out += len(data)
        self.client.write(data)

    def _say_backlog(self, engine: EngineSession) -> None:
        """Answer a poll with what its transport still has."""
        self.status = 200
        self.first_byte = monotonic() - self.request.started
        self._keep = self.body.done and self.request.head.keeps_alive
        say_backlog(self, engine, self.site.router)

    def note_turns(self, data: bytes) -> None:
        """As Sink: an answer to a poll may tell of turns; its next poll may come to another proxy."""
        engine = self._engine
        if engine is None or (session := engine.session) is None:
            return
        ear = self._ear = self._ear or Ear()
        events = ear.hear(data)
        for begins in events:
            session.hear(monotonic(), begins=begins)
            engine.untaken.hear(begins=begins)
            self.site.hand_overs.far.turns(engine, begins=begins)
        if ear.streamed and ear.streamed != engine.streamed:
            engine.streams(ear.streamed)
            self.site.hand_overs.far.streams(engine)
        if events:
            self.site.shared.turn(session)

    def _got_head(self, head: ResponseHead) -> None:
        self.status = head.status
        self.first_byte = first_byte = monotonic() - self.request.started
        if self._asked is not None:
            self._asked.answered(self.request.started + first_byte)
            self._asked = None
            self.site.stats.prompt[self.backend.name].add(first_byte)
        self.site.stats.first_byte[self.backend.name].add(first_byte)
        if self.body.done:
            self.client.deadline = inf
        else:
            self.turn()

    def _whole(self) -> None:
        """The response is whole."""
        upstream, self.upstream = self.upstream, None
        is_spare = self.request.wants_upgrade and self.site.pool(self.backend).has_idle
        if upstream is not None and (is_spare or not self.body.done):
            upstream.spoil()
        rewriter, self._rewriter = self._rewriter, None  # which keeps this as its sink
        all_said = rewriter is None or rewriter.finish()
        if self._draws:
            self.client.draw_from(None)  # the connection is for others now, however slow this client is
        if all_said:
            self.close_up()

    def close_up(self) -> None:
        """The response is said: the client's connection is free."""
        self._end()
        self.client.ended(keep=self._keep, linger=not self.body.done)

    def failed(self, error: ProxyError) -> None:
        """As User: the backend's connection broke or broke the protocol."""
        self.upstream = self._early = None
        self.client.draw_from(None)
        self.site.report(self.backend, error)
        self._recover(error)

    def refuse(self, error: ProxyError) -> None:
        """Answer with an error; if part of a response is out, cut it off (RFC 9112 section 8)."""
        if self.ended:
            return
        self.error = error.reason
        self.site.stats.refused(error)
        if self.status:
            self._leave_upstream()
            self._end()
            self.client.cut()
            return
        head = self.request.head
        shown = b"text/html" in (head.fields.get(b"accept") or b"") and head.method == b"GET"
        answer = reply.error(
            error.status,
            error.public_reason or error.reason,
            wants_page=shown and self.request.kind is not Kind.SOCKETIO,
            retry_after=error.retry_after,
        )
        broken = error.side is Side.DOWNSTREAM and not error.retry_after
        self._answer(self.site.cross_site.leave(self.request) or answer, close=broken)

    def _broke(self) -> None:
        """What was to be done for it failed by a fault of ours."""
        self.refuse(ProxyError("internal error"))

    def tell_unknown(self) -> None:
        """Answer that the sid is unknown: Engine.IO's client closes its transport and opens another."""
        self._answer(reply.UNKNOWN)

    def _answer(self, answer: reply.Reply, *, close: bool = False) -> None:
        """Give our own response. It says if the connection ends: by `close`, its client or an unread body."""
        request = self.request
        answer = self.site.cross_site.readable(request, answer)
        close = close or not self.body.done or not request.head.keeps_alive
        self._leave_upstream()
        self.status = answer.status
        self.first_byte = monotonic() - request.started
        self.client.answer(request, answer, close=close)
        self._end()
        self.client.ended(keep=not close, linger=not self.body.done)

    def send_away(self) -> None:
        """The session has to leave: a poll that waits for news is told that its sid is unknown."""
        if self.request.is_poll and not self.status and not self.ended:
            self.tell_unknown()

    def is_at(self, backend: Backend) -> bool:
        """Whether a backend has it, or is to get it."""
        return self.decision is not None and self.decision.backend is backend and not self.ended

    def expel(self) -> None:
        """Its backend is to be empty now: whatever has come of the answer, no more will."""
        self.send_away()
        if not self.ended:
            self.refuse(ProxyError("the backend was taken out of service", status=503))

    def abort(self) -> None:
        """The client is gone."""
        if self._work is not None:
            self._work.cancel()
        self._leave_upstream()
        self._end()

    def _leave_upstream(self) -> None:
        """Whatever still comes of the response, nobody wants it."""
        upstream, self.upstream = self.upstream, None
        self._early = None
        if upstream is not None:
            upstream.abandon(self)
            self.client.draw_from(None)

    def _end(self) -> None:
        """Leave everything that knows of this exchange, and log it; once."""
        if self.ended:
            return
        self.ended = True
        if self._is_held and self._work is not None:
            self._work.cancel()  # its place among those that are held is free
        if self._asked is not None:
            self._asked.given_up()
        self.bytes_in = self.bytes_in or self.body.size
        backend, decision = "", self.decision
        if decision is not None:
            backend, engine = decision.backend.name, decision.engine
            if engine is not None:
                engine.polls -= 1
                if self.tunnel is None:
                    engine.seen = monotonic()
                if engine.waiting:
                    engine.waiting.discard(self)
        site = self.site
        if self.connect is not None:
            self.connect.ended(site.router)
        site.stats.answered(backend, self.request.head.method, self.status)
        if site.access is not None:
            site.access(self)

    # Who is late

    def turn(self) -> None:
        """It may be another's turn now, the client's or the backend's: whose it is has all of its time.

        A backend that has begun to answer may take any time; its client goes on with a body as before.
        """
        timeouts = self.site.timeouts
        if not self.body.done and self._wants_body:
            self.client.deadline = monotonic() + timeouts.body
        else:
            self.client.deadline = inf if self.status or self._is_held else monotonic() + timeouts.response

    @property
    def _wants_body(self) -> bool:
        """Whether it is the client's turn: it may send, and we or its backend take what it sends."""
        ready = self.upstream is not None or self.body.is_inspected or self.decision is None
        return ready and not (self.body.done or self._waits_for_leave or self.client.paused)

    def late(self) -> None:
        """The deadline has passed."""
        if self._wants_body:
            self.refuse(OverLimit(Limit.SLOW_BODY, "request body too slow", status=408))
            return
        error = UpstreamTimeout("no response in time")
        if self.decision is not None:
            self.site.report(self.backend, error)
        self.refuse(error)

    def redirect(self) -> None:
        """As Waiting: this poll's transport has moved to another backend, ask there."""
        raise NotImplementedError

    def decided(self) -> None:
        """As Waiting: this poll's transport stays."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """As User."""
        raise NotImplementedError

    def choose(self, decision: Decision) -> None:
        """Take a decision."""
        raise NotImplementedError

    def _recover(self, error: ProxyError) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Exchange {self.request!r} {self.decision} status={self.status} ended={self.ended}>"


def _is_framed(head: ResponseHead) -> bool:
    """Whether the body's end is told in its head, and not by the connection's."""
    return head.fields.length is not None or head.fields.chunked
