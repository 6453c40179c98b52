"""Conversations that are shared through a Redis which does all that such a server does, while others die."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tests.hostile import replicas, stores
from tests.hostile.shared import Action, SharedSite
from tests.hostile.walk import SEED
from tests.support.redis_server import MISSING, find, install

# A walk of its own, behind what is done every day.
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "0"))
BOUND = 90.0  # seconds of one round
pytestmark = [pytest.mark.system, pytest.mark.timeout(SECONDS + 300)]


@asynccontextmanager
async def shared_site(folder: Path, seed: int, *, files: bool = False) -> AsyncIterator[SharedSite]:
    """A site whose conversations have begun; its story is told, and the ends of its logs if it fails."""
    site = SharedSite(folder, seed, files=files)
    try:
        async with site:
            yield site
    except BaseException:
        print(site.logs())
        raise
    finally:
        print("\n".join(site.story))


async def newcomer(site: SharedSite, chance: Random) -> None:
    """Somebody comes and goes."""
    await site.talks.newcomer()


async def told(site: SharedSite, action: Action, chance: Random) -> None:
    """Do it within its time, and say so."""
    try:
        async with asyncio.timeout(BOUND):
            await action(site, chance)
    except BaseException as error:
        silent = "; ".join(f"{talk} {talk.chat.story()}" for talk in site.talks.silent())
        error.add_note(f"in {action.__name__}, while these were not answered: {silent}")
        site.tell(f"      {action.__name__}: {error!r}")
        raise
    site.tell(f"      did {action.__name__}")


async def one_round(site: SharedSite, actions: list[Action], seed: int) -> None:
    """All actions at once, a newcomer beside them, and what has to hold afterwards."""
    site.tell(" ".join(action.__name__ for action in actions) + f" ({seed})")
    site.talks.begin()
    if len(actions) > 1:  # the store cannot know what it was not told
        site.talks.harms()
        site.talks.forgets()
    works = [told(site, action, Random(seed + at)) for at, action in enumerate(actions)]
    ends = await asyncio.gather(*works, told(site, newcomer, Random(seed)), return_exceptions=True)
    if failed := [end for end in ends if isinstance(end, Exception)]:
        raise ExceptionGroup("what was done was not taken as it should be", failed)
    site.tell("      done")
    async with asyncio.timeout(BOUND):
        await site.heal()
        await site.talks.settled()
        await site.stored()
        site.talks.judge()
        await site.check()
    site.tell("      settled")


def whole_day() -> Iterator[list[Action]]:
    """What is done to the store, and something to instances after every other of these."""
    upsets = iter(replicas.WHOLE)
    for number, action in enumerate(stores.WHOLE):
        yield [action]
        if number % 2:
            yield from ([upset] for upset in islice(upsets, 1))


def at_random(chance: Random, upsets: list[Action]) -> Iterator[list[Action]]:
    """Rounds without an end; in some of them the store is lost with an instance."""
    while True:
        both = [chance.choice(upsets), chance.choice(replicas.ACTIONS)]
        yield chance.choice([both[:1], both[:1], both[1:], both[1:], both])


@pytest.fixture(autouse=True)
def redis() -> None:
    """There is one."""
    if find() is None:
        install()
    if find() is None:
        pytest.fail(MISSING, pytrace=False)


def test_a_hostile_store(tmp_path: Path) -> None:
    """Nobody notices what happens to the store, and what was finished outlives its instance."""

    async def scenario() -> None:
        async with shared_site(tmp_path, 1) as site:
            for number, actions in enumerate(whole_day()):
                await one_round(site, actions, number)

    asyncio.run(scenario())


@pytest.mark.skipif(not SECONDS, reason="a walk, run by make hostile")
@pytest.mark.parametrize("files", [False, True], ids=["files in the store", "files in a folder"])
def test_a_walk_with_a_hostile_store(tmp_path: Path, files: bool) -> None:
    """The same in any order, also with the store and an instance lost at once."""

    async def scenario() -> None:
        print(f"HOSTILE_SEED={SEED}")
        chance, ends = Random(SEED), time.monotonic() + SECONDS / 2
        upsets = stores.ACTIONS + (stores.FILES if files else [])
        async with shared_site(tmp_path, SEED, files=files) as site:
            for actions in at_random(chance, upsets):
                await one_round(site, actions, chance.randrange(1 << 32))
                if time.monotonic() > ends:
                    break

    asyncio.run(scenario())
