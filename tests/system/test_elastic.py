"""`run` between two bounds: replicas come when answers are under way and leave in quiet times, unnoticed."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy_process import command
from tests.support.sharing import START, RunSharing
from tests.support.size import in_full, sized
from tests.support.talks import Talk, together, unnoticed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=600))]

MOST = 4
ANSWERS = 2  # that one replica carries here
FIGURES = {"answers": ANSWERS, "sessions": 10**12, "spare": 0, "calm": 3, "late": 30.0}
TOKENS, PAUSE = 40, 0.05  # of an answer
QUIET = 60.0  # seconds until the last surplus replica has left


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunSharing]:
    """One replica, and up to four of them."""
    run = RunSharing(tmp_path, 1, most=MOST, replicas=FIGURES)
    try:
        run.start()
        yield run
    finally:
        run.end()
        print(run.tail(200))


def wanted(run: RunSharing) -> dict[str, Any]:
    """What the API says of it."""
    told: dict[str, Any] = json.loads(run.get("/api/replicas"))
    return told


def are(run: RunSharing, count: int) -> bool:
    """Whether there are so many replicas, all of them healthy."""
    health = run.health()
    run.pids()
    return len(health) == count and set(health.values()) == {"healthy"}


async def until(run: RunSharing, count: int, within: float = START) -> None:
    """Waits until there are so many."""
    await eventually(lambda: are(run, count), within, lambda: f"{count}: {run.health()} {wanted(run)}")


async def answer(talk: Talk) -> None:
    """One answer, of which every token comes once and in order."""
    reply = await talk.say(f"stream {TOKENS} {PAUSE}", within=90)
    assert reply is not None, f"{talk}: an answer was cut off"
    said = "".join(reply.tokens).split()[:TOKENS]
    assert said == [f"t{number}" for number in range(TOKENS)], said


class Day:
    """So many of the conversations have answers under way, one after the other, as it is told."""

    def __init__(self, talks: list[Talk]) -> None:
        self.busy = 0
        self._over = False
        self._tasks = [asyncio.create_task(self._live(at, talk)) for at, talk in enumerate(talks)]

    async def _live(self, at: int, talk: Talk) -> None:
        while not self._over:
            if at < self.busy:
                await answer(talk)
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Lets the last answers come to their ends."""
        self._over = True
        await together(self._tasks)


def test_replicas_come_and_go_unnoticed(run: RunSharing) -> None:
    """Four for eight answers, one for none: told by the API, metric and events; nobody is disconnected."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, 8) as talks:
            await until(run, 1)
            day = Day(talks)
            day.busy = 8
            await until(run, MOST)
            told = wanted(run)
            assert (told["wanted"], told["low"], told["high"]) == (MOST, 1, MOST), told
            assert "answers and 8 sessions fill" in told["reason"]
            assert run.metric("chainlit_proxy_replicas_wanted") == MOST
            day.busy = 0
            await until(run, 1, QUIET)
            await day.end()
            assert {talk.notices for talk in talks} == {0}
            texts = [
                event["text"] for event in json.loads(run.get("/api/events")) if event["kind"] == "scaling"
            ]
            assert sum("has been added" in text for text in texts) >= MOST - 1, texts
            assert sum("has left" in text for text in texts) >= MOST - 1, texts

    asyncio.run(scenario())


def test_operators_and_deaths_in_between(run: RunSharing) -> None:
    """One that is drained by hand is replaced, one that dies comes back, and a rollout replaces all."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, 4) as talks:
            day = Day(talks)
            day.busy = 4
            await until(run, 2)
            first, *_ = run.backends()
            await command(run, "drain", first)
            await until(run, 3)
            await command(run, "ready", first)
            await until(run, 2, QUIET)
            day.busy = 0
            await command(run, "rollout", "--wait")
            assert run.rollout()["state"] == "done"
            assert first not in run.backends()
            await until(run, 1, QUIET)
            await day.end()
        (only,) = run.pids()
        await run.kill(only)
        await until(run, 1)
        assert wanted(run)["wanted"] == 1

    asyncio.run(scenario())


def test_bounds_can_be_changed(tmp_path: Path) -> None:
    """By a reload: more at least, then a fixed number, which stays."""
    run = RunSharing(tmp_path, 2, by_file=True, replicas={"count": 2, **FIGURES})

    async def scenario() -> None:
        run.configure(replicas={"count": "3..4", **FIGURES})
        await until(run, 3)
        run.configure(replicas={"count": 1, **FIGURES})
        await until(run, 1, QUIET)

    try:
        run.start()
        asyncio.run(scenario())
    finally:
        run.end()
        print(run.tail(200))


@in_full
def test_a_day_in_five_minutes(run: RunSharing) -> None:
    """Morning, noon, afternoon, evening and night: as many replicas as that takes, and nobody notices."""
    curve = [(20, 1), (40, 4), (50, 8), (40, 5), (40, 7), (40, 3), (40, 0)]  # seconds, answers under way

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, 8) as talks:
            day = Day(talks)
            for seconds, day.busy in curve:
                began = time.monotonic()
                need = max(1, -(-day.busy // ANSWERS))
                await until(run, need, seconds)
                await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
                print(f"{day.busy} answers: {len(run.health())} replicas, {wanted(run)['reason']}")
            await day.end()
            assert {talk.notices for talk in talks} == {0}

    asyncio.run(scenario())
