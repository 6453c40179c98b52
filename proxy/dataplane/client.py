"""What an exchange needs of its client, in heads and data, whatever protocol the client speaks."""

from typing import Protocol

from proxy.dataplane.leg import Leg, Source
from proxy.dataplane.request import Request
from proxy.dataplane.tunnel import Tunnel
from proxy.wire.head import ResponseHead
from proxy.wire.reply import Reply


class Client(Protocol):
    """The client of one exchange at a time; as Source, the exchange's body is read from it."""

    deadline: float  # when the client is late, or its backend

    @property
    def paused(self) -> bool:
        """Whether nothing is read of it for now."""
        ...

    def pause(self) -> None:
        """As Source."""
        ...

    def resume(self) -> None:
        """As Source."""
        ...

    def draw_from(self, source: Source | None) -> None:
        """What is written is read there from now on: not while the client is slow. None lets go."""
        ...

    def go_ahead(self) -> None:
        """Have it send the body for which it waits for leave (RFC 9110 section 10.1.1)."""
        ...

    def inform(self, request: Request, head: ResponseHead) -> None:
        """Pass a 1xx response on."""
        ...

    def respond(
        self,
        request: Request,
        head: ResponseHead,
        data: bytes,
        *,
        close: bool,
        extra: bytes = b"",
        length: int | None = None,
        unpacked: bool = False,
    ) -> None:
        """Pass a response's head on, with `data` of its body; as `forwarding.response_head`."""
        ...

    def write(self, data: bytes) -> None:
        """Pass on more of the body, framed as it came."""
        ...

    def answer(self, request: Request, reply: Reply, *, close: bool) -> None:
        """Give a whole response of the proxy's own."""
        ...

    def ended(self, *, keep: bool, linger: bool) -> None:
        """The exchange is over; with `keep` the next may begin, with `linger` the client still sends."""
        ...

    def cut(self) -> None:
        """End at once; the client sees a message that was cut off."""
        ...

    def hand_over(self) -> tuple[Leg, bytes]:
        """A tunnel takes the transport, and what the client has sent ahead."""
        ...

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        """The tunnel has begun."""
        ...

    def tunnel_closed(self, tunnel: Tunnel) -> None:
        """The tunnel has ended."""
        ...
