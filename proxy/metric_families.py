"""The families of the proxy's own metrics: their prefix, how they begin, and those of the queue."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from proxy.dataplane.door import Door
from proxy.dataplane.stats import Histogram
from proxy.exposition import Family, Kind

PREFIX = "chainlit_proxy_"
_Label = TypeVar("_Label", bound=str)


def counter(name: str, text: str, *labels: str) -> Family:
    """A counter, of nothing yet."""
    return Family(Kind.COUNTER, PREFIX + name, text, labels)


def gauge(name: str, text: str, *labels: str) -> Family:
    """A gauge, of nothing yet."""
    return Family(Kind.GAUGE, PREFIX + name, text, labels)


def by(label: str, name: str, text: str, counts: Mapping[_Label, int]) -> Family:
    """A counter by one label; `counts` are by its values."""
    family = counter(name, text, label)
    for value, count in list(counts.items()):
        family.add(count, value)
    return family


def histogram(name: str, text: str, by_backend: dict[str, Histogram]) -> Family:
    """A histogram by backend."""
    rows = [((backend,), histogram) for backend, histogram in by_backend.items()]
    return Family(Kind.HISTOGRAM, PREFIX + name, text, ("backend",), histograms=rows)


def queue_families(door: Door) -> Iterator[Family]:
    """What is told of those who wait for a place among the sessions."""
    counts = door.counts()
    text = "Who waits in the queue for a place among the sessions."
    yield gauge("queue_waiting", text).add(counts.pop("waiting"))
    text = "Places that are kept for who was let in."
    yield gauge("queue_kept", text).add(counts.pop("kept"))
    yield by("result", "queue", "Who has waited in the queue, by how that ended.", counts)
    name, text = f"{PREFIX}queue_seconds", "From a place in the queue until being let in."
    yield Family(Kind.HISTOGRAM, name, text, histograms=[((), door.seconds)])
