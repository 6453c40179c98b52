"""The load generator: `python -m benchmarks.load WORK PORT UNITS [CONNECTIONS [RATE]]`.

Prepares everything that is not measured, prints `ready`, waits for a line on standard input, does about
so many units of the work, and prints how many it did, as a list of JSON. An answer that is not the expected
one ends it with an error. The work is counted, not timed: whoever starts it reads the CPU time of the proxy
before and after. Only `latency` is timed here, and prints its median and its 99th percentile in microseconds.
"""

import asyncio
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import uvloop

from benchmarks.browser import Browser, Client, LoadError, connect, open_session, open_websocket
from benchmarks.measuring import TIMEOUT, TOO_SLOW
from benchmarks.wire import TOKEN

AT_ONCE = 24  # requests of the closed loops that are under way: enough to keep every proxy at work
LATE = 1.2  # a stream that takes so many times as long as it should was not carried
MEGABYTE = 1_000_000
BLOCK = bytes(65_536)  # what is written of an upload at once


class Order(NamedTuple):
    """What the command line says."""

    port: int
    units: int
    connections: int = AT_ONCE
    rate: int = 0  # units a second of all connections together; 0 for as fast as they go


class TooSlowError(Exception):
    """A rate that was not kept."""


Work = Callable[[], Awaitable[list[float]]]
Preparation = Callable[[Order], Awaitable[Work]]


class Tab(NamedTuple):
    """A kept connection of a session that polls, and what it asks."""

    client: Client
    get: bytes
    post: bytes

    async def poll(self) -> None:
        """Both requests."""
        if await self.client.ask(self.get) != TOKEN or await self.client.ask(self.post) != b"OK":
            raise LoadError("a poll brought something else")


async def _sessions(order: Order) -> list[tuple[Browser, Client, bytes]]:
    """A connection for each session, and where the session polls."""
    sessions = []
    for _ in range(order.connections):
        browser, client = Browser(order.port), await connect(order.port)
        sessions.append((browser, client, await open_session(browser, client)))
    return sessions


async def _tabs(order: Order) -> list[Tab]:
    """A tab for each session, which has polled before: what a proxy reads once of a client it has read."""
    tabs = [
        Tab(client, browser.get(polls + b"&t=abc124"), browser.post(polls + b"&t=abc125", TOKEN))
        for browser, client, polls in await _sessions(order)
    ]
    for tab in tabs:
        await tab.poll()
    return tabs


async def poll(order: Order) -> Work:
    """Polls and posts in turn over kept connections, each of a session of its own.

    As many are under way however many connections there are; they come round in turn.
    """
    tabs = deque(await _tabs(order))
    at_once = min(AT_ONCE, order.connections)
    rounds = order.units // (2 * at_once)

    async def worker() -> None:
        for _ in range(rounds):
            tab = tabs.popleft()
            await tab.poll()
            tabs.append(tab)

    async def work() -> list[float]:
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return [rounds * 2 * at_once]

    return work


async def latency(order: Order) -> Work:
    """One poll after the other at a rate, the connections in turn, so that none waits for another."""
    tabs = await _tabs(order)
    times = []

    async def work() -> list[float]:
        gc.disable()  # a collection would be counted as the proxy's
        began = time.perf_counter()
        for number in range(order.units):
            tab = tabs[number % len(tabs)]
            await asyncio.sleep(began + number / order.rate - time.perf_counter())
            sent = time.perf_counter()
            if await tab.client.ask(tab.get) != TOKEN:
                raise LoadError("a poll brought something else")
            times.append((time.perf_counter() - sent) * 1e6)
        times.sort()
        return [times[len(times) // 2], times[len(times) * 99 // 100]]

    return work


async def frames(order: Order) -> Work:
    """Websockets that each stream an equal share of the frames, at their share of the rate."""
    clients = []
    for _ in range(order.connections):
        browser, client = Browser(order.port), await connect(order.port)
        polls = await open_session(browser, client)
        client.transport.close()
        client = await connect(order.port)
        await open_websocket(browser, client, polls)
        clients.append(client)
    share = order.units // order.connections
    every = order.connections / order.rate if order.rate else 0

    async def work() -> list[float]:
        spread = every / order.connections
        began = time.perf_counter()
        await asyncio.gather(*(client.stream(share, every, i * spread) for i, client in enumerate(clients)))
        took, due = time.perf_counter() - began, share * every
        if order.rate and took > LATE * due:
            raise TooSlowError(f"streams of {due:.1f} s took {took:.1f} s")
        return [share * order.connections]

    return work


async def upload(order: Order) -> Work:
    """Files of equal shares of so many megabytes, each to its session, as a browser sends them."""
    size = order.units * MEGABYTE // order.connections
    target = b"/project/file?session_id="
    ready = [
        (client, browser.post_head(target + browser.session.encode(), size))
        for browser, client, _ in await _sessions(order)
    ]

    async def work() -> list[float]:
        await asyncio.gather(*(client.upload(head, BLOCK, size) for client, head in ready))
        return [order.units]

    return work


async def download(order: Order) -> Work:
    """Files of equal shares of so many megabytes."""
    size = order.units * MEGABYTE // order.connections
    ready = [(client, browser.get(b"/public/%d" % size)) for browser, client, _ in await _sessions(order)]

    async def work() -> list[float]:
        await asyncio.gather(*(client.download(request, size) for client, request in ready))
        return [order.units]

    return work


async def connections(order: Order) -> Work:
    """A new connection for each request."""
    browser = Browser(order.port)
    first = await connect(order.port)
    polls = await open_session(browser, first)
    request = browser.get(polls + b"&t=abc126")
    share = order.units // AT_ONCE

    async def tab() -> None:
        for _ in range(share):
            client = await connect(order.port)
            if await client.ask(request) != TOKEN:
                raise LoadError("a poll brought something else")
            client.transport.close()

    async def work() -> list[float]:
        await asyncio.gather(*(tab() for _ in range(AT_ONCE)))
        return [share * AT_ONCE]

    return work


async def websockets(order: Order) -> Work:
    """A new websocket for each session that polls: connection, upgrade, probe, one frame each way, close."""
    waiting = []
    client = await connect(order.port)
    for _ in range(order.units):
        browser = Browser(order.port)
        waiting.append((browser, await open_session(browser, client)))

    async def tab() -> None:
        while waiting:
            browser, polls = waiting.pop()
            client = await connect(order.port)
            await open_websocket(browser, client, polls)
            if await client.exchange(b"42[1]") != b"42[1]":
                raise LoadError("the frame did not come back")
            client.transport.close()

    async def work() -> list[float]:
        await asyncio.gather(*(tab() for _ in range(AT_ONCE)))
        return [order.units]

    return work


async def idle(order: Order) -> Work:
    """Websockets that say nothing; they are there when the preparation is over."""
    clients = []
    for _ in range(order.units):
        browser, client = Browser(order.port), await connect(order.port)
        polls = await open_session(browser, client)
        await open_websocket(browser, client, polls)
        clients.append(client)

    async def work() -> list[float]:
        return [len(clients)]

    return work


WORKS: dict[str, Preparation] = {
    work.__name__: work for work in (poll, latency, frames, upload, download, connections, websockets, idle)
}


async def main(name: str, order: Order) -> list[float]:
    """Prepares, waits for the word, works."""
    work = await asyncio.wait_for(WORKS[name](order), 2 * TIMEOUT)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return await work()


if __name__ == "__main__":
    try:
        print(json.dumps(uvloop.run(main(sys.argv[1], Order(*map(int, sys.argv[2:]))))), flush=True)
    except TooSlowError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(TOO_SLOW)
    except (LoadError, OSError) as error:
        sys.exit(f"{sys.argv[1]}: {error!r}")
