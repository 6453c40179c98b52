"""Durations and sizes as people write them, for keys of the configuration and options of the command line.

A duration is numbers with ms, s, m, h or d, the larger unit first: `500ms`, `1.5h`, `1m30s`. A size is one
number with k, M, G or T, which may be followed by B or iB and written in small letters. All of these are
powers of 1024, as in nginx and Docker: 32k, 32KB and 32KiB are the same. A number without a unit is not read
here: it is in seconds or bytes.
"""

import re
from enum import Enum

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

DURATION = "".join(f"(?:({_NUMBER}) ?{unit} ?)?" for unit in _MILLISECONDS)
"""The pattern of a duration; the empty text matches too. Editors read it as well, as ECMA-262 has it."""
SIZE = f"({_NUMBER}) ?(?:([kKmMgGtT])(?:i?[bB])?|B)"
"""The pattern of a size."""


class Unit(Enum):
    """What a number counts, in words that follow "must be"."""

    SECONDS = "a duration such as 30s, 5m or a number of seconds"
    BYTES = "a size such as 512k, 10MB or a number of bytes"

    def read(self, text: str) -> float | int | None:
        """The seconds or bytes of a text with units; None: it is no such text."""
        return seconds(text) if self is Unit.SECONDS else size(text)


def seconds(text: str) -> float | None:
    """How many a duration with units is; None if the text is none."""
    match = re.fullmatch(DURATION, text)
    if match is None or not text or text.endswith(" "):
        return None
    total = sum(
        float(number or 0) * size for number, size in zip(match.groups(), _MILLISECONDS.values(), strict=True)
    )
    return total / 1000


def size(text: str) -> int | None:
    """How many bytes a size with its unit is, a part of one left out; None if the text is none."""
    match = re.fullmatch(SIZE, text)
    return int(float(match[1]) * _BYTES[(match[2] or "").lower()]) if match else None
