"""How many connections are taken, in all and of one client, and who a client is."""

import logging

import pytest

from proxy.config.sections import LimitSettings
from proxy.dataplane.clients import Clients, client_key
from proxy.errors import Limit
from proxy.wire.forwarding import Origin
from tests.dataplane.frames import upgrade
from tests.dataplane.peers import get
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
NOBODY: dict[str, list[str]] = {"trusted": []}


def limit(**values: int) -> LimitSettings:
    """The limits, with some set."""
    return LimitSettings(**values)


@pytest.mark.parametrize(
    ("limits", "status"), [({"connections": 2}, 503), ({"connections_per_client": 2}, 429)]
)
def test_a_connection_too_many_is_turned_away(limits: dict[str, int], status: int) -> None:
    """It is told when to come back and closed before it has said anything; those that are open go on."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        first, second = await world.client(), await world.client()
        for _ in range(3):
            third = await world.client()
            response = await third.response()
            assert (response.status, response.get(b"retry-after")) == (status, b"5")
            assert response.get(b"connection") == b"close"
            await third.gone()
        assert len(world.plane.connections) == 2
        assert (await first.say(get(b"/x")).response()).status == 200
        second.close()
        await world.until(lambda: len(world.plane.connections) == 1)
        assert (await world.ask(get(b"/y"))).status == 200
        assert world.plane.site.stats.limits[Limit(next(iter(limits)))] == 3

    run(test, limits=limits, forwarded=NOBODY)


@pytest.mark.parametrize("limits", [{"connections": 1}, {"connections_per_client": 1}])
def test_a_websocket_is_a_connection(limits: dict[str, int]) -> None:
    """A tunnel keeps the place of the connection that it came of, and gives it back when it ends."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upgrade(b"/any"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(SWITCH)
        assert (await client.response()).status == 101
        assert (await (await world.client()).response()).status in (429, 503)
        client.reset()
        await world.until(lambda: not world.plane.tunnels)
        assert len(world.plane.site.clients) == 0
        world.backend.serve(echo)
        assert (await world.ask(get(b"/x"))).status == 200

    run(test, limits=limits, forwarded=NOBODY)


def test_trusted_proxies_have_any_number() -> None:
    """All users of a proxy in front come from its address: it is not taken for one client."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        clients = [await world.client() for _ in range(4)]
        for client in clients:
            assert (await client.say(get(b"/x")).response()).status == 200
        assert len(world.plane.site.clients) == 0

    run(test, limits={"connections_per_client": 1})


def test_zero_is_no_limit() -> None:
    """With 0 nothing is counted and nobody turned away."""
    clients = Clients(limit(connections=0, connections_per_client=0))
    stranger = Origin("192.0.2.1", b"http", trusted=False)
    for _ in range(1000):
        clients.arrived(stranger)
    assert clients.over(stranger) is None
    assert len(clients) == 0


def test_clients_are_counted_apart() -> None:
    """One client's connections leave the others theirs, and nothing is kept of one that has left."""
    clients = Clients(limit(connections_per_client=1))
    one, other = (Origin(address, b"http", trusted=False) for address in ("192.0.2.1", "192.0.2.2"))
    ticket = clients.arrived(one)
    assert (clients.over(one), clients.over(other)) == (Limit.CONNECTIONS_PER_CLIENT, None)
    for _ in range(2):  # whoever gives it back more often does no harm
        ticket.give_back()
        assert (clients.over(one), len(clients), clients.total) == (None, 0, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unix", "unix", True),
    ],
)
def test_who_is_the_same_client(one: str, other: str, same: bool) -> None:
    """In IPv4 an address; in IPv6 a /64 network, of which one customer has all addresses."""
    assert (client_key(one) == client_key(other)) is same


def test_what_was_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the limits that were hit, once a minute; not those that everybody meets."""

    async def test(world: World) -> None:
        plane = world.plane
        plane.site.stats.limits[Limit.IDLE] += 1
        plane._report_limits(10.0)
        plane.site.stats.limits[Limit.BODY] += 2
        plane._report_limits(20.0)
        plane.site.stats.limits[Limit.BODY] += 1
        plane._report_limits(21.0)
        plane._report_limits(81.0)
        plane._report_limits(200.0)

    with caplog.at_level(logging.WARNING, "proxy.dataplane"):
        run(test)
    told = [message for message in caplog.messages if message.startswith("clients")]
    assert told == ["clients exceeded limits: body 2", "clients exceeded limits: body 1"]
