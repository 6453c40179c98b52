"""From a file, a text or the command line to a `Config`, or to all the mistakes at once.

Rules: every mistake is reported in one go, at its own line and key, in words that say what is
allowed; pydantic's own words and inputs never leave this module, and neither does a secret.
"""

import difflib
import os
import re
import sys
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypedDict, Unpack

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config.checks import conflicts, unusable, unusable_store
from proxy.config.document import UNREADABLE, Document, read
from proxy.config.fields import Key, allowed_at, key_at, keys_below
from proxy.config.models import Config
from proxy.config.problems import ConfigError, KeyPath, Problem, got, got_type
from proxy.units import Unit

_DOORS = ("0.0.0.0:443", "http://0.0.0.0:80")  # where browsers and authorities come by themselves
_CLOCK = re.compile("[0-9]{1,4}(?::[0-5]?[0-9]){1,2}")
_OCTAL = re.compile("0[0-9]{1,20}")
_URL = re.compile(r"(?i:https?|http\+unix)://")
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+")
_FLAG = re.compile("(?i:true|false|yes|no|on|off)")
# What some words are called elsewhere.
_ELSEWHERE = {"text": "console", "plain": "console", "warn": "warning", "err": "error", "trace": "debug"}
STDIN = "-"
"""The name of a file that stands for standard input."""
NO_BACKEND = (
    "must list at least one Chainlit instance, such as - url: http://127.0.0.1:8001; or set discovery"
)


class Options(TypedDict, total=False):
    """What else decides, besides the text."""

    need_backends: bool
    """Whether it is a mistake if there are none."""
    need_store: bool
    """Whether the store of sessions is used here, unless they are not shared."""
    environ: Mapping[str, str]
    """The variables; by default those of the process."""
    secret_variables: set[str]
    """Gets the variables that secrets of the text name, but for urls, which others may use, too."""
    defaults: Mapping[str, Any]
    """Values at keys such as "log.access" where the text is silent, in place of those of the models."""
    changes: Mapping[str, Any]
    """Values of the command line, which win over the text; None means not given."""
    acme: Mapping[str, Any]
    """As defaults, where tls.acme names domains; they win over those."""


def load(path: str | os.PathLike[str], **options: Unpack[Options]) -> Config:
    """Read a YAML file, `-` is standard input, and look at the files it names. Raises ConfigError."""
    name = os.fspath(path)
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
    else:
        return _config(data, name, options, look_at_files=True)
    raise ConfigError([Problem(name, None, "", f"cannot be read: {reason}")])


def loads(text: str, *, name: str = "config", **options: Unpack[Options]) -> Config:
    """Read YAML text; messages call it `name`. Raises ConfigError."""
    return _config(text, name, options, look_at_files=False)


def _config(data: bytes | str, name: str, options: Options, *, look_at_files: bool) -> Config:
    document = read(data, name, options.get("environ", os.environ))
    options.get("secret_variables", set()).update(document.secret_variables)
    if look_at_files and name != STDIN:
        find_files(document.data, Path(name).absolute().parent)
    document.put(options.get("changes", {}), option=True)
    if _gets_certificates(document.data):
        document.put({"listen": _DOORS, **options.get("acme", {})})
    document.put(options.get("defaults", {}))
    return validated(document, options, look_at_files=look_at_files)


def find_files(data: Any, folder: Path, at: KeyPath = ()) -> None:
    """Make the relative paths in a file those from its folder."""
    places = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in list(places):
        path = (*at, name)
        if isinstance(value, str):
            key = key_at(path)
            data[name] = os.path.join(folder, value) if value and key and key.is_path else value  # noqa: PTH118
        else:
            find_files(value, folder, path)


def _gets_certificates(data: Any) -> bool:
    for key in ("tls", "acme", "domains"):
        data = data.get(key) if isinstance(data, dict) else None
    return bool(data)


def validated(
    document: Document, options: Options, *, look_at_files: bool = False, alone: bool = False
) -> Config:
    """Return the configuration of a document; `alone`, it is one of backends only. Raises ConfigError."""
    config, errors = None, []
    _spell_out_backends(document.data)
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for detail in errors:
        _explain(detail, document)
    data = document.data if isinstance(document.data, dict) else {"backends": UNREADABLE}
    for path, message in conflicts(data, alone=alone):
        document.report(path, message)
    discovers = config.discovery.parts() if config else "discovery" in data
    misspelt = any(
        _near((str(key),)) in {"backends", "discovery"} for key in data.keys() - Config.model_fields
    )
    if options.get("need_backends") and not data.get("backends") and not discovers and not misspelt:
        document.report(("backends",), NO_BACKEND)
    for path, message in unusable(config) if config and look_at_files else ():
        document.report(path, message)
    for path, message in unusable_store(config) if config and options.get("need_store") else ():
        document.report(path, message)
    if config is None or document.problems:
        # Raised here, after the except block: the error carries no context that holds the input.
        raise ConfigError(sorted(document.problems, key=lambda problem: problem.line or 0))
    return config


def _spell_out_backends(data: Any) -> None:
    """Make a backend that is its url alone the mapping that it stands for.

    Other text stays as it is: it may be a secret, and no message repeats what stands for a section.
    """
    items = data.get("backends") if isinstance(data, dict) else None
    if isinstance(items, list):
        data["backends"] = [
            {"url": item} if isinstance(item, str) and _URL.match(item) else item for item in items
        ]


def _explain(detail: ErrorDetails, document: Document) -> None:
    """Report one error of pydantic in our own words, unless its value was reported already."""
    path: KeyPath = detail["loc"]
    kind, value = detail["type"], detail["input"]
    if kind == "default_factory_not_called" or (value is UNREADABLE and kind != "extra_forbidden"):
        return
    if kind == "extra_forbidden":
        message = _unknown(path)
    elif kind == "value_error":
        message = str(detail["ctx"]["error"])
    elif kind == "missing":
        message = f"is missing: it must be {allowed_at(path)}"
    else:
        message = f"must be {allowed_at(path)}{_given(path, value)}"
    if path and isinstance(path[-1], int) and path not in document.places:
        path = path[:-1]  # a list of one that was written as the value alone
    document.report(path, message)


def _given(path: KeyPath, value: object) -> str:
    """Return what was given, as far as it may be shown: a section may hold a secret by mistake."""
    key = key_at(path)
    if key is None or key.section or key.is_secret:
        return "" if key and key.is_secret and isinstance(value, str) else got_type(value)
    return got(value) + (_meant(value, key) if isinstance(value, str) else "")


def _meant(text: str, key: Key) -> str:
    """Return how to write what looks like a number, a flag or a word, or was a number in YAML 1.1."""
    if key.is_flag and _FLAG.fullmatch(text):
        return "; write it without quotes"
    if key.words and text.isalpha():
        word = _ELSEWHERE.get(text.lower(), text.lower())
        near = difflib.get_close_matches(word, key.words, n=1)
        return f", did you mean {near[0]}?" if near else ""
    if key.is_text or key.is_flag:
        return ""
    if key.unit is Unit.SECONDS and _CLOCK.fullmatch(text):
        seconds = reduce(lambda total, part: total * 60 + int(part), text.split(":"), 0)
        return f"; write {seconds} for {seconds} seconds"
    if _OCTAL.fullmatch(text):
        return f"; write {int(text)}"
    return "; write it without quotes" if _NUMBER.fullmatch(text) else ""


def _unknown(path: KeyPath) -> str:
    if near := _near(path):
        return f"unknown key, did you mean '{near}'?"
    return f"unknown key. Allowed here: {', '.join(keys_below(path[:-1]))}"


def _near(path: KeyPath) -> str:
    """Return the key that was meant by one that is unknown; empty: nobody knows."""
    near = difflib.get_close_matches(str(path[-1]).lower(), keys_below(path[:-1]), n=1)
    return near[0] if near else ""
