"""An app's values to JSON and back, types included; no pickles: reading a store must never run code.

What JSON has goes as it is. Common types of the standard library and those that the app registered go as
`{"$type": name, "$value": ...}`. Only exact types count: a subclass would come back as its parent. What has
no codec raises `Unstorable`; whoever encodes decides what is lost with it.
"""

import base64
import datetime as dt
import decimal
import pathlib
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TYPE, VALUE = "$type", "$value"
DEEPEST = 200  # levels of JSON; whoever reads it may have less of its stack left than whoever wrote it
LONGEST = 2000  # bits of a number in JSON; Python refuses to read or write thousands of digits
_TEXT = {str}
_PLAIN = {str, float, bool, type(None)}


class Unstorable(ValueError):  # noqa: N818 - it is an answer, not a fault
    """A value that has no codec, or whose codec failed; the text says which type."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How one type is stored; made by `Codecs.register`."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class Codecs:
    """The types that can be stored."""

    def __init__(self) -> None:
        self._by_type: dict[type, Codec] = {}
        self._by_name: dict[str, Codec] = {}

    def __repr__(self) -> str:
        return f"<Codecs {sorted(self._by_name)}>"

    def register(
        self, kind: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], name: str | None = None
    ) -> None:
        """Takes a type; a second registration of the same name replaces the first, as a reload does it."""
        codec = Codec(name or kind.__qualname__, encode, decode)
        self._by_type[kind] = self._by_name[codec.name] = codec

    def encode(self, value: Any) -> Any:
        """Returns what `json.dumps` takes. Raises Unstorable."""
        return self._encode(value, 0)

    def _encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN or (kind is int and value.bit_length() <= LONGEST):
            return value
        if (depth := depth + 1) > DEEPEST:
            raise Unstorable("it contains itself, or is nested too deeply")
        if kind is list:
            return [self._encode(item, depth) for item in value]
        if kind is dict:
            value = value.copy()  # at once: a thread of the app may change it
            if TYPE not in value and {*map(type, value)} <= _TEXT:
                return {key: self._encode(item, depth) for key, item in value.items()}
        codec = self._by_type.get(kind)
        if codec is None:
            raise Unstorable(f"{kind.__module__}.{kind.__qualname__} has no codec")
        try:
            encoded = codec.encode(value)
        except Unstorable:
            raise
        except Exception as error:  # an app's code
            raise Unstorable(f"the codec of {codec.name} failed: {error!r}") from error
        return {TYPE: codec.name, VALUE: self._encode(encoded, depth)}

    def decode(self, data: Any) -> Any:
        """Returns the value again. Raises Unstorable for a type that is not registered here."""
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        if TYPE not in data:
            return {key: self.decode(item) for key, item in data.items()}
        name, value = data[TYPE], self.decode(data.get(VALUE))
        codec = self._by_name.get(name)
        if codec is None:
            raise Unstorable(f"{name} has no codec")
        try:
            return codec.decode(value)
        except Exception as error:  # an app's code
            raise Unstorable(f"the codec of {name} failed: {error!r}") from error


def standard_codecs() -> Codecs:
    """The types of the standard library that apps keep."""
    codecs = Codecs()
    codecs.register(
        dict, lambda value: [[*item] for item in list(value.items())], dict
    )  # of other keys than text
    codecs.register(int, hex, lambda text: int(text, 16))  # one that is too long
    for collection in (tuple, set, frozenset):
        codecs.register(collection, list, collection)
    codecs.register(bytes, _to_base64, base64.b64decode)
    codecs.register(bytearray, _to_base64, lambda text: bytearray(base64.b64decode(text)))
    for moment in (dt.datetime, dt.date, dt.time):
        codecs.register(moment, moment.isoformat, moment.fromisoformat)
    codecs.register(dt.timedelta, lambda d: [d.days, d.seconds, d.microseconds], lambda p: dt.timedelta(*p))
    for written in (decimal.Decimal, uuid.UUID, type(pathlib.Path())):
        codecs.register(written, str, written)
    codecs.register(complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts))
    return codecs


def _to_base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


# A replica has this package twice when the app imports it too: under the launcher's name, which came first,
# and under its own. What the app registers has to reach the one that shares.
_first = sys.modules.get("_chainlit_proxy_sessions.codecs")
CODECS: Codecs = getattr(_first, "CODECS", None) or standard_codecs()
