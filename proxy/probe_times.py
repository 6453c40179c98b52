"""What probes met and how long they took, by backend: counted by the prober, told as metrics.

Those without an answer count too: an app that blocks its event loop answers the others as quickly as ever.
"""

from collections.abc import Iterable, Iterator

from proxy.affinity.backend import Backend
from proxy.affinity.health import Observation
from proxy.dataplane.stats import Histogram
from proxy.exposition import Family, Kind

MET = [met for met in Observation if met is not Observation.ENDED]  # by a probe


class ProbeTimes:
    """Owned by the parts of a process."""

    def __init__(self) -> None:
        self.by_backend: dict[str, Histogram] = {}  # seconds of those that were answered well
        self.results: dict[str, dict[Observation, int]] = {}

    def add(self, backend: Backend, met: Observation, seconds: float) -> None:
        """A probe has ended."""
        self.results.setdefault(backend.name, dict.fromkeys(MET, 0))[met] += 1
        if met is Observation.ANSWERED:
            self.by_backend.setdefault(backend.name, Histogram()).add(seconds)

    def families(self, prefix: str, names: Iterable[str]) -> Iterator[Family]:
        """The metrics, with those of these backends that were not probed yet."""
        rows = [((name,), histogram) for name, histogram in self.by_backend.items()]
        name, text = f"{prefix}probe_seconds", "Answered probes."
        yield Family(Kind.HISTOGRAM, name, text, ("backend",), histograms=rows)
        labels = ("backend", "result")
        probes = Family(Kind.COUNTER, f"{prefix}probes", "Probes, by what they met.", labels)
        none = dict.fromkeys(MET, 0)
        for backend in dict.fromkeys((*names, *self.results)):
            for met, count in self.results.get(backend, none).items():
                probes.add(count, backend, met.value)
        yield probes

    def __repr__(self) -> str:
        return f"<ProbeTimes of {len(self.results)} backends>"
