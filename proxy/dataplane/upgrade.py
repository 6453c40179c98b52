"""101: an exchange becomes a tunnel; a Socket.IO websocket is watched until its session is known."""

from functools import partial
from typing import TYPE_CHECKING

from proxy.affinity.evidence import Kind
from proxy.dataplane import responses
from proxy.dataplane.guarded import ClientEnd
from proxy.dataplane.opening import Opening, let_go
from proxy.dataplane.tunnel import Tunnel
from proxy.dataplane.upstream import Upstream
from proxy.errors import BadResponse
from proxy.wire.forwarding import response_head
from proxy.wire.head import ResponseHead

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


def check(exchange: "Exchange", head: ResponseHead) -> None:
    """Raise BadResponse for a 101 to a protocol that was not asked for (RFC 9110 section 15.2.2).

    A client may offer several (section 7.8); the answer is one of them.
    """
    asked = {member.strip(b" \t") for member in exchange.head.fields.upgrade.lower().split(b",")} - {b""}
    if not exchange.wants_upgrade or head.fields.upgrade.lower() not in asked:
        raise BadResponse("a switch to a protocol that was not asked for")


def switch(exchange: "Exchange", upstream: Upstream, head: ResponseHead, rest: bytes) -> None:
    """The backend has switched protocols; `rest` came behind its head."""
    asked = exchange.head
    extra = responses.own_fields(exchange, head)
    down = exchange.down.transport
    down.write(response_head(head, asked, exchange.request_id, close=False, extra=extra))
    plane = exchange.plane
    pool = plane.pool(exchange.backend)
    pool.release(upstream)
    early = exchange.down.hand_over()
    tunnel = Tunnel(down, upstream.transport, pool, plane.timeouts.tunnel_idle, exchange.tunnel_closed)
    tunnel.websocket = head.fields.upgrade.lower() == b"websocket"
    if tunnel.websocket and exchange.kind is Kind.SOCKETIO:
        tunnel.client_end = partial(ClientEnd, refused=plane.stats.refused)
    tunnel.client, exchange.down.client = exchange.down.client, ""
    tunnel.dropped, tunnel.app_end = plane.lingers.take, plane.app_end
    engine = tunnel.engine = exchange.decision.engine if exchange.decision else None
    plane.open_tunnel(tunnel)
    if exchange.kind is Kind.SOCKETIO and (engine is None or not engine.decided):
        Opening(exchange, tunnel).start(rest, early)
        return
    if engine is not None and engine.session is not None:
        tunnel.session = engine.session
        plane.router.directory.opened(engine.session)
    if rest:
        down.write(rest)
    let_go(exchange)
    tunnel.plain(early)
