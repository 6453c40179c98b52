"""Clients that are lost once more while the CONNECT of their session is on its way.

Their instance may take it, and speak there from then on to the session, for which something is kept already.
So the backend's side is heard until it answers. Until then it may be anybody's, and gets nothing.
"""

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from proxy.affinity.claims import Claim
from proxy.affinity.decision import EngineSession
from proxy.affinity.lingering import is_connected
from proxy.affinity.session import Session
from proxy.dataplane.linger import Ask, Clientless, Dropped, Lingers
from proxy.dataplane.patience import Timer
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.wire.engineio import CONNECT_ERROR, MAIN, packet_head
from proxy.wire.websocket import TEXT, FrameError, FrameReader


class Lost(Dropped, Protocol):
    """The tunnel of such a client."""

    engine: EngineSession | None

    def leave(self) -> None:
        """Somebody else has its backend's side."""
        ...


def keep(site: Site, tunnel: Lost, claim: Claim, request: Request, sid: bytes, unread: bytes) -> bool:
    """Keep the backend's side of a tunnel; return whether that is done.

    `claim` is that of its CONNECT, `sid` its transport's; `unread` has come of the backend's next message.
    Where nothing is kept of its session nobody waits for it.
    """
    session = site.router.directory.get(claim.session_id, monotonic())
    if session not in site.lingers.by_session or site.lingers.has_many_coming or tunnel.up.is_closing():
        return False
    engine, is_doubted = tunnel.engine, site.connecting.get(sid)
    tunnel.leave()
    if is_doubted is not None:
        site.connecting[sid] = is_doubted

    def refused() -> None:
        site.connecting.pop(sid, None)
        site.router.refused(claim)

    ask = site.owner_of(session, claim.backend, request)
    lost = LostConnect(site.lingers, tunnel, lambda: site.taken(claim, engine, sid), refused, ask)
    lost.data_received(unread)
    return True


class LostConnect(Clientless):
    """That of a client which was lost again before its CONNECT was answered; ends itself.

    Once its instance has taken it, that speaks here to the session, for which something is kept. Until then
    it may be anybody's.
    """

    __slots__ = ("_ask", "_reader", "_refused", "_taken", "_timer", "down", "lingers", "session")

    def __init__(
        self,
        lingers: Lingers,
        tunnel: Dropped,
        taken: Callable[[], Session | None],
        refused: Callable[[], None],
        ask: Ask | None,
    ) -> None:
        """Its claim is `taken`, which may tell of no session, or in the end `refused`, which does no harm."""
        self.lingers, self._taken, self._refused, self._ask = lingers, taken, refused, ask
        self.session: Session | None = None  # set when it is answered
        self.pool, self.down, self.up = tunnel.pool, tunnel.down, tunnel.up
        self._reader = FrameReader()
        self._timer = Timer(lingers.stood, lingers.seconds, self.end)
        lingers.coming.add(self)
        self.pool.board(self)
        self.up.read_with(self)
        self.up.draw_from(None)
        self.up.resume()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self._reader.push(data)
        try:
            while self.session is None and (frame := self._reader.next()) is not None:
                if frame.opcode != TEXT or self.up.is_closing():
                    continue
                head = packet_head(frame.payload)
                if is_connected(frame.payload):
                    self._connected()
                elif head is not None and (head.kind, head.namespace) == (CONNECT_ERROR, MAIN):
                    self.end()
        except FrameError:
            self.end()

    def _connected(self) -> None:
        self.session = self._taken()
        if self.session is None:
            self.end()
        elif self._ask is None:
            self._owned(True)
        else:
            self._ask(self._owned)

    def _owned(self, is_its: bool) -> None:
        """It is kept like any other that was lost, if its session is its client's."""
        if self.up.is_closing() or not (is_its and self.lingers.take(self, bytes(self._reader.rest))):
            self.end()
        else:
            self._leave()

    def _leave(self) -> None:
        self._timer.cancel()
        self.lingers.coming.discard(self)
        self._refused()
        self.pool.leave(self)

    def end(self) -> None:
        """Let go of the backend's side."""
        self._leave()
        self.up.close()

    def __repr__(self) -> str:
        return f"<LostConnect at {self.pool.backend.name}>"
