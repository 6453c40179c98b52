"""A client's transport whose messages are compressed: to everybody here its websocket is a plain one.

It stands in the leg of the tunnel in place of the transport, so all that is written to the client passes
through it in order, whoever says it: its backend, the one that goes on with it, the proxy with a ping or a
close frame. What the client says is made plain before its protocol sees it, and only while that wants to
read: what is left of a piece waits here. A websocket without compression has its own transport, and pays
nothing.
"""

import asyncio
from typing import Any, Protocol, cast

from proxy.dataplane.stats import Stats
from proxy.errors import Limit
from proxy.wire.deflate import TOO_BIG, Deflater, Inflater
from proxy.wire.websocket import FrameError

_NOBODY = asyncio.Protocol()


class Stream(Protocol):
    """What it needs of its tunnel."""

    def say_goodbye(self, code: int, reason: bytes) -> None:
        """Tell the client by a close frame why it ends."""
        ...


class Compressed(asyncio.Protocol):
    """As asyncio.Transport of its leg, and as the protocol of the transport below."""

    __slots__ = (
        "_below",
        "_deflater",
        "_has_ended",
        "_inflater",
        "_is_held",
        "_is_reading",
        "_paused",
        "_protocol",
        "_stats",
        "_stream",
    )

    def __init__(
        self,
        below: asyncio.Transport,
        deflater: Deflater,
        inflater: Inflater,
        stats: Stats,
        *,
        paused: bool = False,
    ) -> None:
        """`stats` count those who say too much; `paused` tells whether `below` is not read for now."""
        self._below = below
        self._deflater = deflater
        self._inflater: Inflater | None = inflater  # None: what comes is not read any more
        self._stats = stats
        self._stream: Stream | None = None  # set when there is a tunnel, until the connection is lost
        self._protocol = _NOBODY  # until somebody listens, before anything can come
        self._paused = paused
        self._is_held = paused  # whether `below` is not read: it goes on when all that came was heard
        self._is_reading = False  # whether somebody is hearing what came
        self._has_ended = False  # whether the client has said all, and that waits behind what it said
        below.set_protocol(self)

    def serve(self, stream: Stream, early: bytes) -> None:
        """This tunnel has it, and is told of what cannot be read; the client has said `early` before."""
        self._stream = stream
        if early and self._inflater is not None:
            self._inflater.push(early)
            asyncio.get_running_loop().call_soon(self._read)  # as soon as somebody listens to it

    # As Transport: what is said to the client

    def write(self, data: bytes) -> None:
        """As Transport. The hot path of all that a compressed websocket is told."""
        packed = self._deflater.pack(data)
        if packed:
            self._below.write(packed)

    def write_eof(self) -> None:
        """As Transport."""
        self._below.write_eof()

    def can_write_eof(self) -> bool:
        """As Transport."""
        return self._below.can_write_eof()

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As Transport."""
        return self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As Transport."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def is_closing(self) -> bool:
        """As Transport."""
        return self._below.is_closing()

    def close(self) -> None:
        """As Transport."""
        self._below.close()

    def abort(self) -> None:
        """As Transport."""
        self._below.abort()

    def pause_reading(self) -> None:
        """As Transport: what has come waits here."""
        self._paused = self._is_held = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """As Transport: what waits here is heard first, since TLS at once gives all that it has itself."""
        self._paused = False
        inflater = self._inflater
        if self._has_ended or (inflater is not None and inflater.has_more):
            asyncio.get_running_loop().call_soon(self._read)  # whoever resumes may be in the middle of it
        else:
            self._read_on()

    def _read_on(self) -> None:
        if self._is_held and not self._below.is_closing():
            self._is_held = False
            self._below.resume_reading()

    # As Protocol: what the client says

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        inflater = self._inflater
        if inflater is None:
            self._protocol.data_received(data)
            return
        inflater.push(data)
        self._read()

    def _read(self) -> None:
        """Have its protocol hear what came, as far as it wants to."""
        inflater = self._inflater
        if self._is_reading or inflater is None:
            return
        self._is_reading = True
        try:
            while not (self._paused or self._below.is_closing()) and (plain := inflater.next()):
                self._protocol.data_received(plain)
        except FrameError:
            self._refuse(inflater)
        finally:
            self._is_reading = False
        if self._paused:
            return
        if self._has_ended:
            self._has_ended = False
            if not self._protocol.eof_received():
                self._below.close()
        elif self._is_held:
            self._read_on()

    def _refuse(self, inflater: Inflater) -> None:
        """What the client says cannot be read: tell it why; then only its own goodbye is looked for."""
        self._inflater = None
        if inflater.code == TOO_BIG:
            self._stats.limits[Limit.INFLATED] += 1
        if self._stream is not None:
            self._stream.say_goodbye(inflater.code, inflater.reason)

    def eof_received(self) -> bool:
        """As asyncio.Protocol; behind what it said.

        TLS closes at once: what came is heard now or never.
        """
        self._read()
        inflater = self._inflater
        if self._paused and inflater is not None and inflater.has_more:
            if self._below.get_extra_info("ssl_object") is None:
                self._has_ended = True
                return True
            self._read_last(inflater)
        return bool(self._protocol.eof_received())

    def _read_last(self, inflater: Inflater) -> None:
        """Have its protocol hear what came before the end, though it has enough: some of it, of a bomb."""
        left = inflater.longest
        try:
            while left > 0 and not self._below.is_closing() and (plain := inflater.next()):
                left -= len(plain)
                self._protocol.data_received(plain)
        except FrameError:
            self._refuse(inflater)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._deflater.leave()
        self._stream = None
        self._protocol.connection_lost(exc)
        self._protocol = _NOBODY  # who had it keeps its leg, and so this

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._protocol.resume_writing()

    def __repr__(self) -> str:
        return f"<Compressed {self._inflater!r} {self._deflater!r} paused={self._paused}>"
