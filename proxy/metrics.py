"""The Prometheus metrics: computed at scrape from what the data plane and the affinity layer count.

Nothing is mirrored into metric objects on the hot path. Labels are backends, methods, code classes and
fixed words; never a session id, a path or a client's address. What was counted of a backend that has left is
told for a while and then forgotten, so that replicas that come and go under new names do not add up.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from operator import attrgetter
from time import monotonic

import proxy
from proxy import borders, errors
from proxy.affinity.backend import AdminState
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
from proxy.errors import Side
from proxy.exposition import Family, Kind
from proxy.metric_families import PREFIX, by, counter, gauge, histogram, queue_families
from proxy.probe_times import ProbeTimes
from proxy.wire.forwarding import HTTP1, HTTP2

_STATES = ("waiting", "polling", "responding")  # of a request that has not ended
_VERDICTS = [(verdict, verdict.value) for verdict in Verdict]
_WISHES = [(state, state.value) for state in AdminState]
_AT = attrgetter("backend")
# What is told from the start on: what begins with its first 5xx has no increase for Prometheus.
_METHODS, _CLASSES = ("GET", "POST"), (0, 2, 3, 4, 5)
_ERRORS = [kind.__name__ for kind in vars(errors).values() if getattr(kind, "side", None) is Side.UPSTREAM]
_AFTERWARDS = 600.0  # seconds that the counts of a backend outlive it: ten scrapes of a slow Prometheus


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
        not_ready: Callable[[], str],
        leaving: Callable[[], bool],
        wants: Wants,
    ) -> None:
        """`sources` are those of discovery, by name; `lines_dropped` counts those of the log.

        `not_ready` tells why no new clients should be sent here, "" if they may; `leaving` whether the
        process is to end.
        """
        self._plane = plane
        self._drains = drains
        self._reloads = reloads
        self._sources = sources
        self._lines_dropped = lines_dropped
        self._standstill = standstill
        self._renewals = renewals
        self._probe_times, self._probes = probe_times, probe_times.by_backend
        self._not_ready, self._leaving = not_ready, leaving
        self._wants = wants
        self._gone: dict[str, float] = {}  # when it was first seen that a counted backend had left

    def collect(self) -> Iterator[Family]:
        """All of them, as they are now."""
        self.forget_gone(monotonic())
        build = Family(
            Kind.INFO, f"{PREFIX}build", "The version, and which build of it.", ("version", "build")
        )
        yield build.add(1, proxy.__version__, BUILD)
        ready = gauge("ready", "1 while /readyz says so: new clients may be sent here.")
        yield ready.add(not self._not_ready())
        yield gauge("leaving", "1 while the process ends, and is not ready for that.").add(self._leaving())
        yield by("where", "internal_errors", "Mistakes of the proxy that cost one item each.", borders.counts)
        yield from self._traffic()
        yield from self._affinity()
        yield from self._hand_overs()
        yield from self._shared_directory()
        yield from queue_families(self._plane.site.doorway)
        yield from self._backends()
        yield from self._lifecycle()
        yield from self._found()
        yield from self._tls()

    def forget_gone(self, now: float) -> None:
        """Forget what was counted of backends that left long ago."""
        plane = self._plane
        by_backend = (
            self._probes,
            self._probe_times.results,
            plane.site.router.directory.moves,
            plane.evictions.sent_away,
        )
        gone = plane.site.stats.names().union(*by_backend) - {
            backend.name for backend in plane.site.router.fleet
        }
        self._gone = {name: self._gone.get(name, now) for name in gone}
        for name, since in self._gone.items():
            if since + _AFTERWARDS <= now:
                plane.site.stats.forget(name)
                for counts in by_backend:
                    counts.pop(name, None)

    def _connections(self) -> Iterator[Family]:
        plane, stats = self._plane, self._plane.site.stats
        accepted, http2 = stats.connections, stats.http2_connections
        connections = counter("connections", "Client connections accepted, by protocol.", "protocol")
        yield connections.add(accepted - http2, HTTP1).add(http2, HTTP2)
        multiplexed = list(plane.http2_connections)
        streams = sum(connection.requests for connection in multiplexed)
        open_now = gauge("open_connections", "Client connections open, without tunnels.", "protocol")
        open_now.add(len(plane.connections) - streams - len(multiplexed), HTTP1)
        yield open_now.add(len(multiplexed), HTTP2)
        yield counter("streams", "Requests in HTTP/2.").add(stats.http2_streams)
        yield gauge("open_streams", "Requests in HTTP/2 that are open.").add(streams)
        yield by(
            "code",
            "http2_errors",
            "Connections that broke the rules of HTTP/2, by error.",
            stats.http2_errors,
        )

    def _traffic(self) -> Iterator[Family]:
        plane, stats = self._plane, self._plane.site.stats
        requests = counter("requests", "Exchanges that ended.", "backend", "method", "code")
        names = [backend.name for backend in plane.site.router.fleet]
        begun = dict.fromkeys(product(["", *names], _METHODS, _CLASSES), 0)
        for (backend, method, code), count in (begun | stats.requests).items():
            requests.add(count, backend, method, f"{code}xx" if code else "aborted")
        yield requests
        yield from self._connections()
        yield counter("tunnels", "Websockets and other upgrades begun.").add(stats.tunnels)
        none = dict.fromkeys(names, 0)
        text = "Requests tried again, by the backend that failed."
        yield by("backend", "retries", text, none | stats.retries)
        yield by(
            "result",
            "held_requests",
            "Requests held while nobody could take them, by result.",
            plane.site.arrivals.counts,
        )
        met = counter("upstream_errors", "What connections to backends met.", "backend", "error")
        for (backend, error), count in (
            dict.fromkeys(product(names, _ERRORS), 0) | stats.upstream_errors
        ).items():
            met.add(count, backend, error)
        yield met
        limits = counter("limits_hit", "Clients that were over a limit, by the limit.", "limit")
        for limit, count in stats.limits.items():
            limits.add(count, limit.value)
        limits.add(plane.listeners.times_shut, "descriptors")
        yield limits
        yield counter("proxy_headers_refused", "Connections of trusted proxies without a PROXY header.").add(
            stats.proxy_headers_refused
        )
        yield by(
            "kind",
            "refused_ids",
            "Requests and websockets refused for an odd id, by its kind.",
            stats.odd_ids,
        )
        yield gauge("accepting", "1 while connections are accepted, 0 for want of descriptors.").add(
            not plane.listeners.shut
        )
        yield histogram("first_byte_seconds", "From a request's head to its response's.", stats.first_byte)
        yield histogram("tunnel_seconds", "From a tunnel's request to its end.", stats.tunnel_lives)
        frames = counter("frames", "Frames of websockets; those of one read are one.", "backend", "direction")
        for pool in plane.site.pools():
            frames.add(pool.frames_in, pool.backend.name, "in").add(pool.frames_out, pool.backend.name, "out")
        yield frames
        text = "Websockets whose messages to the client are compressed."
        yield counter("compressed_websockets", text).add(stats.compressed)
        contexts = plane.site.contexts
        text = "Bytes of messages to clients that were compressed, before (plain) and after (packed)."
        sizes = counter("compressed_bytes", text, "form")
        yield sizes.add(contexts.plain, "plain").add(contexts.packed, "packed")
        text = "Clients that messages are compressed for by what they were told before."
        yield gauge("compression_contexts", text).add(len(contexts))
        connects = {pool.backend.name: pool.connect_seconds for pool in plane.site.pools()}
        yield histogram("connect_seconds", "Connections to backends, with their TLS handshake.", connects)
        yield self._open_requests()
        yield from self._probe_times.families(PREFIX, names)

    def _open_requests(self) -> Family:
        """Those without a backend are being read for their session, or it is being asked for."""
        family = gauge("open_requests", "Requests that have not ended.", "backend", "state")
        names = ["", *(backend.name for backend in self._plane.site.router.fleet)]
        exchanges = [at.exchange for at in self._plane.connections if at.exchange is not None]
        counts = Counter((at.decision.backend.name if at.decision else "", _state(at)) for at in exchanges)
        for name in names:
            for state in _STATES:
                family.add(counts[name, state], name, state)
        return family

    def _affinity(self) -> Iterator[Family]:
        router, stats = self._plane.site.router, self._plane.site.stats
        decisions = counter(
            "affinity_decisions",
            "Where requests went: by what evidence, with what outcome.",
            "evidence",
            "outcome",
        )
        decisions.add(stats.sid_pinned, Evidence.SID.value, Outcome.PINNED.value)
        for evidence, outcome in product(Evidence, Outcome):
            if (evidence, outcome) != (Evidence.SID, Outcome.PINNED):
                decisions.add(stats.decisions.get((evidence, outcome), 0), evidence.value, outcome.value)
        yield decisions
        none = dict.fromkeys((backend.name for backend in router.fleet), 0)
        text = "Sessions that moved, by the backend they left."
        yield by("backend", "failovers", text, none | router.directory.moves)
        yield by(
            "reason", "session_moves", "Sessions that moved, by why they had to.", router.directory.moved
        )
        yield counter("pings", "Engine.IO pings said to clients in place of their backend.").add(stats.pings)
        yield counter("rehomes", "Connections moved at CONNECT, because the guess was wrong.").add(
            stats.rehomes
        )
        questions = counter("locate_questions", "Sessions that backends were asked for, by result.", "result")
        for result, count in self._plane.site.locator.results.items():
            questions.add(count, result.value)
        yield questions
        yield gauge("directory_sessions", "Sessions in the directory.").add(len(router.directory))
        yield counter("directory_evicted", "Sessions given up for room.").add(router.directory.evicted)
        yield counter("directory_expired", "Sessions whose time was up.").add(router.directory.expired)

    def _hand_overs(self) -> Iterator[Family]:
        counts = self._plane.site.hand_overs.counts
        text = "Sessions handed over to another backend, by why and how that ended."
        results = counter("hand_overs", text, "reason", "result")
        for reason in Reason:
            for result in Result:
                results.add(counts.results[reason, result], reason.value, result.value)
        yield results
        name, text = f"{PREFIX}hand_over_seconds", "From a session's loss until it went on."
        yield Family(Kind.HISTOGRAM, name, text, histograms=[((), counts.seconds)])
        text = "Messages of clients that were said again to another backend."
        yield counter("messages_said_again", text).add(counts.said_again)

    def _shared_directory(self) -> Iterator[Family]:
        shared = self._plane.site.shared
        up = gauge("shared_directory_up", "1 while the shared directory answers.")
        yield up.add(shared.up) if self._plane.site.router.shared else up
        lookups = counter("shared_directory_lookups", "Sessions looked up there, by result.", "result")
        writes = counter("shared_directory_writes", "Sessions written there, by result.", "result")
        for metric, counts in ((lookups, shared.lookups), (writes, shared.writes)):
            for result, count in counts.items():
                metric.add(count, result)
            yield metric
        yield counter("shared_directory_errors", "Times that it was lost.").add(shared.errors)
        yield counter("shared_directory_learned", "News of other proxies.").add(shared.learned)
        name = f"{PREFIX}shared_directory_lookup_seconds"
        yield Family(Kind.HISTOGRAM, name, "Looking one up.", histograms=[((), shared.seconds)])

    def _backends(self) -> Iterator[Family]:
        yield counter("standstill_seconds", "Time in which this process did not run.").add(
            self._standstill.total
        )
        fleet = list(self._plane.site.router.fleet)
        verdicts = gauge("backend_health", "1 for the verdict on the backend.", "backend", "verdict")
        states = gauge("backend_admin_state", "1 for the operator's wish.", "backend", "state")
        sessions = gauge("backend_sessions", "Sessions open or just placed.", "backend")
        tunnels = gauge("backend_tunnels", "Open tunnels.", "backend")
        text = "Requests and probes under way that any app answers at once, unless it blocks its event loop."
        unanswered = gauge("backend_unanswered", text, "backend")
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
        family = gauge("open_sessions", "Sessions with a connection.", "backend", "transport")
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
            queue=self._plane.site.doorway.counts(),
        )

    def _lifecycle(self) -> Iterator[Family]:
        drains, reloads = self._drains, self._reloads
        in_turn = gauge("backend_turns", "Sessions whose app is answering.", "backend")
        for name, count in self._turns().items():
            in_turn.add(count, name)
        yield in_turn
        yield self._open_sessions()
        text = "Backends that are wanted for what this proxy sees."
        yield gauge("replicas_wanted", text).add(self._wants.wish.wanted)
        sent_away = "Sessions that were told to connect anew, by the backend they had to leave."
        none = dict.fromkeys((backend.name for backend in self._plane.site.router.fleet), 0)
        yield by("backend", "sessions_sent_away", sent_away, none | self._plane.evictions.sent_away)
        lingers = self._plane.site.lingers
        yield gauge("lingering_sessions", "Lost clients that are waited for.").add(len(lingers.by_session))
        yield counter("lingers", "Lost clients that were waited for.").add(lingers.began)
        yield counter("lingers_resumed", "Of these, who came back in time.").add(lingers.resumed)
        yield counter(
            "unacknowledged_messages",
            "Messages on their way to clients that were lost, kept for their return.",
        ).add(lingers.unacknowledged)
        yield counter("drains", "Drains that ended with an empty backend.").add(drains.ended)
        yield counter("drain_seconds", "Seconds that they took together.").add(drains.seconds)
        counts = counter("reloads", "Reloads of the configuration, by result.", "result")
        counts.add(reloads.applied, "applied")
        counts.add(reloads.refused, "refused")
        yield counts
        dropped = "Lines that standard output or error did not take in time."
        yield counter("log_lines_dropped", dropped).add(self._lines_dropped())
        current = "1 while the file is in effect as it was last read."
        yield gauge("config_current", current).add(reloads.current)

    def _found(self) -> Iterator[Family]:
        updates = counter("discovery_updates", "Lists of backends that differed from the last.", "source")
        failures = counter("discovery_failures", "Lists that could not be used.", "source")
        backends = gauge("discovery_backends", "Backends in the last good list.", "source")
        current = gauge("discovery_current", "1 while the last list could be used.", "source")
        for name, source in self._sources.items():
            updates.add(source.updates, name)
            failures.add(source.failures, name)
            backends.add(len(source.last or ()), name)
            current.add(source.is_current, name)
        yield from (updates, failures, backends, current)

    def _tls(self) -> Iterator[Family]:
        certificates = self._plane.certificates
        failures = counter("tls_reload_failures", "Changed certificates that could not be used.")
        yield failures.add(certificates.failures if certificates else 0)
        expiries = certificates.expiries() if certificates else {}
        expiry = gauge("certificate_expiry_seconds", "When each expires, in unix time.", "certificate")
        for name, at in expiries.items():
            expiry.add(at, name)
        yield expiry
        first = gauge("tls_certificate_expiry_seconds", "When the first of them expires, in unix time.")
        if expiries:
            first.add(min(expiries.values()))
        yield first
        yield by("result", "certificate_renewals", "Certificates of tls.acme, by result.", self._renewals)


def _state(exchange: Exchange) -> str:
    """Whether its response has begun; a long poll waits for news and not for a backend that is late."""
    if exchange.status:
        return "responding"
    return "polling" if exchange.request.is_poll else "waiting"
