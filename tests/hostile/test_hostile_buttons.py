"""Every button of a running command is pressed at the wrong moment, while conversations go on."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.hostile import buttons
from tests.hostile.buttons import BUTTONS, DRAIN, ENDS, REPLICAS, Ended, Panel
from tests.hostile.walk import SEED

# A walk of its own, behind what is done every day.
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "0"))
PHASES = ["starting", "checking", "draining", "stopping"]
OPERATORS = 2
pytestmark = [pytest.mark.system, pytest.mark.timeout(SECONDS + 300)]

Meddling = Callable[[Panel, dict[str, Any]], Awaitable[object]]
"""What is done at a moment of a rollout, given how that stands."""


@asynccontextmanager
async def panel_of(folder: Path, seed: int) -> AsyncIterator[Panel]:
    """A command whose conversations have begun; its story is told, and the end of its log if it fails."""
    panel = Panel(folder, seed)
    try:
        async with panel:
            yield panel
    except BaseException:
        print(panel.run.tail(200))
        raise
    finally:
        print("\n".join(panel.story))


async def settled(panel: Panel) -> None:
    """What has to hold after whatever was pressed."""
    await panel.calm()
    await panel.talks.settled()
    await panel.talks.newcomer()
    panel.talks.judge()
    await panel.check()
    panel.tell("      settled")


async def begun(panel: Panel, rolling: asyncio.Task[Any]) -> None:
    """Wait until a rollout runs, or the command that was to begin it has ended."""
    await panel.until(lambda: panel.rollout()["state"] == "running" or rolling.done(), "it begins")


async def a_rollout(panel: Panel, *phases: str, meddling: Meddling) -> Ended:
    """A rollout to its end, and what is done in it when it is first at one of these phases."""
    panel.tell(f"{meddling.__name__} while {' or '.join(phases)}")
    panel.talks.begin()
    panel.talks.harms()
    rolling = asyncio.create_task(panel.command("rollout", "--wait", "--timeout", f"{DRAIN:g}"))
    try:
        await begun(panel, rolling)
        state = await panel.phase(*phases)
        await meddling(panel, state)
    finally:
        ended = await rolling
    state = panel.rollout()
    assert state["state"] in {"done", "failed"}, state
    assert (ended.code == 0) == (state["state"] == "done"), (ended, state)
    assert bool(state["reason"]) == (state["state"] == "failed"), state
    await settled(panel)
    return ended


async def meddles_with_all(panel: Panel, state: dict[str, Any]) -> None:
    """Presses everything there is, and in the end takes out what has just come."""
    other = next(name for name in panel.run.backends() if name not in {state["old"], state["new"]})
    waiting = asyncio.create_task(panel.command("drain", other, "--wait", "--timeout", f"{DRAIN:g}"))
    await panel.pressed("/api/rollout", {}, 409)
    chance = Random(1)
    for button in (buttons.reload_bad, buttons.hang_up, buttons.reload_good, buttons.look):
        await button(panel, chance)
    await panel.pressed(f"/api/backends/{state['new']}/maintenance", {"force": True}, 200)
    await waiting


async def takes_the_drain_back(panel: Panel, state: dict[str, Any]) -> None:
    """Sets to ready what is being drained: that is over."""
    await panel.pressed(f"/api/backends/{state['old']}/ready", None, 200)


def test_hostile_operators(tmp_path: Path) -> None:
    """A rollout ends with its reason whatever is pressed, everybody goes on, and the end comes when asked."""

    async def scenario() -> None:
        async with panel_of(tmp_path, 1) as panel:
            ended = await a_rollout(panel, "draining", meddling=meddles_with_all)
            assert ended.code == 1
            assert "maintenance" in ended.err
            # There is one too many: it goes first, and nobody comes for it.
            ended = await a_rollout(panel, "draining", meddling=takes_the_drain_back)
            assert ended.code == 1
            assert "was set to ready" in ended.err
            rolling = asyncio.create_task(buttons.roll_out_and_wait(panel, Random(1)))
            await begun(panel, rolling)
            await panel.phase("starting", "checking", "stopping")
            await panel.end_twice(Random(1))
            assert (await rolling).code == 1

    asyncio.run(scenario())


async def operator(panel: Panel, chance: Random) -> None:
    """Waits for some moment and presses some buttons."""
    await panel.phase(chance.choice(PHASES))
    for button in chance.sample(BUTTONS, 3):
        await button(panel, chance)


@pytest.mark.skipif(not SECONDS, reason="a walk, run by make hostile")
def test_a_walk_of_operators(tmp_path: Path) -> None:
    """Whatever operators press at once: every command ends, nobody forgets anything, and all is healed."""

    async def scenario() -> None:
        print(f"HOSTILE_SEED={SEED}")
        chance, ends = Random(SEED), time.monotonic() + SECONDS
        async with panel_of(tmp_path, SEED) as panel:
            while time.monotonic() < ends:
                seed = chance.randrange(1 << 32)
                panel.tell(f"round {seed}")
                panel.talks.begin()
                panel.talks.harms()
                async with asyncio.timeout(3 * ENDS):
                    rolling = asyncio.create_task(buttons.roll_out_and_wait(panel, chance))
                    await begun(panel, rolling)
                    await asyncio.gather(*(operator(panel, Random(seed + at)) for at in range(OPERATORS)))
                    await rolling
                    await settled(panel)
            panel.talks.begin()
            panel.talks.harms()
            await panel.until(lambda: all_fit(panel), "the replicas that are wanted", ENDS)
            await panel.end_twice(chance)

    asyncio.run(scenario())


def all_fit(panel: Panel) -> bool:
    """Whether there are as many replicas as are wanted; a rollout that nobody meddles with sees to that."""
    if panel.rollout()["state"] != "running" and len(panel.run.backends()) != REPLICAS:
        panel.post("/api/rollout", {"timeout": DRAIN})
    return panel.rollout()["state"] != "running" and len(panel.run.backends()) == REPLICAS
