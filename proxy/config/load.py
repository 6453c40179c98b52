"""From a file, a text or the command line to a `Config`, or to all the mistakes at once.

Rules: every mistake is reported in one go, at its own line and key, in words that say what is
allowed; pydantic's own words and inputs never leave this module, and neither does a secret.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config.discovery import SWITCHES, is_on
from proxy.config.document import COMMAND_LINE, UNREADABLE, Document, read
from proxy.config.fields import Kind, allowed_at, key_at, keys_below
from proxy.config.files import unusable, unusable_store
from proxy.config.models import BackendSettings, Config, repeated
from proxy.config.problems import ConfigError, KeyPath, Problem, got, got_type
from proxy.config.sections import Settings
from proxy.config.values import Shared

NOTHING: Mapping[str, Any] = MappingProxyType({})
NO_BACKEND = (
    "must list at least one Chainlit instance, such as - url: http://127.0.0.1:8001; or set discovery"
)


def load(
    path: str | os.PathLike[str],
    *,
    need_backends: bool = False,
    need_store: bool = False,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] = NOTHING,
    changes: Mapping[str, Any] = NOTHING,
) -> Config:
    """Read a YAML file and look at the files it names; `environ` is by default that of the process.

    `defaults` are the values at keys such as "log.access" where the file is silent, in place of those of
    the models. `changes` are values of the command line, which win over the file; None means not given.
    With `need_store` the store of sessions is used here, unless they are not shared. Raises ConfigError.
    """
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        problem = Problem(name, None, "", f"cannot be read: {reason}")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            problem = Problem(name, line, "", "is not valid YAML: it is not UTF-8 text")
        else:
            document = read(text, name, os.environ if environ is None else environ)
            document.complete(defaults)
            document.replace(changes)
            return validated(document, need_backends=need_backends, need_store=need_store, look_at_files=True)
    raise ConfigError([problem])


def loads(
    text: str,
    *,
    name: str = "config",
    need_backends: bool = False,
    need_store: bool = False,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] = NOTHING,
    changes: Mapping[str, Any] = NOTHING,
) -> Config:
    """Read YAML text as `load` does; messages call it `name`. Raises ConfigError."""
    document = read(text, name, os.environ if environ is None else environ)
    document.complete(defaults)
    document.replace(changes)
    return validated(document, need_backends=need_backends, need_store=need_store)


def override(
    config: Config, changes: Mapping[str, Any], *, name: str = COMMAND_LINE, need_backends: bool = False
) -> Config:
    """Return `config` with other values at keys such as "admin.listen", checked as a file would be.

    Values of None are left out, so that options that were not given can be passed as they are.
    Raises ConfigError, whose problems have no line.
    """
    data = _as_data(config)
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = data
        for part in sections:
            section = section[part]
        if value is not None:
            section[last] = value
    return validated(Document(name, data), need_backends=need_backends)


def _as_data(settings: Settings) -> dict[str, Any]:
    return {
        name: _as_data(value) if isinstance(value := getattr(settings, name), Settings) else value
        for name in type(settings).model_fields
    }


def validated(
    document: Document, *, need_backends: bool, need_store: bool = False, look_at_files: bool = False
) -> Config:
    """Return the configuration of a document that was read. Raises ConfigError."""
    config, errors = None, []
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for detail in errors:
        _explain(detail, document)
    backends = document.data.get("backends") if isinstance(document.data, dict) else UNREADABLE
    if errors and not any(detail["type"] == "conflict" for detail in errors):
        _report_repeated(backends, document)
    if need_backends and not backends and not _discovers(config, document.data):
        document.report(("backends",), NO_BACKEND)
    for path, message in unusable(config) if config and look_at_files else ():
        document.report(path, message)
    shares = config is not None and config.sessions.shared is not Shared.FALSE
    for path, message in unusable_store(config) if config and need_store and shares else ():
        document.report(path, message)
    if config is None or document.problems:
        # Raised here, after the except block: the error carries no context that holds the input.
        raise ConfigError(sorted(document.problems, key=lambda problem: problem.line or 0))
    return config


def _discovers(config: Config | None, data: Any) -> bool:
    """Whether a source of backends is on, or was meant to be where the configuration has mistakes."""
    if config is not None:
        return bool(config.discovery.parts())
    section = data.get("discovery") if isinstance(data, dict) else None
    return isinstance(section, dict) and any(is_on(name, section.get(name)) for name in SWITCHES)


def _explain(detail: ErrorDetails, document: Document) -> None:
    """Report one error of pydantic in our own words, unless its value was reported already."""
    path: KeyPath = detail["loc"]
    kind = detail["type"]
    if path and isinstance(path[-1], int) and path not in document.lines:
        path = path[:-1]  # a list of one that was written as the value alone
    unknown = kind == "extra_forbidden"
    if document.is_unreadable(path[:-1] if unknown else path) or kind == "default_factory_not_called":
        return
    if unknown:
        message = _unknown(path)
    elif kind == "conflict":
        message = detail["msg"]
    elif kind == "value_error":
        message = str(detail["ctx"]["error"])
    elif kind == "missing":
        message = f"is missing: it must be {allowed_at(path)}"
    else:
        message = f"must be {allowed_at(path)}{_given(path, detail['input'], document)}"
    document.report(path, message)


def _given(path: KeyPath, value: object, document: Document) -> str:
    """Return what was given, as far as it may be shown: a section may hold a secret by mistake."""
    key = key_at(path)
    if key is None or key.kind in {Kind.SECTION, Kind.SECTIONS, Kind.SECRET}:
        return got_type(value)
    needs_no_quotes = key.kind is Kind.NUMBER and path in document.quoted
    return got(value) + ("; write it without quotes" if needs_no_quotes else "")


def _unknown(path: KeyPath) -> str:
    allowed = keys_below(path[:-1])
    near = difflib.get_close_matches(str(path[-1]), allowed, n=1)
    hint = f", did you mean '{near[0]}'?" if near else "."
    return f"unknown key{hint} Allowed here: {', '.join(allowed)}"


def _report_repeated(items: object, document: Document) -> None:
    """Report repeated backends where other mistakes kept the model from comparing them."""
    for path, message in repeated(_readable_backends(items)):
        document.report(("backends", *path), message)


def _readable_backends(items: object) -> Iterator[tuple[int, BackendSettings]]:
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            told = {key: item[key] for key in ("name", "url") if item.get(key, UNREADABLE) is not UNREADABLE}
            try:
                yield index, BackendSettings.model_validate(told)
            except ValidationError:
                continue  # reported with the others
