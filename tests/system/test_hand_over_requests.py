"""What a page does beside its messages goes on while its instance is killed: requests, bytes, and silence."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Clients
from tests.support.link import Event, Kind, Request, Transports, Upload
from tests.support.sharing import START, RunSharing
from tests.support.size import IN_FULL, sized
from tests.support.talks import MIX, Talk, most_used, talks_of, together, unnoticed
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=600))]

FEW = 12
HELD = sized(6, in_full=300)  # clients of the only instance
AFTER = 1.0  # seconds after a kill in which requests are made
LARGE = 1_000_000  # characters of an upload that takes a while
HOLD = 19.0  # seconds, the longest: an instance takes some to start
CHUNK = 8192  # bytes
CHUNKS = 150
PING = 0 if IN_FULL else 2  # seconds; Chainlit's own is 25
IDLE = sized(7, in_full=100)  # seconds: more than twice what a client waits for a ping


async def again_and_again(until: float, work: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Does it until that time; how often."""
    times = 0
    while time.monotonic() < until:
        await work()
        times += 1
    return times


def test_requests_after_a_kill_are_answered(run: RunSharing) -> None:
    """Uploads, buttons and files of a session whose instance has just died are answered by the next one."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victim = most_used(talks)
            there = [talk.chat for talk in talks if talk.at == victim]
            await run.kill(victim)
            until = time.monotonic() + AFTER
            work = [
                work for chat in there for work in (lambda c=chat: c.upload("up"), chat.action, chat.fetch)
            ]
            assert min(await together(again_and_again(until, each) for each in work)) > 0
            for chat in there:
                assert await chat.fetch() == f"greeting of {chat.home}"
                reply = await chat.ask(files=(await chat.upload("kept"),))
                assert reply.fields["read"] == "kept"

    asyncio.run(scenario())


def test_an_upload_under_way_fails_alone(run: RunSharing) -> None:
    """It is the one request that cannot be saved: half of it is with the dead. Asked again, it works."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victim = most_used(talks)
            there = [talk.chat for talk in talks if talk.at == victim]
            upload = Upload("up.txt", "x" * LARGE)
            uploads = [
                (chat, Request("POST", f"/project/file?session_id={chat.session}", upload=upload))
                for chat in there
            ]
            sending = [asyncio.create_task(chat.link.request(request)) for chat, request in uploads * 4]
            await asyncio.sleep(0.01)
            await run.kill(victim)
            assert {answer.status for answer in await together(sending)} <= {200, 502}
            again = await together(chat.link.request(request) for chat, request in uploads)
            assert {answer.status for answer in again} == {200}

    asyncio.run(scenario())


class Echo:
    """Sends numbered chunks of bytes over a talk, and keeps the numbers of those that came back."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.back: list[int] = []
        self._listener = talk.chat.link.listener
        talk.chat.link.listener = self._hear

    def _hear(self, event: Event) -> None:
        if event.name == "audio_chunk":
            data = event.data["data"]
            heard = bytes(data["data"] if isinstance(data, dict) else data)  # as Node.js writes bytes to JSON
            assert len(heard) == CHUNK
            self.back.append(int.from_bytes(heard[:4], "big"))
        self._listener(event)

    async def send(self) -> None:
        """All chunks, a page's microphone would be slower."""
        for number in range(CHUNKS):
            data = number.to_bytes(4, "big") + os.urandom(CHUNK - 4)
            chunk = {"isStart": number == 0, "mimeType": "pcm16", "elapsedTime": number, "data": data}
            await self.talk.chat.link.emit("audio_chunk", chunk)
            await asyncio.sleep(0.01)


def test_bytes_under_way_are_never_cut(run: RunSharing) -> None:
    """Chunks of sound in both directions: some are lost with the instance, none is broken or twice."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victim = most_used(talks)
            echoes = [Echo(talk) for talk in talks if talk.at == victim]
            sending = [asyncio.create_task(echo.send()) for echo in echoes]
            await eventually(
                lambda: all(len(echo.back) > CHUNKS // 5 for echo in echoes), 20, "they are heard"
            )
            await run.kill(victim)
            await together(sending)
            for echo in echoes:
                await eventually(lambda e=echo: e.back[-1] == CHUNKS - 1, 20, f"{echo.talk} is heard")  # type: ignore[misc]
                assert echo.back == sorted(set(echo.back)), echo.back
                assert len(echo.back) > CHUNKS // 2, echo.back

    asyncio.run(scenario())


def test_silence_after_two_hand_overs(tmp_path: Path) -> None:
    """A client that hears pings only is still there long after each of its instances has died."""
    run = RunSharing(tmp_path, 3, env={"PING": str(PING)} if PING else {})

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal) as talks:
            for _ in range(2):
                await run.kill(most_used(talks))
                await together(talk.say() for talk in talks)
                await eventually(run.all_healthy, START, "a new replica")
            await asyncio.sleep(IDLE)
            for talk in talks:
                talk.check_never_away()

    try:
        run.start()
        asyncio.run(scenario())
    finally:
        run.end()
        print(run.tail(200))


def test_the_only_instance(tmp_path: Path) -> None:
    """Nobody else is there: clients and requests are held until it is back, and go on.

    What a busy machine starts too late for them shows nothing, and is done again.
    """
    run = RunSharing(tmp_path, 1, affinity={"hold": HOLD})
    back: Future[float] = Future()
    back.set_result(0.0)  # until it is killed

    def is_back_after(killed: str) -> float:
        began = time.monotonic()
        wait_until(lambda: run.all_healthy() and killed not in run.pids(), START, run.tail)
        return time.monotonic() - began

    async def scenario() -> None:
        nonlocal back
        async with unnoticed(run.url, run.journal, HELD) as talks, Clients(run.url) as others:
            (stranger,) = await talks_of(others, [Kind(MIX[0].driver, Transports.BOTH)])
            await run.kill(talks[0].at)
            back = pool.submit(is_back_after, talks[0].at)
            page = stranger.chat.http("GET", "/project/translations?language=en-US")
            await together([*(talk.say(within=40) for talk in talks), stranger.say(within=40), page])
            stranger.check_never_away()

    with ThreadPoolExecutor(1) as pool:
        try:
            run.start()
            for last in (False, False, True):
                try:
                    asyncio.run(scenario())
                    break
                except AssertionError:
                    if last or back.result() < HOLD - 1:
                        raise
        finally:
            run.end()
        print(run.tail(200))
