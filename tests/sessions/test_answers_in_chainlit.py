"""Messages that wait for their turn, with the real Chainlit in a process of its own.

The scenarios are in `tests/support/answers_lab.py`; here is what has to come of each.
"""

from typing import Any

import pytest

from proxy.sessions.answers import PLACE, TOO_MANY
from tests.sessions.labs import told_by

FIRST, SECOND = PLACE.format(number=1), PLACE.format(number=2)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of all scenarios, by their names."""
    folder = tmp_path_factory.mktemp("lab")
    return told_by("answers_lab.py", folder, f"sqlite://{folder}/sessions.db")


def test_they_are_answered_in_their_order(answers: Any) -> None:
    """One line in each chat tells the place, and is gone when the answer begins."""
    called, stories, lines, counted = answers["in_order"]
    assert called == ["wait 0", "1", "2"]
    assert stories == [
        ["1 wait 0"],
        [FIRST, "no more", "1 1"],
        [SECOND, "no more", "1 2"],
    ]
    assert lines == 1
    assert counted == [0, 0, 2]


def test_what_is_told_is_no_message_of_the_chat(answers: Any) -> None:
    """The app does not see it in its context."""
    assert answers["kept_out_of_the_chat"] == [["1"], ["1", "1 1"]]


def test_who_is_stopped_gives_its_place_up(answers: Any) -> None:
    """Its message is not answered, and the next one is."""
    called, told, given_up, under_way = answers["stopped"]
    assert called == ["wait 0", "2"]
    assert told[0] == FIRST
    assert "no more" in told
    assert (given_up, under_way) == (1, 0)


def test_a_page_that_is_lost_keeps_its_place(answers: Any) -> None:
    """It comes back to the answer, and the line is gone there too."""
    called, told = answers["disconnected"]
    assert called == ["wait 0", "1"]
    assert told == ["no more", "1 1"]


def test_a_message_that_waits_goes_with_its_session(answers: Any) -> None:
    """Another instance answers it, once, and takes back what the one before has told."""
    resumed, before, after, told, same = answers["taken_over"]
    assert resumed
    assert (before, after) == (["wait 0"], ["1"])
    assert told == ["no more", "1 1"]
    assert same


def test_too_many_are_told_so(answers: Any) -> None:
    """And are answered when they ask again."""
    called, told, turned_away = answers["too_many"]
    assert called == ["wait 0", "1", "again"]
    assert told == [TOO_MANY, "1 again"]
    assert turned_away == 1


def test_a_message_that_is_changed_waits_as_well(answers: Any) -> None:
    """It is answered anew in its turn."""
    assert answers["edited"] == ["wait 0", "one", "wait more", "two"]
