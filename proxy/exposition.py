"""The text that Prometheus reads, written straight from the numbers.

prometheus_client makes an object, a dictionary and some ten calls of every sample; fifty backends have four
thousand, and while they are written nothing else is served. So the lines of ours are written here: what
stands in front of a number is made once for each series, a histogram is filled in at one go.

Sources: https://prometheus.io/docs/instrumenting/exposition_formats/ and the OpenMetrics specification 1.0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate

from proxy.dataplane.stats import Histogram

_KNOWN = 1 << 16  # beginnings of lines that are kept: more than a thousand backends have
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Kind(StrEnum):
    """What a family is, as both formats call it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(slots=True)
class Family:
    """One metric with all its series; made anew for each scrape."""

    kind: Kind
    name: str  # without the `_total` of a counter, the `_info` of an info
    text: str  # one line, without quotes
    labels: tuple[str, ...] = ()  # their names
    rows: list[tuple[tuple[str, ...], float]] = field(default_factory=list)  # values of the labels, number
    histograms: Sequence[tuple[tuple[str, ...], Histogram]] = ()

    def add(self, number: float, *values: str) -> "Family":
        """Add a series; `values` are those of the labels, in their order."""
        self.rows.append((values, +number))  # so that True is 1
        return self

    @property
    def sample(self) -> str:
        """What the samples are called, but for those of a histogram."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")


def render(families: Iterable[Family], *, openmetrics: bool) -> str:
    """Families as lines, without the `# EOF` that ends OpenMetrics."""
    return "".join([_lines(family, openmetrics=openmetrics) for family in families])


def _lines(family: Family, *, openmetrics: bool) -> str:
    named, kind = family.name, family.kind
    if not openmetrics:  # the older format knows no info, and a counter by the name of its samples
        named, kind = family.sample, Kind.GAUGE if kind is Kind.INFO else kind
    sample, labels = family.sample, family.labels
    lines = [f"# HELP {named} {family.text}\n# TYPE {named} {kind.value}\n"]
    lines += [f"{_series(sample, labels, values)} {number}\n" for values, number in family.rows]
    for values, histogram in family.histograms:
        counts = tuple(accumulate(histogram.counts))
        form = _histogram(sample, labels, values, histogram.bounds)
        lines.append(form % (*counts, counts[-1], histogram.total))
    return "".join(lines)


@lru_cache(maxsize=_KNOWN)
def _series(name: str, labels: tuple[str, ...], values: tuple[str, ...]) -> str:
    """What stands in front of a number."""
    if not labels:
        return name
    pairs = [f'{label}="{value.translate(_ESCAPES)}"' for label, value in zip(labels, values, strict=True)]
    return f"{name}{{{','.join(pairs)}}}"


@lru_cache(maxsize=_KNOWN)
def _histogram(name: str, labels: tuple[str, ...], values: tuple[str, ...], bounds: tuple[float, ...]) -> str:
    """The lines of one, to be filled in: the cumulated counts, their number, the sum."""
    edges = (*map(str, bounds), "+Inf")
    heads = [_series(f"{name}_bucket", (*labels, "le"), (*values, edge)) for edge in edges]
    heads.append(_series(f"{name}_count", labels, values))
    lines = [head.replace("%", "%%") + " %d\n" for head in heads]
    return "".join(lines) + _series(f"{name}_sum", labels, values).replace("%", "%%") + " %r\n"
