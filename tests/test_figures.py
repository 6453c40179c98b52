"""What the page shows of the counters beside the metrics."""

from proxy.config import Config
from proxy.errors import Limit
from proxy.parts import Parts
from tests.dataplane.world import World, run
from tests.test_metrics import scrape, traffic, value


def test_what_waits_for_news_is_apart() -> None:
    """Pages and connects are measured apart from polls; together they are what the metric tells."""

    async def test(world: World) -> None:
        await traffic(world)
        times = world.parts.figures.counted().times
        prompt, everything = (sum(times[what].by_backend["a"]) for what in ("prompt", "first_byte"))
        assert 0 < prompt < everything
        assert everything == value(scrape(world), "first_byte_seconds_count", backend="a")
        assert sum(times["connect"].by_backend["a"]) > 0

    run(test)


def test_what_went_wrong_is_counted_by_backend() -> None:
    """Answers with 500 or more and broken connections are the backend's; what never happened is left out."""
    parts = Parts(Config())
    stats = parts.plane.site.stats
    stats.answered("a", b"GET", 502)
    stats.answered("a", b"GET", 200)
    stats.answered("", b"GET", 503)
    stats.requests["a", "GET", 0] += 1
    stats.upstream_errors["a", "ConnectRefused"] += 2
    stats.limits[Limit.BODY] += 1
    counted = parts.figures.counted()
    assert counted.troubles == {"a": 3, "": 1}
    assert {key: n for key, n in counted.counts.items() if key[0] != "internal"} == {
        ("answer", "backend_5xx"): 1,
        ("answer", "proxy_5xx"): 1,
        ("aborted", "all"): 1,
        ("upstream", "ConnectRefused"): 2,
        ("limit", "body"): 1,
    }


def test_who_has_a_websocket_is_known() -> None:
    """A session that polls has none."""

    async def test(world: World) -> None:
        await traffic(world)
        (session,) = world.parts.router.directory.open()
        assert (session in world.parts.figures.websockets()) is (world.known("a").tunnels == 1)

    run(test)
