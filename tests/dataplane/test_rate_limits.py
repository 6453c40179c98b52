"""Requests per second and Socket.IO sessions per minute of one client: 429, and who it is told to."""

from typing import Any

import pytest

from proxy.config.sections import LimitSettings
from proxy.dataplane.clients import Rates
from proxy.errors import Limit
from tests.dataplane.chat import PATH, Tab, chats
from tests.dataplane.peers import get, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

SLOW: dict[str, Any] = {"limits": {"requests_per_second": 0.01, "burst": 2}}
NOBODY: dict[str, Any] = {"forwarded": {"trusted": []}}


def of(address: str) -> bytes:
    """The field by which a trusted proxy tells a client."""
    return b"X-Forwarded-For: " + address.encode()


def test_too_many_requests() -> None:
    """Beyond the burst a request is answered 429 with Retry-After; its connection serves the next."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        for _ in range(2):
            assert (await client.say(get(b"/x")).response()).status == 200
        for _ in range(2):
            response = await client.say(get(b"/x")).response()
            assert (response.status, response.get(b"connection")) == (429, None)
            assert 90 <= int(response.get(b"retry-after") or b"") <= 100
        assert (await world.ask(get(b"/x"))).status == 429
        assert len(world.backend.requests) == 2
        assert world.plane.site.stats.limits[Limit.REQUESTS_PER_SECOND] == 3
        assert world.ended[-1].error == "too many requests"

    run(test, **SLOW, **NOBODY)


def test_a_pipeline_of_requests() -> None:
    """Requests that were sent ahead are each answered, in order."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await world.client()).say(get(b"/x") * 4)
        assert [(await client.response()).status for _ in range(4)] == [200, 200, 429, 429]

    run(test, **SLOW, **NOBODY)


@pytest.mark.parametrize("whole", [True, False])
def test_a_body_behind_a_refused_request(whole: bool) -> None:
    """It is never taken for a request: the connection is closed instead."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await world.client()).say(get(b"/x") * 2)
        for _ in range(2):
            await client.response()
        smuggled = get(b"/smuggled")
        request = post(b"/x", smuggled)
        client.say(request if whole else request[: -len(smuggled)])
        assert (await client.response()).status == 429
        await client.gone()
        assert len(world.backend.requests) == 2

    run(test, **SLOW, **NOBODY)


def test_clients_behind_a_trusted_proxy_are_told_apart() -> None:
    """On one connection of a proxy each of its clients has its own bucket; what a client made up has none."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        proxy = await world.client()

        async def ask(line: bytes) -> int:
            return (await proxy.say(get(b"/x", line)).response()).status

        assert [await ask(of("192.0.2.1")) for _ in range(3)] == [200, 200, 429]
        assert [await ask(of("192.0.2.2")) for _ in range(3)] == [200, 200, 429]
        assert [await ask(of(f"198.51.100.{n}, 192.0.2.1")) for n in range(3)] == [429] * 3
        assert [await ask(of(f"2001:db8::{n}")) for n in range(3)] == [200, 200, 429]

    run(test, **SLOW)


def test_clients_are_told_apart_where_hops_are_counted() -> None:
    """The client is so far from the end, and has a bucket of its own, also where its network is trusted."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        proxy = await world.client()

        async def ask(*addresses: str) -> int:
            return (await proxy.say(get(b"/x", of(", ".join(addresses)))).response()).status

        balancer = "198.51.100.1"
        assert [await ask("192.0.2.1", balancer) for _ in range(3)] == [200, 200, 429]
        assert [await ask("192.0.2.2", balancer) for _ in range(3)] == [200, 200, 429]
        assert [await ask(f"1.1.1.{n}", "192.0.2.1", balancer) for n in range(3)] == [429] * 3
        for _ in range(4):  # the balancer's own, such as health checks
            assert (await proxy.say(get(b"/x")).response()).status == 200

    run(test, **SLOW | {"forwarded": {"trusted": ["0.0.0.0/0"], "hops": 2}})


def test_a_trusted_proxy_that_names_no_client_is_not_limited() -> None:
    """Its requests are those of everybody behind it."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        proxy = await world.client()
        for _ in range(4):
            assert (await proxy.say(get(b"/x")).response()).status == 200

    run(test, **SLOW)


def test_too_many_new_sessions() -> None:
    """Handshakes beyond sessions_per_minute are answered 429; what polls already goes on."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        for query in (b"polling&EIO=4", b"websocket&EIO=4"):
            response = await world.ask(get(PATH + query))
            assert (response.status, response.get(b"retry-after")) == (429, b"60")
        assert (await (await tab.post(b"3")).response()).status == 200
        assert world.plane.site.stats.limits[Limit.SESSIONS_PER_MINUTE] == 2

    run(test, limits={"sessions_per_minute": 1}, **NOBODY)


def test_rates_can_be_switched_off() -> None:
    """With 0 no request is looked at."""

    async def test(world: World) -> None:
        assert world.plane.site.rates is None

    run(test, limits={"requests_per_second": 0, "sessions_per_minute": 0}, **NOBODY)


OFFICE = 300  # people behind one address


def test_an_office_keeps_the_defaults() -> None:
    """All load their pages within half a minute, forty tabs poll streams, and all connect anew at once."""
    rates = Rates(LimitSettings())
    for at in range(OFFICE * 50):  # the files of their pages
        assert rates.over("office", 30.0 * at / (OFFICE * 50), opens=at % 50 == 49) is None
    for at in range(40 * 50 * 10):  # of ten seconds
        assert rates.over("office", 60 + at / 2000, opens=False) is None
    for at in range(OFFICE * 3):  # the tabs, within the first second, after a failure
        assert rates.over("office", 80 + at / 1000, opens=True) is None
        assert rates.over("office", 80 + at / 1000, opens=False) is None


def test_a_flood_meets_the_defaults() -> None:
    """One address gets so much and no more, in requests and in sessions."""
    rates = Rates(LimitSettings())
    served = sum(rates.over("flood", at / 20_000, opens=False) is None for at in range(200_000))
    assert served == pytest.approx(10_000 + 10 * 2000, rel=0.01)
    rates = Rates(LimitSettings())
    opened = sum(rates.over("flood", at / 500, opens=True) is None for at in range(30_000))
    assert opened == pytest.approx(3000 + 60 * 50, rel=0.01)
