"""The metrics: their names, their bounded labels, and that they say what happened."""

import asyncio
import re
from collections.abc import Callable
from math import log2
from time import process_time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from benchmarks.scrape import ACCEPT as FORMATS
from benchmarks.scrape import busy
from proxy.affinity.health import Observation
from proxy.build import BUILD
from proxy.config import Config
from proxy.dataplane.stats import BUCKETS, CONNECTS, LIVES
from proxy.metric_families import PREFIX
from proxy.metrics import ProxyCollector
from proxy.parts import Parts
from proxy.probe_times import ProbeTimes
from proxy.scrape import Scrape
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import WAIT, Peer, get
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

LABELS = {
    *("backend", "method"),
    "code",
    "direction",
    "form",
    "error",
    "limit",
    "kind",
    "evidence",
    "protocol",
    "outcome",
    "verdict",
    "state",
    "transport",
    "le",
    "where",
    "reason",
    "result",
    "version",
    "build",
}


def scrape(world: World) -> list[Sample]:
    """All samples of ours, as Prometheus reads them."""
    parts = world.parts
    times = ProbeTimes()
    times.add(world.known("a"), Observation.ANSWERED, 0.03)
    collector = ProxyCollector(
        world.plane,
        parts.drains,
        parts.reload_counts,
        parts.membership.sources,
        times,
        lambda: 7,
        parts.standstill,
        parts.renewals.counts,
        parts.not_ready,
        lambda: parts.changes.leaving,
        parts.wants,
    )
    text, _ = Scrape(collector.collect)("")
    families = list(text_string_to_metric_families(text.decode()))
    assert all(family.documentation for family in families)
    return [sample for family in families for sample in family.samples if sample.name.startswith(PREFIX)]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """One sample's value, 0 if there is none."""
    return sum(s.value for s in samples if s.name == PREFIX + name and labels.items() <= s.labels.items())


async def traffic(world: World) -> None:
    """Some of everything."""
    chats(world)
    tab = Tab(world, world.cookie("a"))
    await tab.handshake()
    await (await tab.post(connect_packet("11111111-2222-3333-4444-555555555555"))).response()
    await tab.listen(b'40{"sid":"a"}')
    socket = await tab.socket()
    socket.say(b"2probe")
    await socket.hear()
    await world.ask(get(PATH + b"polling&sid=forged.x"))
    await world.ask(b"BAD\r\n\r\n")
    await world.ask(get(b"/x", method=b"BREW"))


def test_traffic_is_counted() -> None:
    """Requests by backend, method and code class; connections, tunnels, decisions, first bytes."""

    async def test(world: World) -> None:
        await traffic(world)
        samples = scrape(world)
        assert value(samples, "requests_total", backend="a", method="GET", code="2xx") == 2
        assert value(samples, "requests_total", backend="a", method="POST", code="2xx") == 1
        assert value(samples, "requests_total", backend="", code="4xx") == 2
        assert value(samples, "requests_total", method="other") == 2
        assert value(samples, "connections_total") == len(world.clients)
        assert value(samples, "open_connections") == len(world.plane.connections)
        assert (value(samples, "tunnels_total"), value(samples, "backend_tunnels", backend="a")) == (1, 1)
        assert value(samples, "affinity_decisions_total", evidence="sid", outcome="pinned") == 3
        assert value(samples, "affinity_decisions_total", evidence="sid", outcome="void") == 1
        assert value(samples, "backend_sessions", backend="a") == 1
        assert value(samples, "directory_sessions") == 1
        assert value(samples, "locate_questions_total", result="over_limit") == 0
        assert value(samples, "locate_questions_total", result="over_client_limit") == 0
        assert value(samples, "limits_hit_total", limit="questions_per_minute") == 0
        assert value(samples, "backend_unanswered", backend="a") == 0
        assert value(samples, "first_byte_seconds_count", backend="a") >= 4
        assert value(samples, "build_info", build=BUILD) == 1
        assert value(samples, "open_sessions", backend="a", transport="websocket") == 1
        assert value(samples, "open_sessions") == 1

    run(test)


def test_trouble_is_counted() -> None:
    """Retries, what connections met, and the verdicts."""

    async def test(world: World) -> None:
        world.backends[1].serve(echo)
        world.backends[0].refuse()
        await world.ask(get(b"/x", world.cookie("a")))
        world.observe("b", Observation.SILENT)
        samples = scrape(world)
        assert value(samples, "retries_total", backend="a") == 1
        assert value(samples, "upstream_errors_total", backend="a", error="ConnectRefused") == 1
        assert value(samples, "backend_health", backend="a", verdict="down") == 1
        assert value(samples, "backend_health", backend="a") == 1
        assert value(samples, "backend_health", backend="b", verdict="healthy") == 1
        assert value(samples, "backend_admin_state", backend="b", state="ready") == 1

    run(test, "ab")


def test_shut_doors_are_told() -> None:
    """While descriptors are few the proxy says that it accepts nothing, and how often that was so."""

    async def test(world: World) -> None:
        assert (value(scrape(world), "accepting"), world.plane.listeners.times_shut) == (1, 0)
        world.plane.listeners._shut_at = 0  # whatever is accepted next is one of the last
        await world.client()
        samples = scrape(world)
        assert value(samples, "accepting") == 0
        assert value(samples, "limits_hit_total", limit="descriptors") == 1

    run(test)


def test_missing_proxy_headers_are_counted() -> None:
    """A connection of a trusted proxy that does not name its client is no connection of a client."""

    async def test(world: World) -> None:
        world.guests -= 1
        reader, writer = await asyncio.open_connection(*world.address)
        world.clients.append(Peer(reader, writer).say(get()))
        assert (await world.clients[-1].response()).status == 400
        samples = scrape(world)
        assert value(samples, "proxy_headers_refused_total") == 1
        assert value(samples, "connections_total") == 0

    run(test, forwarded={"proxy_protocol": True})


def test_moves_are_counted() -> None:
    """A connection that was moved at CONNECT is a re-home; a session that left its backend a failover."""

    async def test(world: World) -> None:
        chats(world)
        directory = world.router.directory
        session = directory.assign("session-S", world.known("b"), world.now())
        directory.opened(session)
        directory.closed(session, world.now())
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        samples = scrape(world)
        assert (value(samples, "rehomes_total"), value(samples, "failovers_total", backend="b")) == (1, 0)
        world.observe("b", Observation.REFUSED)
        await world.ask(get(b"/project/file/y?session_id=session-S"))
        assert value(scrape(world), "failovers_total", backend="b") == 1
        assert value(scrape(world), "session_moves_total", reason="down") == 1
        assert value(scrape(world), "session_moves_total") == 1

    run(test, "ab", affinity={"hold": 0.1})


def test_pings_are_counted() -> None:
    """Those that clients were told in place of their backend."""

    async def test(world: World) -> None:
        world.plane.site.stats.pings = 3
        assert value(scrape(world), "pings_total") == 3

    run(test)


def test_histograms_are_cumulative() -> None:
    """Buckets count everything up to their bound, the last one everything; bounds are seconds."""

    async def test(world: World) -> None:
        samples = [s for s in scrape(world) if s.name == PREFIX + "probe_seconds_bucket"]
        counts = {sample.labels["le"]: sample.value for sample in samples}
        assert (counts["0.015625"], counts["0.03125"], counts["+Inf"]) == (0, 1, 1)
        assert list(counts.values()) == sorted(counts.values())
        assert value(scrape(world), "probe_seconds_sum", backend="a") == pytest.approx(0.03)

    run(test)


def test_bounds_are_those_of_native_histograms() -> None:
    """Each bound is a power of two, and no step is missing between them."""
    for bounds, step in ((BUCKETS, 1), (CONNECTS, 1), (LIVES, 2)):
        powers = [log2(bound) for bound in bounds]
        assert powers == [powers[0] + step * place for place in range(len(bounds))]
        assert powers[0].is_integer()


def test_names_and_labels_are_bounded() -> None:
    """One prefix, base units, and no label that a client could choose."""

    async def test(world: World) -> None:
        await traffic(world)
        await world.ask(upgrade(b"/secret-path?token=hunter2"))
        for sample in scrape(world):
            assert re.fullmatch(r"chainlit_proxy_[a-z_]+", sample.name)
            assert sample.labels.keys() <= LABELS, sample
            for label, text in sample.labels.items():
                assert label in {"le", "version", "protocol"} or re.fullmatch(r"[A-Za-z0-9_]*", text), sample
                assert not re.search(r"secret|hunter2|BREW|1111|forged|127\.0", text), sample

    run(test)


def test_the_lives_of_tunnels_are_counted() -> None:
    """A tunnel counts when it has ended, apart from requests."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        socket = await tab.socket()
        assert value(scrape(world), "tunnel_seconds_count") == 0
        socket.peer.close()
        await world.until(lambda: not world.plane.tunnels)
        assert value(scrape(world), "tunnel_seconds_count", backend="a") == 1

    run(test)


def test_frames_are_counted() -> None:
    """By backend and direction: soon after they came, and the last of them when the tunnel has ended."""

    async def test(world: World) -> None:
        def told() -> tuple[float, float]:
            samples = scrape(world)
            into, out = (value(samples, "frames_total", backend="a", direction=way) for way in ("in", "out"))
            assert world.parts.collector.traffic().frames.get("a", 0) == into + out
            return into, out

        ours, theirs = await world.websocket()
        for _ in range(3):
            ours.say(b"one")
            await theirs.hear()
        theirs.say(b"two")
        await ours.hear()
        await world.until(lambda: told() == (3, 1))
        ours.say(b"three")
        await theirs.hear()
        ours.peer.close()
        theirs.peer.close()
        await world.until(lambda: not world.plane.tunnels)
        assert told() == (4, 1)

    run(test)


def test_connections_to_backends_are_timed() -> None:
    """Each that was opened counts with its seconds, one that was used again does not."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        for _ in range(3):
            await world.ask(get())
        samples = scrape(world)
        assert value(samples, "connect_seconds_count", backend="a") == 1
        assert 0 < value(samples, "connect_seconds_sum", backend="a") < WAIT

    run(test)


def test_requests_under_way_are_told() -> None:
    """By backend: what waits for a response, a long poll, and what is being answered."""

    async def test(world: World) -> None:
        def told() -> list[float]:
            states = ("waiting", "polling", "responding")
            return [value(scrape(world), "open_requests", backend="a", state=state) for state in states]

        assert told() == [0, 0, 0]
        (await world.client()).say(get(b"/slow"))
        backend = await world.backend.accept()
        await backend.request()
        assert told() == [1, 0, 0]
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await world.clients[0].head()
        assert told() == [0, 0, 1]
        (await world.client()).say(get(PATH + b"polling&sid=" + world.known("a").token + b".x"))
        await (await world.backend.accept()).request()
        assert told() == [0, 1, 1]

    run(test)


def test_a_backend_that_left_is_forgotten() -> None:
    """Its counts are told for a while, so that Prometheus reads the last of them, and then no more."""

    async def test(world: World) -> None:
        world.backends[0].serve(echo)
        await world.ask(get(b"/", world.cookie("a")))
        collector, now = world.parts.collector, world.now()
        world.parts.probe_times.add(world.known("a"), Observation.ANSWERED, 0.01)
        world.parts.fleet.remove(world.known("a"))
        for later, told in ((0, 1), (300, 1), (900, 0)):
            collector.forget_gone(now + later)
            counts = {
                (f.sample, *v) for f in collector.collect() for v, _ in (*f.rows, *f.histograms) if "a" in v
            }
            assert bool(counts) is bool(told), counts
        assert not world.parts.plane.site.stats.names()
        world.ended.clear()  # nor would the world find that they were counted

    run(test, "ab")


class Same(Collector):
    """The families of a scrape, as prometheus_client has them."""

    def __init__(self, text: str) -> None:
        self._families = list(text_string_to_metric_families(text))

    def collect(self) -> list[Metric]:
        """As Collector."""
        return self._families


def best_of(work: Callable[[], object]) -> float:
    """Seconds of CPU time that it takes where nothing disturbs it."""
    times = []
    for _ in range(30):
        begun = process_time()
        work()
        times.append(process_time() - begun)
    return min(times)


def test_a_scrape_is_cheap() -> None:
    """With fifty backends, reading and writing all is at least three times as quick as the client's writing.

    That is less than 5 ms on an idle core: `python -m benchmarks.scrape`. Here others may have the core too.
    """
    scrape = Scrape(busy().collector.collect)
    registry = CollectorRegistry()
    registry.register(Same(scrape("")[0].decode()))
    assert 3 * best_of(lambda: scrape(FORMATS["text"])) < best_of(lambda: generate_latest(registry))


def samples_with(backends: int, sessions: int) -> int:
    """How many samples there are after everything has happened at every backend."""
    parts = Parts(Config())
    for number in range(backends):
        backend = parts.fleet.add(f"b{number}", "127.0.0.1", 1, now=0.0)
        parts.probe_times.add(backend, Observation.ANSWERED, 0.01)
        for session in range(sessions):
            settled = parts.router.directory.assign(f"{number}-{session}", backend, 0.0)
            parts.router.directory.opened(settled)
            parts.plane.site.stats.answered(backend.name, b"M%d" % session, 200)
            parts.plane.site.pool(backend).connect_seconds.add(0.001)
            parts.plane.site.stats.first_byte[backend.name].add(0.01 * session)
            parts.plane.site.stats.tunnel_lives[backend.name].add(1.0 * session)
    text, _ = Scrape(parts.collector.collect)("")
    return sum(line.startswith(PREFIX.encode()) for line in text.splitlines())


def test_samples_are_bounded_by_the_backends() -> None:
    """Each backend adds the same number of samples; sessions and methods that clients make up add none."""
    assert samples_with(20, 1) - samples_with(10, 1) == 10 * (samples_with(2, 1) - samples_with(1, 1))
    assert samples_with(10, 50) == samples_with(10, 1)
