"""The machine of one session: every event in every standing, as the table in the documentation has it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.sessions.machine import MOST_TAKEN, Copy, Found, Standing, Turn
from proxy.sessions.store import Claim, Outcome, Write

TABLE = Path(__file__).parents[2] / "docs" / "architecture.md"
OURS, THEIRS = "ours", "theirs"
FENCE = 100


def copy(standing: Standing) -> Copy:
    """A copy that is in use, connected, of this standing, and newer than what is in the store."""
    made = Copy(OURS, standing=standing, fence=FENCE if standing is not Standing.ABSENT else 0)
    made.connected, made.fresh, made.begun = True, False, True
    made.saved, made.state = hash("saved"), "new"
    return made


def put(made: Copy, outcome: Outcome | None) -> None:
    """A write that was under way while the copy became what it is now."""
    made.wrote(Write(FENCE, 7, "new", None), outcome)


EVENTS: dict[str, Callable[[Copy], object]] = {
    "claim: yours already": lambda c: c.answered(Claim(FENCE, again=True, writer=THEIRS, state="theirs")),
    "claim: nobody wrote since": lambda c: c.answered(Claim(200, writer=OURS, state="saved")),
    "claim: others wrote": lambda c: c.answered(Claim(200, writer=THEIRS, state="theirs", turns="[1]")),
    "claim: another user's": lambda c: c.answered(Claim(0)),
    "claim: no answer": lambda c: c.unanswered(150),
    "write: done": lambda c: put(c, Outcome.WRITTEN),
    "write: done, record was gone": lambda c: put(c, Outcome.ANEW),
    "write: refused": lambda c: put(c, Outcome.REFUSED),
    "write: no answer": lambda c: put(c, None),
    "record missing": lambda c: c.missing(),
    "client gone": lambda c: c.left(over=False),
    "session over": lambda c: c.left(over=True),
}


def outcome_of(standing: Standing, event: str) -> str:
    """What the table has in a cell: the standing afterwards, and in words what else is so."""
    made = copy(standing)
    found = EVENTS[event](made)
    words = [made.standing.value]
    if isinstance(found, Found):
        words.append("restore")
    if made.must_claim:
        words.append("claim")
    elif made.due(9) is not None and made.standing is not Standing.OVER:
        words.append("write")
    elif made.due(9) is not None:
        words.append("remove")
    return ", ".join(words)


def table() -> dict[tuple[str, str], str]:
    """The table of the documentation, by standing and event."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    at = next(i for i, row in enumerate(rows) if row[0] == "event")
    standings = rows[at][1:]
    cells: dict[tuple[str, str], str] = {}
    for row in rows[at + 2 : at + 2 + len(EVENTS)]:
        cells |= {(standing, row[0]): cell for standing, cell in zip(standings, row[1:], strict=True)}
    return cells


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("standing", Standing)
def test_every_event_in_every_standing(standing: Standing, event: str) -> None:
    """What happens is what the documentation says."""
    assert outcome_of(standing, event) == table()[standing.value, event]


def test_the_table_is_whole() -> None:
    """It has every standing and every event, and no other."""
    assert table().keys() == {(standing.value, event) for standing in Standing for event in EVENTS}


@pytest.mark.parametrize("standing", Standing)
def test_turns_in_every_standing(standing: Standing) -> None:
    """A turn ends once, and only itself; a state is taken down between turns."""
    made, turns = copy(standing), [Turn("1"), Turn(None), Turn("2")]
    lives = standing not in (Standing.LOST, Standing.OVER)
    assert made.is_settled is lives
    for turn in turns:
        made.turns.append(turn)
        assert not made.is_settled
    assert made.end(turns[0])
    assert not made.end(turns[0])
    made.state = None
    write = made.due(9)
    if standing is Standing.CLAIMED:
        assert write == Write(FENCE, 9, None, "[2]")
    elif standing is Standing.OVER:
        assert write == Write(FENCE, 9, "", None)
    else:
        assert write is None
    assert made.end(turns[2])
    assert made.end(turns[1])
    assert made.is_settled is lives


def test_a_fresh_copy_takes_what_there_is() -> None:
    """Whoever wrote it, and whether the claim is repeated: nobody has used this copy yet."""
    for claim in (
        Claim(FENCE, writer=THEIRS, state="s"),
        Claim(FENCE, writer=OURS, state="s"),
        Claim(FENCE, again=True, writer=THEIRS, state="s"),
    ):
        assert Copy(OURS).answered(claim) == Found("s", [])
    assert Copy(OURS).answered(Claim(FENCE)) is None


def test_a_state_over_which_instances_ended_is_left_alone() -> None:
    """After four of them the chat begins anew, and whose turns were cut off is told."""
    for taken in range(1, MOST_TAKEN + 1):
        assert Copy(OURS).answered(Claim(FENCE, writer=THEIRS, state="s", taken=taken)) == Found("s", [])
    made = Copy(OURS)
    claim = Claim(FENCE, writer=THEIRS, state="s", turns="[1]", taken=MOST_TAKEN + 1)
    assert made.answered(claim) == Found(None, [1])
    assert not made.begun


@pytest.mark.parametrize(("taken", "tells"), [(1, False), (2, True)])
def test_whoever_survives_a_state_says_so(taken: int, *, tells: bool) -> None:
    """By a write without the state, which is there; the first one need not."""
    made = Copy(OURS)
    made.answered(Claim(FENCE, writer=THEIRS, state="s", taken=taken))
    made.told()
    assert made.survived() is tells
    assert made.due(1) == (Write(FENCE, 1, None, None) if tells else None)
    assert not made.survived()


def test_a_copy_that_went_on_without_the_store_is_not_replaced() -> None:
    """Its user has seen it go on: it is written over what is there."""
    made = Copy(OURS, connected=True)
    made.unanswered(FENCE)
    made.state = "gone on"
    assert made.must_claim
    assert made.answered(Claim(FENCE, writer=THEIRS, state="theirs")) is None
    assert made.due(1) == Write(FENCE, 1, "gone on", None)


@pytest.mark.parametrize(
    ("fence", "writer", "theirs"), [(9, THEIRS, True), (9, OURS, False), (7, THEIRS, False)]
)
def test_a_copy_whose_client_moved_on_is_older(fence: int, writer: str, *, theirs: bool) -> None:
    """Where another instance claimed the session for a later connection, what that wrote is restored."""
    made = Copy(OURS, connected=True)
    made.unanswered(7)
    made.left(over=False)
    made.connected, made.state = True, "gone on"
    found = made.answered(Claim(fence, writer=writer, state="there"))
    assert found == (Found("there", []) if theirs else None)
    assert made.state == (None if theirs else "gone on")


def test_a_claim_without_an_answer_takes_nothing_away() -> None:
    """A copy that is ours stays so; the next connection is told whether others have written since."""
    made = copy(Standing.CLAIMED)
    made.unanswered(200)
    assert (made.standing, made.must_claim) == (Standing.CLAIMED, False)
    write = made.due(1)
    assert write
    again = copy(Standing.CLAIMED)
    again.unanswered(200)
    again.wrote(write, Outcome.REFUSED)
    assert again.must_claim, "its client is here: it goes on with what it has seen"
    for each in (made, again):
        assert each.answered(Claim(200, writer=THEIRS, state="theirs")) is None


def test_a_write_that_is_taken_ends_the_doubt() -> None:
    """Whoever has the session when a later write is refused got it later than the client that came here."""
    made = copy(Standing.CLAIMED)
    made.unanswered(200)
    for outcome in (Outcome.WRITTEN, Outcome.REFUSED):
        write = made.due(1, anyway=True)
        assert write
        made.wrote(write, outcome)
    assert (made.standing, made.must_claim) == (Standing.LOST, False)


def test_a_write_of_before_a_client_came_ends_no_doubt() -> None:
    """Its answer, however late, does not tell who has the session now."""
    made = copy(Standing.CLAIMED)
    write = made.due(1)
    assert write
    made.unanswered(200)
    made.wrote(write, Outcome.WRITTEN)
    put(made, Outcome.REFUSED)
    assert made.must_claim


def test_what_a_later_client_did_elsewhere_is_left_alone() -> None:
    """A copy that claims behind that is out, and what was found is for the next connection here."""
    made = copy(Standing.CLAIMED)
    made.unanswered(200)
    put(made, Outcome.REFUSED)
    assert made.answered(Claim(201, writer=THEIRS, state="theirs"))
    made.overtaken()
    assert (made.standing, made.due(1), made.hello()) == (Standing.LOST, None, None)
    assert made.answered(Claim(201, again=True, writer=THEIRS, state="theirs")) == Found("theirs", [])


def test_what_was_found_is_said_once() -> None:
    """Until its client was told of them, the turns that were cut are written on."""
    made = Copy(OURS, connected=True)
    found = made.answered(Claim(FENCE, writer=THEIRS, state="s", turns='[{"n": 1}]'))
    assert made.due(1) is None
    made.turns.append(own := Turn('{"n": 2}'))
    assert made.due(1) == Write(FENCE, 1, None, '[{"n": 1}, {"n": 2}]')
    assert made.hello() == found
    assert made.hello() is None
    assert made.due(1) == Write(FENCE, 1, None, '[{"n": 1}, {"n": 2}]')
    made.told(made.untold.turns[0] if made.untold else None)
    assert made.due(1) == Write(FENCE, 1, None, '[{"n": 2}]')
    made.told()
    made.end(own)
    assert made.due(2) == Write(FENCE, 2, None, None)


def test_a_replaced_copy_is_out() -> None:
    """Where Chainlit has a new session of an id, the old copy writes nothing more."""
    for standing in Standing:
        old, new = copy(standing), Copy(OURS)
        old.replaced(new)
        assert old.due(1) is None
        assert new.fresh is (standing is not Standing.OVER)


def test_a_write_that_ends_late_leaves_what_is_newer() -> None:
    """A state that was taken down while another one was written is written after it."""
    made = copy(Standing.CLAIMED)
    write = made.due(1)
    assert write
    made.state = "newer"
    made.wrote(write, Outcome.WRITTEN)
    assert made.due(2) == Write(FENCE, 2, "newer", None)
    assert made.due(3, anyway=True) is not None
