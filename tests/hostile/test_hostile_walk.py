"""A random walk over everything that clients, instances and operators do wrong."""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.walk import SECONDS, SEED, walk

pytestmark = [pytest.mark.system, pytest.mark.timeout(SECONDS + 240)]


def test_a_hostile_walk(tmp_path: Path) -> None:
    """Whatever is drawn: no chat loses more than its instance did, and the proxy is in the end as it was."""
    asyncio.run(walk(tmp_path, SECONDS, SEED))
