"""Who is told of each exchange that has ended: the access log and the spans of tracing, where they are on."""

from collections.abc import Callable

from proxy.borders import Where, fault
from proxy.config import Config
from proxy.config.sections import LogSettings
from proxy.dataplane.record import Record
from proxy.logs import AccessLog
from proxy.tracing import Spans

Listener = Callable[[Record], None]


class ExchangeLog:
    """One for each process; made by `Parts`."""

    def __init__(self, config: Config) -> None:
        """Spans are sent, or not, as they are configured at the start."""
        self._settings: LogSettings | None = None
        self._access: AccessLog | None = None
        self._spans = Spans(config.otel) if config.otel.endpoint else None
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Have the access log as it is configured now."""
        if config.log == self._settings:
            return
        self.flush()
        self._settings = config.log
        self._access = AccessLog(config.log) if config.log.access else None

    @property
    def listener(self) -> Listener | None:
        """What is to be called for each exchange; None: nobody wants to know."""
        first, second = _bordered(self._access), _bordered(self._spans)
        if first is None or second is None:
            return first or second

        def both(record: Record) -> None:
            first(record)
            second(record)

        return both

    def flush(self) -> None:
        """Write the lines that wait for others."""
        if self._access is not None:
            self._access.flush()

    def close(self) -> None:
        """Write and send what waits; nothing is told any more."""
        self.flush()
        if self._spans is not None:
            self._spans.close()

    def __repr__(self) -> str:
        return f"<ExchangeLog access={self._access is not None} spans={self._spans is not None}>"


def _bordered(listener: Listener | None) -> Listener | None:
    """Its errors stay its own: the client has its answer."""
    if listener is None:
        return None

    def tell(record: Record) -> None:
        try:
            listener(record)
        except Exception as error:
            fault(Where.LISTENER, error, f"{type(listener).__name__} cannot tell of a request")

    return tell
