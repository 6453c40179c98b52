"""What an instance counts, as Prometheus metrics of its own process.

They are on `prometheus_client`'s default registry, so whatever way the app shows that, it shows these too.
Without that package they are numbers that nobody reads, and the log alone tells.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "chainlit_proxy_session_"
TEXTS = {
    "writes": "States written to the store.",
    "restores": "Sessions taken over with their state from another instance.",
    "overtaken": "Sessions whose copy here was given up, because a newer connection is at another instance.",
    "refused": "Sessions that were not restored, because they belong to another user.",
    "cut_turns": "Turns that were under way when their instance died, and whose user was told.",
    "dropped_values": "Values and files that could not be stored, counted at each write.",
    "store_errors": "Operations that the store failed.",
}


@dataclass(slots=True, eq=False)
class Counts:
    """Counted by `Sharing` and `hooks`."""

    writes: int = 0
    restores: int = 0
    overtaken: int = 0
    refused: int = 0
    cut_turns: int = 0
    dropped_values: int = 0
    store_errors: int = 0
    store_up: bool = True

    def collect(self) -> Iterator[Any]:
        """What a registry asks for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        for counter in fields(self):
            if counter.name in TEXTS:
                yield CounterMetricFamily(
                    PREFIX + counter.name, TEXTS[counter.name], getattr(self, counter.name)
                )
        yield GaugeMetricFamily(
            PREFIX + "store_up",
            "Whether the store answers; while it does not, nothing is shared.",
            self.store_up,
        )

    def show(self) -> None:
        """Puts them on the default registry, where there is one."""
        try:
            from prometheus_client import REGISTRY  # noqa: PLC0415
        except ImportError:
            return
        REGISTRY.register(self)
