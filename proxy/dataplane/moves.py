"""Sending sessions away from a backend that is to be empty, or from this proxy when it ends.

A session is *at rest* when its app is not answering, nothing of it is on its way and no request of it but
a waiting poll is open: then nothing is lost but the connection. Sent away, its websockets are closed with
1012 and its polls told that their sid is unknown, so that its client connects anew at once; where it goes
then is the router's business.
"""

from collections.abc import Collection
from time import monotonic
from typing import TYPE_CHECKING

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Session
from proxy.dataplane import polls

if TYPE_CHECKING:
    from proxy.dataplane.plane import Plane


class Moves:
    """Looks at the connections of a plane, and ends those of a session; created by the plane."""

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self.sent_away: dict[str, int] = {}  # sessions, by the backend they had to leave

    def sessions_on(self, backend: Backend) -> list[Session]:
        """The sessions that are open on a backend and were not sent away yet."""
        return self._plane.router.directory.on(backend)

    def forget_placed(self, backend: Backend) -> None:
        """Sessions that were placed on a backend and have not been there yet go elsewhere."""
        directory = self._plane.router.directory
        for session in directory.placed_on(backend):
            directory.send_away(session)

    def is_empty(self, backend: Backend) -> bool:
        """Whether nothing that lasts goes on at a backend."""
        return not backend.tunnels and not self.sessions_on(backend)

    def at_rest(self, sessions: Collection[Session]) -> list[Session]:
        """Those of the sessions that lose nothing by connecting anew."""
        now = monotonic()
        busy = {tunnel.session for tunnel in self._plane.tunnels if not tunnel.is_silent(now)}
        for connection in self._plane.connections:
            exchange = connection.exchange
            if exchange is not None and exchange.decision is not None and not exchange.is_poll:
                busy.add(exchange.decision.session)
        return [session for session in sessions if not session.in_turn and session not in busy]

    def send_away(self, sessions: Collection[Session]) -> None:
        """Have the clients of these sessions connect anew, somewhere else if there is a choice."""
        if not sessions:
            return
        wanted = set(sessions)
        router = self._plane.router
        for session in wanted:
            if session.backend is not None:
                name = session.backend.name
                self.sent_away[name] = self.sent_away.get(name, 0) + 1
            router.directory.send_away(session)
            lingering = self._plane.lingers.by_session.get(session)
            if lingering is not None:
                lingering.end()
        engines = router.engines.send_away(wanted, monotonic())
        for connection in list(self._plane.connections):
            exchange = connection.exchange
            if exchange is not None and exchange.decision is not None and exchange.decision.engine in engines:
                polls.send_away(exchange)
        for tunnel in list(self._plane.tunnels):
            if tunnel.session in wanted or (tunnel.engine is not None and tunnel.engine in engines):
                tunnel.send_away()

    def cut(self, backend: Backend) -> None:
        """End the tunnels on a backend that belong to no session; they are of the app's own making."""
        for tunnel in list(self._plane.tunnels):
            if tunnel.session is None and tunnel.pool.backend is backend:
                tunnel.send_away()

    def __repr__(self) -> str:
        return f"<Moves {self.sent_away}>"
