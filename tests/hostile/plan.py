"""Which actions are done in one round, for the day and for the walk.

A round has one action on an instance, since the other one has to be there for whoever moves; one of an
operator, since there is one file of the configuration, unless the first is a wish that writes it; and some
hostile clients.
"""

from collections.abc import Iterable, Iterator
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


def _round(upset: Action, others: Iterator[Action], clients: Iterable[Action]) -> Round:
    return Round(upset, [*([] if upset in wishes.ACTIONS else [next(others)]), *clients])


def whole_day() -> Iterator[Round]:
    """Rounds with each action at least once, always in the same order."""
    rounds = max(len(UPSETS), len(OPERATORS), -(-len(CLIENTS) // AT_ONCE))
    others, strangers = cycle(OPERATORS), cycle(CLIENTS)
    for upset in islice(cycle(UPSETS), rounds):
        yield _round(upset, others, islice(strangers, AT_ONCE))


def at_random(chance: Random) -> Iterator[Round]:
    """Rounds without an end."""
    others = iter(lambda: chance.choice(OPERATORS), None)
    while True:
        yield _round(chance.choice(UPSETS), others, chance.sample(CLIENTS, AT_ONCE))
