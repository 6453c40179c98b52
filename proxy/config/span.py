"""How many replicas: a number, or the bounds of it."""

import re
from dataclasses import dataclass

from proxy.config.problems import got

MOST_REPLICAS = 256
SPAN_FORM = f"a whole number from 1 to {MOST_REPLICAS} such as 4, or a range of them such as 2..8"


@dataclass(frozen=True, slots=True)
class Span:
    """A whole number, or a range of them."""

    low: int
    high: int

    @classmethod
    def parse(cls, value: object) -> "Span":
        """Read `4` or `2..8`. Raises ValueError, in words that follow the name of what was given."""
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        match = re.fullmatch(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?", text)
        if match is None:
            raise ValueError(f"must be {SPAN_FORM}{got(value)}")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise ValueError(f"must begin with the smaller number: {high}..{low}{got(value)}")
        if low < 1 or high > MOST_REPLICAS:
            raise ValueError(f"must be {SPAN_FORM}{got(value)}")
        return cls(low, high)

    @property
    def is_fixed(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def plain(self) -> int | str:
        """As it is written."""
        return self.low if self.is_fixed else str(self)

    def __str__(self) -> str:
        return str(self.low) if self.is_fixed else f"{self.low}..{self.high}"
