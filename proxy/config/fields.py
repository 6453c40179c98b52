"""The keys of the configuration as a table, made from the models once.

Whoever reads YAML, words a message, prints the effective config or writes the reference looks up
here what stands at a key; nobody else walks the models.
"""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from proxy.config.models import Config
from proxy.config.problems import KeyPath
from proxy.config.sections import Settings
from proxy.config.values import Allowed

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
    """One key: its place without list indexes, the field of the model, and for a section its model."""

    path: tuple[str, ...]
    kind: Kind
    field: FieldInfo
    section: type[Settings] | None

    @property
    def allowed(self) -> str:
        """What the value may be, in words that follow "must be"."""
        if self.kind is Kind.SECTION:
            return SECTION_WORDS
        if self.kind is Kind.SECTIONS:
            return "a list of mappings, each with at least a url"
        return next(item.text for item in self.field.metadata if isinstance(item, Allowed))


def key_at(path: KeyPath) -> Key | None:
    """Return the key of a place in the file, the same for all items of a list; None if there is none."""
    return KEYS.get(tuple(part for part in path if isinstance(part, str)))


def allowed_at(path: KeyPath) -> str:
    """Return what may stand at `path`, in words that follow "must be"."""
    key = key_at(path)
    is_item = bool(path) and isinstance(path[-1], int)
    return SECTION_WORDS if key is None or (is_item and key.section) else key.allowed


def keys_below(path: KeyPath) -> list[str]:
    """Return the names that may stand in the section at `path`; () is the whole file."""
    key = key_at(path)
    section = Config if not path else key and key.section
    return list(section.model_fields) if section else []


def _walk(section: type[Settings], above: tuple[str, ...] = ()) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        path = (*above, name)
        kind, below = _kind(field)
        yield Key(path, kind, field, below)
        if below is not None:
            yield from _walk(below, path)


def _kind(field: FieldInfo) -> tuple[Kind, type[Settings] | None]:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return Kind.SECTION, annotation
    parts = typing.get_args(annotation)
    if (
        typing.get_origin(annotation) is tuple
        and isinstance(parts[0], type)
        and issubclass(parts[0], Settings)
    ):
        return Kind.SECTIONS, parts[0]
    if _holds_a_secret(annotation):
        return Kind.SECRET, None
    parts = typing.get_args(annotation) or (annotation,)
    is_typed = any(part in {int, float} or bool in {part, type(part)} for part in parts)
    return (Kind.NUMBER if is_typed else Kind.TEXT), None


def _holds_a_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_holds_a_secret, typing.get_args(annotation)))


def _holds_a_list(annotation: object) -> bool:
    return typing.get_origin(annotation) is tuple or any(map(_holds_a_list, typing.get_args(annotation)))


def takes_list(key: Key) -> bool:
    """Whether a list of values may stand at a key."""
    return _holds_a_list(key.field.annotation)


KEYS = {key.path: key for key in _walk(Config)}
"""All keys, in the order of the reference."""
