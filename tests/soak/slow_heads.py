"""Clients that never finish a request's head, and what they do to others.

As a program, `python -m tests.soak.slow_heads PORT COUNT`, it is these clients: COUNT connections that each
say a byte now and then and are opened again when they are closed. It prints `open` when all are, and at
SIGTERM how they ended, in JSON. As a module it measures how long a normal request takes, without them and
among them.
"""

import asyncio
import json
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from tests.soak.processes import Instance, Program, port_of, proxy_before
from tests.support.waiting import wait_until

START = b"GET /public/film HTTP/1.1\r\nHost: soak\r\nX-Padding: "
EVERY = 1.0  # seconds between two bytes
EARLY, LATE = 0.3, 5.0  # seconds by which a refusal may be off, on a machine that does much else
MOST_DELAY = 0.010  # seconds that they may add to a normal request's 99th percentile


class Slow(asyncio.Protocol):
    """One connection after another."""

    transport: asyncio.Transport

    def __init__(self, crowd: "Crowd") -> None:
        self.crowd = crowd
        self.opened = 0.0
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclass
        self.opened = time.monotonic()
        self.transport.write(START)
        self.crowd.open.add(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        self.answer += data

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol: come again."""
        self.crowd.open.discard(self)
        self.crowd.ended(self)


class Crowd:
    """All of them."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.count = count
        self.open: set[Slow] = set()
        self.ends: Counter[str] = Counter()
        self.lasted: list[float] = []  # seconds
        self._leaving = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def ended(self, slow: Slow) -> None:
        """One was closed."""
        if self._leaving.is_set():
            return
        self.ends[slow.answer[9:12].decode() or "closed"] += 1
        self.lasted.append(time.monotonic() - slow.opened)
        task = asyncio.create_task(self._come())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _come(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Slow(self), "127.0.0.1", self.port)

    async def run(self) -> None:
        """Lives until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leaving.set)
        for number in range(self.count):
            await self._come()
            if number % 20 == 19:
                await asyncio.sleep(EVERY / 50)
        print("open", flush=True)
        while not self._leaving.is_set():
            for slow in list(self.open):
                if slow in self.open:
                    slow.transport.write(b"x")
                await asyncio.sleep(EVERY / self.count)
        print(
            json.dumps(
                {"ends": self.ends, "lasted": [min(self.lasted, default=0), max(self.lasted, default=0)]}
            )
        )


@dataclass
class Delay:
    """The 99th percentile of a normal request's time without and among slow ones, and how those ended."""

    alone: float  # seconds
    among: float
    slow: int  # connections
    report: dict[str, Any]

    def __str__(self) -> str:
        delay = (self.among - self.alone) * 1000
        return (
            f"{self.slow} slow heads: p99 {self.alone * 1000:.2f} ms alone, {self.among * 1000:.2f} ms"
            f" among them, {delay:+.2f} ms; {self.report}"
        )

    def check(self) -> None:
        """AssertionError if normal requests were delayed."""
        assert self.among - self.alone < MOST_DELAY, self

    def check_refusals(self, head: float) -> None:
        """AssertionError unless each slow one was told 408, when its time was up and not before."""
        assert set(self.report["ends"]) == {"408"}, self
        assert self.report["ends"]["408"] >= self.slow, self
        soonest, latest = self.report["lasted"]
        assert head - EARLY < soonest <= latest < head + LATE, self


def run(folder: Path, *, slow: int, requests: int, head: float, rounds: int) -> Delay:
    """Measure so many normal requests of each kind; slow ones are refused after `head` seconds.

    In rounds, without and among slow ones in turn: what disturbs the machine disturbs both.
    """
    instance = Instance(folder, "a", "chat")
    with proxy_before(folder, [instance], timeouts={"head": head}) as proxy:
        port = port_of(proxy)
        ask(port, 50)
        alone, among, reports = list[float](), list[float](), list[dict[str, Any]]()
        for number in range(rounds):
            alone += ask(port, requests // rounds)
            crowd = Program(folder, f"slow{number}", "slow_heads", port, slow)
            crowd.launch()
            try:
                wait_until(lambda crowd=crowd: "open" in crowd.said, 60, crowd.tail)  # type: ignore[misc]
                until = time.monotonic() + 1.5 * head
                while len(among) < (number + 1) * requests // rounds or time.monotonic() < until:
                    among += ask(port, 20)
                    time.sleep(0.02)
                crowd.send(signal.SIGTERM)
                reports.append(crowd.report(20))
            finally:
                crowd.kill9()
        ends: Counter[str] = Counter()
        for report in reports:
            ends.update(report["ends"])
        lasted = [min(r["lasted"][0] for r in reports), max(r["lasted"][1] for r in reports)]
        return Delay(p99(alone), p99(among), slow, {"ends": ends, "lasted": lasted})


def ask(port: int, count: int) -> list[float]:
    """Seconds that each of so many requests took, every other one on a connection of its own."""
    request = b"GET /public/film?times=1000&chunked=0 HTTP/1.1\r\nHost: soak\r\nX-Nonce: x\r\n\r\n"
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as kept:
        for number in range(count):
            started = time.perf_counter()
            if number % 2:
                _ask(kept, request)
            else:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as own:
                    _ask(own, request)
            found.append(time.perf_counter() - started)
    return found


def _ask(sock: socket.socket, request: bytes) -> None:
    sock.sendall(request)
    answer = sock.recv(1 << 16)
    while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 1004:
        part = sock.recv(1 << 16)
        assert part, answer
        answer += part
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(seconds, n=100)[98]


async def main(port: int, count: int) -> None:
    """As a program."""
    await Crowd(port, count).run()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
