"""The Prometheus metrics: computed at scrape from what the data plane and the affinity layer count.

Nothing is mirrored into metric objects on the hot path. Labels are backends, methods, code classes and
fixed words; never a session id, a path or a client's address. What was counted of a backend that has left is
told for a while and then forgotten, so that replicas that come and go under new names do not add up.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from time import monotonic

import proxy
from proxy import borders
from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Verdict
from proxy.affinity.standstill import Standstill
from proxy.build import BUILD
from proxy.controlplane.discovery.source import Source
from proxy.controlplane.drains import Drains
from proxy.controlplane.events import Traffic
from proxy.controlplane.reload import ReloadCounts
from proxy.controlplane.renewals import Outcome as Renewal
from proxy.controlplane.wants import Wants
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.dataplane.plane import Plane
from proxy.dataplane.stats import Histogram
from proxy.exposition import Family, Kind

PREFIX = "chainlit_proxy_"
_STATES = ("waiting", "polling", "responding")  # of a request that has not ended
_VERDICTS = [(verdict, verdict.value) for verdict in Verdict]
_WISHES = [(state, state.value) for state in AdminState]
_AT = attrgetter("backend")
_AFTERWARDS = 600.0  # seconds that the counts of a backend outlive it: ten scrapes of a slow Prometheus


class ProbeTimes:
    """Seconds of answered probes, by backend."""

    def __init__(self) -> None:
        self.by_backend: dict[str, Histogram] = {}

    def add(self, backend: Backend, seconds: float) -> None:
        """A probe was answered."""
        self.by_backend.setdefault(backend.name, Histogram()).add(seconds)

    def __repr__(self) -> str:
        return f"<ProbeTimes of {len(self.by_backend)} backends>"


class ProxyCollector:
    """Reads the counters of one plane."""

    def __init__(
        self,
        plane: Plane,
        drains: Drains,
        reloads: ReloadCounts,
        sources: Mapping[str, Source],
        probe_times: ProbeTimes,
        lines_dropped: Callable[[], int],
        standstill: Standstill,
        renewals: Mapping[Renewal, int],
        wants: Wants,
    ) -> None:
        """`sources` are those of discovery, by name; `lines_dropped` counts those of the log."""
        self._plane = plane
        self._drains = drains
        self._reloads = reloads
        self._sources = sources
        self._lines_dropped = lines_dropped
        self._standstill = standstill
        self._renewals = renewals
        self._wants = wants
        self._probes = probe_times.by_backend
        self._gone: dict[str, float] = {}  # when it was first seen that a counted backend had left

    def collect(self) -> Iterator[Family]:
        """All of them, as they are now."""
        self.forget_gone(monotonic())
        build = Family(
            Kind.INFO, f"{PREFIX}build", "The version, and which build of it.", ("version", "build")
        )
        yield build.add(1, proxy.__version__, BUILD)
        errors = _counter("internal_errors", "Mistakes of the proxy that cost one item each.", "where")
        for where, count in borders.counts.items():
            errors.add(count, where.value)
        yield errors
        yield from self._traffic()
        yield from self._affinity()
        yield from self._hand_overs()
        yield from self._shared_directory()
        yield from self._backends()
        yield from self._lifecycle()
        yield from self._found()
        yield from self._tls()

    def forget_gone(self, now: float) -> None:
        """Forget what was counted of backends that left long ago."""
        plane = self._plane
        by_backend = (self._probes, plane.site.router.directory.moves, plane.evictions.sent_away)
        gone = plane.site.stats.names().union(*by_backend) - {
            backend.name for backend in plane.site.router.fleet
        }
        self._gone = {name: self._gone.get(name, now) for name in gone}
        for name, since in self._gone.items():
            if since + _AFTERWARDS <= now:
                plane.site.stats.forget(name)
                for counts in by_backend:
                    counts.pop(name, None)

    def _traffic(self) -> Iterator[Family]:
        plane, stats = self._plane, self._plane.site.stats
        requests = _counter("requests", "Exchanges that ended.", "backend", "method", "code")
        for (backend, method, code), count in list(stats.requests.items()):
            requests.add(count, backend, method, f"{code}xx" if code else "aborted")
        yield requests
        yield _counter("connections", "Client connections accepted.").add(stats.connections)
        yield _gauge("open_connections", "Client connections open, without tunnels.").add(
            len(plane.connections)
        )
        yield _counter("tunnels", "Websockets and other upgrades begun.").add(stats.tunnels)
        yield _by_backend("retries", "Requests tried again, by the backend that failed.", stats.retries)
        held = _counter("held_requests", "Requests held while nobody could take them, by result.", "result")
        for result, count in plane.site.arrivals.counts.items():
            held.add(count, result.value)
        yield held
        errors = _counter("upstream_errors", "What connections to backends met.", "backend", "error")
        for (backend, error), count in list(stats.upstream_errors.items()):
            errors.add(count, backend, error)
        yield errors
        limits = _counter("limits_hit", "Clients that were over a limit, by the limit.", "limit")
        for limit, count in stats.limits.items():
            limits.add(count, limit.value)
        limits.add(plane.listeners.times_shut, "descriptors")
        yield limits
        yield _counter("proxy_headers_refused", "Connections of trusted proxies without a PROXY header.").add(
            stats.proxy_headers_refused
        )
        odd = _counter("refused_ids", "Requests and websockets refused for an odd id, by its kind.", "kind")
        for kind, count in stats.odd_ids.items():
            odd.add(count, kind.value)
        yield odd
        yield _gauge("accepting", "1 while connections are accepted, 0 for want of descriptors.").add(
            not plane.listeners.shut
        )
        yield _histogram("first_byte_seconds", "From a request's head to its response's.", stats.first_byte)
        yield _histogram("tunnel_seconds", "From a tunnel's request to its end.", stats.tunnel_lives)
        frames = _counter(
            "frames", "Frames of websockets; those of one read are one.", "backend", "direction"
        )
        for pool in plane.site.pools():
            frames.add(pool.frames_in, pool.backend.name, "in").add(pool.frames_out, pool.backend.name, "out")
        yield frames
        connects = {pool.backend.name: pool.connect_seconds for pool in plane.site.pools()}
        yield _histogram("connect_seconds", "Connections to backends, with their TLS handshake.", connects)
        yield self._open_requests()
        yield _histogram("probe_seconds", "Answered probes.", self._probes)

    def _open_requests(self) -> Family:
        """Those without a backend are being read for their session, or it is being asked for."""
        family = _gauge("open_requests", "Requests that have not ended.", "backend", "state")
        names = ["", *(backend.name for backend in self._plane.site.router.fleet)]
        exchanges = [at.exchange for at in self._plane.connections if at.exchange is not None]
        counts = Counter((at.decision.backend.name if at.decision else "", _state(at)) for at in exchanges)
        for name in names:
            for state in _STATES:
                family.add(counts[name, state], name, state)
        return family

    def _affinity(self) -> Iterator[Family]:
        router, stats = self._plane.site.router, self._plane.site.stats
        decisions = _counter(
            "affinity_decisions",
            "Where requests went: by what evidence, with what outcome.",
            "evidence",
            "outcome",
        )
        decisions.add(stats.sid_pinned, Evidence.SID.value, Outcome.PINNED.value)
        for (evidence, outcome), count in list(stats.decisions.items()):
            decisions.add(count, evidence.value, outcome.value)
        yield decisions
        yield _by_backend(
            "failovers", "Sessions that moved, by the backend they left.", router.directory.moves
        )
        reasons = _counter("session_moves", "Sessions that moved, by why they had to.", "reason")
        for reason, count in router.directory.moved.items():
            reasons.add(count, reason.value)
        yield reasons
        yield _counter("pings", "Engine.IO pings said to clients in place of their backend.").add(stats.pings)
        yield _counter("rehomes", "Connections moved at CONNECT, because the guess was wrong.").add(
            stats.rehomes
        )
        questions = _counter(
            "locate_questions", "Sessions that backends were asked for, by result.", "result"
        )
        for result, count in self._plane.site.locator.results.items():
            questions.add(count, result.value)
        yield questions
        yield _gauge("directory_sessions", "Sessions in the directory.").add(len(router.directory))
        yield _counter("directory_evicted", "Sessions given up for room.").add(router.directory.evicted)
        yield _counter("directory_expired", "Sessions whose time was up.").add(router.directory.expired)

    def _hand_overs(self) -> Iterator[Family]:
        counts = self._plane.site.hand_overs.counts
        text = "Sessions handed over to another backend, by why and how that ended."
        results = _counter("hand_overs", text, "reason", "result")
        for reason in Reason:
            for result in Result:
                results.add(counts.results[reason, result], reason.value, result.value)
        yield results
        name, text = f"{PREFIX}hand_over_seconds", "From a session's loss until it went on."
        yield Family(Kind.HISTOGRAM, name, text, histograms=[((), counts.seconds)])
        text = "Messages of clients that were said again to another backend."
        yield _counter("messages_said_again", text).add(counts.said_again)

    def _shared_directory(self) -> Iterator[Family]:
        shared = self._plane.site.shared
        up = _gauge("shared_directory_up", "1 while the shared directory answers.")
        yield up.add(shared.up) if self._plane.site.router.shared else up
        lookups = _counter("shared_directory_lookups", "Sessions looked up there, by result.", "result")
        writes = _counter("shared_directory_writes", "Sessions written there, by result.", "result")
        for metric, counts in ((lookups, shared.lookups), (writes, shared.writes)):
            for result, count in counts.items():
                metric.add(count, result)
            yield metric
        yield _counter("shared_directory_errors", "Times that it was lost.").add(shared.errors)
        yield _counter("shared_directory_learned", "News of other proxies.").add(shared.learned)
        name = f"{PREFIX}shared_directory_lookup_seconds"
        yield Family(Kind.HISTOGRAM, name, "Looking one up.", histograms=[((), shared.seconds)])

    def _backends(self) -> Iterator[Family]:
        yield _counter("standstill_seconds", "Time in which this process did not run.").add(
            self._standstill.total
        )
        fleet = list(self._plane.site.router.fleet)
        verdicts = _gauge("backend_health", "1 for the verdict on the backend.", "backend", "verdict")
        states = _gauge("backend_admin_state", "1 for the operator's wish.", "backend", "state")
        sessions = _gauge("backend_sessions", "Sessions open or just placed.", "backend")
        tunnels = _gauge("backend_tunnels", "Open tunnels.", "backend")
        text = "Requests and probes under way that any app answers at once, unless it blocks its event loop."
        unanswered = _gauge("backend_unanswered", text, "backend")
        for backend in fleet:
            for verdict, word in _VERDICTS:
                verdicts.add(backend.health.verdict is verdict, backend.name, word)
            for state, word in _WISHES:
                states.add(backend.admin_state is state, backend.name, word)
            sessions.add(backend.sessions, backend.name)
            tunnels.add(backend.tunnels, backend.name)
            unanswered.add(backend.unanswered, backend.name)
        yield from (verdicts, states, sessions, tunnels, unanswered)

    def _turns(self) -> dict[str, int]:
        """Sessions whose app is answering, by backend."""
        turns = dict.fromkeys((backend.name for backend in self._plane.site.router.fleet), 0)
        for session in self._plane.site.router.directory.answering():
            if session.backend is not None and session.backend.name in turns:
                turns[session.backend.name] += 1
        return turns

    def _open_sessions(self) -> Family:
        """A session with a websocket counts as one, whatever else it has."""
        plane = self._plane
        everyone = Counter(map(_AT, plane.site.router.directory.open()))
        sockets = Counter(
            map(_AT, {tunnel.session for tunnel in plane.tunnels if tunnel.session is not None})
        )
        family = _gauge("open_sessions", "Sessions with a connection.", "backend", "transport")
        for backend in plane.site.router.fleet:
            family.add(sockets[backend], backend.name, "websocket")
            family.add(everyone[backend] - sockets[backend], backend.name, "polling")
        return family

    def traffic(self) -> Traffic:
        """The same counts for the API."""
        stats = self._plane.site.stats
        requests: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        for (backend, _, code), count in stats.requests.items():
            requests[backend] += count
            failures[backend] += count if code in {0, 5} else 0
        decisions = [(e.value, o.value, count) for (e, o), count in stats.decisions.items()]
        return Traffic(
            requests=requests,
            failures=failures,
            frames={pool.backend.name: pool.frames_in + pool.frames_out for pool in self._plane.site.pools()},
            turns=self._turns(),
            probes={name: (sum(probes.counts), probes.total) for name, probes in self._probes.items()},
            decisions=[(Evidence.SID.value, Outcome.PINNED.value, stats.sid_pinned), *decisions],
        )

    def _lifecycle(self) -> Iterator[Family]:
        drains, reloads = self._drains, self._reloads
        in_turn = _gauge("backend_turns", "Sessions whose app is answering.", "backend")
        for name, count in self._turns().items():
            in_turn.add(count, name)
        yield in_turn
        yield self._open_sessions()
        text = "Backends that are wanted for what this proxy sees."
        yield _gauge("replicas_wanted", text).add(self._wants.wish.wanted)
        sent_away = "Sessions that were told to connect anew, by the backend they had to leave."
        yield _by_backend("sessions_sent_away", sent_away, self._plane.evictions.sent_away)
        lingers = self._plane.site.lingers
        yield _gauge("lingering_sessions", "Lost clients that are waited for.").add(len(lingers.by_session))
        yield _counter("lingers", "Lost clients that were waited for.").add(lingers.began)
        yield _counter("lingers_resumed", "Of these, who came back in time.").add(lingers.resumed)
        yield _counter("drains", "Drains that ended with an empty backend.").add(drains.ended)
        yield _counter("drain_seconds", "Seconds that they took together.").add(drains.seconds)
        counts = _counter("reloads", "Reloads of the configuration, by result.", "result")
        counts.add(reloads.applied, "applied")
        counts.add(reloads.refused, "refused")
        yield counts
        dropped = "Lines that standard output or error did not take in time."
        yield _counter("log_lines_dropped", dropped).add(self._lines_dropped())
        current = "1 while the file is in effect as it was last read."
        yield _gauge("config_current", current).add(reloads.current)

    def _found(self) -> Iterator[Family]:
        updates = _counter("discovery_updates", "Lists of backends that differed from the last.", "source")
        failures = _counter("discovery_failures", "Lists that could not be used.", "source")
        backends = _gauge("discovery_backends", "Backends in the last good list.", "source")
        current = _gauge("discovery_current", "1 while the last list could be used.", "source")
        for name, source in self._sources.items():
            updates.add(source.updates, name)
            failures.add(source.failures, name)
            backends.add(len(source.last or ()), name)
            current.add(source.is_current, name)
        yield from (updates, failures, backends, current)

    def _tls(self) -> Iterator[Family]:
        certificates = self._plane.certificates
        failures = _counter("tls_reload_failures", "Changed certificates that could not be used.")
        yield failures.add(certificates.failures if certificates else 0)
        expiries = certificates.expiries() if certificates else {}
        expiry = _gauge("certificate_expiry_seconds", "When each expires, in unix time.", "certificate")
        for name, at in expiries.items():
            expiry.add(at, name)
        yield expiry
        first = _gauge("tls_certificate_expiry_seconds", "When the first of them expires, in unix time.")
        if expiries:
            first.add(min(expiries.values()))
        yield first
        renewals = _counter("certificate_renewals", "Certificates of tls.acme, by result.", "result")
        for outcome, count in self._renewals.items():
            renewals.add(count, outcome.value)
        yield renewals


def _state(exchange: Exchange) -> str:
    """Whether its response has begun; a long poll waits for news and not for a backend that is late."""
    if exchange.status:
        return "responding"
    return "polling" if exchange.request.is_poll else "waiting"


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(Kind.COUNTER, PREFIX + name, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(Kind.GAUGE, PREFIX + name, text, labels)


def _by_backend(name: str, text: str, counts: dict[str, int]) -> Family:
    family = _counter(name, text, "backend")
    for backend, count in counts.items():
        family.add(count, backend)
    return family


def _histogram(name: str, text: str, by_backend: dict[str, Histogram]) -> Family:
    rows = [((backend,), histogram) for backend, histogram in by_backend.items()]
    return Family(Kind.HISTOGRAM, PREFIX + name, text, ("backend",), histograms=rows)
