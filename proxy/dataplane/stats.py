"""What the data plane counts: plain integers, read by the metrics collector at scrape.

Labels are bounded by the number of backends: unknown methods are one label, codes are counted by class.
"""

from bisect import bisect_left
from collections import defaultdict

from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.errors import Limit, Odd, OddId, OverLimit, ProxyError
from proxy.wire.head import METHODS

# All bounds are powers of two: those of a native histogram of schema 0, or of -1 where each is four times
# the last. So series of both kinds can be compared and summed, bound by bound.
# https://prometheus.io/docs/specs/native_histograms/
# Seconds; from a poll answered at once to Engine.IO's longest poll (25 s) and beyond.
BUCKETS = tuple(2.0**power for power in range(-10, 7))
# Seconds; from a websocket that was lost at once to a tab that stays open for the better part of a day.
LIVES = tuple(4.0**power for power in range(9))
# Seconds; from a socket on the same machine to `timeouts.connect` and a TLS handshake far away.
CONNECTS = tuple(2.0**power for power in range(-13, 2))
LABELS = {method: method.decode() for method in METHODS}


class Histogram:
    """Counts by bucket of `bounds`, the last for everything longer."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Stats:
    """All counters of the data plane; owned by the Plane."""

    __slots__ = (
        "compressed",
        "connections",
        "decisions",
        "first_byte",
        "http2_connections",
        "http2_errors",
        "http2_streams",
        "limits",
        "odd_ids",
        "pings",
        "prompt",
        "proxy_headers_refused",
        "rehomes",
        "requests",
        "retries",
        "sid_pinned",
        "tunnel_lives",
        "tunnels",
        "upstream_errors",
    )

    def __init__(self) -> None:
        self.connections = 0  # accepted since the start
        self.http2_connections = 0  # of these in HTTP/2
        self.http2_streams = 0  # requests on those
        self.http2_errors: defaultdict[str, int] = defaultdict(int)  # that broke its rules, by error code
        self.tunnels = 0  # begun since the start
        self.compressed = 0  # of these, those whose messages are compressed
        self.sid_pinned = 0  # decisions by a pinned sid, apart because nearly every request is one
        self.decisions: defaultdict[tuple[Evidence, Outcome], int] = defaultdict(int)
        self.requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)  # backend, method, class
        self.first_byte: defaultdict[str, Histogram] = defaultdict(Histogram)  # by backend
        self.prompt: defaultdict[str, Histogram] = defaultdict(Histogram)  # of these, what no app waits with
        self.tunnel_lives: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(LIVES))  # the same
        self.retries: defaultdict[str, int] = defaultdict(int)  # by the backend that failed
        self.rehomes = 0
        self.pings = 0  # of Engine.IO, said to clients in place of a backend
        self.proxy_headers_refused = 0  # connections of trusted peers that did not begin with one
        self.limits = dict.fromkeys(Limit, 0)  # how often clients were over each
        self.odd_ids = dict.fromkeys(Odd, 0)  # how often clients named what nothing is called
        self.upstream_errors: defaultdict[tuple[str, str], int] = defaultdict(int)  # backend, kind

    def decided(self, evidence: Evidence, outcome: Outcome) -> None:
        """Count a decision."""
        if outcome is Outcome.PINNED and evidence is Evidence.SID:
            self.sid_pinned += 1
        else:
            self.decisions[evidence, outcome] += 1

    def names(self) -> set[str]:
        """The backends of which something was counted."""
        requests = {backend for backend, _, _ in self.requests if backend}
        errors = {backend for backend, _ in self.upstream_errors}
        return requests.union(errors, self.prompt, self.first_byte, self.tunnel_lives, self.retries)

    def forget(self, name: str) -> None:
        """Drop what was counted of a backend."""
        for by_backend in (self.prompt, self.first_byte, self.tunnel_lives, self.retries):
            by_backend.pop(name, None)
        for request in [key for key in self.requests if key[0] == name]:
            del self.requests[request]
        for error in [key for key in self.upstream_errors if key[0] == name]:
            del self.upstream_errors[error]

    def refused(self, error: ProxyError) -> None:
        """Count the limit that a refused client was over, or what it named, if that was why."""
        if isinstance(error, OverLimit):
            self.limits[error.limit] += 1
        elif isinstance(error, OddId):
            self.odd_ids[error.odd] += 1

    def answered(self, backend: str, method: bytes, status: int) -> None:
        """Count an exchange; `backend` is "" for the proxy's own answers."""
        self.requests[backend, LABELS.get(method, "other"), status // 100] += 1
