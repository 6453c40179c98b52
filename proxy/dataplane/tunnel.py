"""The byte stream after 101: two legs, each written with what the other one reads.

Either side may end its half first; when both have, or one is lost, both are closed. A side that reads slowly
stops the reading of the other. A Socket.IO websocket is watched for its first packets before it becomes a
plain tunnel: see `opening`. When its session has to leave, or its backend is lost, another backend goes on
with it while the client keeps its websocket: see `hand_over`. Where that cannot be, the client is told by a
close frame, between two frames of the backend.
"""

import asyncio
from functools import partial
from time import monotonic
from typing import Protocol

from proxy.affinity.silence import is_silent
from proxy.borders import Border, Where, fault
from proxy.config.sections import TimeoutSettings
from proxy.dataplane.clients import Ticket
from proxy.dataplane.ends import AppEnd, ClientEnd, End
from proxy.dataplane.farewells import LastFrame, LastWords, Parting
from proxy.dataplane.leg import Leg
from proxy.dataplane.linger import Ask, Lingers
from proxy.dataplane.movable import HandOver, Movable, Preface
from proxy.dataplane.pool import Pool
from proxy.dataplane.resuming import ResumedEnd
from proxy.errors import Limit
from proxy.wire.websocket import NO_CLOSE, SERVICE_RESTART, close_code, close_frame

_LAST_WORDS = 60.0  # seconds in which a side has to take some of what was written before it was closed
_HALF_CLOSED = 10.0  # seconds that the other half may go on; a browser answers a close within one round trip
_GONE = asyncio.Protocol()  # has the transports that are being closed
_LAST = 15  # backends that a websocket's line in the log names behind its first


class Owner(Protocol):
    """Who made a tunnel."""

    def tunnel_closed(self, tunnel: "Tunnel") -> None:
        """It has ended; called once."""
        ...


class Keeper(Protocol):
    """Who can have another backend go on with a tunnel."""

    def lost(self, tunnel: "Tunnel", *, ends: bool) -> HandOver | None:
        """Its backend is lost, or says that it ends; None: nobody else can go on."""
        ...


class Tunnel(Movable):
    """A client's leg and a backend's; created at 101, lives until both are closed."""

    __slots__ = (
        "_counted",
        "_owner",
        "_timeouts",
        "active",
        "asks",
        "backends",
        "close_code",
        "deadline",
        "keeper",
        "opening",
        "spoke_at",
        "talks",
        "ticket",
        "websocket",
    )

    def __init__(
        self, down: Leg, up: Leg, pool: Pool, owner: Owner, timeouts: TimeoutSettings, lingers: Lingers
    ) -> None:
        """`lingers` may keep the backend's side of a lost client."""
        super().__init__(down, up, pool, lingers)
        self.opening: Preface | None = None  # set until it is plain, if it is watched before
        self.ticket: Ticket | None = None  # counts its client's connection
        self.close_code = 0  # that of the close frame which the proxy sent, 0 if it sent none
        self.websocket = False  # whether it can be told in its own words to connect anew
        self.backends = [pool.backend.name]  # those that it led to, the last is where it leads now
        self.keeper: Keeper | None = None  # set with that
        self.active = True  # whether bytes came since the ticker last looked
        self.talks = False  # whether its backend has said more than heartbeats since then
        self.asks = False  # whether its client has
        self.spoke_at = 0.0  # set by the ticker when they have
        self.deadline = 0.0  # set by the ticker
        self._owner: Owner | None = owner  # until it has ended
        self._timeouts = timeouts
        self._counted = (0, 0)  # how many of its frames the pool has heard of
        down.draw_from(up)
        up.draw_from(down)
        pool.board(self)

    @property
    def received(self) -> tuple[int, int]:
        """Bytes from the client and from the backend, as far as it was plain."""
        down, up = self._down_end, self._up_end
        return (down.received if down else 0, up.received if up else 0)

    @property
    def frames(self) -> tuple[int, int]:
        """Frames from the client and from the backend, as far as it was plain; those of one read are one."""
        down, up = self._down_end, self._up_end
        return (down.reads if down else 0, up.reads if up else 0)

    @property
    def ended_with(self) -> int | None:
        """The close code of a websocket that has ended, whoever said it; None for another protocol."""
        if not self.websocket:
            return None
        code = self.close_code
        for end in (self._down_end, self._up_end):
            if not code and end is not None:
                code = close_code(end.words)
        return code or NO_CLOSE

    def watch(self, down: End, up: End) -> None:
        """These read before it is plain; what they count is of the tunnel."""
        self._down_end, self._up_end = down, up
        self.down.read_with(down)
        self.up.read_with(up)

    def plain(
        self,
        said: bytes = b"",
        heard: bytes = b"",
        *,
        answered: bool = False,
        upgraded: bool = True,
        owed: bytes = b"",
        ask: Ask | None = None,
    ) -> None:
        """From now on bytes pass unread but for what `ends` tells, first those that were held.

        The client has `said` some, its backend lets it hear others; `answered` tells whether the answer to
        CONNECT has just passed, `upgraded` whether the client polls no more. It is `owed` what its polls have
        not had. `ask` is as in `owner_of`.
        """
        down, up, session = self.down, self.up, self.session
        self.backends = [self.pool.backend.name]  # those before were guesses
        before = self._down_end, self._up_end
        if session is not None:
            self.active = self.talks = True  # its client has just connected: it says hello now, is greeted
        lingering = self._begin() if ask is None else None
        resumed: ResumedEnd | None = None
        if session is None:
            self._up_end = End(self, up, down)
        elif ask is not None or (answered and lingering is not None):
            resumed = self._up_end = ResumedEnd(self, up, down, session, self.untaken)
        else:
            self._up_end = AppEnd(self, up, down, session, self.untaken)
        if self.stats is None:
            self._down_end = End(self, down, up)
        else:
            self._down_end = ClientEnd(self, down, up, self.stats, self.untaken)
            self._down_end.packets.upgraded = upgraded
        self._down_end.follow(before[0])
        self._up_end.follow(before[1])
        down.read_with(self._down_end)
        up.read_with(self._up_end)
        if down.is_closing() or up.is_closing():
            self.close()
            return
        if owed:
            down.say(owed)
        if resumed is not None and lingering is not None:
            resumed.resume(lingering)
        elif resumed is not None and ask is not None:
            self.is_sure = False
            ask(partial(self._owned, resumed, answered))
        if heard:
            self._up_end.data_received(heard)
        if said:
            self._down_end.data_received(said)

    def pass_on(self, said: bytes) -> None:
        """The client has said this, before anything that is still to come."""
        if self._down_end is not None and not self._closed:
            self._down_end.data_received(said)

    def _lost(self, *, ends: bool) -> HandOver | None:
        return None if self.keeper is None else self.keeper.lost(self, ends=ends)

    def move(self, pool: Pool, up: Leg) -> None:
        """Another backend holds the session: `up` is a connection to it."""
        self.pool.leave(self)
        pool.board(self)
        self.pool = pool
        self.backends.append(pool.backend.name)
        del self.backends[1:-_LAST]
        self.up = up
        self.down.draw_from(up)
        up.draw_from(self.down)

    def tick(self, now: float) -> Limit | None:
        """Close a tunnel that is over a limit of time, and say which; called by the ticker."""
        if self.down.is_stuck(now, self._timeouts.write):
            self.down.abort()  # it would take nothing, a close frame neither
            self.close()
            return Limit.SLOW_READ
        if self.opening is not None:
            self.opening.tick(now)
            if self._closed:
                return None
        if self.active:
            self.active = False
            self._tell_frames()
            if self.engine is not None and self.kept is not None and self.has_upgraded:
                self.engine.kept = None  # it polls no more
            self._note_talk(now)
            half = any(end is not None and end.ended for end in (self._down_end, self._up_end))
            self.deadline = now + (_HALF_CLOSED if half else self._timeouts.tunnel_idle)
        elif self.deadline <= now:
            self.close()
            return Limit.TUNNEL_IDLE
        elif (sent := self.down.sent) is not None and not sent.is_empty:
            sent.forget()
        if now - self.pinged_at > self.pool.ping_overdue and self._is_unheard:
            self.say_ping()
        return None

    @property
    def _is_unheard(self) -> bool:
        """Whether its backend has a reason to say no ping: it is silent, or is being replaced."""
        return self.hand_over is not None or self.pool.backend.health.is_silent

    def move_on(self, gap: float) -> None:
        """This process stood still for `gap` seconds: that makes nobody late."""
        self.deadline += gap
        self.down.move_on(gap)
        if self.opening is not None:
            self.opening.move_on(gap)

    def _tell_frames(self) -> None:
        """Count at the backend what came since this was called before."""
        counted, self._counted = self._counted, self.frames
        self.pool.frames_in += self._counted[0] - counted[0]
        self.pool.frames_out += self._counted[1] - counted[1]

    def is_silent(self, now: float) -> bool:
        """Whether nothing is on its way: what the client said last has reached an app that would answer."""
        return not (self.talks or self.asks) and is_silent(now, self.spoke_at, self.session, self.untaken)

    def _note_talk(self, now: float) -> None:
        if self.asks and self.session is not None:
            self.session.says()
        if self.talks or self.asks:
            self.talks, self.asks, self.spoke_at = False, False, now

    def settle(self) -> float:
        """As Stream."""
        now = monotonic()
        self._note_talk(now)
        return now

    def client_lost(self, heard: bytes = b"") -> bool:
        """The client's connection is gone without a farewell; return whether the backend's side is kept.

        `heard` has come for it and is held.
        """
        up = self._up_end
        heard = heard or (up.rest if isinstance(up, AppEnd) else b"")
        if not self.is_sure or self._closed or self.hand_over or self.down.said_all:
            return False
        if not self._lingers.take(self, heard):
            return False
        self.leave()
        return True

    def leave(self) -> None:
        """Its client is gone, and somebody else has its backend's side."""
        self._end((self.down,))

    def client_said_all(self) -> None:
        """Its client had closed its half before there was a tunnel: nothing tells of it again."""
        end = self.between or self._down_end
        if not self._closed and end is not None and not end.eof_received():
            self.down.close()

    def half_closed(self, end: End) -> bool:
        """One side has said all; return whether its transport stays open."""
        own, other = (self.down, self._up_end) if end is self._down_end else (self.up, self._down_end)
        # TLS has no half-close: its transports neither say that they have said all nor stay open after it.
        if (other is not None and other.ended) or not own.can_finish or not end.peer.finish():
            self.close()
            return False
        self.active = True
        return True

    def send_away(self) -> None:
        """Have the client connect anew: by a close frame as soon as no other is on its way."""
        try:
            self._send_away()
        except Exception as error:
            fault(Where.MOVE, error)
            with Border(Where.MOVE):
                self.cut()

    def _send_away(self) -> None:
        if self._closed or isinstance(self._up_end, LastFrame):
            return
        if self.hand_over is not None:
            if self._is_between_packets:
                self.say_goodbye()
            else:
                self.close()
            return
        if not self.websocket or self._up_end is None or not self.down.may_write or self.up.is_closing():
            self.close()
        elif self.opening is not None:
            self.say_goodbye()  # it passes whole messages only
        elif self.active or self.down.has_unsent:
            rest = self._up_end.rest if isinstance(self._up_end, AppEnd) else b""
            last = LastFrame(self, self.up, self.down, self._lingers.stood)
            self.read_backend_with(last)
            if rest:
                last.data_received(rest)
        else:
            self.say_goodbye()

    def send_away_now(self) -> None:
        """No time is left: tell the client if no frame of the backend is known to be on its way."""
        if isinstance(self._up_end, LastFrame):
            self._up_end.time_is_up()
        elif self.websocket and not self.active and not self.down.has_unsent:
            self.say_goodbye()
        else:
            self.close()

    def say_goodbye(self, code: int = SERVICE_RESTART, reason: bytes = b"") -> None:
        """Tell the client why it ends (RFC 6455 section 7.4, code 1012 of its registry: a restart)."""
        if self._closed:
            return
        if not self.down.may_write:
            self.close()
            return
        self.down.write(close_frame(code, reason))
        if self.down.has_unsent:
            self.down.give_up_after(_LAST_WORDS, self._lingers.stood)
        self.close_code = code
        self.down.read_with(Parting(self.down, self._lingers.stood))
        self._end((self.up,))

    def close(self) -> None:
        """End both sides after what is written."""
        self._end((self.down, self.up))

    def _end(self, legs: tuple[Leg, ...]) -> None:
        if self._closed:
            return
        self._closed = True
        if self.opening is not None:
            self.opening.stop()
        hand_over, self.hand_over = self.hand_over, None
        if hand_over is not None:
            hand_over.stop()
        self.kept = self.keeper = None
        self._tell_frames()
        self.pool.leave(self)
        self._lingers.ended(self)
        self.down.draw_from(None)
        self.up.draw_from(None)
        for leg in legs:
            leg.read_with(_GONE)  # TLS may have more to hand over: it goes nowhere
            leg.close()
            if leg.has_unsent:
                ticket, self.ticket = (self.ticket, None) if leg is self.down else (None, self.ticket)
                leg.read_with(LastWords(leg, ticket, _LAST_WORDS, self._lingers.stood))
        owner, self._owner = self._owner, None
        assert owner is not None
        owner.tunnel_closed(self)
        # Whoever keeps whom in a circle is freed by the garbage collector only, which has to look for it.
        for end in (self._down_end, self._up_end):
            if end is not None:
                end.leave()

    def cut(self) -> None:
        """End at once."""
        self.up.abort()
        self.close()

    def backend_lost(self) -> None:
        """As Passenger; one whose client is just told to connect anew has its second for that."""
        if self.hand_over is not None:
            self.hand_over.backend_lost()
        elif not isinstance(self._up_end, LastFrame) and not self.backend_gone():
            self.cut()

    def __repr__(self) -> str:
        return f"<Tunnel to {self.pool.backend.name} received={self.received} closed={self._closed}>"
