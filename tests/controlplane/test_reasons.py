"""What a probe that was no good one met: the reason of the verdict, and what it may lead to."""

import pytest

from proxy.config import Config
from tests.controlplane.probing import (
    DEGRADED,
    DOWN,
    HEALTHY,
    Probing,
    answers,
    engine,
    run,
    silence,
)
from tests.dataplane.peers import WAIT, Message, Peer, ok
from tests.support.waiting import eventually

# what the backend answers, the settings of health, the reason of its verdict
REASONS: list[tuple[bytes, dict[str, object], str]] = [
    (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", {}, "400 to GET /health"),
    (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", {"path": "/x"}, "401 to GET /x"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {"status": "204"}, "200 to GET /health"),
    (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", {}, "503 to GET /health"),
    (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        {"type": "engineio"},
        "403 to the Engine.IO handshake at /ws/socket.io",
    ),
    (ok(b"hello"), {"type": "engineio"}, "no Engine.IO handshake in the answer at /ws/socket.io"),
]


@pytest.mark.parametrize(("response", "settings", "reason"), REASONS)
def test_the_verdict_has_a_reason(response: bytes, settings: dict[str, object], reason: str) -> None:
    """What the probe was answered is told; below 500 the process is there, and never down for it."""

    async def test(probing: Probing) -> None:
        await probing.becomes(DEGRADED)
        # On a machine that is busy the first probe may have been answered too late.
        await eventually(lambda: probing.known.health.reason == reason, WAIT, "another reason")
        assert probing.known.health.denied is not reason.startswith("503")
        if probing.known.health.denied:
            await eventually(lambda: probing.known.health.failures > 20, WAIT, "no further probes")
            assert probing.known.health.verdict is DEGRADED

    run(test, answers(response), "a", **{"evict_after": 0.5} | settings)


@pytest.mark.parametrize("status", ["401", "400-404", "4xx", ["200", "401"]])
def test_which_statuses_are_good_is_configured(status: object) -> None:
    """health.status is a status, a range, a class, or a list of these."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        assert probing.known.health.reason == ""

    run(test, answers(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), status=status)


@pytest.mark.parametrize("kind", ["http", "engineio"])
def test_the_host_of_a_probe_is_configured(kind: str) -> None:
    """health.host is what an app is asked as that answers to its public name only; else its url's is."""
    hosts: set[bytes] = set()

    async def particular(peer: Peer, message: Message) -> None:
        hosts.add(message.get(b"host") or b"")
        await engine(peer, message)

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        assert hosts == {b"127.0.0.1:%d" % probing.backends[0].port}
        hosts.clear()
        changed = probing.prober._settings.model_copy(update={"host": "chat.example.com"})
        probing.prober.configure(Config(health=changed))
        await eventually(lambda: b"chat.example.com" in hosts, WAIT, "not asked so")

    run(test, particular, type=kind)


def test_a_name_that_does_not_resolve_is_silence() -> None:
    """Nobody knows how that backend is: degraded with that reason, down after health.evict_after."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        probing.fleet.move(probing.known, "nosuchhost.invalid", 8001)
        await probing.becomes(DEGRADED)
        assert probing.known.health.reason == "the name nosuchhost.invalid does not resolve"
        await probing.becomes(DOWN)

    run(test, engine, evict_after=2.0)


def test_a_probe_over_a_standstill_says_nothing() -> None:
    """A probe that is late because this process did not run is not counted; the next one is."""
    quiet = True

    async def moody(peer: Peer, message: Message) -> None:
        await (silence if quiet else engine)(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal quiet
        total = 0.0

        def stood(_: float) -> float:
            nonlocal total
            total += 46.0  # between any two looks
            return total

        probing.prober._stood = stood
        await eventually(lambda: len(probing.requests) > 3, WAIT, "not probed")
        assert not probing.known.health.met
        quiet = False
        await probing.becomes(HEALTHY)

    run(test, moody, timeout=0.2)
