"""What the page of the admin listener shows of the data plane's counters, beside what the metrics tell.

Read when somebody looks, or every few seconds; like the metrics it costs no request anything. Labels are
bounded: backends and fixed words.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from proxy import borders
from proxy.affinity.session import Session
from proxy.controlplane.recent import Counted, Times
from proxy.dataplane.plane import Plane
from proxy.dataplane.stats import BUCKETS, CONNECTS, Histogram
from proxy.probe_times import ProbeTimes

_ABORTED, _FAILED = 0, 5  # classes of status codes


class Figures:
    """Reads the counters of one plane; made by the composition root."""

    def __init__(self, plane: Plane, probe_times: ProbeTimes) -> None:
        self._plane = plane
        self._probes = probe_times.by_backend

    def websockets(self) -> set[Session]:
        """The sessions that have a websocket."""
        return {tunnel.session for tunnel in self._plane.tunnels if tunnel.session is not None}

    def counted(self) -> Counted:
        """A copy of what is counted since the start."""
        site, stats = self._plane.site, self._plane.site.stats
        connects = {pool.backend.name: pool.connect_seconds for pool in site.pools()}
        hand_overs = site.hand_overs.counts
        times = {
            "prompt": Times(BUCKETS, _copied(stats.prompt)),
            "first_byte": Times(BUCKETS, _copied(stats.first_byte)),
            "connect": Times(CONNECTS, _copied(connects)),
            "probe": Times(BUCKETS, _copied(self._probes)),
            "hand_over": Times(hand_overs.seconds.bounds, _copied({"": hand_overs.seconds})),
        }
        counts: Counter[tuple[str, str]] = Counter()
        troubles: Counter[str] = Counter()
        for (backend, _, code), count in stats.requests.items():
            if code == _ABORTED:
                counts["aborted", "all"] += count
            elif code == _FAILED:
                counts["answer", "backend_5xx" if backend else "proxy_5xx"] += count
                troubles[backend] += count
        for (backend, error), count in stats.upstream_errors.items():
            counts["upstream", error] += count
            troubles[backend] += count
        counts.update({("limit", limit.value): count for limit, count in stats.limits.items()})
        counts["limit", "descriptors"] += self._plane.listeners.times_shut
        counts.update({("odd_id", odd.value): count for odd, count in stats.odd_ids.items()})
        counts.update({("held", how.value): count for how, count in site.arrivals.counts.items()})
        counts.update({("internal", where.value): count for where, count in borders.counts.items()})
        counts.update({("move", why.value): count for why, count in site.router.directory.moved.items()})
        for (_, how), count in hand_overs.results.items():
            counts["hand_over", how.value] += count
        counts["retry", "all"] = sum(stats.retries.values())
        return Counted(times, {key: count for key, count in counts.items() if count}, dict(troubles))

    def __repr__(self) -> str:
        return f"<Figures of {self._plane!r}>"


def _copied(histograms: Mapping[str, Histogram]) -> dict[str, Sequence[int]]:
    """Their counts; many copies are kept, and an array holds no objects."""
    return {name: array("Q", histogram.counts) for name, histogram in histograms.items()}
