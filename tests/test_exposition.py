"""What is written for Prometheus: both formats say what prometheus_client itself would have said."""

from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import exposition as text_format
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_format
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from proxy.dataplane.stats import Histogram
from proxy.exposition import Family, Kind, render
from proxy.scrape import Scrape

ODD = 'a "quoted" \\ 100 % é\nname'  # what a label may hold
Reader = Callable[[str], Iterable[Metric]]
write_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics_format.generate_latest
read_openmetrics: Reader = openmetrics_parser.text_string_to_metric_families
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def histogram() -> Histogram:
    """Some of it in three buckets, the last one among them."""
    counted = Histogram((0.5, 1.0, 60.0))
    for seconds in (0.25, 0.25, 0.75, 100.5):
        counted.add(seconds)
    return counted


def families() -> list[Family]:
    """One of each kind."""
    return [
        Family(Kind.INFO, "x_build", "The version.", ("version",)).add(1, "1.2.3"),
        Family(Kind.COUNTER, "x_asked", "Asked.", ("backend", "code")).add(3, ODD, "2xx").add(0, "b", "5xx"),
        Family(Kind.COUNTER, "x_seconds", "Seconds.").add(1.5e-07),
        Family(Kind.GAUGE, "x_open", "Open ones.").add(True),
        Family(Kind.GAUGE, "x_nothing", "Without a series."),
        Family(Kind.HISTOGRAM, "x_wait", "Waits.", ("backend",), histograms=[((ODD,), histogram())]),
    ]  # fmt: skip


class Same(Collector):
    """The same as prometheus_client has it."""

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        yield InfoMetricFamily("x_build", "The version.", {"version": "1.2.3"})
        requests = CounterMetricFamily("x_asked", "Asked.", labels=["backend", "code"])
        requests.add_metric([ODD, "2xx"], 3)
        requests.add_metric(["b", "5xx"], 0)
        yield requests
        yield CounterMetricFamily("x_seconds", "Seconds.", 1.5e-07)
        yield GaugeMetricFamily("x_open", "Open ones.", 1)
        yield GaugeMetricFamily("x_nothing", "Without a series.", labels=["none"])
        waits = HistogramMetricFamily("x_wait", "Waits.", labels=["backend"])
        buckets: list[tuple[str, float]] = [("0.5", 2), ("1.0", 3), ("60.0", 3), ("+Inf", 4)]
        waits.add_metric([ODD], buckets, 101.75)
        yield waits


@pytest.fixture
def same() -> CollectorRegistry:
    """A registry with them."""
    registry = CollectorRegistry()
    registry.register(Same())
    return registry


def test_the_text_format(same: CollectorRegistry) -> None:
    """A parser finds the same families, labels and numbers in ours as in prometheus_client's."""
    theirs = list(read_text(text_format.generate_latest(same).decode()))
    assert list(read_text(render(families(), openmetrics=False))) == theirs
    assert sum(len(family.samples) for family in theirs) == 11


def test_openmetrics(same: CollectorRegistry) -> None:
    """In OpenMetrics too, of which the parser is strict."""
    theirs = list(read_openmetrics(write_openmetrics(same).decode()))
    assert list(read_openmetrics(render(families(), openmetrics=True) + "# EOF\n")) == theirs
    assert sum(len(family.samples) for family in theirs) == 11


@pytest.mark.parametrize(("accept", "read"), [("", read_text), (OPENMETRICS, read_openmetrics)])
def test_a_scrape_tells_of_the_process_too(accept: str, read: Reader) -> None:
    """Behind ours come the metrics of the process, in the same format."""
    text, media_type = Scrape(families)(accept)
    assert media_type.startswith(accept.partition(";")[0] or "text/plain")
    names = [family.name for family in read(text.decode())]
    assert names.index("x_wait") < names.index("process_cpu_seconds")


def test_numbers_are_those_of_the_scrape() -> None:
    """What is kept from one scrape to the next is only what stands in front of the numbers."""
    counted = histogram()
    family = Family(Kind.HISTOGRAM, "x_wait", "Waits.", ("backend",), histograms=[(("a",), counted)])
    scrape = Scrape(lambda: [family])
    for more in range(3):
        assert f'x_wait_count{{backend="a"}} {4 + more}\n'.encode() in scrape("")[0]
        counted.add(1.0)
