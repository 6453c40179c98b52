"""A prober at work before scripted backends, for the tests of probes."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable

from proxy.affinity.backend import Backend as Known
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation, Verdict
from proxy.config import Config, HealthSettings
from proxy.controlplane.probes import Prober
from proxy.dataplane.fetch import ask
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT, Message, Peer, ok
from tests.dataplane.scripted import Backend, Script
from tests.support.waiting import eventually

importlib.import_module("engineio.packet")  # loaded now: it takes longer than a probe has here
FAST = {"interval": 0.05, "timeout": 10.0, "fall": 2, "rise": 2, "evict_after": 45.0}
HEALTHY, DEGRADED, DOWN = Verdict.HEALTHY, Verdict.DEGRADED, Verdict.DOWN


class Probing:
    """A prober and its backends."""

    def __init__(self, names: str, settings: HealthSettings) -> None:
        rules = HealthRules(fall=settings.fall, rise=settings.rise, evict_after=settings.evict_after)
        self.fleet = Fleet(rules)
        self.backends = [Backend(name) for name in names]
        for backend in self.backends:
            self.fleet.add(backend.name, "127.0.0.1", backend.port, now=0.0)
        self.timed: list[tuple[str, float]] = []  # those that were answered
        self.met: list[Observation] = []
        self.prober = Prober(
            self.fleet,
            Config(health=settings),
            ask,
            self.probed,
        )

    def probed(self, known: Known, met: Observation, seconds: float) -> None:
        """A probe has ended."""
        self.met.append(met)
        if met is Observation.ANSWERED:
            self.timed.append((known.name, seconds))

    @property
    def known(self) -> Known:
        """What the fleet knows of the first one."""
        return next(iter(self.fleet))

    @property
    def requests(self) -> list[Message]:
        """What the first one was asked."""
        return self.backends[0].requests

    async def becomes(self, verdict: Verdict) -> None:
        """Wait for a verdict on the first one."""
        await eventually(lambda: self.known.health.verdict is verdict, WAIT, lambda: repr(self.known))


Test = Callable[[Probing], Awaitable[None]]


def run(test: Test, script: Script | None, names: str = "a", **settings: object) -> None:
    """Run a test with a prober at work; without a script nobody answers."""

    async def main() -> None:
        probing = Probing(names, HealthSettings.model_validate(FAST | settings))
        for backend in probing.backends:
            await backend.listen()
            if script is not None:
                backend.serve(script)
        task = asyncio.create_task(probing.prober.run())
        try:
            await test(probing)
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait([task])
            for backend in probing.backends:
                await backend.end()

    run_loop(main())


def answers(response: bytes) -> Script:
    """A backend that answers everything so."""

    async def script(peer: Peer, _: Message) -> None:
        peer.say(response)

    return script


async def silence(_: Peer, __: Message) -> None:
    """Hear, and say nothing."""
    await asyncio.sleep(3600)


ENGINE = b'0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000}'


async def engine(peer: Peer, message: Message) -> None:
    """Answer as Engine.IO does."""
    peer.say(ok(b"ok" if message.start.startswith(b"POST") else ENGINE))
