"""Running a test on the event loop that the proxy uses."""

import asyncio
import warnings
from collections.abc import Coroutine

import uvloop


def run_loop(work: Coroutine[None, None, None], *, debug: bool = True) -> None:
    """Run `work` to its end on a uvloop of its own.

    While the loop is closed no warning may become an error: uvloop's `close` would never return if one of
    its transports, left open by a test that failed, could not say so.
    """
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop, debug=debug)
    try:
        runner.run(work)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.close()
