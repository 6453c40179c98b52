"""The addresses of a name, asked of a real DNS server."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load, loads
from proxy.config.packages import needs
from tests.support.dns_server import DnsServer
from tests.support.finding import WITHIN, Found, follow
from tests.support.processes import alive
from tests.support.waiting import eventually, wait_until

SERVICE = "_http._tcp.app.test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DnsServer]:
    """A DNS server that a test tells what to serve."""
    server = DnsServer(tmp_path)
    yield server
    server.kill9()
    print(server.tail())


def configured(server: DnsServer, more: str = "port: 8000") -> Config:
    """A configuration that asks this server only, often."""
    name = "name: app.test" if "srv" not in more else f"name: {SERVICE}"
    times = "" if "shortest" in more else ", shortest: 0.1, longest: 1"
    asked = f"{{{name}, servers: '127.0.0.1:{server.port}', {more}{times}}}"
    return loads(f"discovery: {{dns: {asked}}}\n", need_backends=True)


def hosts(*addresses: str, name: str = "app.test") -> list[str]:
    """The addresses of a name, as the server's options have them."""
    return [f"host-record={name},{address}" for address in addresses]


def service(target: str, port: int, priority: int = 0, weight: int = 0) -> str:
    """One instance of the service, as the server's options have it."""
    return f"srv-host={SERVICE},{target},{port},{priority},{weight}"


KILLED = """
import os, sys
from pathlib import Path
from tests.support.dns_server import DnsServer
server = DnsServer(Path(sys.argv[1]))
server.serve()
print(server.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_server_does_not_outlive_a_test_run(tmp_path: Path) -> None:
    """A run that is killed with -9 leaves no server behind."""
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, check=False)
    assert run.returncode == -9
    wait_until(lambda: not alive(int(run.stdout)), 10, lambda: "the server runs on")


def test_addresses_come_and_go(server: DnsServer) -> None:
    """Each address is a backend at the configured port; one that is found no more leaves."""
    server.serve(*hosts("127.0.0.2", "127.0.0.1"))

    async def scenario(found: Found) -> None:
        assert found.names == ["127.0.0.1:8000", "127.0.0.2:8000"]
        kept = found.answer("127.0.0.2:8000")
        assert (kept.host, kept.port) == ("127.0.0.2", 8000)
        server.serve(*hosts("127.0.0.2", "127.0.0.3"))
        await found.until("127.0.0.2:8000", "127.0.0.3:8000")
        assert found.backend("127.0.0.2:8000") is kept
        assert not found.drained("127.0.0.2:8000")
        assert found.metric("backends", "dns") == 2

    follow(configured(server), scenario)


def test_addresses_of_the_new_kind(server: DnsServer) -> None:
    """With aaaa the addresses are those of IPv6, and only they."""
    server.serve(*hosts("127.0.0.1", "fd00::1"))

    async def scenario(found: Found) -> None:
        assert found.names == ["fd00::1:8000"]
        assert found.backend("fd00::1:8000").url == "http://[fd00::1]:8000"

    follow(configured(server, "port: 8000, records: aaaa"), scenario)


def test_more_addresses_than_a_datagram_holds(server: DnsServer) -> None:
    """An answer that was cut is asked for again by TCP."""
    server.serve(*hosts(*(f"127.0.1.{number}" for number in range(1, 151))))

    async def scenario(found: Found) -> None:
        assert len(found.names) == 150

    follow(configured(server), scenario)


def test_a_service_names_its_instances(server: DnsServer) -> None:
    """SRV tells port and weight; an instance at another address is the same backend, and keeps its pins."""
    named = [*hosts("127.0.0.1", name="a.test"), *hosts("fd00::1", name="b.test")]
    records = [service("a.test", 8001, weight=10), service("b.test", 8002, weight=30)]
    server.serve(*named, *records, service("spare.test", 1, priority=5))

    async def scenario(found: Found) -> None:
        assert found.names == ["a.test:8001", "b.test:8002"]
        a, b = found.answer("a.test:8001"), found.backend("b.test:8002")
        assert (a.url, a.weight) == ("http://127.0.0.1:8001", 0.5)
        assert (b.url, b.weight) == ("http://[fd00::1]:8002", 1.5)
        server.serve(*hosts("127.0.0.9", name="a.test"), *named[1:], *records)
        await eventually(lambda: a.host == "127.0.0.9", WITHIN, lambda: repr(a))
        assert found.backend("a.test:8001") is a
        assert not found.drained("a.test:8001")

    follow(configured(server, "records: srv"), scenario)


@pytest.mark.parametrize("name", ["a" * 60 + ".test", "b" * 60 + ".test"])
def test_a_long_name_is_shortened(server: DnsServer, name: str) -> None:
    """A backend's name has room for 63 characters: what is cut off still tells two apart."""
    server.serve(*hosts("127.0.0.1", name=name), service(name, 8001))

    async def scenario(found: Found) -> None:
        (short,) = found.names
        assert short.startswith(name[:46] + "-")
        assert len(short) == 63

    follow(configured(server, "records: srv"), scenario)


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "there is no such name"),
        (hosts("fd00::1"), "the name has no such records"),
        (None, "no server"),
    ],
    ids=["no such name", "empty", "no server"],
)
def test_an_answer_that_failed_changes_nothing(
    server: DnsServer, records: list[str] | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good fleet stays, the reason is told, it is counted; the next good answer counts again."""
    server.serve(*hosts("127.0.0.1"))

    async def scenario(found: Found) -> None:
        found.answer("127.0.0.1:8000")
        if records is None:
            server.kill9()
        else:
            server.serve(*records)
        await eventually(lambda: reason in caplog.text, WITHIN, lambda: caplog.text)
        assert found.names == ["127.0.0.1:8000"]
        assert not found.drained("127.0.0.1:8000")
        assert found.metric("current", "dns") == 0
        assert found.metric("failures_total", "dns") >= 1
        assert found.metric("backends", "dns") == 1
        server.serve(*hosts("127.0.0.1", "127.0.0.2"))
        await found.until("127.0.0.1:8000", "127.0.0.2:8000")
        assert found.metric("current", "dns") == 1

    follow(configured(server), scenario)


def test_a_target_without_an_address_changes_nothing(server: DnsServer) -> None:
    """The answer is taken as a whole: one instance that cannot be found does not drain it."""
    server.serve(*hosts("127.0.0.1", name="a.test"), service("a.test", 8001), service("b.test", 8001))

    async def scenario(found: Found) -> None:
        assert found.names == []
        assert found.metric("failures_total", "dns") >= 1
        server.serve(*hosts("127.0.0.1", name="a.test"), service("a.test", 8001))
        await found.until("a.test:8001")

    follow(configured(server, "records: srv"), scenario)


@pytest.mark.parametrize(
    ("ttl", "times", "often"),
    [
        (0, "shortest: 0.05, longest: 600", True),
        (1, "shortest: 600, longest: 600", False),
        (600, "shortest: 0.05, longest: 0.05", True),
        (600, "shortest: 0.05, longest: 600", False),
    ],
    ids=["as it says", "at least", "at most", "as it says, long"],
)
def test_the_time_to_live_is_honoured_within_bounds(
    server: DnsServer, ttl: int, times: str, often: bool
) -> None:
    """An answer is asked for again when it is too old, not sooner than shortest nor later than longest."""
    server.serve(*hosts("127.0.0.1"), ttl=ttl)

    async def scenario(found: Found) -> None:
        if often:
            await eventually(lambda: server.asked() > 5, WITHIN, "questions")
        else:
            await asyncio.sleep(1.5)  # longer than the time to live that does not count
            assert server.asked() == 1
        assert found.metric("updates_total", "dns") == 1

    follow(configured(server, f"port: 8000, {times}"), scenario)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{name: a}", "discovery.dns.port: must be the port of the instances, unless dns.records is srv"),
        ("{name: a, records: srv, port: 1}", "discovery.dns.port: must be left out, because SRV records"),
        ("{name: a, port: 70000}", "discovery.dns.port: must be a whole number from 1 to 65535 (got 70000)"),
        ("{name: a, records: mx, port: 1}", "discovery.dns.records: must be one of a, aaaa, srv"),
        (
            "{name: a, port: 1, servers: 'ns:53'}",
            "discovery.dns.servers: must be an IP address with its port",
        ),
        ("{name: a, port: 1, shortest: 9, longest: 8}", "discovery.dns.longest: must not be less than"),
    ],
)
def test_mistakes_are_told(text: str, told: str) -> None:
    """Each at its key, with what is allowed."""
    with pytest.raises(ConfigError) as caught:
        loads(f"discovery:\n  dns: {text}\n")
    assert told in str(caught.value)


def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is served, with the command that brings it."""
    file = tmp_path / "proxy.yaml"
    file.write_text("discovery: {dns: {name: app.test, port: 8000}}\n")
    load(file, need_backends=True)
    monkeypatch.setitem(sys.modules, "dns", None)
    with pytest.raises(ConfigError, match=re.escape(needs("dns"))):
        load(file, need_backends=True)
