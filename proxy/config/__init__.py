"""The configuration: frozen models, read from YAML with every mistake at its line.

`load`, `loads` and `override` make a `Config` or raise a `ConfigError` with all problems; `dump`
prints one with its secrets masked. The keys, their defaults and the reasons are in `models`; the
reference `docs/configuration.md` is made from them (`python -m proxy.config.reference`).
"""

from proxy.config.address import Address
from proxy.config.discovery import DiscoverySettings, DnsSettings, DockerSettings, KubernetesSettings
from proxy.config.dump import dump, plain
from proxy.config.load import load, loads, override
from proxy.config.models import (
    AdminSettings,
    AffinitySettings,
    BackendSettings,
    BalanceSettings,
    Config,
    CookieSettings,
    ForwardedSettings,
    HealthSettings,
)
from proxy.config.names import Resolver, doubt, doubts
from proxy.config.observing import LogSettings, OtelSettings, ResponseSettings
from proxy.config.probing import statuses
from proxy.config.problems import ConfigError, Problem
from proxy.config.sections import (
    BackendTlsSettings,
    DirectorySettings,
    LimitSettings,
    SessionSettings,
    SocketSettings,
    TimeoutSettings,
    TlsSettings,
)
from proxy.config.values import HealthType, Locate, LogFormat, LogLevel, Records, Shared

__all__ = [
    "Address",
    "AdminSettings",
    "AffinitySettings",
    "BackendSettings",
    "BackendTlsSettings",
    "BalanceSettings",
    "Config",
    "ConfigError",
    "CookieSettings",
    "DirectorySettings",
    "DiscoverySettings",
    "DnsSettings",
    "DockerSettings",
    "ForwardedSettings",
    "HealthSettings",
    "HealthType",
    "KubernetesSettings",
    "LimitSettings",
    "Locate",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "OtelSettings",
    "Problem",
    "Records",
    "Resolver",
    "ResponseSettings",
    "SessionSettings",
    "Shared",
    "SocketSettings",
    "TimeoutSettings",
    "TlsSettings",
    "doubt",
    "doubts",
    "dump",
    "load",
    "loads",
    "override",
    "plain",
    "statuses",
]
