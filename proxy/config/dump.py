"""The effective configuration as YAML: what `check` prints and a running proxy shows.

Rules: every key stands there with its value; a secret is `"***"`; what is printed can be read again.
"""

from typing import Any

import yaml
from pydantic import SecretStr

from proxy.config.address import Address
from proxy.config.models import Config
from proxy.config.sections import Settings
from proxy.config.span import Span
from proxy.config.values import MASK, Network


def dump(config: Config) -> str:
    """Return `config` as YAML, each key with its value and secrets masked."""
    return yaml.dump(plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes masks as the documentation shows them."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if text == MASK else "'" if "$" in text else None  # in single quotes a $ is only a $
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


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
