"""A stream of HTTP/2 as the transport of a websocket (RFC 8441), for the tunnel that it becomes.

A tunnel's sides speak to transports, so a stream looks like one: what is written waits for the client's
windows, reading that is paused leaves the stream's own window shut, and what still comes within it waits. The
end of the stream is that of the transport. There is no half of it that could stay open, as in TLS.
"""

import asyncio
from typing import Any, Protocol


class Piped(Protocol):
    """What it needs of its stream."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client's windows."""
        ...

    def send(self, data: bytes) -> None:
        """Have this wait too."""
        ...

    def end(self) -> None:
        """End the stream after what waits."""
        ...

    def cut(self) -> None:
        """Reset the stream."""
        ...

    def pause(self) -> None:
        """Leave the window shut for now."""
        ...

    def resume(self) -> None:
        """Open it again."""
        ...


class StreamTransport:
    """As asyncio.Transport; made by its stream when the backend has switched protocols."""

    __slots__ = ("_closing", "_has_ended", "_held", "_lost", "_paused", "_protocol", "_stream")

    def __init__(self, stream: Piped) -> None:
        self._stream = stream
        self._protocol: asyncio.Protocol | None = None  # set at once, by the tunnel
        self._closing = False  # whether nothing more is written, or read
        self._lost = False  # whether its protocol knows that, or is about to
        self._paused = False  # whether its protocol wants to hear nothing for now
        self._held = bytearray()  # what has come meanwhile: a window of it at most
        self._has_ended = False  # whether the end is behind that

    # As Transport

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        """As Transport."""
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        """As Transport."""
        if data and not self._closing:
            self._stream.send(data)

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return self._stream.unsent

    def is_closing(self) -> bool:
        """As Transport."""
        return self._closing

    def can_write_eof(self) -> bool:
        """As Transport."""
        return False

    def pause_reading(self) -> None:
        """As Transport."""
        self._paused = True
        self._stream.pause()

    def resume_reading(self) -> None:
        """As Transport."""
        self._paused = False
        if self._held or self._has_ended:
            asyncio.get_running_loop().call_soon(self._go_on)  # whoever resumes may be in the middle of it
        self._stream.resume()

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        """As Transport: the socket is not its own."""
        return default

    def close(self) -> None:
        """As Transport."""
        if not self._closing:
            self._closing = True
            self._stream.end()

    def abort(self) -> None:
        """As Transport."""
        self._closing = True
        self._stream.cut()

    # As Source of what its stream writes to the client

    def pause(self) -> None:
        """As Source: the client, or its connection, takes no more for now."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume(self) -> None:
        """As Source."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    # What its stream hears

    def hear(self, data: bytes) -> None:
        """The client says more."""
        if self._closing or not data:
            return
        if self._paused or self._held:
            self._held += data
        elif self._protocol is not None:
            self._protocol.data_received(data)

    def hear_end(self) -> None:
        """The client has said all."""
        if self._paused or self._held:
            self._has_ended = True
        elif self._protocol is not None and not (self._closing or self._protocol.eof_received()):
            self.close()

    def _go_on(self) -> None:
        """What has waited is heard, and the end, if there is still somebody to hear it."""
        if self._paused:
            return
        held, self._held = bytes(self._held), bytearray()
        self.hear(held)
        if self._has_ended and not self._paused:
            self._has_ended = False
            self.hear_end()

    def lose(self) -> None:
        """The stream is over."""
        self._closing = True
        self._held.clear()
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(None)

    def __repr__(self) -> str:
        return f"<StreamTransport closing={self._closing} lost={self._lost}>"
