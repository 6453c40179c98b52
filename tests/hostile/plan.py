"""Which actions are done in one round, for the day and for the walk.

A round has one action on an instance, since the other one has to be there for whoever moves; one of an
operator, since there is one configuration; and some hostile clients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from tests.hostile import backends, clients, operators, transports, wishes
from tests.hostile.strangers import Action

UPSETS = [*backends.ACTIONS, *operators.MOVES, *wishes.ACTIONS]
OPERATORS = operators.ACTIONS
CLIENTS = [*clients.ACTIONS, *transports.ACTIONS]
AT_ONCE = 3  # hostile clients in a round


@dataclass(frozen=True, slots=True)
class Round:
    """What is done at once."""

    upset: Action
    others: list[Action]


def whole_day() -> Iterator[Round]:
    """Rounds with each action at least once, always in the same order."""
    rounds = max(len(UPSETS), len(OPERATORS), -(-len(CLIENTS) // AT_ONCE))
    others, strangers = cycle(OPERATORS), cycle(CLIENTS)
    for upset in islice(cycle(UPSETS), rounds):
        yield Round(upset, [next(others), *islice(strangers, AT_ONCE)])


def at_random(chance: Random) -> Iterator[Round]:
    """Rounds without an end."""
    while True:
        yield Round(chance.choice(UPSETS), [chance.choice(OPERATORS), *chance.sample(CLIENTS, AT_ONCE)])
