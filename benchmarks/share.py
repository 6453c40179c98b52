"""The Python share of the work alone: `python -m benchmarks.share [WORKS ...] [--runs N] [--units N]`.

A real data plane in this process, with an access log, on a stage (`benchmarks.stage`): no kernel, no event
loop's own reading and writing, nobody else. What is left is what a change of our code changes, in seconds and
without peers. CPU microseconds for each unit, the best of several runs and their median. The stage itself
takes a part of that, which is the same before and after a change: hold two runs against each other.

There are 3,000 browsers, each of which does the work once in a run, or a few, which do it again and again.
"""

import argparse
import asyncio
import gc
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import TextIO

from benchmarks.browsers import Browser
from benchmarks.stage import (
    ANSWER,
    CONNECTED,
    DONE,
    HOST,
    OPENED,
    SWITCHED,
    Loop,
    ShareError,
    Stage,
    Wire,
    connect_packet,
    learn,
    open_session,
)
from benchmarks.wire import GOODBYE, SOCKETIO, TOKEN, frame
from proxy.affinity.health import Observation
from proxy.config import Config
from proxy.parts import Parts

BACKENDS = 2
FEW = 8

Unit = Callable[[], Awaitable[None]]
Work = Callable[[Stage, list[Browser]], Awaitable[list[Unit]]]


async def poll(stage: Stage, browsers: list[Browser]) -> list[Unit]:
    """A poll over a kept connection, of a client that hears an answer."""
    units = []
    for browser in browsers:
        wire, polls = await open_session(stage, browser)
        units.append(_polling(stage, wire, browser.get(polls + b"&t=abc1"), ANSWER))
    return await _read_once(units)


async def in_turn(stage: Stage, browsers: list[Browser]) -> list[Unit]:
    """The same, and a POST: a unit is one of both, in turn."""
    units: list[Unit] = []
    for browser in browsers:
        wire, polls = await open_session(stage, browser)
        units.append(_polling(stage, wire, browser.get(polls + b"&t=abc1"), ANSWER))
        units.append(_polling(stage, wire, browser.post(polls + b"&t=abc2", TOKEN), DONE))
    return await _read_once(units)


async def _read_once(units: list[Unit]) -> list[Unit]:
    """What is read once of a connection has been read."""
    for unit in units:
        await unit()
    return units


def _polling(stage: Stage, wire: Wire, request: bytes, answer: bytes) -> Unit:
    async def unit() -> None:
        if not (await stage.ask(wire, request, answer)).startswith(b"HTTP/1.1 200"):
            raise ShareError("a poll failed")

    return unit


async def connection(stage: Stage, browsers: list[Browser]) -> list[Unit]:
    """A new connection and a poll of a session that was opened over another one."""

    async def prepare(browser: Browser) -> Unit:
        wire, polls = await open_session(stage, browser)
        wire.hang_up()
        await asyncio.sleep(0)
        request = browser.get(polls + b"&t=abc1")

        async def unit() -> None:
            wire = stage.connect(browser.address)
            if not (await stage.ask(wire, request, ANSWER)).startswith(b"HTTP/1.1 200"):
                raise ShareError("a poll failed")
            wire.hang_up()
            await asyncio.sleep(0)

        return unit

    return [await prepare(browser) for browser in browsers]


async def _talk(stage: Stage, wire: Wire, up: Wire) -> None:
    """A frame each way, and the end of the page."""
    said = frame(b"42[1]", masked=True)
    wire.protocol.data_received(said)
    if (await stage.hear())[1] != said:
        raise ShareError("the client's frame did not come through")
    up.protocol.data_received(frame(b"42[1]"))
    if wire.said != frame(b"42[1]"):
        raise ShareError("the backend's frame did not come through")
    wire.protocol.data_received(GOODBYE)
    await stage.hear()
    up.protocol.data_received(b"\x88\x02\x03\xe9")
    up.hang_up()
    wire.hang_up()
    for _ in range(3):
        await asyncio.sleep(0)


async def websocket(stage: Stage, browsers: list[Browser]) -> list[Unit]:
    """The websocket of a session that polls: connection, upgrade, probe, a frame each way, close."""

    async def prepare(browser: Browser) -> Unit:
        first, polls = await open_session(stage, browser)
        first.hang_up()
        await asyncio.sleep(0)
        request = browser.upgrade(polls.replace(b"polling", b"websocket"))

        async def unit() -> None:
            wire = stage.connect(browser.address)
            wire.protocol.data_received(request)
            up, _ = await stage.hear()
            up.protocol.data_received(SWITCHED)
            wire.protocol.data_received(frame(b"2probe", masked=True))
            await stage.hear()
            up.protocol.data_received(frame(b"3probe"))
            wire.protocol.data_received(frame(b"5", masked=True))
            await stage.hear()
            await _talk(stage, wire, up)

        return unit

    return [await prepare(browser) for browser in browsers]


def _alone(kind: str) -> Work:
    """A websocket without polls before it, of a session that is announced, new or returning.

    Whoever announces a session has Chainlit's cookie of it, and so has who returns to one after the proxy was
    started anew. A new one that is not announced has none: pages before Chainlit 2.5.5, and other clients.
    """

    async def work(stage: Stage, browsers: list[Browser]) -> list[Unit]:
        async def prepare(browser: Browser) -> Unit:
            if kind == "announced":
                wire = stage.connect(browser.address)
                body = json.dumps({"session_id": browser.session}).encode()
                asked = browser.post(b"/set-session-cookie", body, "application/json")
                learn(browser, await stage.ask(wire, asked, DONE))
                wire.hang_up()
                await asyncio.sleep(0)
            if kind != "new":
                browser.keep([("X-Chainlit-Session-id", browser.session)])
            request = browser.upgrade(SOCKETIO + b"websocket")
            packet = frame(connect_packet(browser), masked=True)

            async def unit() -> None:
                stage.home = None if kind == "returning" else 0
                wire = stage.connect(browser.address)
                wire.protocol.data_received(request)
                up, _ = await stage.hear()
                if stage.home is None:
                    stage.home = up.port
                up.protocol.data_received(SWITCHED + frame(OPENED % stage.mint()))
                wire.protocol.data_received(packet)
                up, data = await stage.hear()
                if data != packet:
                    raise ShareError(f"no CONNECT but {data[:100]!r}")
                up.protocol.data_received(frame(CONNECTED))
                await _talk(stage, wire, up)

            return unit

        return [await prepare(browser) for browser in browsers]

    return work


WORKS: dict[str, tuple[Work, str, int]] = {  # the work, its words, and how many browsers there are
    "poll": (poll, "poll over keep-alive", 3000),
    "in_turn": (in_turn, "poll and POST in turn over keep-alive", 3000),
    "in_turn_few": (in_turn, "the same, few browsers", FEW),
    "connection": (connection, "new connection and request", 3000),
    "connection_few": (connection, "the same, few browsers", FEW),
    "websocket": (websocket, "new websocket of a session that polls", 3000),
    "announced": (_alone("announced"), "new websocket alone, announced", 3000),
    "unannounced": (_alone("new"), "new websocket alone, not announced", 3000),
    "returning": (_alone("returning"), "the same after a restart of the proxy", 3000),
}


def proxy() -> Parts:
    """A proxy before two healthy backends, configured as in the benchmark with peers."""
    backends = [{"name": f"b{at}", "url": f"http://127.0.0.1:{8001 + at}"} for at in range(BACKENDS)]
    log = {"format": "json", "access": True, "level": "info"}
    made = Parts(Config.model_validate({"backends": backends, "log": log}))
    for backend in made.fleet:
        made.fleet.observe(backend, Observation.ANSWERED, monotonic())
    return made


@asynccontextmanager
async def prepared(name: str, units: int) -> AsyncIterator[list[Unit]]:
    """The units of a work, at most so many, before a fresh proxy, which ends behind the block."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    work, _, count = WORKS[name]
    serving = loop.create_task(proxy().plane.run([socket.socket()]))
    await loop.listening.wait()
    stage = Stage(loop)
    yield await work(stage, [Browser(number, HOST) for number in range(min(count, units))])
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def measure(name: str, units: int) -> float:
    """CPU microseconds for one unit, of a fresh proxy."""
    async with prepared(name, units) as ready:
        gc.collect()
        gc.freeze()
        begun = time.process_time()
        done = 0
        while done < units:
            for unit in ready[: units - done]:
                await unit()
            done += len(ready[: units - done])
        took = time.process_time() - begun
    gc.unfreeze()
    return took / done * 1e6


def once(name: str, units: int) -> float:
    """In a loop of its own."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(measure(name, units))


def without_log() -> TextIO:
    """Where to tell what was found; the proxy's access log goes where nobody reads it from now on."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return told


def main() -> None:
    """Prints the best and the median of some runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.share", description=__doc__)
    parser.add_argument("works", nargs="*", default=list(WORKS), help=", ".join(WORKS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--units", type=int, default=3000, help="of each work in a run")
    options = parser.parse_args()
    told = without_log()
    for name in options.works:
        _, words, _ = WORKS[name]
        took = [once(name, options.units) for _ in range(options.runs)]
        print(f"{words:40} {min(took):7.1f} us, median {statistics.median(took):7.1f}", file=told, flush=True)


if __name__ == "__main__":
    main()
