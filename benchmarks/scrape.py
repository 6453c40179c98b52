"""The CPU time that a scrape of the metrics takes: `python -m benchmarks.scrape`."""

from time import process_time

from prometheus_client import generate_latest

from proxy.app import App
from proxy.config import Config
from proxy.metrics import build_registry

BACKENDS = 50
SESSIONS = 100  # open ones of each
ROUNDS = 50


def main() -> None:
    """Print the median of some scrapes of a proxy where everything has happened at every backend."""
    app = App(Config())
    for number in range(BACKENDS):
        backend = app.fleet.add(f"replica-{number}", "127.0.0.1", 1, now=0.0)
        app.collector.probed(backend, 0.01)
        stats, directory = app.plane.stats, app.router.directory
        stats.first_byte[backend.name].add(0.01)
        stats.tunnel_lives[backend.name].add(60.0)
        for method in (b"GET", b"POST"):
            for status in (200, 400, 500):
                stats.answered(backend.name, method, status)
        for session in range(SESSIONS):
            directory.opened(directory.settle(f"{number}-{session}", backend, 0.0))
    registry = build_registry(app.collector)
    times = []
    for _ in range(ROUNDS):
        begun = process_time()
        text = generate_latest(registry)
        times.append(process_time() - begun)
    median = sorted(times)[ROUNDS // 2]
    print(f"{BACKENDS} backends, {BACKENDS * SESSIONS} sessions: {1000 * median:.1f} ms, {len(text)} bytes")


if __name__ == "__main__":
    main()
