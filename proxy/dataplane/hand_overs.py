"""Whether and how sessions are handed over from one instance to another; see `hand_over`.

Only where sessions are shared, or it is configured so: an instance that shares nothing holds nothing of a
session that was elsewhere. What is needed is kept from a connection's beginning: the head that opened it, with
its cookies, and its CONNECT packet, which may have keys of the user. It is shown to nobody, and gone with the
connection.
"""

from collections.abc import Callable

from proxy.borders import Where, guarded
from proxy.config import Config
from proxy.config.values import HandOver as Mode
from proxy.dataplane import upstream_heads
from proxy.dataplane.hand_over import Counts, Place, Reason, Waits
from proxy.dataplane.request import Request
from proxy.dataplane.tunnel import Kept, Tunnel
from proxy.dataplane.websocket_hand_over import WebsocketHandOver

_LONGEST = 65536  # bytes of what is kept of one connection: `limits.head` and a CONNECT with a few keys


class HandOvers:
    """All of them; owned by the Site."""

    def __init__(self, site: Place, config: Config) -> None:
        self._site = site
        self.counts = Counts()
        self.waits = Waits()
        self.is_shared: Callable[[], bool] = lambda: False  # whether conversations outlive their instance
        self.configure(config)
        site.router.fleet.listen(guarded(Where.LISTENER, self.waits.changed))

    def configure(self, config: Config) -> None:
        """Go by another configuration."""
        self._mode = config.affinity.hand_over
        self.waits.hold = config.affinity.hold

    @property
    def are_on(self) -> bool:
        """Whether sessions are handed over."""
        return self._mode is Mode.ALWAYS or (self._mode is Mode.AUTO and self.is_shared())

    def keep(self, tunnel: Tunnel, request: Request, connect: bytes) -> None:
        """A websocket's session is known: keep what another instance has to be told.

        `request` is what opened it, `connect` its CONNECT packet, if it came through this process.
        """
        if not self.are_on or not connect or tunnel.session is None:
            return
        head = upstream_heads.upgrade_head(request, None)
        if len(head) + len(connect) <= _LONGEST:
            tunnel.kept = Kept(head, connect, tunnel.session.id)
            tunnel.keeper = self

    def lost(self, tunnel: Tunnel, *, ends: bool) -> WebsocketHandOver | None:
        """As Keeper."""
        if self._site.leaving:
            return None
        is_down = not tunnel.pool.backend.holds_pins
        reason = Reason.ENDED if ends else Reason.DOWN if is_down else Reason.LOST
        return self._hand_over(tunnel, reason)

    def send_away(self, tunnel: Tunnel) -> bool:
        """Its session has to leave its backend: whether another goes on with it, or will."""
        if tunnel.hand_over is not None:
            return True
        old = tunnel.pool.backend
        others = any(other.takes_sessions for other in self._site.router.fleet if other is not old)
        if self._site.leaving or not others or not tunnel.can_move:
            return False
        tunnel.hand_over = self._hand_over(tunnel, Reason.SENT_AWAY)
        return True

    def _hand_over(self, tunnel: Tunnel, reason: Reason) -> WebsocketHandOver:
        over = WebsocketHandOver(self._site, self.waits, self.counts, tunnel, reason)
        over.begin()
        return over

    def __repr__(self) -> str:
        return f"<HandOvers on={self.are_on} {self.waits!r}>"
