"""Real Chainlit instances that stream answers to a hundred users at once: directly, and through each proxy.

Saturated, every answer is streamed as fast as Chainlit can: tokens a second of all users. Paced, every user
gets 10 tokens a second, which the machine carries: the time to the first token, and what the proxy costs. The
clients are real Socket.IO clients; they and the instances run on the same cores.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from benchmarks import page
from benchmarks.chainlit import Instance, Tab
from benchmarks.cpu import cpu_ns
from benchmarks.peers import Peer, UnavailableError, start

USERS = 100
INSTANCES = 2
DIRECT = "no proxy"
SATURATED = "40 0"  # the message: tokens, seconds between two
PACED = "30 0.1"


class Answers(NamedTuple):
    """One measurement of one proxy."""

    tokens: float  # a second of all users, saturated
    first: float  # milliseconds to the first token, paced: the median
    late: float  # and the 99th percentile
    cost: float  # CPU microseconds of the proxy per token, paced
    share: float  # the proxy's, in percent of the CPU of proxy, instances and clients, paced


def run(peers: list[Peer], folder: Path, rounds: int) -> list[str]:
    """Measures every proxy in every round; the lines of the table."""
    figures: dict[str, list[Answers]] = defaultdict(list)
    titles: dict[str, str] = {DIRECT: DIRECT}
    with contextlib.ExitStack() as stack:
        instances = [Instance(f"chainlit{number}", folder) for number in range(INSTANCES)]
        for instance in instances:
            instance.launch()
            stack.callback(instance.kill9)
        for instance in instances:
            instance.wait_ready()
        ports = [instance.port for instance in instances]
        proxies: dict[str, tuple[int, int]] = {}  # name -> pid, port
        for peer in peers:
            with contextlib.suppress(UnavailableError):
                running = stack.enter_context(start(peer, ports, folder / f"answers-{peer.name}"))
                proxies[peer.name], titles[peer.name] = (running.pid, running.port), running.title
        for number in range(rounds):
            print(f"answers, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            pids = [instance.pid for instance in instances]
            figures[DIRECT].append(asyncio.run(_measure(None, ports, pids)))
            for name, (pid, port) in proxies.items():
                figures[name].append(asyncio.run(_measure(pid, [port], pids)))
    return _table(figures, titles)


async def _measure(proxy: int | None, ports: list[int], instances: list[int]) -> Answers:
    tabs = [Tab() for _ in range(USERS)]
    for number, tab in enumerate(tabs):
        await tab.open(f"http://127.0.0.1:{ports[number % len(ports)]}")
    began = time.perf_counter()
    tokens = await _ask(tabs, SATURATED)
    rate = tokens / (time.perf_counter() - began)
    own, rest = _spent(proxy, instances)
    tokens = await _ask(tabs, PACED)
    then, those = _spent(proxy, instances)
    first = sorted(tab.first * 1000 for tab in tabs)
    for tab in tabs:
        await tab.close()
    used = then - own
    return Answers(
        rate,
        statistics.median(first),
        first[len(first) * 99 // 100],
        used / 1000 / tokens,
        100 * used / (used + those - rest),
    )


async def _ask(tabs: list[Tab], message: str) -> int:
    """All ask at once; how many tokens came. An answer that is not whole ends the measurement."""
    await asyncio.gather(*(tab.turn(message) for tab in tabs))
    due, got = len(tabs) * int(message.split(maxsplit=1)[0]), sum(tab.tokens for tab in tabs)
    if got != due:
        raise RuntimeError(f"{got} tokens came of {due}")
    return got


def _spent(proxy: int | None, instances: list[int]) -> tuple[int, int]:
    """CPU nanoseconds of the proxy, and of instances and clients."""
    own = cpu_ns(proxy) if proxy is not None else 0
    return own, sum(map(cpu_ns, instances)) + time.process_time_ns()


def _table(figures: dict[str, list[Answers]], titles: dict[str, str]) -> list[str]:
    heads = [
        f"{USERS} users, {INSTANCES} instances",
        "tokens/s, saturated",
        "ms to the first token",
        "99th percentile",
        "CPU us of the proxy per token",
        "share of all CPU",
    ]
    rows = []
    for name, taken in figures.items():
        rate, first, late, cost, share = (
            statistics.median(getattr(one, field) for one in taken) for field in Answers._fields
        )
        rates = [one.tokens for one in taken]
        spread = f"{rate:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
        own = ["-", "-"] if name == DIRECT else [f"{cost:.1f}", f"{share:.1f} %"]
        rows.append([titles[name], spread, f"{first:.1f}", f"{late:.1f}", *own])
    return page.table(heads, rows)
