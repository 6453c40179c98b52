"""101: an exchange becomes a tunnel, and is told of when that has ended."""

import asyncio
from time import monotonic
from typing import cast

from proxy.affinity.decision import EngineSession
from proxy.affinity.evidence import Kind
from proxy.dataplane.chosen import Chosen
from proxy.dataplane.compressed import Compressed
from proxy.dataplane.inspection import LONGEST_PAYLOAD
from proxy.dataplane.leg import Leg
from proxy.dataplane.opening import Opening
from proxy.dataplane.resuming import resumes
from proxy.dataplane.tunnel import Tunnel
from proxy.errors import BadResponse
from proxy.wire.deflate import Agreed, Deflater, Inflater, agree
from proxy.wire.head import ResponseHead


class Upgrade(Chosen):
    """What an exchange does that switches protocols; as Owner of its tunnel."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """As User: 101, the exchange becomes a tunnel. Raises BadResponse if it asked for none.

        RFC 9110 section 7.8: a client may offer several protocols; the answer is one of them.
        """
        request, site, engine = self.request, self.site, self._engine
        chosen = head.fields.upgrade.lower()
        offered = [member.strip(b" \t") for member in request.head.fields.upgrade.lower().split(b",")]
        if not (request.wants_upgrade and chosen and chosen in offered):
            raise BadResponse("the backend switched to a protocol that was not asked for")
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        self._got_head(head)
        if engine is not None:
            engine.waiting.discard(self)  # from here on the opening waits
        is_websocket = chosen == b"websocket"
        agreed = self._agree(head) if is_websocket else None
        self._begin(head, b"", b"" if agreed is None else agreed.field)
        pool = site.pool(self.backend)
        pool.release(upstream)
        down, early = self.client.hand_over()
        between = None if agreed is None else self._compress(down, agreed)
        tunnel = Tunnel(down, upstream.leg, pool, self, site.timeouts, site.lingers)
        tunnel.websocket, tunnel.engine, tunnel.between = is_websocket, engine, between
        if tunnel.websocket and request.kind is Kind.SOCKETIO:
            tunnel.stats = site.stats
        site.stats.tunnels += 1
        if engine is not None:
            engine.tunnels += 1
        self.client.tunnel_opened(tunnel)
        if between is not None:
            between.serve(tunnel, early)
            early = b""
        if request.kind is Kind.SOCKETIO and self._opens(engine):
            Opening(site, self, request, tunnel).start(rest, early)
            return
        if engine is not None and engine.session is not None:
            tunnel.session = engine.session
            site.router.directory.opened(engine.session)
        if rest:
            down.write(rest)
        if engine is not None:
            site.hand_overs.keep(tunnel, request)
        self.let_go()
        tunnel.plain(early, upgraded=engine is None)

    def _agree(self, head: ResponseHead) -> Agreed | None:
        """How messages to the client are compressed; None: they are not.

        Only where the backend was offered none, and speaks of none.
        """
        request, name = self.request, b"sec-websocket-extensions"
        if not self.site.config.websocket.compress or request.kind is not Kind.SOCKETIO:
            return None
        return None if head.fields.get(name) is not None else agree(request.head.fields.get_all(name))

    def _compress(self, down: Leg, agreed: Agreed) -> Compressed:
        """From now on what is written to the client is compressed, and what it says is made plain."""
        site = self.site
        site.stats.compressed += 1
        inflater = Inflater(max(LONGEST_PAYLOAD, site.limits.inspect))
        deflater = Deflater(agreed, site.contexts)
        between = Compressed(down.transport, deflater, inflater, site.stats, paused=down.paused)
        down.transport = cast("asyncio.Transport", between)
        return between

    def _opens(self, engine: EngineSession | None) -> bool:
        """Whether something has to be known or said before it is a plain tunnel."""
        if engine is None or not engine.decided or resumes(self.site.lingers, engine):
            return True
        return self.site.hand_overs.far.hopes_for(engine)

    def let_go(self) -> None:
        """The websocket is a plain tunnel, for hours: what was read of its fields is needed no more."""
        self.request.let_go()

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """As Owner: the tunnel that it became has ended."""
        self.tunnel, (self.bytes_in, self.bytes_out) = tunnel, tunnel.received
        site, now = self.site, monotonic()
        site.stats.tunnel_lives[tunnel.pool.backend.name].add(now - self.request.started)
        if tunnel.session is not None:
            site.router.directory.closed(tunnel.session, now)
        if tunnel.engine is not None:
            tunnel.engine.tunnels -= 1
            site.router.engines.upgrade_ended(tunnel.engine, now)
        self.client.tunnel_closed(tunnel)
        self._end()
