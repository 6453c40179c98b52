"""The effective configuration as YAML: what `check` prints and a running proxy shows.

Rules: every key stands there with its value; a secret is `"***"`; what is printed can be read again.
"""

from typing import Any

import yaml
from pydantic import SecretStr

from proxy.config.address import Address
from proxy.config.models import Config
from proxy.config.sections import Settings
from proxy.config.values import MASK, Network, StoreUrl


def dump(config: Config) -> str:
    """Return `config` as YAML, each key with its value and secrets masked."""
    return yaml.dump(plain(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Masked(str):
    """A secret that was given; written in double quotes, as the documentation shows it."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Also writes masks, and indents lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


_Dumper.add_representer(
    _Masked, lambda dumper, mask: dumper.represent_scalar("tag:yaml.org,2002:str", mask, style='"')
)


def plain(value: Any) -> Any:
    """Return a value of the configuration as plain data, as YAML has it."""
    if isinstance(value, Settings):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretStr) and not (isinstance(value, StoreUrl) and value.is_open):
        return _Masked(MASK)
    if isinstance(value, tuple):
        items = [plain(item) for item in value]
        return items[0] if len(items) == 1 and isinstance(items[0], str) else items
    if isinstance(value, Address | Network | SecretStr | str):
        return str(value).replace("${", "$${")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
