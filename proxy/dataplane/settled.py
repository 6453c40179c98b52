"""A poll of a transport that has settled at its backend: what nearly all requests are.

Nothing of what an exchange may have to do is in question here: the sid leads straight to the backend, the
body is there, neither side's connection ends with it. So the way down and the way up are two short methods;
wherever something is not as usual, before the request is sent or after, the exchange's own methods go on.
"""

from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.decision import Decision
from proxy.affinity.engine import EngineSession
from proxy.affinity.evidence import Kind
from proxy.dataplane import polls
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.request_body import MOST_HELD, NO_BODY, RequestBody
from proxy.errors import OddId, OverLimit
from proxy.wire.body import Framer
from proxy.wire.engineio import connect_in_payload, may_connect, query_sid
from proxy.wire.forwarding import Variant, plain_answer
from proxy.wire.head import RequestHead, ResponseHead
from proxy.wire.turns import GZIP, TASK

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.seen import Known


class SettledPoll(Exchange):
    """A GET or a POST with the sid of a settled transport; made by `settled`."""

    kind = Kind.SOCKETIO
    decision: Decision

    def __init__(
        self, down: "Downstream", head: RequestHead, known: "Known", engine: EngineSession, target: bytes
    ) -> None:
        """`target` is what the backend is asked for."""
        # The attributes of Exchange, without its questions.
        self.down = down
        self.plane = plane = down.plane
        self.head = head
        self.known = known
        self.request_id = known.request_id or plane.request_id()
        self.started = monotonic()
        self.body = RequestBody(head.fields, plane.limits.body) if head.fields.length else NO_BODY
        self.sid = engine.pinned
        self.decision = engine.decision  # type: ignore[assignment]  # `settled` has looked
        self._target = target

    def start(self, rest: bytes) -> bytes:
        """As Exchange."""
        body, plane, decision = self.body, self.plane, self.decision
        if body is not NO_BODY:
            part, rest = body.feed(rest)
            body.hold(part)
        engine = decision.engine
        assert engine is not None
        engine.seen = self.started
        engine.polls += 1
        plane.stats.sid_pinned += 1
        if body is not NO_BODY and may_connect(body.whole):
            try:
                connect_in_payload(body.whole, plane.limits.packets)
            except (OddId, OverLimit) as error:
                self.refuse(error)
                return b""
        upstream = plane.pool(decision.backend).take()
        if upstream is None:
            self.send()
            return rest
        self._attempt = 1
        self.upstream = upstream
        down = self.down
        if down.paused:
            down.resume()
        head, known = self.head, self.known
        block = known.blocks.get(Variant.NORMAL) or down.block(head, known, Variant.NORMAL)
        upstream.send(
            self,
            head.method,
            b"%b %b HTTP/1.1\r\n%bX-Request-ID: %b\r\n\r\n%b"
            % (head.method, self._target, block, self.request_id, body.whole),
        )
        down.deadline = self.started + plane.timeouts.response
        return rest

    def responded(self, head: ResponseHead, framer: Framer, data: bytes) -> None:
        """As Exchange."""
        plane, down = self.plane, self.down
        answer = plain_answer(head)
        if (
            not (framer.done and answer and down.writable)
            or plane.leaving
            or plane.lingers.by_session
            or plane.timing
        ):
            super().responded(head, framer, data)
            return
        if TASK in data or GZIP in data:
            polls.note_turn(self, data)
        opening, ending = answer
        down.transport.write(b"".join((opening, self.request_id, ending, data)))
        self._got_head(head)
        self.bytes_out = len(data)
        self.upstream = None
        self.close_up()


def settled(down: "Downstream", head: RequestHead, known: "Known", size: int) -> SettledPoll | None:
    """The exchange of a poll that needs no more than this file has; `size` bytes came behind its head."""
    fields, query = head.fields, head.query
    sid = query_sid(query) if fields.usual and head.minor else None
    engine = down.plane.router.engines.settled.get(sid) if sid else None
    if engine is None:
        return None
    decision, method, length = engine.decision, head.method, fields.length or 0
    plain = not length if method == b"GET" else method == b"POST" and length <= min(size, MOST_HELD)
    if (
        not plain
        or 0 < down.plane.limits.body < length
        or not isinstance(decision, Decision)
        or not decision.backend.holds_pins
        or not down.plane.paths.is_socketio(head.path)
    ):
        return None
    target = head.target.replace(b"sid=" + engine.pinned, b"sid=" + engine.upstream_sid, 1)
    return SettledPoll(down, head, known, engine, target)
