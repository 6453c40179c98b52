"""Waiting for something outside this process: ask again until it is so, within a bound."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.02  # between two questions


What = Callable[[], str] | str
"""What is waited for, or a function that tells it when the waiting was in vain."""


def wait_until(question: Callable[[], T], within: float, what: What) -> T:
    """Asks again and again until the answer is true; the answer. AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := question()):
        assert time.monotonic() < deadline, _in_vain(within, what)
        time.sleep(PAUSE)
    return answer


async def eventually(question: Callable[[], T], within: float, what: What, pause: float = PAUSE) -> T:
    """The same without holding up the event loop."""
    deadline = time.monotonic() + within
    while not (answer := question()):
        assert time.monotonic() < deadline, _in_vain(within, what)
        await asyncio.sleep(pause)
    return answer


def _in_vain(within: float, what: What) -> str:
    return f"not within {within:g} s: {what if isinstance(what, str) else what()}"
