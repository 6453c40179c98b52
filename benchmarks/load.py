"""The load generator: `python -m benchmarks.load WORK PORT COUNT`.

Prepares everything that is not measured, prints `ready`, waits for a line on standard input, does about
COUNT units of the work, and prints how many it did. An answer that is not the expected one ends it with an
error. The work is counted, not timed: whoever starts it reads the CPU time of the proxy before and after.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import uvloop

from benchmarks.browser import Browser, Client, LoadError, connect, open_session, open_websocket
from benchmarks.wire import TOKEN

CONNECTIONS = 24  # of the closed loops: enough to keep every proxy at work
FLOODS = 20  # saturated streams
STREAMS = 50  # paced ones
RATE = 50  # frames a second of each

Work = Callable[[], Awaitable[int]]
Preparation = Callable[[int, int], Awaitable[Work]]


async def poll(port: int, count: int) -> Work:
    """Polls and posts in turn over kept connections, each of a session of its own."""
    tabs = []
    for _ in range(CONNECTIONS):
        browser, client = Browser(port), await connect(port)
        polls = await open_session(browser, client)
        get = browser.get(polls + b"&t=abc124")
        tabs.append((client, get, browser.post(polls + b"&t=abc125", TOKEN)))
    rounds = count // (2 * CONNECTIONS)

    async def tab(client: Client, get: bytes, post: bytes) -> None:
        for _ in range(rounds):
            if await client.ask(get) != TOKEN or await client.ask(post) != b"OK":
                raise LoadError("a poll brought something else")

    async def work() -> int:
        await asyncio.gather(*(tab(*one) for one in tabs))
        return rounds * 2 * CONNECTIONS

    return work


async def _streams(port: int, count: int, streams: int, every: float) -> Work:
    """Websockets that each stream an equal share of `count` frames."""
    clients = []
    for _ in range(streams):
        browser, client = Browser(port), await connect(port)
        polls = await open_session(browser, client)
        client.transport.close()
        client = await connect(port)
        await open_websocket(browser, client, polls)
        clients.append(client)
    share = count // streams

    async def work() -> int:
        spread = every / streams
        await asyncio.gather(*(client.stream(share, every, i * spread) for i, client in enumerate(clients)))
        return share * streams

    return work


async def frames(port: int, count: int) -> Work:
    """Streams as fast as they go."""
    return await _streams(port, count, FLOODS, 0)


async def paced(port: int, count: int) -> Work:
    """Streams at the rate of a language model."""
    return await _streams(port, count, STREAMS, 1 / RATE)


async def connections(port: int, count: int) -> Work:
    """A new connection for each request."""
    browser = Browser(port)
    first = await connect(port)
    polls = await open_session(browser, first)
    request = browser.get(polls + b"&t=abc126")
    share = count // CONNECTIONS

    async def tab() -> None:
        for _ in range(share):
            client = await connect(port)
            if await client.ask(request) != TOKEN:
                raise LoadError("a poll brought something else")
            client.transport.close()

    async def work() -> int:
        await asyncio.gather(*(tab() for _ in range(CONNECTIONS)))
        return share * CONNECTIONS

    return work


async def websockets(port: int, count: int) -> Work:
    """A new websocket for each session that polls: connection, upgrade, probe, one frame each way, close."""
    waiting = []
    client = await connect(port)
    for _ in range(count):
        browser = Browser(port)
        waiting.append((browser, await open_session(browser, client)))

    async def tab() -> None:
        while waiting:
            browser, polls = waiting.pop()
            client = await connect(port)
            await open_websocket(browser, client, polls)
            if await client.exchange(b"42[1]") != b"42[1]":
                raise LoadError("the frame did not come back")
            client.transport.close()

    async def work() -> int:
        await asyncio.gather(*(tab() for _ in range(CONNECTIONS)))
        return count

    return work


async def idle(port: int, count: int) -> Work:
    """Websockets that say nothing; they are there when the preparation is over."""
    clients = []
    for _ in range(count):
        browser, client = Browser(port), await connect(port)
        polls = await open_session(browser, client)
        await open_websocket(browser, client, polls)
        clients.append(client)

    async def work() -> int:
        return len(clients)

    return work


WORKS: dict[str, Preparation] = {
    "poll": poll,
    "frames": frames,
    "paced": paced,
    "connections": connections,
    "websockets": websockets,
    "idle": idle,
}


async def main(name: str, port: int, count: int) -> int:
    """Prepares, waits for the word, works."""
    work = await WORKS[name](port, count)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return await work()


if __name__ == "__main__":
    try:
        print(uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), flush=True)
    except (LoadError, OSError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
