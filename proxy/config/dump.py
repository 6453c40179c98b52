"""The effective configuration as YAML: what `check` prints and a running proxy shows.

Rules: every key stands there with its value, or only those that differ from the defaults; a secret is
`"***"`; what is printed can be read again.
"""

from typing import Any

import yaml
from pydantic import SecretStr

from proxy.config.address import Address
from proxy.config.models import Config
from proxy.config.sections import Settings
from proxy.config.span import Span
from proxy.config.values import MASK, Network


def dump(config: Config, defaults: Config | None = None) -> str:
    """Return `config` as YAML, secrets masked: each key, or those that differ from `defaults`."""
    data = plain(config) if defaults is None else _changed(config, defaults)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes masks as the documentation shows them."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if text == MASK else "'" if "$" in text else None  # in single quotes a $ is only a $
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _changed(settings: Settings, defaults: Settings) -> dict[str, Any]:
    """The keys of a section that differ, as plain data."""
    found = {}
    for name in type(settings).model_fields:
        value, default = getattr(settings, name), getattr(defaults, name)
        if value != default:
            found[name] = _changed(value, default) if isinstance(value, Settings) else _given(value)
    return found


def _given(value: Any) -> Any:
    """A value as plain data; of the sections in a list the keys that were written."""
    if isinstance(value, tuple) and value and isinstance(value[0], Settings):
        return [_given(item) for item in value]
    if isinstance(value, Settings):
        names = [name for name in type(value).model_fields if name in value.model_fields_set]
        return {name: _given(getattr(value, name)) for name in names}
    return plain(value)


def plain(value: Any) -> Any:
    """Return a value of the configuration as plain data, as YAML has it."""
    if isinstance(value, Settings):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretStr):
        return MASK if set(str(value)) == {"*"} else str(value)
    if isinstance(value, tuple):
        items = [plain(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(items[0], str) else items
    if isinstance(value, Address | Network | str):
        return str(value).replace("${", "$${")
    if isinstance(value, Span):
        return value.plain()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
