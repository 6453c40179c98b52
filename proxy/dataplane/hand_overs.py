"""Whether and how sessions are handed over from one instance to another; see `hand_over`.

Only where sessions are shared, or it is configured so: an instance that shares nothing holds nothing of a
session that was elsewhere. What is needed is kept from a connection's beginning: the head that opened it,
with its cookies, and its CONNECT packet, which may have keys of the user. It is shown to nobody, and gone
with the connection.
"""

from collections.abc import Callable, Collection

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession
from proxy.borders import Where, guarded
from proxy.config import Config
from proxy.config.values import HandOver as Mode
from proxy.dataplane import upstream_heads
from proxy.dataplane.far_polls import Awaited, FarPolls
from proxy.dataplane.hand_over import Place, Waits
from proxy.dataplane.hand_over_counts import Counts, Reason
from proxy.dataplane.poll_hand_over import PollHandOver
from proxy.dataplane.request import Request
from proxy.dataplane.tunnel import Tunnel
from proxy.dataplane.upstream_heads import Kept, PollHeads
from proxy.dataplane.websocket_hand_over import WebsocketHandOver
from proxy.errors import Limit

_LONGEST = 65536  # bytes of what is kept of one connection: `limits.head` and a CONNECT with a few keys
_MOST = 64 << 20  # bytes of all, of each kind: of heads those of 40,000 browsers that are logged in


class HandOvers:
    """All of them; owned by the Site."""

    def __init__(self, site: Place, config: Config) -> None:
        self._site = site
        self.counts = Counts()
        self._kept = 0  # bytes, at most: what has ended is found by `weigh`
        self.waits = Waits()
        self.far = far = FarPolls(site, self.waits, lambda: self.are_on)
        far.wanted = self._wanted
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

    def keep(self, tunnel: Tunnel, request: Request, connect: bytes = b"") -> None:
        """A websocket's session is known: keep what another instance has to be told.

        `request` is what opened it, `connect` its CONNECT packet, if that came over it and not in a POST.
        """
        engine = tunnel.engine
        if not connect and engine is not None:
            connect = self.far.connect_of(engine)
        if engine is not None and engine.kept is not None:
            tunnel.untaken = engine.untaken  # what it has said by polls may not have been taken either
        if not self.are_on or not connect or tunnel.session is None:
            return
        head = upstream_heads.upgrade_head(request, None)
        if self._has_room(len(head) + len(connect)):
            tunnel.kept = Kept(head, connect, tunnel.session.id)
            tunnel.keeper = self

    def keep_polls(self, engine: EngineSession, request: Request, connect: bytes) -> None:
        """As `keep`, of a polling transport whose CONNECT a POST brings."""
        if self.are_on:
            heads = PollHeads.of(request)
            self._kept -= _size(engine)  # what it has said before counts no more
            engine.kept = None
            if self._has_room(heads.size + len(connect)):
                engine.keep(connect, heads)
                self.far.connects(engine)

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes more may be kept."""
        if size > _LONGEST or self._kept + size > 2 * _MOST:  # `weigh` comes before that many can
            self._site.stats.limits[Limit.HAND_OVER_BYTES] += 1
            return False
        self._kept += size
        return True

    def weigh(self, tunnels: Collection[Tunnel]) -> None:
        """Find anew how much is kept, of these tunnels and of polls; called every few seconds."""
        polls = self._site.router.engines.kept()
        heads = [(each.kept.size, each.forget) for each in tunnels if each.kept is not None]
        heads += [(_size(engine), engine.forget) for engine in polls]
        self._kept = self._weigh(heads)
        self._weigh([(end.packets.waiting, end.let_pass) for each in tunnels if (end := each.waiting_client)])
        untaken = {*(each.untaken for each in tunnels), *(engine.untaken for engine in polls)}
        self._weigh([(each.size, each.let_go) for each in untaken])

    def _weigh(self, held: list[tuple[int, Callable[[], None]]]) -> int:
        """Let go of some, if too much is held: what is heaviest first. Return the bytes that are left."""
        size = sum(each for each, _ in held)
        if size <= _MOST:
            return size
        for each, let_go in sorted(held, key=lambda one: -one[0]):
            if size <= _MOST - _MOST // 8:
                break
            size -= each
            let_go()
            self._site.stats.limits[Limit.HAND_OVER_BYTES] += 1
        return size

    def lost(self, tunnel: Tunnel, *, ends: bool) -> WebsocketHandOver | None:
        """As Keeper."""
        if self._site.leaving or not self.are_on:
            return None
        is_down = not tunnel.pool.backend.holds_pins
        reason = Reason.ENDED if ends else Reason.DOWN if is_down else Reason.LOST
        return self._hand_over(tunnel, reason)

    def send_away(self, tunnel: Tunnel) -> bool:
        """Its session has to leave its backend: whether another goes on with it, or will."""
        if tunnel.hand_over is not None:
            return True
        old = tunnel.pool.backend
        if self._site.leaving or not self.are_on or not self._others_take(old) or not tunnel.can_move:
            return False
        tunnel.hand_over = self._hand_over(tunnel, Reason.SENT_AWAY)
        return True

    def has_polls(self, engine: EngineSession) -> bool:
        """Whether a polling transport is handed over; it is from now on, if its backend is lost."""
        if engine.hand_over is not None:
            return True
        if not engine.backend.holds_pins or (engine.session is not None and not engine.session.stays):
            away = engine.backend.holds_pins
            reason = Reason.SENT_AWAY if away else Reason.DOWN
            return self._hand_over_polls(engine, reason) or self.far.wish(engine, away=away)
        return False

    def is_awaited(self, engine: EngineSession) -> bool:
        """Whether another proxy hands it over, or was asked to."""
        return isinstance(engine.hand_over, Awaited)

    def polls_lost(self, engine: EngineSession) -> bool:
        """Its connection to the backend broke: whether another goes on, or the same."""
        return (
            engine.hand_over is not None
            or self._hand_over_polls(engine, Reason.LOST)
            or self.far.wish(engine, away=False)
        )

    def send_polls_away(self, engine: EngineSession) -> bool:
        """As `send_away`, of a transport that polls."""
        if engine.hand_over is not None or self.far.is_left_to(engine):
            return True
        return self._wanted(engine, away=True) or (
            self._others_take(engine.backend) and self.far.wish(engine, away=True)
        )

    def _wanted(self, engine: EngineSession, away: bool) -> bool:
        if not away:
            return self._hand_over_polls(engine, Reason.LOST)
        return self._others_take(engine.backend) and self._hand_over_polls(engine, Reason.SENT_AWAY)

    def _hand_over_polls(self, engine: EngineSession, reason: Reason) -> bool:
        may = not (engine.tunnels or engine.said) and engine.untaken.are_known
        may = may and engine.session is not None and bool(engine.connect)
        if not may or engine.kept is None or self._site.leaving or not self.are_on:
            return False
        if self._site.router.shared and not self.far.is_on:
            return False  # its other requests come to proxies that would not hear of it
        PollHandOver(self._site, self.waits, self.counts, engine, reason, self.far).begin()
        return True

    def _others_take(self, backend: Backend) -> bool:
        """Whether there is somebody else; else a session would come back to where it was at once."""
        return any(other.takes_sessions for other in self._site.router.fleet if other is not backend)

    def _hand_over(self, tunnel: Tunnel, reason: Reason) -> WebsocketHandOver:
        over = WebsocketHandOver(self._site, self.waits, self.counts, tunnel, reason)
        over.begin()
        return over

    def __repr__(self) -> str:
        return f"<HandOvers on={self.are_on} {self.waits!r}>"


def _size(engine: EngineSession) -> int:
    """Bytes that are kept of a polling transport."""
    return 0 if engine.kept is None else len(engine.connect) + engine.kept.size
