"""The poll POST that carries a CONNECT packet: where its session lives, and moving its transport there.

The handshake went to a backend by a guess. If CONNECT names a session of another backend, a new Engine.IO
session is opened there with this client's own fields, its OPEN packet is swallowed, the client's sid
becomes an alias of the new one, and whatever of this transport waits at the wrong backend (a poll, a
websocket in the middle of its upgrade) is asked again at the right one. Then the POST goes there too.
"""

from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.decision import Decision
from proxy.affinity.engine import EngineSession
from proxy.affinity.router import Asked, Locate, Located
from proxy.dataplane import requests
from proxy.dataplane.fetch import fetch
from proxy.errors import BadResponse, NoBackend, ProxyError, Retry
from proxy.wire.engineio import open_sid

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


def read_post(exchange: "Exchange", session_id: str | None) -> None:
    """A POST has been read: go on with the session that it names, if it is the first of its transport."""
    engine = exchange.decision.engine if exchange.decision else None
    if engine is not None and not engine.decided:
        if session_id:
            _connect(exchange, session_id)
            return
        # CONNECT is the first thing a Socket.IO client says: this transport had it elsewhere.
        exchange.plane.router.engines.decide(engine, None)
    exchange.send()


def _connect(exchange: "Exchange", session_id: str, located: Located = Asked.NOT_YET) -> None:
    router, engine = exchange.plane.router, _engine(exchange)
    try:
        decision = router.connect(session_id, engine.backend, monotonic(), located)
    except NoBackend as error:
        exchange.refuse(error)
        return
    if isinstance(decision, Locate):
        exchange.locate(decision, lambda found: _connect(exchange, session_id, found))
        return
    if decision.backend is not engine.backend and router.shared and not exchange.plane.shared.up:
        # Its other requests come to other proxies, which would go on where the handshake went: better a
        # session that begins anew, or is taken over, than a client that cannot connect.
        decision = router.accept(session_id, engine.backend, monotonic()) or decision
    exchange.plane.stats.decided(decision.evidence, decision.outcome)
    if decision.backend is engine.backend:
        router.engines.decide(engine, decision.session)
        exchange.choose(_with_engine(decision, engine))
        exchange.send()
    else:
        exchange.spawn(_move(exchange, decision, session_id))


async def _move(exchange: "Exchange", decision: Decision, session_id: str) -> None:
    plane, engine = exchange.plane, _engine(exchange)
    try:
        sid = await _open(exchange, decision)
    except ProxyError as error:
        plane.failed(decision.backend, error)
        if exchange.ended:
            return
        if decision.backend.holds_pins or error.retry is not Retry.IF_UNSENT:
            # It may only be slow, or it broke by this: the client closes its transport and tries again.
            exchange.refuse(error)
        else:
            _connect(exchange, session_id)
        return
    if exchange.ended:
        return
    plane.stats.rehomes += 1
    plane.router.engines.rehome(engine, decision.backend, sid)
    plane.router.engines.decide(engine, decision.session)
    exchange.choose(_with_engine(decision, engine))
    exchange.send()


async def _open(exchange: "Exchange", decision: Decision) -> bytes:
    """Open an Engine.IO session by polling at the decision's backend: its sid."""
    plane = exchange.plane
    response, body = await fetch(
        plane.pool(decision.backend),
        b"GET",
        requests.handshake_head(exchange),
        plane.timeouts.response,
    )
    sid = open_sid(body) if response.status == 200 else None
    if sid is None:
        raise BadResponse(f"the backend answered {response.status} to a handshake")
    return sid


def _engine(exchange: "Exchange") -> EngineSession:
    assert exchange.decision is not None
    assert exchange.decision.engine is not None
    return exchange.decision.engine


def _with_engine(decision: Decision, engine: EngineSession) -> Decision:
    return Decision(decision.backend, decision.evidence, decision.outcome, decision.session, engine)
