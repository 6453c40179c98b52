"""The keys of the configuration as a table, made from the models once.

Whoever reads YAML, words a message, prints the effective config or writes the reference looks up
here what stands at a key; nobody else walks the models.
"""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from proxy.config.models import Config
from proxy.config.problems import KeyPath
from proxy.config.sections import Settings
from proxy.config.values import Allowed, StoreUrl

SECTION_WORDS = "a mapping of keys to values"


class Kind(StrEnum):
    """What may stand at a key."""

    SECTION = auto()  # a mapping
    SECTIONS = auto()  # a list of mappings
    NUMBER = auto()  # a number or true/false: read as YAML reads it
    TEXT = auto()  # everything else: taken as it is written
    SECRET = auto()  # text that no message and no output repeats


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its place without list indexes, what may stand there, and for a section its model."""

    path: tuple[str, ...]
    field: FieldInfo
    hint: Any  # the type with all its annotations
    section: type[Settings] | None

    @property
    def kind(self) -> Kind:
        """What may stand there."""
        if self.section is not None:
            return Kind.SECTIONS if self.takes_list else Kind.SECTION
        if _holds(self.hint, SecretStr, StoreUrl):
            return Kind.SECRET
        return Kind.NUMBER if _holds(self.hint, int, float, bool, True) else Kind.TEXT  # True is of a Literal

    @property
    def takes_list(self) -> bool:
        """Whether a list of values may stand there."""
        return _holds(self.hint, tuple)

    @property
    def allowed(self) -> str:
        """What the value may be, in words that follow "must be"."""
        return _allowed(self.hint)

    @property
    def description(self) -> str:
        """What it is for, on one line."""
        section = self.section.__doc__ if self.section else None
        return " ".join((self.field.description or section or "").split())


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
        below = next(_settings(hints[name]), None)
        yield Key(path, field, hints[name], below)
        if below is not None:
            yield from _walk(below, path)


def _settings(hint: Any) -> Iterator[type[Settings]]:
    if isinstance(hint, type) and issubclass(hint, Settings):
        yield hint
    for part in typing.get_args(hint):
        yield from _settings(part)


def _holds(hint: Any, *kinds: object) -> bool:
    """Whether a type is one of some, or is made of one."""
    made_of = (typing.get_origin(hint), hint)
    return any(kind in kinds for kind in made_of) or any(_holds(p, *kinds) for p in typing.get_args(hint))


def _allowed(hint: Any, *, item: bool = False) -> str:
    """The words of a type, or those of the items of a list."""
    own = [note.text for note in getattr(hint, "__metadata__", ()) if isinstance(note, Allowed)]
    if own and not item:
        return own[-1]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"one of {', '.join(hint)}"
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return _allowed(parts[0]) + ("" if item else ", or a list of them")
    return _allowed(parts[0], item=item) if parts else SECTION_WORDS


KEYS = {key.path: key for key in _walk(Config)}
"""All keys, in the order of the reference."""
