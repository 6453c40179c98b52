"""Values come back as they were, with their types, or are refused."""

import datetime as dt
import decimal
import json
import threading
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sessions.codecs import Codecs, Unstorable, standard_codecs

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.sampled_from(["$type", "$value"]), inner)
    ),
    max_leaves=10,
)


def through(codecs: Codecs, value: Any) -> Any:
    """A value on its way through a store."""
    return codecs.decode(json.loads(json.dumps(codecs.encode(value))))


@given(PLAIN)
def test_every_plain_value_comes_back(value: Any) -> None:
    """Nested values are equal afterwards, and of the same types."""
    back = through(standard_codecs(), value)
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC), dt.date(2026, 1, 2), dt.time(3, 4),
        dt.timedelta(1, 2, 3), decimal.Decimal("1.10"), uuid.UUID(int=7), Path("/a/b"), {1, 2},
        frozenset({"a"}), bytearray(b"x"), 1j,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_common_types_come_back(value: Any) -> None:
    """The types of the standard library that apps keep."""
    assert through(standard_codecs(), [value]) == [value]
    assert type(through(standard_codecs(), value)) is type(value)


@pytest.mark.parametrize(
    "value", [threading.Lock(), object(), lambda: 0, defaultdict(list), {"deep": [print]}]
)
def test_what_has_no_codec_is_refused(value: Any) -> None:
    """No guess is made, also not that a subclass might do as its parent."""
    with pytest.raises(Unstorable, match="has no codec"):
        standard_codecs().encode(value)


def test_what_contains_itself_is_refused() -> None:
    """A circle is an answer, not an endless loop."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(Unstorable, match="contains itself"):
        standard_codecs().encode(circle)


class Basket:
    """A type of an app."""

    def __init__(self, items: set[str]) -> None:
        self.items = items


def test_an_app_registers_its_type() -> None:
    """What `encode` gives may itself need codecs."""
    codecs = standard_codecs()
    codecs.register(Basket, lambda basket: basket.items, Basket)
    assert through(codecs, {"b": Basket({"x", "y"})})["b"].items == {"x", "y"}


def test_a_codec_that_fails_is_an_unstorable_value() -> None:
    """An app's mistake costs that value and nothing else."""
    codecs = standard_codecs()
    codecs.register(Basket, _raise, Basket)
    with pytest.raises(Unstorable, match="codec of Basket failed"):
        codecs.encode(Basket(set()))
    codecs.register(Basket, id, _raise)
    with pytest.raises(Unstorable, match="codec of Basket failed"):
        codecs.decode({"$type": "Basket", "$value": 1})
    with pytest.raises(Unstorable, match="Other has no codec"):
        codecs.decode({"$type": "Other", "$value": 1})


def _raise(_: Any) -> Any:
    raise KeyError("no")
