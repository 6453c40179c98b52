"""How a tunnel ends: the frame that is on its way goes out, the client is told, and answers."""

import asyncio

from proxy.dataplane.clients import Ticket
from proxy.dataplane.ends import End, Stream, refuse
from proxy.dataplane.leg import Leg
from proxy.dataplane.patience import Stood, Timer
from proxy.dataplane.stats import Stats
from proxy.errors import Limit, OddId
from proxy.wire.websocket import (
    LONGEST_CLOSE,
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    FrameError,
    FrameReader,
    close_code,
)

_MOMENT = 0.2  # seconds: the pieces of a frame follow each other faster
_MOMENTS = 5  # in which the frame that is on its way ends
_GOODBYE = 2.0  # seconds in which a client answers a close frame


class LastFrame(End):
    """The backend's side while its present frame goes out; then the client is told to connect anew.

    A backend that says nothing for a moment is taken to be between two frames, unless one was seen to begin.
    """

    __slots__ = ("_heard", "_moments", "_reader", "_stood")

    def __init__(self, stream: Stream, leg: Leg, peer: Leg, stood: Stood) -> None:
        super().__init__(stream, leg, peer)
        self._reader = FrameReader()
        self._heard = False  # whether anything came in the last moment
        self._moments = _MOMENTS  # that are left for it
        self._stood = stood
        Timer(stood, _MOMENT, self._moment_is_over)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol: a piece that begins a frame is the rule, but nothing rests on it."""
        self.received += len(data)
        self.reads += 1
        self._heard = True
        self._write(data)
        self._reader.push(data)
        try:
            while self._reader.next() is not None:
                pass
        except FrameError:
            self._stream.close()
            return
        self._tell_between_frames()

    def _moment_is_over(self) -> None:
        self._moments -= 1
        if not self._moments or not (self._heard or self._reader.rest):
            self.time_is_up()
            return
        self._heard = False
        Timer(self._stood, _MOMENT, self._moment_is_over)

    def time_is_up(self) -> None:
        """Nobody waits any longer: one that has said nothing more is taken to be between two frames."""
        if not self._tell_between_frames():
            self._stream.close()

    def _tell_between_frames(self) -> bool:
        if self._reader.rest:
            return False
        self._stream.say_goodbye()
        return True


class LastWords(asyncio.Protocol):
    """A side that was closed while there was something for it to take; a client's counts until it has."""

    __slots__ = ("_giving_up", "_ticket")

    def __init__(self, leg: Leg, ticket: Ticket | None, seconds: float, stood: Stood) -> None:
        """It is given up when it takes nothing for so long."""
        self._giving_up = leg.give_up_after(seconds, stood)
        self._ticket = ticket

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._giving_up.cancel()
        if self._ticket is not None:
            self._ticket.give_back()


class Parting(asyncio.Protocol):
    """The client's side after the close frame: what it still says goes nowhere, until it answers the frame.

    Then it waits for us to close (RFC 6455 section 7.1.1), and its page is not told before. Its time to
    answer begins when all is sent; whoever says the close frame gives up one that takes nothing.
    """

    __slots__ = ("_last", "_leg", "_stood", "_timer")

    def __init__(self, leg: Leg, stood: Stood) -> None:
        self._last = b""  # the end of what it said
        self._leg = leg
        self._stood = stood
        self._wait()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self._last = (self._last + data)[-LONGEST_CLOSE:]
        if close_code(self._last):
            self._leg.close()

    def _wait(self) -> None:
        self._timer = Timer(self._stood, _GOODBYE, self._late)

    def _late(self) -> None:
        if self._leg.has_unsent:
            self._wait()
        else:
            self._leg.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._timer.cancel()


_TOO_MUCH = {
    Limit.OPENING_FRAMES: b"too many frames before CONNECT",
    Limit.OPENING_BYTES: b"too many bytes before CONNECT",
    Limit.OPENING_TIME: b"no CONNECT in time",
    Limit.MOST_SESSIONS: b"every instance has as many sessions as it may have",
}


def refuse_opening(stream: Stream, stats: Stats, why: Limit | OddId) -> None:
    """As `refuse`, before its client has connected."""
    if isinstance(why, OddId):
        stats.refused(why)
        refuse(stream, why)
    else:
        stats.limits[why] += 1
        code = TRY_AGAIN_LATER if why is Limit.MOST_SESSIONS else POLICY_VIOLATION
        stream.say_goodbye(code, _TOO_MUCH[why])
