"""The load generator: `python -m benchmarks.load WORK PORT UNITS [CONNECTIONS [RATE [BROWSERS]]]`.

Prepares everything that is not measured, prints `ready`, waits for a line on standard input, does about
so many units of the work, and prints how many it did, as a list of JSON. An answer that is not the expected
one ends it with an error. The work is counted, not timed: whoever starts it reads the CPU time of the proxy
before and after. Only `latency` is timed here, and prints its median and its 99th percentile in microseconds.

Every session is that of another browser (`benchmarks.browsers`), or of BROWSERS of them in turn.
"""

import asyncio
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

import uvloop

from benchmarks.browser import (
    Client,
    LoadError,
    announce,
    connect,
    learn,
    open_alone,
    open_session,
    open_websocket,
)
from benchmarks.browsers import Browser
from benchmarks.measuring import TIMEOUT, TOO_SLOW
from benchmarks.wire import SOCKETIO, TOKEN

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
    browsers: int = 0  # 0 for as many as there are sessions

    def browser(self, number: int) -> Browser:
        """Whose session it is."""
        return Browser(number % self.browsers if self.browsers else number, f"127.0.0.1:{self.port}")


class TooSlowError(Exception):
    """A rate that was not kept."""


T = TypeVar("T")
Work = Callable[[], Awaitable[list[float]]]
Preparation = Callable[[Order], Awaitable[Work]]


class Session(NamedTuple):
    """A session that was opened by polling."""

    browser: Browser
    client: Client  # the connection that opened it
    polls: bytes  # where it polls

    @property
    def upgrade(self) -> bytes:
        """The request for its websocket."""
        return self.browser.upgrade(self.polls.replace(b"polling", b"websocket"))


class Tab(NamedTuple):
    """A kept connection of a session that polls, and what it asks."""

    client: Client
    get: bytes
    post: bytes

    async def hear(self) -> None:
        """A poll."""
        if await self.client.ask(self.get) != TOKEN:
            raise LoadError("a poll brought something else")

    async def poll(self) -> None:
        """Both requests."""
        await self.hear()
        if await self.client.ask(self.post) != b"OK":
            raise LoadError("a POST brought something else")


async def _each(count: int, do: Callable[[int], Awaitable[T]]) -> list[T]:
    """Does something for each number, some of them at a time; the results in order."""
    results: dict[int, T] = {}
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            results[number] = await do(number)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return [results[number] for number in range(count)]


async def _sessions(order: Order, count: int) -> list[Session]:
    """As many sessions, each with its connection."""

    async def begin(number: int) -> Session:
        browser = order.browser(number)
        client = await connect(order.port, browser.address)
        return Session(browser, client, await open_session(browser, client))

    return await _each(count, begin)


async def _tabs(order: Order) -> list[Tab]:
    """A tab for each session, which has polled before: what a proxy reads once of a client it has read."""
    tabs = [
        Tab(client, browser.get(polls + b"&t=abc124"), browser.post(polls + b"&t=abc125", TOKEN))
        for browser, client, polls in await _sessions(order, order.connections)
    ]
    await _each(len(tabs), lambda number: tabs[number].poll())
    await _each(len(tabs), lambda number: tabs[number].hear())
    return tabs


async def poll(order: Order) -> Work:
    """Polls over kept connections, each of a session of its own: what a client does that hears an answer.

    As many are under way however many connections there are; they come round in turn. At a rate, as where
    few users wait for answers at a time, every machine sleeps in between: each request wakes it.
    """
    return await _polling(order, Tab.hear, 1)


async def in_turn(order: Order) -> Work:
    """The same, each followed by a POST: what a client does that talks as much as it hears."""
    return await _polling(order, Tab.poll, 2)


async def _polling(order: Order, do: Callable[[Tab], Awaitable[None]], requests: int) -> Work:
    tabs = deque(await _tabs(order))
    at_once = min(AT_ONCE, order.connections)
    rounds = order.units // (requests * at_once)

    every = requests * at_once / order.rate if order.rate else 0

    async def worker(first: float) -> None:
        for at in range(rounds):
            if every:
                await asyncio.sleep(first + at * every - time.perf_counter())
            tab = tabs.popleft()
            await do(tab)
            tabs.append(tab)

    async def work() -> list[float]:
        began = time.perf_counter()
        await asyncio.gather(*(worker(began + at * every / at_once) for at in range(at_once)))
        took, due = time.perf_counter() - began, rounds * every
        if order.rate and took > LATE * due:
            raise TooSlowError(f"polls of {due:.1f} s took {took:.1f} s")
        return [rounds * requests * at_once]

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
            await tab.hear()
            times.append((time.perf_counter() - sent) * 1e6)
        times.sort()
        return [times[len(times) // 2], times[len(times) * 99 // 100]]

    return work


async def _websockets(order: Order, count: int) -> list[Client]:
    """As many open websockets, of sessions that have polled."""

    async def begin(number: int) -> Client:
        browser = order.browser(number)
        first = await connect(order.port, browser.address)
        session = Session(browser, first, await open_session(browser, first))
        first.transport.close()
        client = await connect(order.port, browser.address)
        await open_websocket(client, session.upgrade)
        return client

    return await _each(count, begin)


async def frames(order: Order) -> Work:
    """Websockets that each stream an equal share of the frames, at their share of the rate."""
    clients = await _websockets(order, order.connections)
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
        for browser, client, _ in await _sessions(order, order.connections)
    ]

    async def work() -> list[float]:
        await asyncio.gather(*(client.upload(head, BLOCK, size) for client, head in ready))
        return [order.units]

    return work


async def download(order: Order) -> Work:
    """Files of equal shares of so many megabytes."""
    size = order.units * MEGABYTE // order.connections
    sessions = await _sessions(order, order.connections)
    ready = [(client, browser.get(b"/public/%d" % size)) for browser, client, _ in sessions]

    async def work() -> list[float]:
        await asyncio.gather(*(client.download(request, size) for client, request in ready))
        return [order.units]

    return work


async def _in_turn(units: list[Callable[[], Awaitable[None]]]) -> Work:
    """Does the units, some of them at a time."""

    async def work() -> list[float]:
        await _each(len(units), lambda number: units[number]())
        return [len(units)]

    return work


async def connections(order: Order) -> Work:
    """A new connection for each request, a poll of a session that was opened over another one.

    There are as many sessions as browsers.
    """
    sessions = await _sessions(order, order.browsers or order.units)
    for session in sessions:
        session.client.transport.close()
    ready = [(browser.address, browser.get(polls + b"&t=abc126")) for browser, _, polls in sessions]

    async def unit(number: int) -> None:
        address, request = ready[number % len(ready)]
        client = await connect(order.port, address)
        if await client.ask(request) != TOKEN:
            raise LoadError("a poll brought something else")
        client.transport.close()

    return await _in_turn([partial(unit, number) for number in range(order.units)])


async def _say_and_leave(client: Client) -> None:
    """A frame each way, and the end of the page."""
    if await client.exchange(b"42[1]") != b"42[1]":
        raise LoadError("the frame did not come back")
    await client.leave()


async def websockets(order: Order) -> Work:
    """A new websocket for each session that polls: connection, upgrade, probe, one frame each way, close."""
    sessions = await _sessions(order, order.units)
    for session in sessions:
        session.client.transport.close()
    ready = [(session.browser.address, session.upgrade) for session in sessions]

    async def unit(number: int) -> None:
        address, upgrade = ready[number]
        client = await connect(order.port, address)
        await open_websocket(client, upgrade)
        await _say_and_leave(client)

    return await _in_turn([partial(unit, number) for number in range(order.units)])


async def _alone(order: Order, browsers: list[Browser]) -> Work:
    """A websocket for each without polls before it: upgrade, CONNECT, one frame each way, close."""
    ready = [(browser, browser.upgrade(SOCKETIO + b"websocket")) for browser in browsers]

    async def unit(number: int) -> None:
        browser, upgrade = ready[number]
        client = await connect(order.port, browser.address)
        await open_alone(browser, client, upgrade)
        await _say_and_leave(client)

    return await _in_turn([partial(unit, number) for number in range(len(ready))])


async def _announce(order: Order, number: int) -> Browser:
    """A browser whose page has announced its session, over a connection that is closed again."""
    browser = order.browser(number)
    client = await connect(order.port, browser.address)
    await announce(browser, client)
    client.transport.close()
    return browser


async def announced(order: Order) -> Work:
    """A websocket alone for each session that the page has announced."""
    return await _alone(order, await _each(order.units, partial(_announce, order)))


async def unannounced(order: Order) -> Work:
    """A websocket alone for each new session that nobody has announced, without cookies of any proxy.

    So do pages before Chainlit 2.5.5, and clients that are no pages.
    """
    return await _alone(order, [order.browser(number) for number in range(order.units)])


async def returning(order: Order) -> Work:
    """A websocket alone for each session that an instance has: it was opened and left before."""

    async def begin(number: int) -> Browser:
        browser = await _announce(order, number)
        client = await connect(order.port, browser.address)
        await open_alone(browser, client, browser.upgrade(SOCKETIO + b"websocket"))
        learn(browser, client.head)
        await client.leave()
        return browser

    return await _alone(order, await _each(order.units, begin))


async def idle(order: Order) -> Work:
    """Websockets that say nothing; they are there when the preparation is over."""
    clients = await _websockets(order, order.units)

    async def work() -> list[float]:
        return [len(clients)]

    return work


WORKS: dict[str, Preparation] = {
    work.__name__: work
    for work in (
        poll,
        in_turn,
        latency,
        frames,
        upload,
        download,
        connections,
        websockets,
        announced,
        unannounced,
        returning,
        idle,
    )
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
