"""The Prometheus metrics: computed at scrape from what the data plane and the affinity layer count.

Nothing is mirrored into metric objects on the hot path. Labels are backends, methods, code classes and
fixed words; never a session id, a path or a client's address.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import proxy
from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Verdict
from proxy.controlplane.discovery.source import Source
from proxy.controlplane.drains import Drains
from proxy.controlplane.events import Traffic
from proxy.dataplane.plane import Plane
from proxy.dataplane.stats import Histogram
from proxy.reload import Reloads

PREFIX = "chainlit_proxy_"


class ProxyCollector(Collector):
    """Reads the counters of one plane."""

    def __init__(self, plane: Plane, drains: Drains, reloads: Reloads, sources: Mapping[str, Source]) -> None:
        """`sources` are those of discovery, by name."""
        self._plane = plane
        self._drains = drains
        self._reloads = reloads
        self._sources = sources
        self.probes: dict[str, Histogram] = {}  # seconds of answered probes, by backend

    def probed(self, backend: Backend, seconds: float) -> None:
        """A probe was answered."""
        self.probes.setdefault(backend.name, Histogram()).add(seconds)

    def collect(self) -> Iterator[Metric]:
        """As Collector."""
        yield InfoMetricFamily(f"{PREFIX}build", "The version.", {"version": proxy.__version__})
        yield from self._traffic()
        yield from self._affinity()
        yield from self._backends()
        yield from self._lifecycle()
        yield from self._found()
        yield from self._tls()

    def _traffic(self) -> Iterator[Metric]:
        plane, stats = self._plane, self._plane.stats
        requests = _counter("requests", "Exchanges that ended.", "backend", "method", "code")
        for (backend, method, code), count in list(stats.requests.items()):
            requests.add_metric([backend, method, f"{code}xx" if code else "aborted"], count)
        yield requests
        yield _one(_counter("connections", "Client connections accepted."), stats.connections)
        yield _one(
            _gauge("open_connections", "Client connections open, without tunnels."), len(plane.connections)
        )
        yield _one(_counter("tunnels", "Websockets and other upgrades begun."), stats.tunnels)
        yield _by_backend("retries", "Requests tried again, by the backend that failed.", stats.retries)
        errors = _counter("upstream_errors", "What connections to backends met.", "backend", "error")
        for (backend, error), count in list(stats.upstream_errors.items()):
            errors.add_metric([backend, error], count)
        yield errors
        limits = _counter("limits_hit", "Clients that were over a limit, by the limit.", "limit")
        for limit, count in stats.limits.items():
            limits.add_metric([limit.value], count)
        limits.add_metric(["descriptors"], plane.doors.times_shut)
        yield limits
        yield _one(
            _counter("proxy_headers_refused", "Connections of trusted proxies without a PROXY header."),
            stats.proxy_headers_refused,
        )
        yield _one(
            _gauge("accepting", "1 while connections are accepted, 0 for want of descriptors."),
            not plane.doors.shut,
        )
        yield _histogram("first_byte_seconds", "From a request's head to its response's.", stats.first_byte)
        yield _histogram("tunnel_seconds", "From a tunnel's request to its end.", stats.tunnel_lives)
        yield _histogram("probe_seconds", "Answered probes.", self.probes)

    def _affinity(self) -> Iterator[Metric]:
        router, stats = self._plane.router, self._plane.stats
        decisions = _counter(
            "affinity_decisions",
            "Where requests went: by what evidence, with what outcome.",
            "evidence",
            "outcome",
        )
        decisions.add_metric([Evidence.SID.value, Outcome.PINNED.value], stats.sid_pinned)
        for (evidence, outcome), count in list(stats.decisions.items()):
            decisions.add_metric([evidence.value, outcome.value], count)
        yield decisions
        yield _by_backend(
            "failovers", "Sessions that moved, by the backend they left.", router.directory.moves
        )
        reasons = _counter("session_moves", "Sessions that moved, by why they had to.", "reason")
        for reason, count in router.directory.moved.items():
            reasons.add_metric([reason.value], count)
        yield reasons
        yield _one(
            _counter("rehomes", "Connections moved at CONNECT, because the guess was wrong."), stats.rehomes
        )
        yield _one(_gauge("directory_sessions", "Sessions in the directory."), len(router.directory))
        yield _one(_counter("directory_evicted", "Sessions given up for room."), router.directory.evicted)
        yield _one(_counter("directory_expired", "Sessions whose time was up."), router.directory.expired)

    def _backends(self) -> Iterator[Metric]:
        fleet = list(self._plane.router.fleet)
        verdicts = _gauge("backend_health", "1 for the verdict on the backend.", "backend", "verdict")
        states = _gauge("backend_admin_state", "1 for the operator's wish.", "backend", "state")
        sessions = _gauge("backend_sessions", "Sessions open or just placed.", "backend")
        tunnels = _gauge("backend_tunnels", "Open tunnels.", "backend")
        for backend in fleet:
            for verdict in Verdict:
                verdicts.add_metric([backend.name, verdict.value], backend.health.verdict is verdict)
            for state in AdminState:
                states.add_metric([backend.name, state.value], backend.admin_state is state)
            sessions.add_metric([backend.name], backend.sessions)
            tunnels.add_metric([backend.name], backend.tunnels)
        yield from (verdicts, states, sessions, tunnels)

    def _turns(self) -> dict[str, int]:
        """Sessions whose app is answering, by backend."""
        turns = dict.fromkeys((backend.name for backend in self._plane.router.fleet), 0)
        for session in self._plane.router.directory.answering():
            if session.backend is not None and session.backend.name in turns:
                turns[session.backend.name] += 1
        return turns

    def _open_sessions(self) -> Metric:
        """A session with a websocket counts as one, whatever else it has."""
        plane = self._plane
        sockets = {tunnel.session for tunnel in plane.tunnels}
        counts = Counter((s.backend, s in sockets) for s in plane.router.directory.open())
        metric = _gauge("open_sessions", "Sessions with a connection.", "backend", "transport")
        for backend in plane.router.fleet:
            metric.add_metric([backend.name, "websocket"], counts[backend, True])
            metric.add_metric([backend.name, "polling"], counts[backend, False])
        return metric

    def traffic(self) -> Traffic:
        """The same counts for the API."""
        stats = self._plane.stats
        requests: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        for (backend, _, code), count in stats.requests.items():
            requests[backend] += count
            failures[backend] += count if code in {0, 5} else 0
        decisions = [(e.value, o.value, count) for (e, o), count in stats.decisions.items()]
        return Traffic(
            requests=requests,
            failures=failures,
            turns=self._turns(),
            probes={name: (sum(probes.counts), probes.total) for name, probes in self.probes.items()},
            decisions=[(Evidence.SID.value, Outcome.PINNED.value, stats.sid_pinned), *decisions],
        )

    def _lifecycle(self) -> Iterator[Metric]:
        drains, reloads = self._drains, self._reloads
        in_turn = _gauge("backend_turns", "Sessions whose app is answering.", "backend")
        for name, count in self._turns().items():
            in_turn.add_metric([name], count)
        yield in_turn
        yield self._open_sessions()
        sent_away = "Sessions that were told to connect anew, by the backend they had to leave."
        yield _by_backend("sessions_sent_away", sent_away, self._plane.moves.sent_away)
        lingers = self._plane.lingers
        yield _one(_gauge("lingering_sessions", "Lost clients that are waited for."), len(lingers.by_session))
        yield _one(_counter("lingers", "Lost clients that were waited for."), lingers.began)
        yield _one(_counter("lingers_resumed", "Of these, who came back in time."), lingers.resumed)
        yield _one(_counter("drains", "Drains that ended with an empty backend."), drains.ended)
        yield _one(_counter("drain_seconds", "Seconds that they took together."), drains.seconds)
        counts = _counter("reloads", "Reloads of the configuration, by result.", "result")
        counts.add_metric(["applied"], reloads.applied)
        counts.add_metric(["refused"], reloads.refused)
        yield counts
        good = reloads.last is None or reloads.last.applied
        yield _one(_gauge("config_current", "1 while the file is in effect as it was last read."), good)

    def _found(self) -> Iterator[Metric]:
        updates = _counter("discovery_updates", "Lists of backends that differed from the last.", "source")
        failures = _counter("discovery_failures", "Lists that could not be used.", "source")
        backends = _gauge("discovery_backends", "Backends in the last good list.", "source")
        current = _gauge("discovery_current", "1 while the last list could be used.", "source")
        for name, source in self._sources.items():
            updates.add_metric([name], source.updates)
            failures.add_metric([name], source.failures)
            backends.add_metric([name], len(source.last or ()))
            current.add_metric([name], source.is_current)
        yield from (updates, failures, backends, current)

    def _tls(self) -> Iterator[Metric]:
        certificate = self._plane.certificate
        failures = _counter("tls_reload_failures", "Changed certificates that could not be used.")
        yield _one(failures, certificate.failures if certificate else 0)
        expiry = _gauge("tls_certificate_expiry_seconds", "When the certificate expires, in unix time.")
        if certificate is not None:
            expiry.add_metric([], certificate.expires)
        yield expiry


def build_registry(collector: ProxyCollector) -> CollectorRegistry:
    """A registry with our metrics and those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(collector)
    return registry


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _one(metric: CounterMetricFamily | GaugeMetricFamily, value: float) -> Metric:
    metric.add_metric([], value)
    return metric


def _by_backend(name: str, text: str, counts: dict[str, int]) -> CounterMetricFamily:
    metric = _counter(name, text, "backend")
    for backend, count in list(counts.items()):
        metric.add_metric([backend], count)
    return metric


def _histogram(name: str, text: str, by_backend: dict[str, Histogram]) -> HistogramMetricFamily:
    metric = HistogramMetricFamily(PREFIX + name, text, labels=["backend"])
    for backend, histogram in list(by_backend.items()):
        metric.add_metric([backend], list(_cumulated(histogram)), histogram.total)
    return metric


def _cumulated(histogram: Histogram) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        yield bound, total
