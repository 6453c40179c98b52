"""Sending sessions away from a backend that is to be empty, or from this proxy when it ends.

A session is *at rest* when its app is not answering, nothing of it is on its way or kept for its polls, and
no request of it but a waiting poll is open: then nothing is lost but the connection. Sent away, its
websockets are closed with 1012 and its polls told that their sid is unknown, so that its client connects
anew at once; where it goes then is the router's business.

Of several proxies that share their directory each moves the sessions that it has a connection of: it alone
sees what goes on there. The others are told, and end what is left of the session with them.
"""

from collections.abc import Collection, Iterator
from math import inf
from time import monotonic

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession
from proxy.affinity.session import Session
from proxy.borders import Border, Where
from proxy.dataplane.connection import Connection
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.leg import Leg
from proxy.dataplane.site import Site
from proxy.dataplane.tunnel import Tunnel

_LATELY = 5.0  # seconds: no longer is a client between two of its polls
_SHORT = 1.0  # seconds: a request that takes longer is waited for, whenever it came
_STALLED = 5.0  # seconds: who takes nothing for so long is not waited for
_ALL_BACK = 7.0  # seconds: Socket.IO's client tries to connect every 5 at least, until somebody accepts


class Evictions:
    """Looks at the connections of a plane, and ends those of a session; created by the plane."""

    def __init__(self, site: Site, connections: Collection[Connection], tunnels: Collection[Tunnel]) -> None:
        """All that are open, at any time."""
        self._site = site
        self._connections = connections
        self._tunnels = tunnels
        self.sent_away: dict[str, int] = {}  # sessions, by the backend they had to leave
        self.began = -inf  # since when clients can come to this process; set by the app

    @property
    def hands_over(self) -> bool:
        """Whether another backend goes on with who is sent away, and the client stays connected."""
        return self._site.hand_overs.are_on

    def sessions_on(self, backend: Backend) -> list[Session]:
        """The sessions that are open on a backend and were not sent away yet.

        Where other proxies share them, those whose connections come to this one.
        """
        router = self._site.router
        sessions = router.directory.on(backend)
        if sessions and router.shared:
            here = self._connected(monotonic() - _LATELY)
            sessions = [session for session in sessions if session in here]
        return sessions

    def forget_placed(self, backend: Backend) -> None:
        """Sessions that were placed on a backend and have not been there yet go elsewhere."""
        directory = self._site.router.directory
        for session in directory.placed_on(backend):
            directory.send_away(session)

    def is_empty(self, backend: Backend) -> bool:
        """Whether no session can be at a backend any more, and nothing is under way there.

        A process that has just begun does not know yet who was connected by the one before it.
        """
        began_before_us = not self._site.router.sole and (backend.holds_pins or not backend.health.met)
        if began_before_us and monotonic() - self.began < _ALL_BACK:
            return False
        if backend.tunnels or (backend.holds_pins and self.sessions_on(backend)):
            return False
        if self._site.hand_overs.counts.leave(backend):
            return False
        return not any(exchange.is_at(backend) for exchange in self._under_way())

    def at_rest(self, sessions: Collection[Session]) -> list[Session]:
        """Those of the sessions that lose nothing by connecting anew."""
        now = monotonic()
        if self._site.router.shared:  # what became of its last request may be known elsewhere only
            here = self._connected(now)
            sessions = [session for session in sessions if session in here]
        busy = self._busy(now)
        return [session for session in sessions if session not in busy]

    def somebody_is_busy(self, since: float) -> bool:
        """Whether somebody would lose something if the process ended.

        Requests without a session that began after `since` count only if they take long: there is no end of
        the short ones while clients come.
        """
        now = monotonic()
        latest = max(since, now - _SHORT)
        taking = [leg for leg in self.legs() if leg.has_unsent and leg.is_taking(now, _STALLED)]
        under_way = (
            exchange.request.started <= latest
            for exchange in self._under_way()
            if not exchange.request.is_poll
        )
        return bool(taking) or any(under_way) or any(self._busy(now))

    def legs(self) -> list[Leg]:
        """The transports of all clients."""
        return [*(each.leg for each in self._connections), *(tunnel.down for tunnel in self._tunnels)]

    def _busy(self, now: float) -> set[Session | None]:
        """The sessions that would lose something by connecting anew; None stands for those without one."""
        engines = self._site.router.engines
        busy: set[Session | None] = {*engines.owed(now - _LATELY), *engines.asking(now)}
        busy.update(tunnel.session for tunnel in self._tunnels if not tunnel.is_silent(now))
        for exchange in self._under_way():
            if exchange.decision is not None and not exchange.request.is_poll:
                busy.add(exchange.decision.session)
        answering = self._site.router.directory.answering()
        if answering:  # who polled and has gone says no farewell
            here = self._connected(now - _LATELY)
            busy.update(session for session in answering if session in here)
        return busy

    def _under_way(self) -> Iterator[Exchange]:
        """The requests that are under way."""
        for connection in self._connections:
            if connection.exchange is not None:
                yield connection.exchange

    def send_away(self, sessions: Collection[Session]) -> None:
        """Have the clients of these sessions connect anew, somewhere else if there is a choice."""
        for session in sessions:
            if session.backend is not None:
                name = session.backend.name
                self.sent_away[name] = self.sent_away.get(name, 0) + 1
            self._site.router.directory.send_away(session)
        self._part_with(set(sessions))

    def follow(self, session: Session) -> None:
        """Another proxy has sent the session away, or moved it: what leads to where it was ends here too."""
        self._part_with({session})

    def redirect(self, engine: EngineSession) -> None:
        """A transport has left its backend through another proxy: polls that wait there are asked anew."""
        for exchange in self._polls_of(engine):
            with Border(Where.MOVE):
                exchange.redirect()

    def end_polls(self, engine: EngineSession) -> None:
        """A transport goes on nowhere: its client is told."""
        for exchange in self._polls_of(engine):
            with Border(Where.MOVE):
                exchange.send_away()

    def _polls_of(self, engine: EngineSession) -> list[Exchange]:
        """Its polls that wait at a backend."""
        return [
            exchange
            for exchange in self._under_way()
            if exchange.request.is_poll
            and exchange.decision is not None
            and exchange.decision.engine is engine
        ]

    def let_polls_go(self, backend: Backend) -> None:
        """No further request reaches a backend: polls that wait there for news are better told at once.

        Or another backend goes on with their sessions.
        """
        for exchange in list(self._under_way()):
            session = exchange.decision.session if exchange.decision is not None else None
            if not exchange.is_at(backend) or (session is not None and session.in_turn):
                continue
            with Border(Where.MOVE):
                engine = exchange.decision.engine if exchange.decision is not None else None
                polls = engine is not None and exchange.request.is_poll
                if engine is not None and polls and self._site.hand_overs.has_polls(engine):
                    exchange.follow(engine)
                else:
                    exchange.send_away()

    def _connected(self, since: float) -> set[Session | None]:
        """The sessions that have a websocket here, a request under way, or had a poll after `since`."""
        polling = self._site.router.engines.in_use(since)
        return polling.union(tunnel.session for tunnel in self._tunnels)

    def _part_with(self, sessions: set[Session]) -> None:
        """End the connections of sessions that lead to where they live no more."""
        if not sessions:
            return
        for session in sessions:
            lingering = self._site.lingers.by_session.get(session)
            if lingering is not None:
                with Border(Where.MOVE):
                    lingering.end()
        moving = self._hand_polls_over(sessions)
        engines = self._site.router.engines.send_away(sessions, monotonic(), moving)
        # Another proxy tells when polls are to ask anew, and whom; until then they may still hear something.
        moving = {engine for engine in moving if not self._site.hand_overs.is_awaited(engine)}
        for connection in list(self._connections):
            exchange = connection.exchange
            if exchange is None or exchange.decision is None:
                continue
            with Border(Where.MOVE):
                engine = exchange.decision.engine
                if engine in engines:
                    exchange.send_away()
                elif engine is not None and engine in moving and exchange.request.is_poll:
                    exchange.follow(engine)
        for tunnel in list(self._tunnels):
            left = tunnel.session
            stale = left is not None and left in sessions and left.has_left(tunnel.pool.backend)
            goes_on = stale and self._site.hand_overs.send_away(tunnel)
            if not goes_on and (stale or (tunnel.engine is not None and tunnel.engine in engines)):
                tunnel.send_away()

    def _hand_polls_over(self, sessions: set[Session]) -> set[EngineSession]:
        """Have other backends go on with the transports of those that poll; return these."""
        engines = self._site.router.engines.of(sessions)
        return {
            engine
            for engine in engines
            if engine.session is not None
            and engine.session.has_left(engine.backend)
            and self._site.hand_overs.send_polls_away(engine)
        }

    def cut(self, backend: Backend, began: float = inf) -> None:
        """End requests at a backend that `began` before, and tunnels that belong to no session there.

        These are of the app's own making, or left behind by a client that is elsewhere by now. No lost client
        is waited for.
        """
        for exchange in list(self._under_way()):
            engine = exchange.decision.engine if exchange.decision is not None else None
            moves = engine is not None and engine.hand_over is not None  # its client must not connect anew
            if exchange.is_at(backend) and exchange.request.started < began and not moves:
                with Border(Where.MOVE):
                    exchange.expel()
        for lingering in list(self._site.lingers.by_session.values()):
            if lingering.pool.backend is backend:
                with Border(Where.MOVE):
                    lingering.end()
        for tunnel in list(self._tunnels):
            if (
                tunnel.hand_over is None
                and tunnel.pool.backend is backend
                and (tunnel.session is None or tunnel.session.has_left(backend))
            ):
                tunnel.send_away()

    def __repr__(self) -> str:
        return f"<Evictions {self.sent_away}>"
