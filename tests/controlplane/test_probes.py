"""Active probes: what each kind asks, and what the fleet makes of every way a backend can answer."""

import asyncio

import pytest

from proxy.affinity.backend import Backend as Known
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.config import Config, HealthSettings
from proxy.controlplane.probes import Prober
from proxy.wire.head import ResponseHead, parse_response
from tests.controlplane.probing import (
    DEGRADED,
    DOWN,
    FAST,
    HEALTHY,
    Probing,
    answers,
    engine,
    run,
    silence,
)
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT, Message, Peer, ok
from tests.dataplane.scripted import Backend
from tests.support.waiting import eventually


def test_http_probe_asks_for_the_path() -> None:
    """health.path is asked for, over a new connection each time, and an answer makes the backend healthy."""

    async def test(probing: Probing) -> None:
        assert probing.known.health.verdict is DOWN
        await probing.becomes(HEALTHY)
        await eventually(lambda: len(probing.requests) >= 3, WAIT, "no further probes")
        assert {request.start for request in probing.requests} == {b"GET /ready HTTP/1.1"}
        assert len(probing.backends[0].peers) >= len(probing.requests)
        name, took = probing.timed[0]
        assert name == "a"
        assert 0 < took < WAIT

    run(test, answers(ok()), path="/ready")


def test_engineio_probe_opens_a_session_and_closes_it() -> None:
    """A real handshake, and the CLOSE packet for the session that it opened."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        opened, closed = probing.requests[:2]
        assert opened.target == b"/ws/socket.io/?EIO=4&transport=polling"
        assert closed.start == b"POST /ws/socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1"
        assert closed.body == b"1"

    run(test, engine, type="engineio")


@pytest.mark.parametrize("kind", ["http", "engineio"])
def test_the_final_dot_is_not_told(kind: str) -> None:
    """`Host` has an absolute name without its dot, as servers know their names."""
    fleet = Fleet(HealthRules(fall=2, rise=2, evict_after=45.0))
    fleet.add("a", "chat-0.chat.site.svc.cluster.local.", 8000, now=0.0)
    asked: list[tuple[str, bytes]] = []

    async def recorded(
        known: Known, _method: bytes, message: bytes, _timeout: float
    ) -> tuple[ResponseHead, bytes]:
        asked.append((known.host, message))
        return parse_response(b"HTTP/1.1 200 OK\r\n\r\n"), b'0{"sid":"abc"}'

    async def main() -> None:
        settings = HealthSettings.model_validate(FAST | {"type": kind})
        task = asyncio.create_task(Prober(fleet, Config(health=settings), recorded).run())
        await eventually(lambda: len(asked) > 1, WAIT, "no probes")
        task.cancel()
        await asyncio.wait([task])

    run_loop(main())
    for host, message in asked:
        assert host.endswith(".")
        assert b"\r\nHost: chat-0.chat.site.svc.cluster.local:8000\r\n" in message


def test_a_probe_that_is_under_way_is_load() -> None:
    """Until it is answered, or is given up: placement need not wait for the verdict."""

    async def test(probing: Probing) -> None:
        seen: set[int] = set()

        async def watch() -> None:
            while True:
                seen.add(probing.known.unanswered)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        await probing.becomes(HEALTHY)
        await probing.becomes(DEGRADED)
        watching.cancel()
        assert seen == {0, 1}

    said = 0

    async def answer_once(peer: Peer, _: Message) -> None:
        nonlocal said
        said += 1
        if said < 3:
            peer.say(ok())

    run(test, answer_once, timeout=2.0)


def test_tcp_probe_only_connects() -> None:
    """A backend that accepts connections is healthy, whatever it would say."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        assert await probing.backends[0].peers[0].rest() == b""

    run(test, None, type="tcp")


def test_no_probe() -> None:
    """Without probes every backend is taken for healthy, and one that traffic found down comes back."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        assert probing.backends[0].peers == []

    run(test, None, type="none")


@pytest.mark.parametrize("kind", ["http", "engineio", "tcp"])
def test_refused_probe_means_down(kind: str) -> None:
    """Where nobody listens any more the backend is down at once, and healthy again when it is back."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        port = probing.backends[0].port
        await probing.backends[0].end()
        await probing.becomes(DOWN)
        revived = probing.backends[0] = Backend("a", port)
        await revived.listen()
        revived.serve(engine)
        await probing.becomes(HEALTHY)

    run(test, engine, type=kind)


@pytest.mark.parametrize("kind", ["http", "engineio"])
def test_silent_probe_means_degraded(kind: str) -> None:
    """A backend that accepts and says nothing is slow, not dead; it is well again when it answers."""
    quiet = False

    async def moody(peer: Peer, message: Message) -> None:
        await (silence if quiet else engine)(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal quiet
        await probing.becomes(HEALTHY)
        quiet = True
        await probing.becomes(DEGRADED)
        quiet = False
        await probing.becomes(HEALTHY)

    run(test, moody, type=kind, timeout=1.0)


def test_long_silence_means_down() -> None:
    """After health.evict_after seconds without an answer a backend is down."""
    quiet = False

    async def moody(peer: Peer, message: Message) -> None:
        await (silence if quiet else engine)(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal quiet
        await probing.becomes(HEALTHY)
        quiet = True
        await probing.becomes(DOWN)

    run(test, moody, evict_after=0.8)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_bad_answer_means_degraded(response: bytes) -> None:
    """An error, half an answer or none: the backend takes nobody new and keeps what it has."""
    bad = False

    async def moody(peer: Peer, message: Message) -> None:
        if not bad:
            await engine(peer, message)
            return
        peer.say(response)
        peer.close()

    async def test(probing: Probing) -> None:
        nonlocal bad
        await probing.becomes(HEALTHY)
        bad = True
        await probing.becomes(DEGRADED)

    run(test, moody)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"0",
        b"0{}",
        b'0{"sid":7}',
        b'0{"sid"',
        b"0[]",
        b"4hi",
        b"9",
        b"b!",
        b"\xff",
        b"0" + b"[" * 100_000,
    ],
)
def test_answer_that_is_no_handshake_means_degraded(body: bytes) -> None:
    """Whatever a backend says to a handshake, the probing goes on, and the backend has answered badly."""
    bad = False

    async def moody(peer: Peer, message: Message) -> None:
        if bad:
            peer.say(ok(body))
        else:
            await engine(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal bad
        await probing.becomes(HEALTHY)
        bad = True
        await probing.becomes(DEGRADED)
        assert probing.known.health.last_answer is not None
        bad = False
        await probing.becomes(HEALTHY)

    run(test, moody, type="engineio")


def test_redirect_is_an_answer() -> None:
    """A redirect is not followed: it leads who knows where."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        assert {request.target for request in probing.requests} == {b"/health"}

    run(test, answers(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"))


def test_a_long_answer_is_one() -> None:
    """health.path may be that of a page of any size: its status is what counts."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)

    run(test, answers(ok(b"x" * 1_000_000)))


def test_suspicion_is_probed_at_once() -> None:
    """When traffic met trouble the backend is probed now, not at the next interval."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        seen = len(probing.requests)
        probing.prober.suspect(probing.known)
        await eventually(lambda: len(probing.requests) > seen, WAIT, "no probe")

    run(test, answers(ok()), interval=600.0)


def test_probes_come_faster_while_a_verdict_may_change() -> None:
    """A backend whose last probe speaks against its verdict is not asked again only after the interval."""
    bad = False

    async def moody(peer: Peer, message: Message) -> None:
        await (silence if bad else engine)(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal bad
        await probing.becomes(HEALTHY)
        bad = True
        probing.prober.suspect(probing.known)
        await eventually(lambda: probing.known.health.failures, WAIT, "no probe failed")
        started = asyncio.get_running_loop().time()
        await probing.becomes(DEGRADED)
        assert asyncio.get_running_loop().time() - started < 9.0, "no sooner than after an interval"

    run(test, moody, interval=12.0, timeout=1.0, fall=2)


def test_backends_are_probed_apart() -> None:
    """A silent backend holds up nobody else's probes."""

    async def test(probing: Probing) -> None:
        silent, lively = probing.backends
        silent.serve(silence)
        for peer in silent.peers:
            peer.close()
        await eventually(lambda: silent.requests, WAIT, "a was not probed")
        seen = len(lively.requests)
        await eventually(lambda: len(lively.requests) >= seen + 3, WAIT, "b is held up")

    run(test, engine, "ab", timeout=600.0)


def test_met_all() -> None:
    """The first round is over when every backend was observed once, good or bad."""

    async def test(probing: Probing) -> None:
        await probing.backends[1].end()
        async with asyncio.timeout(WAIT):
            await probing.prober.met_all.wait()
        assert all(known.health.met for known in probing.fleet)

    run(test, answers(ok()), "ab")


def test_probes_carry_no_cookies() -> None:
    """What a backend sets in one probe is not sent in the next, to it or to its neighbour."""

    async def test(probing: Probing) -> None:
        probing.fleet.move(probing.known, "localhost", probing.backends[0].port)
        await eventually(lambda: len(probing.requests) >= 4, WAIT, "no further probes")
        assert [request.get(b"cookie") for request in probing.requests if request.get(b"cookie")] == []

    run(test, answers(ok(b"", b"Set-Cookie: a=b; Path=/")))


def test_probes_without_an_answer_are_told() -> None:
    """An app that blocks its event loop answers some quickly and the others never: both count."""

    async def test(probing: Probing) -> None:
        await eventually(lambda: Observation.SILENT in probing.met, WAIT, lambda: str(probing.met))
        assert probing.met[:2] == [Observation.ANSWERED] * 2
        assert len(probing.timed) == probing.met.count(Observation.ANSWERED)

    said = 0

    async def answer_twice(peer: Peer, _: Message) -> None:
        nonlocal said
        said += 1
        if said < 3:
            peer.say(ok())

    run(test, answer_twice, timeout=2.0)


def test_a_restart_is_not_missed() -> None:
    """One that is to be restarted is asked often, whatever the interval: it may be away for a second only."""

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)
        asked = len(probing.requests)
        probing.prober.awaits_restart = lambda known: known is probing.known
        probing.prober.suspect(probing.known)
        await eventually(lambda: len(probing.requests) > asked + 3, WAIT, "more probes")

    run(test, answers(ok()), interval=3600.0)
