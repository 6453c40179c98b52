"""An instance goes away under its sessions, and no client notices: replicas of `run` are killed and ended."""

import asyncio
import os
import random
import signal
import statistics
from collections import Counter

import pytest

from tests.support.processes import alive
from tests.support.sharing import START, RunSharing
from tests.support.size import IN_FULL, sized
from tests.support.talks import (
    Talk,
    check_once,
    fairly_used,
    most_used,
    next_answers,
    stream,
    together,
    unnoticed,
)
from tests.support.waiting import Stopwatch, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=600))]

FEW = sized(12, in_full=300)  # sessions of every library with every choice of transports
UNDER_LOAD = sized(12, in_full=60)
KILLS = sized(1, in_full=10)
MEDIAN, LONGEST = (0.15, 0.5) if IN_FULL else (1.0, 2.0)  # seconds from a kill to the next answer
EXACT = sized(2, in_full=6)  # rounds: a replica that is killed often is started later each time
AROUND = 0.02  # seconds around a kill


async def healed(run: RunSharing) -> None:
    """All replicas are back."""
    await eventually(run.all_healthy, START, lambda: f"all replicas healthy\n{run.tail()}")


async def killed(run: RunSharing) -> list[float]:
    """One replica of a crowd is killed under load; the seconds until each of its sessions was answered."""
    async with unnoticed(run.url, run.journal, UNDER_LOAD) as talks:
        victim = fairly_used(talks)
        there = [talk for talk in talks if talk.at == victim]
        over = asyncio.Event()
        others = [asyncio.create_task(talk.go_on(over, 1)) for talk in talks if talk not in there]
        await asyncio.sleep(0.5)
        pid = run.pids()[victim]
        began = Stopwatch()
        os.kill(pid, signal.SIGKILL)
        took = await next_answers(there, began)
        over.set()
        await asyncio.gather(*others)
        assert victim not in {talk.at for talk in talks}
        assert sum(talk.unanswered for talk in talks if talk not in there) == 0
        print(f"{len(there)} sessions: median {statistics.median(took):.3f} s, {took[-1]:.3f} s")
        await healed(run)
    return took


@pytest.mark.alone
def test_a_kill_under_load_is_not_noticed(run: RunSharing) -> None:
    """All who are there ask at the kill, and are answered in a moment by another; nobody else notices."""
    run.configure(balance={"slow_start": 0})  # so that each crowd is spread over all three

    async def scenario() -> None:
        took = [each for _ in range(KILLS) for each in await killed(run)]
        print(f"median {statistics.median(took):.3f} s, longest {max(took):.3f} s of {len(took)}")
        assert statistics.median(took) < MEDIAN, sorted(took)
        assert max(took) < LONGEST, sorted(took)

    try:
        asyncio.run(scenario())
    finally:
        run.configure()


async def at_some_time(talk: Talk) -> None:
    """Says something in the next moment."""
    await asyncio.sleep(random.uniform(0, AROUND))
    await talk.say()


def test_what_is_said_at_the_kill_is_run_once(run: RunSharing) -> None:
    """Messages that are on their way to the dying instance are answered, or their user is told."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            for _ in range(EXACT):
                victim = most_used(talks)
                pid = run.pids()[victim]
                there = [talk for talk in talks if talk.at == victim]
                saying = asyncio.create_task(together(at_some_time(talk) for talk in there))
                await asyncio.sleep(random.uniform(0, AROUND))
                os.kill(pid, signal.SIGKILL)
                await saying
                await together(talk.say() for talk in there)
                check_once(run.journal, talks)
                await healed(run)

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_answer_that_is_cut_off_stays_and_is_told_once(run: RunSharing, number: signal.Signals) -> None:
    """What was streamed stays on the page, its cursor goes, one notice says so, and the chat goes on."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victim = most_used(talks)
            busy = [talk for talk in talks if talk.at == victim]
            asking = await stream(busy, "stream 2000 0.02")
            os.kill(run.pids()[victim], number)
            assert set(await together(asking)) == {None}
            await together(talk.say() for talk in talks)
            for talk in busy:
                (begun,) = talk.chat.unfinished
                told = [update for update in talk.chat.updates if update["id"] == begun]
                assert told == [{"id": begun, "streaming": False}], talk
                assert talk.notices == 1
                assert len(talk.chat.unfinished[begun]) > 2
            assert {talk.notices for talk in talks if talk not in busy} <= {0}

    asyncio.run(scenario())


def test_two_deaths_in_a_row(run: RunSharing) -> None:
    """The second instance dies while sessions of the first are on their way to it: the third has them all."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victims = dict(Counter(talk.at for talk in talks).most_common(2))
            pids = run.pids()
            for instance in victims:
                os.kill(pids[instance], signal.SIGKILL)
                await asyncio.sleep(0.015)
            await together(talk.say() for talk in talks)
            assert not victims.keys() & {talk.at for talk in talks}

    asyncio.run(scenario())


def test_a_kill_is_not_noticed_on_compressed_websockets(run: RunSharing) -> None:
    """Clients of `ws` go on with one stream of compressed messages, of which two instances said a part."""

    async def scenario() -> None:
        before = counted(run, "compressed_websockets_total")
        async with unnoticed(run.url, run.journal, FEW) as talks:
            assert counted(run, "compressed_websockets_total") > before, "nobody has one"
            victim = most_used(talks)
            streaming = await stream([talk for talk in talks if talk.at == victim], "stream 100 0.01")
            await together(streaming)
            os.kill(run.pids()[victim], signal.SIGKILL)
            await next_answers(talks, Stopwatch())  # a turn may still end when its answer has come
            assert victim not in {talk.at for talk in talks}
        plain, packed = (
            counted(run, f'compressed_bytes_total{{form="{form}"}}') for form in ("plain", "packed")
        )
        assert packed < plain / 3

    try:
        run.configure(websocket={"compress": True})
        asyncio.run(scenario())
    finally:
        run.configure()


def counted(run: RunSharing, name: str) -> float:
    """What the proxy has counted."""
    (line,) = (
        line for line in run.get("/metrics").splitlines() if line.startswith(f"chainlit_proxy_{name} ")
    )
    return float(line.rpartition(" ")[2])


def test_a_frozen_instance_is_left_and_runs_nothing_later(run: RunSharing) -> None:
    """What was said into it is run by another once it is given up; it wakes up and does not run it again."""

    async def scenario() -> None:
        run.configure(health={"interval": 0.5, "timeout": 1, "fall": 2, "rise": 1, "evict_after": 2})
        async with unnoticed(run.url, run.journal, FEW) as talks:
            victim = most_used(talks)
            there = [talk for talk in talks if talk.at == victim]
            pid = run.pids()[victim]
            os.kill(pid, signal.SIGSTOP)
            try:
                await together(talk.say() for talk in there)
                assert victim not in {talk.at for talk in there}
            finally:
                os.kill(pid, signal.SIGCONT)
            await eventually(lambda: run.all_healthy() and alive(pid), START, "it is back")
            await together(talk.say() for talk in talks)
            await asyncio.sleep(0.5)  # whatever it had still to do is done
            check_once(run.journal, talks)

    try:
        asyncio.run(scenario())
    finally:
        run.configure()
