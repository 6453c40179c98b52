"""Checks that take their time, or much of the line: buffers, an answer of the app, silence, large things."""

import asyncio
import contextlib
import statistics
import time
import uuid
from datetime import UTC, datetime
from itertools import pairwise

from proxy.doctor.browser import Browser, Site
from proxy.doctor.engine import RefusedError, Transport
from proxy.doctor.findings import Verdict, failed, passed, skipped, warning
from proxy.doctor.sessions import usual
from proxy.doctor.tab import Tab, body_of

ECHOES = 12  # asked one after the other, without waiting for the answers
STEP = 0.1  # seconds between two of them
COLLECTED = 0.15  # seconds that half of them take where something collects them, if they come in lumps
SLOW = 0.5  # seconds that half of them take where something is wrong in any case
TOGETHER = 0.02  # seconds between two that came as one
ANSWER = 120.0  # seconds for an answer of the app
LARGE_UPLOAD = 25 << 20
LARGE_MESSAGE = 500_000  # bytes; the server takes up to 1,000,000
COOKIE = 3000  # characters of a piece of Chainlit's login (chainlit/auth/cookie.py)
COOKIES = 4


def lumps(times: list[float]) -> int:
    """In how many lumps they came."""
    return 1 + sum(later - earlier > TOGETHER for earlier, later in pairwise(times))


async def buffering(site: Site) -> Verdict:
    """Whether answers to what was asked one by one come one by one."""
    evidence, slow, collected = [], False, False
    transports = [Transport.POLLING, *([Transport.WEBSOCKET] if site.websockets else [])]
    results = await asyncio.gather(*(_slowly(site, transport) for transport in transports))
    for transport, (half, number) in zip(transports, results, strict=True):
        if not number:  # it does not open, which is a finding of its own
            continue
        evidence.append(
            f"over {transport}: {ECHOES} packets, one every {1000 * STEP:.0f} ms; half of the answers took"
            f" more than {1000 * half:.0f} ms, they came in {number} lumps"
        )
        slow = slow or half > SLOW
        collected = collected or (half > COLLECTED and number <= ECHOES // 2)
    if not evidence:
        return skipped("no session opened")
    if collected:
        return failed("what the app sends is collected on the way", evidence)
    return (
        warning("packets take long", evidence) if slow else passed("packets come as they are sent", evidence)
    )


async def _slowly(site: Site, transport: Transport) -> tuple[float, int]:
    """What half of the echoes took, and in how many lumps they came; the better of two, where one is bad.

    An app, or this machine, may have been busy for a moment; what collects does it each time.
    """
    found = []
    for _ in range(2):
        times, delays = await _echoes(site, transport)
        found.append((statistics.median(delays), lumps(times)) if times else (0.0, 0))
        if found[-1][0] <= COLLECTED:
            break
    return min(found)


async def _echoes(site: Site, transport: Transport) -> tuple[list[float], list[float]]:
    """When the answers came, in order, and how long each took; nothing where no session opens."""
    async with Browser(site) as browser, Tab(browser, transport) as tab:
        try:
            await tab.load()
            await tab.engine.echo()
            return await _one_by_one(tab)
        except RefusedError:
            return [], []


async def _one_by_one(tab: Tab) -> tuple[list[float], list[float]]:
    begun = time.monotonic()
    times: list[float] = []

    async def one(number: int) -> float:
        await asyncio.sleep(number * STEP)
        took = await tab.engine.echo()
        times.append(time.monotonic() - begun)
        return took

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(ECHOES)]
    except* RefusedError as errors:
        raise RefusedError(str(errors.exceptions[0])) from None
    return sorted(times), [task.result() for task in tasks]


async def answer(site: Site) -> Verdict:
    """What a user waits for: the first token, and the rest. The only check that says something to the app."""
    if not site.settings.say:
        return skipped("nothing is said to the app without --say TEXT")
    async with Browser(site) as browser, Tab(browser, usual(site)) as tab:
        try:
            await tab.load()
            await tab.engine.emit("connection_successful")
            with contextlib.suppress(TimeoutError):
                await _silence(tab)  # its greeting
            begun = time.monotonic()
            await tab.engine.emit("client_message", _message(site.settings.say))
            tokens, whole = await _tokens(tab)
        except RefusedError as error:
            return failed("the connection was lost", [str(error)])
        except TimeoutError:
            return failed(f"no answer within {ANSWER:g} s")
    evidence = [f"the whole answer after {whole - begun:.2f} s"]
    if not tokens:
        return passed("the app answers, and does not stream", evidence)
    number, spread = lumps(tokens), tokens[-1] - tokens[0]
    evidence.insert(0, f"the first of {len(tokens)} tokens after {tokens[0] - begun:.2f} s")
    evidence.insert(1, f"the others within {spread:.2f} s, in {number} lumps")
    if len(tokens) >= ECHOES and number <= 2:
        return warning("its text came all at once", evidence)
    return passed("the app answers as it writes", evidence)


def _message(text: str) -> dict[str, object]:
    """As the page sends one."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    message = {
        "id": str(uuid.uuid4()),
        "threadId": "",
        "name": "doctor",
        "type": "user_message",
        "output": text,
        "createdAt": now,
        "metadata": {},
    }
    return {"message": message, "fileReferences": []}


async def _silence(tab: Tab) -> None:
    """Takes what comes until nothing did for a second; raises TimeoutError when that is so."""
    while True:
        async with asyncio.timeout(1):
            await tab.engine.events.get()


async def _tokens(tab: Tab) -> tuple[list[float], float]:
    """When the tokens came, and the end of the answer; raises TimeoutError and RefusedError."""
    tokens: list[float] = []
    async with asyncio.timeout(ANSWER):
        while True:
            if tab.engine.ended and tab.engine.events.empty():
                raise RefusedError(tab.engine.ended)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    at, event = await tab.engine.events.get()
                    if event == "stream_token":
                        tokens.append(at)
                    elif event == "task_end":
                        return tokens, at


async def idle(site: Site) -> Verdict:
    """Whether connections outlive silence: all transports at once."""
    seconds = site.settings.idle
    if not seconds:
        return skipped("it takes a while: --long")
    transports = [Transport.POLLING, *([Transport.BOTH, Transport.WEBSOCKET] if site.websockets else [])]
    results = await asyncio.gather(*(_rests(site, transport, seconds) for transport in transports))
    bad = [result for result in results if result]
    if bad:
        return failed(f"connections do not outlive {seconds:g} s without a word", bad)
    return passed(f"connections outlive {seconds:g} s without a word")


async def _rests(site: Site, transport: Transport, seconds: float) -> str:
    """What is wrong after a rest; empty: nothing."""
    async with Browser(site) as browser, Tab(browser, transport) as tab:
        try:
            await tab.load()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await tab.engine.gone.wait()
            if tab.engine.ended:
                after = tab.engine.ended_at - tab.engine.opened_at
                return f"over {transport}, after {after:.1f} s: {tab.engine.ended}"
            await tab.engine.echo()
        except RefusedError as error:
            return f"over {transport}: {error}"
        reached = await tab.element()
    return "" if reached.there else f"over {transport}, a request after the rest: {reached.answer}"


async def large_upload(site: Site) -> Verdict:
    """Whether a large file reaches the app; how large it may be is then the app's own affair."""
    if not site.settings.large:
        return skipped("it sends a lot: --large")
    async with Browser(site) as browser, Tab(browser, usual(site)) as tab:
        try:
            await tab.load()
        except RefusedError as error:
            return skipped(f"no session opened: {error}")
        reached = await tab.upload(b"\0" * LARGE_UPLOAD, told="/project/file (25 MiB)")
    if reached.there:
        said = "" if reached.id else f", which takes none: {body_of(reached.answer).get('detail')}"
        return passed(f"25 MiB reach the app{said}", [str(reached.answer)])
    return failed("25 MiB do not reach the app", [str(reached.answer)])


async def large_headers(site: Site) -> Verdict:
    """Whether the cookies of a large login reach the app."""
    if not site.settings.large:
        return skipped("it sends a lot: --large")
    cookies = {f"doctor_{number}": "x" * COOKIE for number in range(COOKIES)}
    async with Browser(site) as browser:
        reply = await browser.ask(
            "GET",
            "/auth/config",
            told=f"/auth/config (cookies of {COOKIE * COOKIES} characters)",
            cookies=cookies,
        )
    if "requireLogin" in body_of(reply):
        return passed(f"cookies of {COOKIE * COOKIES} characters reach the app", [str(reply)])
    return failed(f"cookies of {COOKIE * COOKIES} characters do not reach the app", [str(reply)])


async def large_message(site: Site) -> Verdict:
    """Whether a long packet of Socket.IO reaches the app, by each transport."""
    if not site.settings.large:
        return skipped("it sends a lot: --large")
    bad = []
    for transport in [Transport.POLLING, *([Transport.WEBSOCKET] if site.websockets else [])]:
        async with Browser(site) as browser, Tab(browser, transport) as tab:
            try:
                await tab.load()
                await tab.engine.echo()
            except RefusedError:
                continue  # has findings of its own
            try:
                await tab.engine.send_long(LARGE_MESSAGE)
            except RefusedError as error:
                bad.append(f"{LARGE_MESSAGE:,} bytes over {transport}: {error}")
    if bad:
        return failed(f"messages of {LARGE_MESSAGE:,} bytes do not reach the app", bad)
    return passed(f"messages of {LARGE_MESSAGE:,} bytes reach the app")
