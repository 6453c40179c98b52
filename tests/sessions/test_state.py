"""The text of a state: what is left out, and who can read it."""

import json
import logging
import threading
from typing import Any

import pytest

from proxy.sessions.codecs import Unstorable
from proxy.sessions.state import LARGEST, State, Unreadable


def state(**kept: Any) -> State:
    """A state whose user session has these values."""
    return State(
        "thread", True, "calm", {"level": 3}, kept, [{"id": "m", "metadata": {}, "elements": []}], {}
    )


def test_a_state_comes_back() -> None:
    """Everything is there again."""
    text, dropped = state(n=1, seen={1, 2}).to_text()
    assert dropped == 0
    assert State.from_text(text) == state(n=1, seen={1, 2})


def test_a_value_that_cannot_be_stored_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The others are kept; the warning names the key, once however often it is written."""
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            text, dropped = state(n=1, only_here=threading.Lock()).to_text()
    assert dropped == 1
    back = State.from_text(text)
    assert (back.user_session, back.dropped) == ({"n": 1}, ["only_here"])
    assert [record for record in caplog.records if "only_here" in record.getMessage()] == caplog.records
    assert len(caplog.records) == 1


def test_metadata_that_cannot_be_stored_costs_the_metadata_only() -> None:
    """The message itself stays in the chat context."""
    broken = state()
    broken.messages[0]["metadata"] = {"x": print}
    back = State.from_text(broken.to_text()[0])
    assert back.messages == [{"id": "m", "metadata": {}, "elements": []}]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"version": 99}), state().to_text()[0].replace('"files"', '"fules"')],
)
def test_what_cannot_be_read_is_said_so(text: str) -> None:
    """Another version, or no state at all, is one kind of answer."""
    with pytest.raises(Unreadable):
        State.from_text(text)


def test_a_state_has_a_largest_size() -> None:
    """A session that would fill the store is not shared."""
    with pytest.raises(Unstorable, match="too large"):
        state(text="x" * LARGEST).to_text()


def test_no_code_is_in_a_state() -> None:
    """The text is JSON with a version."""
    assert json.loads(state(n=(1, 2)).to_text()[0])["version"] == 1
