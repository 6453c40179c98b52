"""What is sent next on an HTTP/2 connection: its streams take turns, a frame each.

Priorities are not looked at, as RFC 9113 section 5.3.2 allows. What is said in one turn of the event loop is
sent together, as far as windows and the transport have room.
"""

import asyncio
from time import monotonic
from typing import Protocol

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from proxy.dataplane.buckets import Bucket
from proxy.dataplane.http2_frames import Frames
from proxy.dataplane.http2_stream import Stream

WORTH = 32  # bytes of content for one of overhead: a browser opens windows for half of them at a time
_AT_ONCE = 65_536  # bytes that are gathered before they are written


class Speaker(Protocol):
    """What is needed of the connection."""

    @property
    def may_speak(self) -> bool:
        """Whether its transport takes more."""
        ...

    def flush(self) -> None:
        """Send what has gathered in its frames."""
        ...

    def left(self, stream: Stream) -> None:
        """A stream is over."""
        ...

    def all_said(self) -> None:
        """Nobody has more to say for now."""
        ...


class Turns:
    """Owned by its connection."""

    __slots__ = ("_frames", "_is_due", "_overhead", "_speaker", "_talking")

    def __init__(self, frames: Frames, overhead: Bucket, speaker: Speaker) -> None:
        """What is said earns `overhead`: its client has to open windows for it."""
        self._frames = frames
        self._overhead = overhead
        self._speaker = speaker
        self._talking: dict[int, Stream] = {}  # those that have something to say
        self._is_due = False  # whether they will be asked

    def add(self, stream: Stream) -> None:
        """It has something to say, or has said all."""
        self._talking[stream.id] = stream
        self.soon()

    def drop(self, stream: Stream) -> None:
        """It is over."""
        self._talking.pop(stream.id, None)

    def soon(self) -> None:
        """Send what there is, when all that happens now has happened."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._speak)

    def _speak(self) -> None:
        self._is_due = False
        speaker, goes_on = self._speaker, True
        while goes_on and speaker.may_speak:
            goes_on = self._round()
        if speaker.may_speak:
            speaker.flush()
            speaker.all_said()

    def _round(self) -> bool:
        """Give each its turn; return whether somebody said something."""
        said = gathered = 0
        for stream in list(self._talking.values()):
            size = 0 if stream.is_over else self._say(stream)
            said += size
            gathered += size
            if gathered >= _AT_ONCE:
                gathered = 0
                self._speaker.flush()
                if not self._speaker.may_speak:
                    break
        if said:
            self._overhead.take(-said / WORTH, monotonic())
        return said > 0

    def _say(self, stream: Stream) -> int:
        """Send the next frame of a stream; return its size, 0 if there is no room or nothing to say."""
        try:
            size, ends = self._next(stream)
        except ProtocolError:  # the library has closed it
            self._speaker.left(stream)
            return 0
        if ends:
            if not stream.heard_all:
                self._frames.reset(stream.id, ErrorCodes.NO_ERROR)  # section 8.1: the rest is not needed
            self._speaker.left(stream)
        elif not size and not stream.leg.buffer:
            self.drop(stream)
        return size

    def _next(self, stream: Stream) -> tuple[int, bool]:
        """Send a frame; return its size, and whether it ends the stream's side."""
        frames, leg, number = self._frames, stream.leg, stream.id
        head, trailers, size = stream.head, stream.trailers, 1
        if head is not None:
            stream.head = None
            ends = stream.said_all and not leg.buffer and trailers is None
            frames.fields(number, head, ends=ends)
        elif leg.buffer:
            room = frames.room(number)
            if room <= 0:
                return 0, False
            data = leg.take(room)
            size, ends = len(data), stream.said_all and not leg.buffer and trailers is None
            frames.data(number, data, ends=ends)
        elif ends := stream.said_all:
            if trailers is not None:
                frames.fields(number, trailers, ends=True)
            else:
                frames.data(number, b"", ends=True)
        else:
            size = 0
        return size, ends

    def __repr__(self) -> str:
        return f"<Turns {list(self._talking)}>"
