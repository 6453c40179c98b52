"""How many users an app carries: which number is tried next, and when that is known. Pure.

It steps up until a number is too much, halves the gap between what was carried and what was not until it is
narrow, and confirms what is left: it has to be carried once more. If it is not, a smaller one is tried.
"""

from dataclasses import dataclass, field

_STEP = 1.6  # from one number to the next, while nothing is too much
_NARROW = 1.08  # the gap at which halving ends: noise is as large
_LESS = 0.93  # of a number that was not confirmed


@dataclass(slots=True)
class Search:
    """Asked for `next` numbers, told of each whether it was `carried`."""

    first: int
    most: int  # users that may be tried
    carried: int = 0  # the largest number that was
    too_much: int = 0  # the smallest number that was not; 0 while there is none
    confirmed: int | None = None  # the result, once there is one; 0: not even one user is carried
    is_confirming: bool = False
    trials: list[tuple[int, bool]] = field(default_factory=list)

    @property
    def next(self) -> int:
        """How many users are to be tried."""
        if self.is_confirming:
            return self.carried
        if not self.carried and not self.too_much:
            return min(self.first, self.most)
        if not self.too_much:
            return min(self.most, max(self.carried + 1, round(self.carried * _STEP)))
        return max(1, round((self.carried + self.too_much) / 2))

    def tell(self, carried: bool) -> None:
        """What became of `next`."""
        users = self.next
        self.trials.append((users, carried))
        if self.is_confirming and carried:
            self.confirmed = users
        elif carried:
            self.carried = users
            self.is_confirming = self.carried == self.most or self._is_narrow
        elif self.is_confirming:
            self.too_much = users
            self.carried = min(users - 1, int(users * _LESS))
            self.confirmed = None if self.carried else 0
        else:
            self.too_much = users
            self.carried = min(self.carried, users - 1)
            if users == 1:
                self.confirmed = 0
            self.is_confirming = self._is_narrow and self.carried > 0

    @property
    def _is_narrow(self) -> bool:
        gap = self.too_much - self.carried
        return bool(self.too_much) and (gap <= 1 or self.too_much <= self.carried * _NARROW)
