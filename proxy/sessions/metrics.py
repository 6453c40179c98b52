"""What an instance counts, as Prometheus metrics of its own process.

They are on `prometheus_client`'s default registry, so whatever way the app shows that, it shows these too.
Without that package they are numbers that nobody reads, and the log alone tells.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

PREFIX = "chainlit_proxy_session_"


def _counter(text: str) -> int:
    number: int = field(default=0, metadata={"text": text})
    return number


def _gauge(text: str) -> int:
    number: int = field(default=0, metadata={"gauge": text})
    return number


@dataclass(slots=True, eq=False)
class Counts:
    """Counted by `Sharing`, `hooks` and `Answers`."""

    writes: int = _counter("States written to the store.")
    restores: int = _counter("Sessions taken over with their state from another instance.")
    overtaken: int = _counter("Copies here that ended, because a newer connection is at another instance.")
    refused: int = _counter("Sessions that were not restored, because they belong to another user.")
    hand_overs: int = _counter("Clients that were handed over to this instance and went on.")
    refused_hand_overs: int = _counter("Clients that could not be handed over, and had to connect anew.")
    said_again: int = _counter("Messages that were said again for a client, and run.")
    known_again: int = _counter("Messages that were said again for a client, and had been taken before.")
    late_turns: int = _counter(
        "Turns that another instance had recorded but not begun, and that were run here."
    )
    cut_turns: int = _counter("Turns that were under way when their instance died, and whose user was told.")
    dropped_values: int = _counter("Values and files that could not be stored, counted at each write.")
    unstorable: int = _counter("Sessions that could not be stored as a whole, counted at each write.")
    store_errors: int = _counter("Operations that the store failed.")
    answers: int = _gauge("Messages that the app is answering, where balance.most_answers limits them.")
    queue_waiting: int = _gauge("Messages that wait for their turn to be answered.")
    queue_admitted: int = _counter("Messages that have waited, and whose turn it was then.")
    queue_given_up: int = _counter("Messages that have waited, and were stopped or went to another instance.")
    queue_turned_away: int = _counter("Messages that found too many waiting, and whose users were told.")
    queue_seconds: float = _counter("Seconds that messages have waited together until their turn.")
    store_up: bool = True

    def collect(self) -> Iterator[Any]:
        """What a registry asks for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        for counter in fields(self):
            if text := counter.metadata.get("text"):
                yield CounterMetricFamily(PREFIX + counter.name, text, getattr(self, counter.name))
            elif text := counter.metadata.get("gauge"):
                yield GaugeMetricFamily(PREFIX + counter.name, text, getattr(self, counter.name))
        text = "Whether the store answers; while it does not, nothing is shared."
        yield GaugeMetricFamily(PREFIX + "store_up", text, self.store_up)

    def show(self) -> None:
        """Puts them on the default registry, where there is one."""
        try:
            from prometheus_client import REGISTRY  # noqa: PLC0415
        except ImportError:
            return
        REGISTRY.register(self)
