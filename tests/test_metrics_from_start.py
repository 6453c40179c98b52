"""What metrics tell before anything has happened: counters at 0, and whether clients may be sent here."""

from proxy.config import Config
from proxy.metric_families import PREFIX
from proxy.parts import Parts
from tests.dataplane.world import World, run
from tests.test_metrics import scrape, value


def test_counters_are_there_before_their_first() -> None:
    """At 0: the first 5xx, and the first failed connection, are an increase for Prometheus."""

    async def test(world: World) -> None:
        there = {(s.name.removeprefix(PREFIX), frozenset(s.labels.items())) for s in scrape(world)}
        wanted = [
            ("requests_total", {"backend": name, "method": method, "code": code})
            for name in ("", "a", "b")
            for method in ("GET", "POST")
            for code in ("2xx", "3xx", "4xx", "5xx", "aborted")
        ]
        for name in "ab":
            wanted += [(f"{counter}_total", {"backend": name}) for counter in ("retries", "failovers")]
            wanted += [
                ("upstream_errors_total", {"backend": name, "error": error})
                for error in ("ConnectRefused", "ConnectTimeout", "UpstreamTimeout", "BadResponse")
            ]
            wanted += [
                ("probes_total", {"backend": name, "result": result})
                for result in ("answered", "denied", "failed", "silent", "refused")
            ]
        wanted.append(("affinity_decisions_total", {"evidence": "session", "outcome": "moved"}))
        assert [one for one in wanted if (one[0], frozenset(one[1].items())) not in there] == []

    run(test, "ab")


def test_what_readyz_says_is_a_metric() -> None:
    """An alert needs one series that is there whatever backends there are, also where there is none."""

    async def test(world: World) -> None:
        assert value(scrape(world), "ready") == 1
        for name in "ab":
            world.parts.drains.drain(world.known(name))
        assert value(scrape(world), "ready") == 0
        world.parts.drains.ready(world.known("a"))
        assert [value(scrape(world), name) for name in ("ready", "leaving")] == [1, 0]
        world.parts.changes.leaving = True
        assert [value(scrape(world), name) for name in ("ready", "leaving")] == [0, 1]

    run(test, "ab")
    ready = [family for family in Parts(Config()).collector.collect() if family.name == f"{PREFIX}ready"]
    assert [family.rows for family in ready] == [[((), 0)]], "no backend at all"
