"""How large the largest system tests are: every day so that they end soon, and in full by `make full`."""

import os

IN_FULL = bool(os.environ.get("FULL"))


def sized(every_day: int, in_full: int) -> int:
    """The number of clients or rounds of a test."""
    return in_full if IN_FULL else every_day
