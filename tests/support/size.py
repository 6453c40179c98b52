"""How large the largest system tests are: every day so that they end soon, and in full by `make full`."""

import os

import pytest

IN_FULL = bool(os.environ.get("FULL"))


def sized(every_day: int, in_full: int) -> int:
    """The number of clients or rounds of a test."""
    return in_full if IN_FULL else every_day


in_full = pytest.mark.skipif(not IN_FULL, reason="one of the longest, run by make full")
