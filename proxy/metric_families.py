"""The families of the proxy's own metrics: their prefix, and how they begin."""

from collections.abc import Mapping
from typing import TypeVar

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
