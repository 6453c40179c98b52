"""The keys of the configuration as a table, made from the models once.

Whoever reads YAML, words a message, prints the effective config or writes the reference looks up
here what stands at a key; nobody else walks the models.
"""

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from proxy.config.models import Config
from proxy.config.problems import KeyPath
from proxy.config.sections import Settings
from proxy.config.values import Allowed, StoreUrl
from proxy.units import Unit

SECTION_WORDS = "a mapping of keys to values"
_FEWER = (
    (f"^(?:{re.escape(Unit.SECONDS.value)}|{re.escape(Unit.BYTES.value)}|a whole number),? ", ""),
    (",? ?greater than ", " above "),
    (r",? ?(\d+) or greater", r" from \1"),
    ("true or false", "boolean"),
    (", or a list of them", ", or a list"),
    ("^ ?(?:(?:an?|one of) )?", ""),
)
"""What error messages say of most keys, and fewer words for it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its place without list indexes, what may stand there, and for a section its model."""

    path: tuple[str, ...]
    owner: type[Settings]  # the section that it stands in
    field: FieldInfo
    hint: Any  # the type with all its annotations
    section: type[Settings] | None

    @property
    def is_secret(self) -> bool:
        """Whether it is text that no message and no output repeats."""
        return any(part in (SecretStr, StoreUrl) for part in _made_of(self.hint))

    @property
    def is_text(self) -> bool:
        """Whether it is taken as it is written, and not as the number or flag that YAML reads."""
        return not any(part in (int, float, bool, True) for part in _made_of(self.hint))  # True: of a Literal

    @property
    def takes_list(self) -> bool:
        """Whether a list of values may stand there."""
        return tuple in _made_of(self.hint)

    @property
    def unit(self) -> Unit | None:
        """What the number counts, where it may be written with a unit."""
        notes = (part for part in _made_of(self.hint) if isinstance(part, Allowed))
        return next((note.unit for note in notes if note.unit), None)

    @property
    def is_flag(self) -> bool:
        """Whether true and false may stand there."""
        return any(part is bool or part is True for part in _made_of(self.hint))

    @property
    def is_path(self) -> bool:
        """Whether it is the path of a file, relative to the file that it stands in."""
        return any(isinstance(part, Allowed) and part.path for part in _made_of(self.hint))

    @property
    def words(self) -> tuple[str, ...]:
        """The words of which it is one; empty: it is no such key."""
        parts = tuple(_made_of(self.hint))
        enums = (part for part in parts if isinstance(part, type) and issubclass(part, StrEnum))
        return tuple(
            str(word).lower() for word in (*_literals(parts), *(each for enum in enums for each in enum))
        )

    @property
    def allowed(self) -> str:
        """What the value may be, in the words of the reference."""
        text = _allowed(self.hint, few=True)
        for pattern, fewer in _FEWER:
            text = re.sub(pattern, fewer, text)
        return text

    @property
    def description(self) -> str:
        """What it is for, on one line."""
        text = _texts(self.owner).get(self.path[-1]) or (self.section.__doc__ if self.section else None)
        return " ".join((text or "").split())


def key_at(path: KeyPath) -> Key | None:
    """Return the key of a place in the file, the same for all items of a list; None if there is none."""
    return KEYS.get(tuple(part for part in path if isinstance(part, str)))


def allowed_at(path: KeyPath) -> str:
    """Return what may stand at `path`, in words that follow "must be"."""
    key = key_at(path)
    return _allowed(key.hint, item=isinstance(path[-1], int)) if key else SECTION_WORDS


def keys_below(path: KeyPath) -> list[str]:
    """Return the names that may stand in the section at `path`; () is the whole file."""
    key = key_at(path)
    section = Config if not path else key and key.section
    return list(section.model_fields) if section else []


def _walk(section: type[Settings], above: tuple[str, ...] = ()) -> Iterator[Key]:
    hints = typing.get_type_hints(section, include_extras=True)
    for name, field in section.model_fields.items():
        path = (*above, name)
        parts = (part for part in _made_of(hints[name]) if isinstance(part, type))
        below = next((part for part in parts if issubclass(part, Settings)), None)
        yield Key(path, section, field, hints[name], below)
        if below is not None:
            yield from _walk(below, path)


@cache
def _texts(section: type[Settings]) -> dict[str, str]:
    """The text below each key of a section, from its source: only the reference needs it, so nobody waits."""
    body = ast.parse(inspect.getsource(section)).body[0].body  # type: ignore[attr-defined] # of a class
    return {
        ast.unparse(key.target): ast.literal_eval(below.value)
        for key, below in pairwise(body)
        if isinstance(key, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def _made_of(hint: Any) -> Iterator[Any]:
    """Yield a type and all that it is made of."""
    yield from (hint, typing.get_origin(hint))
    for part in typing.get_args(hint):
        yield from _made_of(part)


def _literals(parts: tuple[Any, ...]) -> Iterator[Any]:
    for part in parts:
        if typing.get_origin(part) is typing.Literal:
            yield from typing.get_args(part)


def _allowed(hint: Any, *, item: bool = False, few: bool = False) -> str:
    """The words of a type, or those of the items of a list."""
    own = [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Allowed)]
    if own and not item:
        return (few and own[-1].few) or own[-1].text
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        return f"one of {', '.join(str(word).lower() for word in parts or hint)}"
    if typing.get_origin(hint) is tuple:
        return _allowed(parts[0], few=few) + ("" if item else ", or a list of them")
    return _allowed(parts[0], item=item, few=few) if parts else SECTION_WORDS


KEYS = {key.path: key for key in _walk(Config)}
"""All keys, in the order of the reference."""
