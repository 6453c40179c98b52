"""The JSON schema of a configuration, made from the models: what editors complete and underline by.

It allows what `load` allows as far as a pattern can tell: units, variables, words in any case, a value in
place of a list of one. What several keys say together, and what a name or an address has to be, only `check`
tells. It keeps to draft 7, which every editor knows.
"""

import typing
from enum import StrEnum
from typing import Any

from pydantic.fields import FieldInfo

from proxy.config.dump import plain
from proxy.config.fields import KEYS, Key
from proxy.config.models import BackendSettings, Config
from proxy.config.sections import Settings
from proxy.config.span import MOST_REPLICAS, Span
from proxy.config.values import ONE_ALONE, Allowed
from proxy.units import DURATION, SIZE, Unit

Schema = dict[str, Any]

_PATTERNS = {Unit.SECONDS: f"^(?=.){DURATION}$", Unit.BYTES: f"^{SIZE}$"}
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_VARIABLE = {"$ref": "#/definitions/variable"}
_FLAGS = ("true", "false", "yes", "no", "on", "off")


def schema() -> Schema:
    """Return the schema of a whole file."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "chainlit-proxy",
        "description": "The configuration of chainlit-proxy.",
        "definitions": {
            "variable": {"description": "Of the environment.", "type": "string", "pattern": "\\$\\{"}
        },
        **_section(Config, ()),
    }


def _section(model: type[Settings], path: tuple[str, ...]) -> Schema:
    keys = {name: KEYS[*path, name] for name in model.model_fields}
    required = [name for name, key in keys.items() if key.field.is_required()]
    return {
        "type": "object",
        "properties": {name: _key(key) for name, key in keys.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _key(key: Key) -> Schema:
    told: Schema = {"description": f"{key.description} Allowed: {key.allowed}."}
    if key.section is not None:
        told["description"] = key.description
    elif not key.field.is_required() and key.field.default is not None and not key.field.default_factory:
        told["default"] = plain(key.field.default)
    kinds = _kinds(key.hint, key.path)
    if key.section is not None:
        kinds[0]["type"] = [kinds[0]["type"], "null"]  # all its keys commented out
    elif kinds != [{"type": ["string", "number", "boolean"]}]:
        kinds.append(_VARIABLE)
    return told | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _kinds(hint: Any, path: tuple[str, ...]) -> list[Schema]:
    """What may stand at a place, one schema for each way to write it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return [{"type": "null"}]
    if origin is typing.Annotated:
        return _noted(_kinds(parts[0], path), hint.__metadata__)
    if origin is typing.Literal:
        return _words(parts)
    if origin is tuple:
        return [{"type": "array", "items": _any(_items(parts[0], path))}]
    if parts:  # a union
        return [kind for part in parts for kind in _kinds(part, path)]
    if issubclass(hint, Settings):
        return [_section(hint, path)]
    if issubclass(hint, StrEnum):
        return _words(tuple(map(str, hint)))
    if issubclass(hint, Span):
        return [
            {"type": "integer", "minimum": 1, "maximum": MOST_REPLICAS},
            {"type": "string", "pattern": "^[0-9]+\\.\\.[0-9]+$"},
        ]
    if hint is bool:
        return _words((True, False))
    return [{"type": {int: "integer", float: "number"}.get(hint, ["string", "number", "boolean"])}]


def _items(hint: Any, path: tuple[str, ...]) -> list[Schema]:
    kinds = _kinds(hint, path)
    if BackendSettings in typing.get_args(hint):  # its url alone
        kinds.append({"type": "string", "pattern": "://"})
    return kinds if path in {("backends",), ("tls", "certificates")} else [*kinds, _VARIABLE]


def _noted(kinds: list[Schema], notes: tuple[Any, ...]) -> list[Schema]:
    """Kinds with the limits of their type."""
    for note in notes:
        for limit in note.metadata if isinstance(note, FieldInfo) else ():
            for name, word in _LIMITS.items():
                if (number := getattr(limit, name, None)) is not None:
                    kinds[0][word] = number
            if pattern := getattr(limit, "pattern", None):
                kinds[0]["pattern"] = pattern
            if (least := getattr(limit, "min_length", None)) and kinds[0]["type"] == "array":
                kinds[0]["minItems"] = least
        if isinstance(note, Allowed) and note.unit:
            kinds.append({"type": "string", "pattern": _PATTERNS[note.unit]})
        elif note == ONE_ALONE:
            kinds.extend(kind for kind in _alone(kinds[0]["items"]) if kind != _VARIABLE)
    return kinds


def _alone(items: Schema) -> list[Schema]:
    return list(items.get("anyOf", [items]))


def _words(words: tuple[Any, ...]) -> list[Schema]:
    """One of some words in any case; true and false have more of them, and 1.2 is written as a number."""
    kinds: list[Schema] = [{"enum": [*words, *(float(word) for word in words if _is_number(word))]}]
    texts = [word for word in words if isinstance(word, str)] + [word for word in _FLAGS if True in words]
    if letters := [word for word in texts if word.isalpha()]:
        any_case = ("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in letters)
        kinds.append({"type": "string", "pattern": f"^(?:{'|'.join(any_case)})$"})
    return kinds


def _is_number(word: object) -> bool:
    return isinstance(word, str) and word.replace(".", "").isdecimal()


def _any(kinds: list[Schema]) -> Schema:
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
