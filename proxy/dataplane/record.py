"""What the logs, spans and metrics read of an exchange."""

from typing import Protocol

from proxy.affinity.decision import Decision
from proxy.dataplane.request import Request


class Stream(Protocol):
    """The tunnel that an exchange became, when it has ended."""

    backends: list[str]  # that it led to, one after the other

    @property
    def frames(self) -> tuple[int, int]:
        """Frames from the client and from the backend."""
        ...

    @property
    def ended_with(self) -> int | None:
        """The close code of a websocket, None for another protocol."""
        ...


class Record(Protocol):
    """An exchange, as far as it is told of."""

    @property
    def request(self) -> Request:
        """What the client asked for."""
        ...

    @property
    def decision(self) -> Decision | None:
        """Where it went and why; None: nowhere."""
        ...

    @property
    def tunnel(self) -> Stream | None:
        """The tunnel that it became, if it did."""
        ...

    @property
    def status(self) -> int:
        """Of the response, 0 if there was none."""
        ...

    @property
    def first_byte(self) -> float:
        """Seconds from the request's head to the response's."""
        ...

    @property
    def bytes_in(self) -> int:
        """Of the request's body, or from the client through the tunnel."""
        ...

    @property
    def bytes_out(self) -> int:
        """Of the response's body, or from the backend through the tunnel."""
        ...

    @property
    def error(self) -> str:
        """Why it was refused or cut off, "" if it was not."""
        ...
