"""The CPU time that a scrape of the metrics takes: `python -m benchmarks.scrape`."""

from time import process_time

from proxy.affinity.health import Observation
from proxy.config import Config
from proxy.parts import Parts
from proxy.scrape import Scrape

BACKENDS = 50
SESSIONS = 100  # open ones of each
ROUNDS = 100
# What Prometheus itself says, and what everybody else gets.
ACCEPT = {
    "OpenMetrics": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "text": "",
}


def busy() -> Parts:
    """A proxy where everything has happened at every backend."""
    parts = Parts(Config())
    for number in range(BACKENDS):
        backend = parts.fleet.add(f"replica-{number}", "127.0.0.1", 1, now=0.0)
        parts.probe_times.add(backend, Observation.ANSWERED, 0.01)
        parts.plane.site.pool(backend).connect_seconds.add(0.001)
        stats, directory = parts.plane.site.stats, parts.router.directory
        stats.first_byte[backend.name].add(0.01)
        stats.tunnel_lives[backend.name].add(60.0)
        for method in (b"GET", b"POST"):
            for status in (200, 400, 500):
                stats.answered(backend.name, method, status)
        for session in range(SESSIONS):
            directory.opened(directory.assign(f"{number}-{session}", backend, 0.0))
    return parts


def main() -> None:
    """Print the median of some scrapes in each format."""
    scrape = Scrape(busy().collector.collect)
    for name, accept in ACCEPT.items():
        times = []
        for _ in range(ROUNDS):
            begun = process_time()
            text, _ = scrape(accept)
            times.append(process_time() - begun)
        samples = sum(not line.startswith(b"#") for line in text.splitlines())
        median, most = sorted(times)[ROUNDS // 2], max(times)
        print(
            f"{BACKENDS} backends, {BACKENDS * SESSIONS} sessions, {name}: {samples} samples,"
            f" {len(text)} bytes, median {1000 * median:.1f} ms, longest {1000 * most:.1f} ms"
        )


if __name__ == "__main__":
    main()
