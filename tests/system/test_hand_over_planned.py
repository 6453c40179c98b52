"""An instance is emptied, replaced or relieved, and no client notices: replicas of `run`."""

import asyncio

import pytest

from tests.support.proxy_process import command
from tests.support.sharing import START, RunSharing
from tests.support.size import in_full, sized
from tests.support.talks import Talk, most_used, stream, together, unnoticed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=600))]

CROWD = sized(12, in_full=300)
TOKENS, PAUSE = sized(100, in_full=40), sized(2, in_full=50) / 100  # of an answer


async def streamed(talk: Talk, over: asyncio.Event) -> None:
    """Answers of many tokens, one after the other until it is over; every token comes once, in order."""
    while not over.is_set():
        reply = await talk.say(f"stream {TOKENS} {PAUSE}", within=90)
        assert reply is not None, f"{talk}: an answer was cut off"
        said = "".join(reply.tokens).split()[:TOKENS]
        assert said == [f"t{number}" for number in range(TOKENS)], said
        await asyncio.sleep(1.5)


@in_full  # every day one with fewer sessions is in test_rollout
def test_a_rollout_is_not_noticed(run: RunSharing) -> None:
    """Answers are finished where they began; between two of them each session goes to a new replica."""

    async def scenario() -> None:
        old = run.pids()
        async with unnoticed(run.url, run.journal, CROWD) as talks:
            over = asyncio.Event()
            talking = [asyncio.create_task(streamed(talk, over)) for talk in talks]
            run.post("/api/rollout", {"timeout": 60})
            await eventually(lambda: run.rollout()["state"] != "running", 240, "the rollout ends")
            over.set()
            await together(talking)
            assert run.rollout()["state"] == "done", run.rollout()
            await together(talk.say() for talk in talks)
            assert not old.keys() & {talk.at for talk in talks}
            assert {talk.notices for talk in talks} == {0}

    asyncio.run(scenario())


def test_drains_are_not_noticed(run: RunSharing) -> None:
    """One after the other, and two at once: answers are finished, and nobody is left on a drained one."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, CROWD) as talks:
            names = sorted(run.backends())
            for drained in ([names[0]], [names[1]], names[1:]):
                here = {instance: run.name_of(instance) for instance in {talk.at for talk in talks}}
                leaving = [talk for talk in talks if here[talk.at] in drained]
                asking = await stream(leaving[::4], f"stream {TOKENS} {PAUSE}")
                await asyncio.gather(
                    *(command(run, "drain", name, "--wait", "--timeout", "60") for name in drained)
                )
                assert None not in await together(asking)
                backends = run.backends()
                assert {(backends[name]["sessions"], backends[name]["tunnels"]) for name in drained} == {
                    (0, 0)
                }
                assert {backends[name]["drain"]["forced"] for name in drained} == {0}
                await together(talk.say() for talk in talks)
                assert not set(drained) & {run.name_of(talk.at) for talk in talks}
                await asyncio.gather(*(command(run, "ready", name) for name in drained))
            assert {talk.notices for talk in talks} == {0}

    asyncio.run(scenario())


def test_maintenance_is_not_noticed(run: RunSharing) -> None:
    """Its sessions at rest are elsewhere within a moment, though it lives and is healthy."""

    async def scenario() -> None:
        async with unnoticed(run.url, run.journal, CROWD) as talks:
            name = run.name_of(most_used(talks))
            await command(run, "maintenance", name)
            await eventually(
                lambda: (run.backends()[name]["sessions"], run.backends()[name]["tunnels"]) == (0, 0),
                sized(5, in_full=30),
                lambda: f"nobody is left: {run.backends()[name]}",
            )
            await together(talk.say() for talk in talks)
            assert name not in {run.name_of(talk.at) for talk in talks}
            assert {talk.notices for talk in talks} == {0}
            await command(run, "ready", name)

    asyncio.run(scenario())


def moved(run: RunSharing) -> float:
    """How many sessions were moved by plan."""
    return run.metric("chainlit_proxy_hand_overs_total", reason="sent_away", result="done")


def test_a_rebalance_is_not_noticed(run: RunSharing) -> None:
    """Sessions at rest go to a replica that was away when they were placed, a few at a time."""
    run.configure(balance={"rebalance": True})
    name = min(run.backends())

    def sessions() -> int:
        return sum(backend["sessions"] for backend in run.backends().values())

    async def scenario() -> None:
        await eventually(lambda: not sessions(), START, "nothing is left of the clients before")
        await command(run, "maintenance", name)
        async with unnoticed(
            run.url, run.journal, 2 * CROWD
        ) as talks:  # of 12 it may be that none prefers it
            assert name not in {run.name_of(talk.at) for talk in talks}
            before = moved(run)
            await command(run, "ready", name)
            await eventually(lambda: moved(run) > before, START, lambda: f"some go: {run.backends()}")
            await together(talk.say() for talk in talks)
            assert name in {run.name_of(talk.at) for talk in talks}
            assert {talk.notices for talk in talks} == {0}

    try:
        asyncio.run(scenario())
    finally:
        run.configure()
