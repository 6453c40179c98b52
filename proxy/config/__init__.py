"""The configuration: frozen models, read from YAML with every mistake at its line.

`load` and `loads` make a `Config` or raise a `ConfigError` with all problems; `dump`
prints one with its secrets masked. The keys, their defaults and the reasons are in `models`; the
reference `docs/configuration.md` is made from them (`python -m proxy.config.reference`).
"""

from proxy.config.address import Address
from proxy.config.dump import dump
from proxy.config.load import load, loads
from proxy.config.models import (
    BackendSettings,
    Config,
    HealthSettings,
)
from proxy.config.problems import ConfigError, Problem

__all__ = [
    "Address",
    "BackendSettings",
    "Config",
    "ConfigError",
    "HealthSettings",
    "Problem",
    "dump",
    "load",
    "loads",
]
