"""Where a connection comes from: what its listener is decides, and whoever has no address is nobody."""

import socket
import struct
from pathlib import Path

import pytest

from proxy import net
from proxy.config import Address, Config
from proxy.dataplane import site
from tests.dataplane.peers import get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

FORGED = get(b"/forged", b"X-Forwarded-For: 9.9.9.9", b"X-Forwarded-Proto: https")


def say_and_reset(address: tuple[str, int], data: bytes) -> None:
    """A whole connection while the event loop is busy: when the proxy sees it, it has been reset."""
    with socket.create_connection(address) as sock:
        sock.sendall(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("proxy_protocol", [False, True])
def test_a_connection_that_was_reset_is_nobody(proxy_protocol: bool) -> None:
    """It has no peer's name any more: it is closed, unless its listener knows it by accepting it itself."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await world.client()
        for _ in range(5):
            say_and_reset(world.address, FORGED)
        world.guests += 5
        await world.until(lambda: world.plane.site.stats.connections == 6)
        await world.until(lambda: len(world.plane.connections) == 1)
        assert (await client.say(get(b"/next")).response()).status == 200
        assert len(world.plane.site.clients) == 1
        assert all(not exchange.request.known.origin.trusted for exchange in world.ended)
        assert all(exchange.request.known.origin.address == "127.0.0.1" for exchange in world.ended)
        assert all(b"9.9.9.9" not in b"".join(request.lines) for request in world.backend.requests)
        if not proxy_protocol:
            assert [request.target for request in world.backend.requests] == [b"/next"]

    run(
        test,
        forwarded={"trusted": [], "proxy_protocol": proxy_protocol},
        limits={"connections_per_client": 30},
    )


def test_a_socket_file_is_trusted(tmp_path: Path) -> None:
    """Who may open it is a proxy here; there is no address to be told."""

    async def test(world: World) -> None:
        path = str(tmp_path / "s")
        sock = net.bind(Address(path=path))
        plane = world.plane
        await plane.listeners.change([*plane.listeners._sockets, sock], None, greeted=False)
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(FORGED)
        world.guests += 1
        backend = await world.backend.accept()
        request = await backend.request()
        assert request.get(b"x-forwarded-for") == b"9.9.9.9"
        backend.say(ok())
        client.close()

    run(test, forwarded={"trusted": []})


@pytest.mark.parametrize("address", ["", "unknown", "Unix", "@", "1.2.3", "fe80::1%eth0", "h"])
def test_what_is_no_address_is_not_trusted(address: str) -> None:
    """Only the listener says that a client came by a socket file; what else is no address is nobody."""

    async def test(world: World) -> None:
        assert not world.plane.site.origin(address).trusted
        assert not world.plane.site.origin(address, b"https").trusted
        assert world.plane.site.origin("unix").trusted

    run(test, forwarded={"trusted": []})


def test_a_zone_is_no_part_of_an_address() -> None:
    """A link-local peer is known by its address, with or without the interface it came by."""

    async def test(world: World) -> None:
        one, other = world.plane.site.origin("fe80::1%eth0"), world.plane.site.origin("fe80::1")
        assert one.address == other.address
        assert one.trusted

    run(test, forwarded={"trusted": ["fe80::/10"]})


def test_origin_of_both_families() -> None:
    """A client of IPv4 is the same to a listener of IPv6; one on a socket file is a proxy beside us."""

    async def test(world: World) -> None:
        origins = [
            world.plane.site.origin(text) for text in ("::ffff:127.0.0.1", "::1", "::2", "1.2.3.4", "unix")
        ]
        told = [(origin.address, origin.trusted) for origin in origins]
        assert told == [
            ("127.0.0.1", True),
            ("::1", True),
            ("::2", False),
            ("1.2.3.4", False),
            ("unix", True),
        ]

    run(test)


def test_origins_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood from everywhere fills no memory, and what is read anew is the same."""
    monkeypatch.setattr(site, "_MOST_ORIGINS", 3)

    async def test(world: World) -> None:
        for number in range(10):
            assert world.plane.site.origin(f"1.2.3.{number}").address == f"1.2.3.{number}"
            assert world.plane.site.origin("127.0.0.1").trusted
            assert world.plane.site._origins.cache_info().currsize <= 3

    run(test)


def test_a_reload_has_origins_read_anew() -> None:
    """Whom to trust may have changed: for new connections and for those that are open."""

    async def test(world: World) -> None:
        client = await world.client()
        await world.until(lambda: bool(world.plane.connections))
        connection = world.connection()
        for trusted in ([], ["127.0.0.0/8"], []):
            config = Config.model_validate({"forwarded": {"trusted": trusted}})
            await world.plane.configure(config, [world.listening], None)
            assert world.plane.site.origin("127.0.0.1").trusted is bool(trusted)
            assert connection._reader.origin.trusted is bool(trusted)
        client.reset()

    run(test)
