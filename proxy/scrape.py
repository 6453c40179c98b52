"""The answer to a scrape: our own lines, and what prometheus_client tells of the process and of formats."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from proxy.exposition import Family, render

_OPENMETRICS = "application/openmetrics-text"


class Scrape:
    """Answers a scrape; created by the app."""

    def __init__(self, collect: Callable[[], Iterable[Family]]) -> None:
        """`collect` reads our counters."""
        self._collect = collect
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def __call__(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their media type, in the format that an `Accept` field asks for."""
        encode, media_type = choose_encoder(accept)
        text = render(self._collect(), openmetrics=media_type.startswith(_OPENMETRICS))
        return text.encode() + encode(self._process), media_type
