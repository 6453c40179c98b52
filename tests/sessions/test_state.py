"""The text of a state: what is left out, and who can read it."""

import enum
import json
import logging
import math
import threading
from collections import OrderedDict, defaultdict
from typing import Any

import pydantic
import pytest

from proxy.sessions.codecs import CODECS, Unstorable
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
    assert (back.user_session, back.dropped) == ({"n": 1}, [])
    assert [record for record in caplog.records if "only_here" in record.getMessage()] == caplog.records
    assert len(caplog.records) == 1


class Mood(enum.StrEnum):
    """What is text to JSON, and more to an app."""

    CALM = "calm"


class Key(str, enum.Enum):  # noqa: UP042 - as apps have it
    """An app's own names of its keys."""

    MOOD = "mood"


class Broken:
    """A type of an app whose codec fails, as its text does."""

    def __repr__(self) -> str:
        raise RuntimeError("not even that")


class Point(pydantic.BaseModel):
    """A model of an app."""

    x: int


class Count(enum.IntEnum):
    """A number to JSON, and more to an app."""

    ONE = 1


def nested(levels: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


UNSTORABLE = [
    Mood.CALM, Count.ONE, defaultdict(list), OrderedDict(a=1), Point(x=1), Broken(), [Mood.CALM],
    {Mood.CALM: 1}, nested(300), nested(20_000), print,
]  # fmt: skip


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
def test_a_value_costs_itself_only(value: Any) -> None:
    """Whatever an app keeps: the other keys come back, and the loss is counted."""
    text, dropped = state(before=1, there=value, after=2).to_text()
    assert (State.from_text(text).user_session, dropped) == ({"before": 1, "after": 2}, 1)


@pytest.mark.parametrize(
    "value",
    [10**5000, -(7**9000), float("inf"), "\ud83d alone", "\0", {"$type": "x"}, {1: {2: 3}}, nested(150)],
    ids=lambda value: type(value).__name__,
)
def test_an_odd_value_comes_back(value: Any) -> None:
    """Numbers that Python does not print, and text that no encoding has."""
    assert State.from_text(state(there=value).to_text()[0]).user_session == {"there": value}


def test_no_number_comes_back_as_none() -> None:
    """NaN is a number that is stored like any other."""
    assert math.isnan(State.from_text(state(there=math.nan).to_text()[0]).user_session["there"])


def test_keys_are_text() -> None:
    """An enumeration's text is the same key to a dict; any other key would be another one afterwards."""
    kept = state()
    kept.user_session = {Key.MOOD: 1, 7: 2, None: 3, ("a",): 4}  # type: ignore[dict-item]
    text, dropped = kept.to_text()
    assert (State.from_text(text).user_session, dropped) == ({"mood": 1}, 3)
    assert State.from_text(text).user_session[Key.MOOD] == 1


def test_a_dict_that_changes_meanwhile_is_stored() -> None:
    """A thread of the app, or a codec, may add to a dict that is just being read."""
    kept: dict[str, Any] = {"a": 1}

    class Meddler:
        """Adds a key when it is stored."""

    CODECS.register(Meddler, lambda _: kept.update(b=2) or "x", lambda _: "x", "Meddler")
    kept["meddler"] = Meddler()
    text, dropped = state(there=kept).to_text()
    assert (State.from_text(text).user_session, dropped) == ({"there": {"a": 1, "meddler": "x"}}, 0)


def test_what_the_page_has_as_json_is_stored_like_that() -> None:
    """Chainlit sends settings, messages and elements as JSON: there a StrEnum is its text."""
    kept = state()
    kept.chat_settings = {"mood": Mood.CALM, "only_here": threading.Lock()}
    kept.messages = [
        {"output": Mood.CALM, "metadata": OrderedDict(a=1), "elements": [{"props": [Count.ONE]}]}
    ]
    text, dropped = kept.to_text()
    back = State.from_text(text)
    assert (back.chat_settings, dropped) == ({"mood": "calm"}, 1)
    assert back.messages == [{"output": "calm", "metadata": {"a": 1}, "elements": [{"props": [1]}]}]
    assert type(back.messages[0]["output"]) is str


def test_an_element_costs_itself_only() -> None:
    """What is in its props stays behind with it; the message and its other elements come along."""
    kept = state()
    elements = [{"id": "a"}, {"props": {"x": threading.Lock()}}, {"id": "b"}]
    kept.messages = [{"id": "m", "metadata": {}, "elements": elements}, {"id": print, "elements": []}]
    text, dropped = kept.to_text()
    assert (State.from_text(text).messages, dropped) == (
        [{"id": "m", "metadata": {}, "elements": [{"id": "a"}, {"id": "b"}]}],
        2,
    )


def test_what_cannot_be_read_costs_itself_only() -> None:
    """A type that this instance does not know, or data that is no message, is missing; the rest is there."""
    data = json.loads(state(n=1).to_text()[0])
    strange = {"$type": "Strange", "$value": 1}
    data["user_session"]["strange"] = data["chat_settings"]["strange"] = strange
    whole = {"id": "m", "metadata": {}, "elements": [strange, {"id": "e"}]}
    data["messages"] = [
        whole,
        {"id": strange, "metadata": {}, "elements": []},
        7,
        {},
        whole | {"metadata": strange},
    ]
    back = State.from_text(json.dumps(data))
    kept = {"id": "m", "metadata": {}, "elements": [{"id": "e"}]}
    assert (back.user_session, back.chat_settings, back.messages) == ({"n": 1}, {"level": 3}, [kept, kept])
    assert len(back.dropped) == 2 + 3 + 1 + 2


def test_a_file_costs_itself_only() -> None:
    """An entry that is none, or names no file, is left out at each end; the files beside it come along."""
    kept = state()
    whole = {"id": "a", "name": "a.txt", "type": "text/plain", "size": 1, "path": "/tmp/x/a.txt"}
    kept.files = {"a": whole, "b": {}, "c": 7, "f": whole | {"name": print}, "d": whole | {"path": ".."}}  # type: ignore[dict-item]
    text, dropped = kept.to_text()
    data = json.loads(text)
    stored = {"name": "a.txt", "type": "text/plain", "size": 1, "file": "a.txt"}
    assert (data["files"], dropped) == ({"a": stored}, 4)
    data["files"] |= {"b": {}, "c": None, "d": stored | {"file": ".."}, "e": stored | {"file": "../../a.txt"}}
    back = State.from_text(json.dumps(data))
    assert (back.files, len(back.dropped)) == ({"a": stored, "e": stored}, 3)


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
