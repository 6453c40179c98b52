"""Whether and how sessions are handed over from one instance to another; see `hand_over`.

Only where sessions are shared, or it is configured so: an instance that shares nothing holds nothing of a
session that was elsewhere. What is needed is kept from a connection's beginning: the head that opened it, with
its cookies, and its CONNECT packet, which may have keys of the user. It is shown to nobody, and gone with the
connection.
"""

import logging
from collections import Counter
from collections.abc import Callable

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.borders import Where, guarded
from proxy.config import Config
from proxy.config.values import HandOver as Mode
from proxy.dataplane import upstream_heads
from proxy.dataplane.hand_over import Counts, HandOver, Place, Reason, Result, Waits
from proxy.dataplane.request import Request
from proxy.dataplane.tunnel import Kept, Tunnel
from proxy.dataplane.websocket_hand_over import WebsocketHandOver

log = logging.getLogger("proxy.dataplane")

_LONGEST = 65536  # bytes of what is kept of one connection: `limits.head` and a CONNECT with a few keys


class HandOvers:
    """All of them; owned by the Site."""

    def __init__(self, site: Place, config: Config) -> None:
        self._site = site
        self.counts = Counts()
        self.waits = Waits()
        self.shared = False  # whether conversations outlive their instance; set by who knows
        self.configure(config)
        site.router.fleet.listen(guarded(Where.LISTENER, self.waits.changed))

    def configure(self, config: Config) -> None:
        """Go by another configuration."""
        self._mode = config.affinity.hand_over
        self.waits.hold = config.affinity.hold

    @property
    def are_on(self) -> bool:
        """Whether sessions are handed over."""
        return self._mode is Mode.ALWAYS or (self._mode is Mode.AUTO and self.shared)

    def keep(self, tunnel: Tunnel, request: Request, connect: bytes | None) -> None:
        """A websocket's session is known: keep what another instance has to be told.

        `request` is what opened it, `connect` its CONNECT packet, if it came through this process.
        """
        if not self.are_on or connect is None or tunnel.session is None:
            return
        head = upstream_heads.upgrade_head(request, None)
        if len(head) + len(connect) <= _LONGEST:
            tunnel.kept = Kept(head, connect, tunnel.session.id)
            tunnel.keeper = self

    def lost(self, tunnel: Tunnel, *, ends: bool) -> HandOver | None:
        """As Keeper."""
        return None
