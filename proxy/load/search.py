"""How many users an app carries: which number is tried next, and when that is known. Pure.

It steps up until a number is too much, and halves the gap between what was carried and what was not until it
is narrow. Then both ends are tried once more, for one trial is easily wrong: a number that was too much may
suffered from what the one before it left behind, and one that was carried may have been lucky. The
search goes on from an end that does not hold.
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
    is_confirming: bool = False  # of what was carried
    is_doubting: bool = False  # of what was too much
    trials: list[tuple[int, bool]] = field(default_factory=list)

    @property
    def next(self) -> int:
        """How many users are to be tried."""
        if self.is_doubting:
            return self.too_much
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
        elif self.is_confirming:
            if self.trials.count((users, False)) < 2:
                return  # a third trial decides
            self.too_much = users
            self.carried = min(users - 1, int(users * _LESS))
            self.confirmed = None if self.carried else 0
        elif carried:
            self.carried = users
            if self.is_doubting:
                self.too_much = min(
                    (tried for tried, held in self.trials if tried > users and not held), default=0
                )
            self._decide()
        else:
            self.too_much = users
            self.carried = min(self.carried, users - 1)
            self._decide()

    def _decide(self) -> None:
        """Whether a number is tried once more, and which; and whether nobody is carried."""
        known = self.trials.count((self.too_much, False)) > 1
        narrow = self._is_narrow
        self.is_doubting = narrow and not known
        if narrow and known and not self.carried:
            self.confirmed = 0
        self.is_confirming = self.carried == self.most or (narrow and known and self.carried > 0)

    @property
    def _is_narrow(self) -> bool:
        gap = self.too_much - self.carried
        return bool(self.too_much) and (gap <= 1 or self.too_much <= self.carried * _NARROW)
