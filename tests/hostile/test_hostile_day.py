"""A day with all that clients, instances and operators do wrong, through which twenty chats go on."""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.day import day
from tests.hostile.plan import whole_day

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_a_hostile_day(tmp_path: Path) -> None:
    """No chat loses more than its instance did, the process makes no mistake and is in the end as it was."""

    async def scenario() -> None:
        async with day(tmp_path, 1) as hostile:
            for number, planned in enumerate(whole_day()):
                await hostile.round(planned.upset, planned.others, number)
            await hostile.leave()

    asyncio.run(scenario())
