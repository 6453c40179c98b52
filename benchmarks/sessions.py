"""What shared sessions cost: `make bench-sessions`.

Two figures, each against an instance without sharing, in turns, in one run: the processor time of an instance
that streams answers, and the time from a client's CONNECT to its acknowledgement where the session has to be
taken over from another instance. Sharing costs something for each turn and nothing for a token, so what it
costs is measured on turns of one token, where it is not lost in the noise of streaming, and then set against
what a streamed turn costs without it. Instances are started as `chainlit-proxy replica` starts them.
"""

import asyncio
import statistics
import tempfile
from pathlib import Path

from benchmarks.chainlit import Instance, Tab
from benchmarks.cpu import cpu_ns
from tests.support.processes import Process
from tests.support.redis_server import RedisServer, find

CHATS = 20
TOKENS, PAUSE = 200, 0.005  # of a streamed turn
STREAMED, SHORT = 3, 10  # turns of each chat in a round
ROUNDS = 7  # for each kind of instance; the first is not counted
MOVES = 40  # sessions that are taken over
HISTORY = 10  # turns that such a session has


async def spent(instance: Instance, text: str, turns: int) -> float:
    """Milliseconds of the instance's processor time for one of `turns` turns of each chat."""
    tabs = [Tab() for _ in range(CHATS)]
    for tab in tabs:
        await tab.open(instance.url)
    before = cpu_ns(instance.pid)

    async def talk(tab: Tab) -> None:
        for _ in range(turns):
            await tab.turn(text)

    await asyncio.gather(*map(talk, tabs))
    used = cpu_ns(instance.pid) - before
    for tab in tabs:
        await tab.close()
    return used / 1e6 / (CHATS * turns)


async def moves(giver: Instance, taker: Instance, plain: Instance) -> tuple[list[float], list[float]]:
    """Milliseconds to connect: a session that is taken over, and one at an instance that shares nothing."""
    shared: list[float] = []
    alone: list[float] = []
    for _ in range(MOVES):
        tab = Tab()
        await tab.open(giver.url)
        for _ in range(HISTORY):
            await tab.turn("20 0")
        await tab.close()
        for times, instance in ((shared, taker), (alone, plain)):
            again = Tab(tab.session)
            times.append(1000 * await again.open(instance.url))
            await again.close()
    return shared, alone


async def compare(kind: str, plain: Instance, giver: Instance, taker: Instance) -> None:
    """Measures and prints both figures for one kind of store."""
    streamed, added = [], []
    for _ in range(ROUNDS):
        streamed.append(await spent(plain, f"{TOKENS} {PAUSE}", STREAMED))
        alone = await spent(plain, "1 0", SHORT)
        added.append(await spent(giver, "1 0", SHORT) - alone)
    a, b = statistics.median(streamed[1:]), statistics.median(added[1:])
    print(
        f"{kind:<7} CPU, ms: {a:.2f} for a turn of {TOKENS} tokens, sharing adds {b:.2f} to a turn "
        f"({min(added[1:]):.2f} to {max(added[1:]):.2f}): {100 * b / a:.1f} % (limit 3 %)"
    )
    moved, fresh = await moves(giver, taker, plain)
    a, b = statistics.median(fresh), statistics.median(moved)
    print(
        f"{kind:<7} connecting, ms: {a:.2f} a new session alone, {b:.2f} one of {2 * HISTORY} messages taken "
        f"over: {b - a:+.2f} (limit 5)"
    )


def main() -> None:
    """Measures SQLite, and Redis where there is one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = {"sqlite": f"sqlite://{folder}/sessions.db"}
        started: list[Process] = []
        try:
            if find():
                redis = RedisServer(folder)
                redis.start()
                started.append(redis)
                stores["redis"] = redis.url
            for kind, store in stores.items():
                trio = [Instance(f"{kind}-{role}", folder, at) for role, at in
                        (("plain", ""), ("giver", store), ("taker", store))]  # fmt: skip
                started += trio
                for instance in trio:
                    instance.launch()
                for instance in trio:
                    instance.wait_ready()
                asyncio.run(compare(kind, *trio))
                for instance in trio:
                    instance.kill9()
        finally:
            for process in started:
                process.kill9()


if __name__ == "__main__":
    main()
