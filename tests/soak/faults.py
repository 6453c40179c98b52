"""Load with faults: many tabs at once, while their instances are killed, stopped and restarted at random.

Afterwards every tab is back, nobody was ever given what was another's, and the proxy is as it was before: no
connection, tunnel or session is left, as many descriptors as at the start, and its memory as after a round of
the same tabs without faults.
"""

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.soak.processes import MIB, Instance, Program, descriptors, memory, port_of, proxy_before
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import wait_until

NAMES = "abcd"
MOST_AT_ONCE = 2  # instances in trouble, so that there is somewhere to go
SECTIONS: dict[str, Any] = {
    # A stopped instance is given up soon, so that its tabs move within the run.
    "health": {"interval": 0.5, "timeout": 1, "fall": 2, "rise": 1, "evict_after": 4},
    # What is remembered of sessions and connections has to be gone when the run is measured.
    "affinity": {"session_timeout": 3},
}
AT_ONCE = ("open_connections", "backend_tunnels")  # what ends with its tab
LATER = ("backend_sessions", "directory_sessions")  # what expires: a tab that polls only falls silent
CLOSE = 20.0  # seconds until what ends at once has ended, kept connections to instances too
EXPIRE = 90.0  # seconds until all has expired: 60 without a poll, and session_timeout
HEADS, HEAD = 4500, 200  # requests and digits of each: more than the 16 MiB and 4096 lines that are kept
MORE_MEMORY = 8 * MIB  # what allocators keep, by chance, of the last round


@dataclass
class Outcome:
    """What a run showed."""

    report: dict[str, Any]
    faults: Counter[str] = field(default_factory=Counter)
    descriptors: tuple[int, int] = (0, 0)  # before and after
    memory: tuple[int, int] = (0, 0)  # bytes, likewise
    left: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        before, after = (size / MIB for size in self.memory)
        return (
            f"faults {dict(self.faults)}; {self.report}; descriptors {self.descriptors};"
            f" memory {before:.1f} -> {after:.1f} MiB; left {self.left}"
        )

    def check(self) -> None:
        """AssertionError unless all promises were kept."""
        assert self.report["mixed"] == [], self
        assert self.report["not back"] == 0, self
        assert self.report["heard"] > self.report["tabs"], self
        assert self.descriptors[1] <= self.descriptors[0], self
        assert self.memory[1] - self.memory[0] < MORE_MEMORY, self
        assert not any(self.left.values()), self


def run(folder: Path, *, tabs: int, seconds: float, seed: int, until_expired: bool) -> Outcome:
    """Let so many tabs live through so many seconds of faults; `until_expired` waits for the sessions too."""
    names, patience = (AT_ONCE + LATER, EXPIRE) if until_expired else (AT_ONCE, CLOSE)
    instances = [Instance(folder, name, "chat") for name in NAMES]
    with proxy_before(folder, instances, **SECTIONS) as proxy:
        _fill(proxy)
        open_at_start = _fewest_descriptors(proxy)
        _live(proxy, Program(folder, "before", "tabs", port_of(proxy), tabs, seed), lambda: None)
        _settle(proxy, lambda: not any(_left(proxy, names).values()), patience)
        memory_before = memory(proxy)
        outcome = Outcome({})

        def torment() -> None:
            outcome.faults = make_trouble(instances, seconds, random.Random(seed))

        crowd = Program(folder, "tabs", "tabs", port_of(proxy), tabs, seed + 1)
        outcome.report = _live(proxy, crowd, torment)
        _settle(
            proxy,
            lambda: not any(_left(proxy, names).values()) and descriptors(proxy) <= open_at_start,
            patience,
        )
        outcome.left = _left(proxy, names)
        outcome.descriptors = open_at_start, _fewest_descriptors(proxy)
        outcome.memory = memory_before, memory(proxy)
        return outcome


def _fill(proxy: ProxyProcess) -> None:
    """Have it know as many heads as it keeps: those of the tabs differ, and would be taken for growth."""
    http = HTTPConnection("127.0.0.1", port_of(proxy))
    for number in range(HEADS):
        http.request("GET", "/nothing", headers={"X-Nonce": str(number), "X-Head": str(number) * HEAD})
        http.getresponse().read()
    http.close()


def _live(proxy: ProxyProcess, crowd: Program, meanwhile: Callable[[], None]) -> dict[str, Any]:
    """What a crowd reports that lived while something happened."""
    crowd.launch()
    try:
        wait_until(lambda: "connected" in crowd.said or not crowd.running, 120, crowd.tail)
        assert crowd.running, crowd.tail() + proxy.tail()
        meanwhile()
        crowd.send(signal.SIGUSR1)
        return crowd.report(120)
    finally:
        crowd.kill9()


def _left(proxy: ProxyProcess, names: Iterable[str]) -> dict[str, float]:
    """What the proxy still has of its clients."""
    metrics = proxy.metrics()
    return {
        name: sum(value for (found, _), value in metrics.items() if found == f"chainlit_proxy_{name}")
        for name in names
    }


def _settle(proxy: ProxyProcess, settled: Callable[[], bool], within: float) -> None:
    """Wait until a state is reached; what is left after that time is for the check to say."""
    try:
        wait_until(settled, within, "settled")
    except AssertionError:
        assert proxy.running, proxy.tail()


def _fewest_descriptors(proxy: ProxyProcess) -> int:
    """The fewest that it has in a second: probes come and go."""
    counted = []
    for _ in range(20):
        time.sleep(0.05)
        counted.append(descriptors(proxy))
    return min(counted)


def make_trouble(instances: list[Instance], seconds: float, chance: random.Random) -> Counter[str]:
    """Kill, stop and restart instances at random for a time, then bring all back; how often each was done."""
    faults: Counter[str] = Counter()
    order = itertools.count()
    repairs: list[tuple[float, int, Instance, Callable[[], None]]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or repairs:
        if repairs and (repairs[0][0] <= time.monotonic() or time.monotonic() >= deadline):
            heapq.heappop(repairs)[3]()
        elif len(repairs) < MOST_AT_ONCE:
            troubled = [repair[2] for repair in repairs]
            victim = chance.choice([instance for instance in instances if instance not in troubled])
            fault = chance.choice(("kill", "stop", "restart"))
            faults[fault] += 1
            repair = _harm(victim, fault)
            heapq.heappush(repairs, (time.monotonic() + chance.uniform(0.2, 7), next(order), victim, repair))
            time.sleep(chance.uniform(0.1, 2))
        else:
            time.sleep(0.05)
    return faults


def _harm(victim: Instance, fault: str) -> Callable[[], None]:
    """Do it, and return what makes it good."""
    if fault == "stop":
        victim.pause()
        return victim.resume
    if fault == "kill":
        victim.kill9()
    else:
        victim.stop()
    return victim.launch
