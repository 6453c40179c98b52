"""The types of the values in a configuration, each with the words that say what it may be.

Rules: numbers are strict, so a quoted "5" is a mistake and not a 5. A list of one may be written as
the value alone. The words of `Allowed` stand in messages ("must be ...") and in the reference, so
they have to name every limit that the type has.
"""

import importlib.util
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, SecretStr

from proxy.config.address import LISTEN_FORMS, URL_FORMS, Address, backend_url, host_name, is_host
from proxy.config.packages import needs
from proxy.config.problems import got

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OTLP_FORM = "an http or https URL such as http://127.0.0.1:4318/v1/traces"
STORE_FORMS = "sqlite, sqlite:///FILE, redis://HOST:PORT, rediss://HOST:PORT or unix:///SOCKET"

REDIS_FORMS = "redis://HOST:PORT, rediss://HOST:PORT or unix:///SOCKET"

MASK = "***"
"""What stands for a secret wherever the configuration is shown."""

_BACKEND_NAME = re.compile(r"[A-Za-z0-9._:-]{1,63}")
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 6265 4.1.1: a token
_URL_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")  # RFC 3986 3.3
_PASSWORD = re.compile(r"^((?:rediss?|unix)://[^/@]*:)[^/@]*(?=@)")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123: names of Kubernetes
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a value may be, in words that follow "must be"."""

    text: str


class Locate(StrEnum):
    """When the backends are asked which of them holds a session."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Shared(StrEnum):
    """Whether the instances share their sessions."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


class Records(StrEnum):
    """What is asked of DNS."""

    A = "a"
    AAAA = "aaaa"
    SRV = "srv"


class HealthType(StrEnum):
    """How a backend is probed."""

    HTTP = "http"
    ENGINEIO = "engineio"
    TCP = "tcp"
    NONE = "none"


class LogFormat(StrEnum):
    """How a log line is written."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important lines that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(f"must be {LISTEN_FORMS}{got(value)}")  # noqa: TRY004 - pydantic collects ValueError only
    return Address.parse(value)


def network(value: object) -> Network:
    """Read an IP network; a bare address is the network of that one address. Raises ValueError."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        network = ipaddress.ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise ValueError(f"must be an IP address or network such as 10.0.0.0/8{got(value)}") from None
    if (
        isinstance(value, str)
        and "/" in value
        and network.network_address != ipaddress.ip_address(value.split("/")[0])
    ):
        raise ValueError(f"must not have host bits: the network is written {network}{got(value)}")
    return network


def _matching(pattern: re.Pattern[str], message: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if pattern.fullmatch(value) is None:
            raise ValueError(message + got(value))
        return value

    return check


def _cookie_name(value: str) -> str:
    if value.lower() == "x-chainlit-session-id" or value.startswith(("access_token", "oauth_state")):
        raise ValueError(f"must not be the name of one of Chainlit's own cookies{got(value)}")
    return _matching(_COOKIE_NAME, "must be a cookie name: letters, digits and - _ . without spaces")(value)


def _url_path(value: str) -> str:
    return _matching(_URL_PATH, "must be a path that starts with /, without a query or spaces")(value)


def _socketio_path(value: str) -> str:
    if not (stripped := _url_path(value).rstrip("/")):
        raise ValueError(f"must name a path below /, such as /ws/socket.io{got(value)}")
    return stripped


def _root_path(value: str) -> str:
    return _url_path(value).rstrip("/") or "/"


def _secret(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    # An empty one would count as set and protect nothing. (SecretStr("") is false, so ask for None.)
    if not value.get_secret_value():
        raise ValueError("must not be empty; leave the key out to have none")
    if value.get_secret_value() == MASK:
        raise ValueError("must be the secret itself, not the mask that stands for one where it is printed")
    return value


def _token(value: SecretStr | None) -> SecretStr | None:
    # It travels in an Authorization header, where spaces and line ends would be lost.
    token = _secret(value)
    if token is not None and _VISIBLE_ASCII.fullmatch(token.get_secret_value()) is None:
        raise ValueError("must be visible ASCII characters without spaces or line ends")
    return token


def _redis(value: SecretStr | None) -> SecretStr | None:
    url = _secret(value)
    if url is None:
        return None
    try:
        parts = urlsplit(url.get_secret_value())
        known = _is_redis(parts) or (parts.scheme == "unix" and parts.path[:1] == "/")
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"must be {REDIS_FORMS}")
    if importlib.util.find_spec("redis") is None:
        raise ValueError(needs("redis"))
    return url


def _is_redis(parts: SplitResult) -> bool:
    """Whether it names a server; raises ValueError where its port is no number."""
    return parts.scheme in {"redis", "rediss"} and parts.port != 0 and is_host(parts.hostname or "")


def _file(value: str | None) -> str | None:
    if value is not None and (not value or "\0" in value):
        raise ValueError("must be the path of a file; leave the key out to have none")
    return value


def _shared(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _otlp(value: str | None) -> str | None:
    try:
        parts = urlsplit(value or "")
        known = parts.scheme in {"http", "https"} and parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        raise ValueError(f"must be {OTLP_FORM}") from None
    if value is not None and not known:
        raise ValueError(f"must be {OTLP_FORM}{got(value)}")
    if "@" in parts.netloc:
        raise ValueError("must hold no name or password: those go into OTEL_EXPORTER_OTLP_HEADERS")
    return value


def _store(value: str) -> str:
    # The message does not repeat the value: it may hold a password.
    try:
        parts = urlsplit(value)
        known = _is_redis(parts)
    except ValueError:
        raise ValueError(f"must be {STORE_FORMS}") from None
    if value != "sqlite" and not known and not (parts.scheme in {"sqlite", "unix"} and parts.path[:1] == "/"):
        raise ValueError(f"must be {STORE_FORMS}")
    if parts.password == MASK:
        raise ValueError(
            "must hold the password itself, not the mask that stands for one where it is printed"
        )
    return value


def masked(text: str) -> str:
    """Return a store's url without its password; any other text as it is."""
    return _PASSWORD.sub(rf"\1{MASK}", text)


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str | SecretStr | Address | Network) else value


def _distinct_addresses(values: tuple[Address, ...]) -> tuple[Address, ...]:
    for index, value in enumerate(values):
        if rival := next((other for other in values[:index] if value.collides_with(other)), None):
            raise ValueError(f"must not be taken twice: {value} and {rival} cannot both be bound")
    return values


def _dns_servers(values: tuple[Address, ...]) -> tuple[Address, ...]:
    for value in values:
        try:
            ipaddress.ip_address(value.host)
        except ValueError:
            raise ValueError(
                f"must be IP addresses with their ports, such as 10.0.0.2:53{got(str(value))}"
            ) from None
    return values


def _label(value: str | None) -> str | None:
    if value is not None and _LABEL.fullmatch(value) is None:
        raise ValueError(f"must be 1 to 63 small letters, digits and -{got(value)}")
    return value


def _given(value: str | None) -> str | None:
    if value is not None and not value:
        raise ValueError("must not be empty; leave the key out to have none")
    return value


def _socket(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"must be the absolute path of a socket{got(value)}")
    return value


def _socket_mode(value: object) -> object:
    # A number has lost its form: YAML reads 0660 as 432.
    if not isinstance(value, str) or re.fullmatch("0?[0-7]{3}", value) is None:
        raise ValueError(f'must be three octal digits in quotes, such as "660"{got(value)}')
    return value


def _distinct_texts(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"must not be given twice{got(value)}")
    return values


def _distinct_secrets(values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not values:
        raise ValueError("must not be an empty list; leave the key out to have none")
    if len({value.get_secret_value() for value in values}) < len(values):
        raise ValueError("must not hold the same secret twice")
    return values


_Strict = Field(strict=True, allow_inf_nan=False)

Seconds = Annotated[float, _Strict, Field(gt=0), Allowed("a number greater than 0")]
SecondsOrZero = Annotated[float, _Strict, Field(ge=0), Allowed("a number, 0 or greater")]
Weight = Annotated[float, _Strict, Field(gt=0, le=100), Allowed("a number greater than 0 and at most 100")]
Share = Annotated[float, _Strict, Field(ge=0, le=1), Allowed("a number from 0 to 1")]
Factor = Annotated[float, _Strict, Field(gt=1), Allowed("a number greater than 1")]
Count = Annotated[int, Field(strict=True, ge=1), Allowed("a whole number, 1 or greater")]
CountOrZero = Annotated[int, Field(strict=True, ge=0), Allowed("a whole number, 0 or greater")]
HeadBytes = Annotated[int, Field(strict=True, ge=1024), Allowed("a whole number, 1024 or greater")]
Port = Annotated[int | None, Field(strict=True, ge=1, le=65535), Allowed("a whole number from 1 to 65535")]
GivenPort = Annotated[int, Field(strict=True, ge=1, le=65535), Allowed("a whole number from 1 to 65535")]
Flag = Annotated[bool, Field(strict=True), Allowed("true or false")]

BackendName = Annotated[
    str,
    AfterValidator(_matching(_BACKEND_NAME, "must be 1 to 63 letters, digits and . _ : -")),
    Allowed("1 to 63 letters, digits and . _ : -"),
]
BackendUrl = Annotated[str, AfterValidator(backend_url), Allowed(URL_FORMS)]
CookieName = Annotated[str, AfterValidator(_cookie_name), Allowed("a cookie name")]
UrlPath = Annotated[str, AfterValidator(_url_path), Allowed("a path that starts with /")]
Secret = Annotated[SecretStr | None, AfterValidator(_secret), Allowed("text")]
Secrets = Annotated[
    Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_secret)], ...],
        AfterValidator(_distinct_secrets),
    ]
    | None,
    BeforeValidator(_as_list),
    Allowed("text, or a list of texts, the newest first"),
]
Token = Annotated[
    SecretStr | None,
    AfterValidator(_token),
    Allowed("visible ASCII text without spaces"),
]

RedisUrl = Annotated[SecretStr | None, AfterValidator(_redis), Allowed(REDIS_FORMS)]
HostName = Annotated[str | None, AfterValidator(host_name), Allowed("a host name or an IP address")]
DnsName = Annotated[str | None, AfterValidator(host_name), Allowed("a host name")]
Label = Annotated[str | None, AfterValidator(_label), Allowed("1 to 63 small letters, digits and -")]
Given = Annotated[str | None, AfterValidator(_given), Allowed("text")]
SocketPath = Annotated[str, AfterValidator(_socket), Allowed("the absolute path of a socket")]
SocketMode = Annotated[
    str, BeforeValidator(_socket_mode), Allowed('three octal digits in quotes, such as "660"')
]
File = Annotated[str | None, AfterValidator(_file), Allowed("the path of a file")]

OtlpUrl = Annotated[str | None, AfterValidator(_otlp), Allowed(OTLP_FORM)]
StoreUrl = Annotated[str, AfterValidator(_store), Allowed(STORE_FORMS)]
Text = Annotated[str, Allowed("text")]
SharedChoice = Annotated[Shared, BeforeValidator(_shared), Allowed("one of auto, true, false")]
RecordsChoice = Annotated[Records, Allowed("one of a, aaaa, srv")]
LocateChoice = Annotated[Locate, Allowed("one of auto, always, never")]
HealthChoice = Annotated[HealthType, Allowed("one of http, engineio, tcp, none")]
FormatChoice = Annotated[LogFormat, Allowed("one of console, json")]
LevelChoice = Annotated[LogLevel, Allowed("one of debug, info, warning, error")]

OneAddress = Annotated[Address, PlainValidator(_address), PlainSerializer(str), Allowed(LISTEN_FORMS)]
Addresses = Annotated[
    tuple[Annotated[Address, PlainValidator(_address), PlainSerializer(str)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(_distinct_addresses),
    Allowed(f"{LISTEN_FORMS}, or a list of them"),
]
DnsServers = Annotated[
    tuple[Annotated[Address, PlainValidator(_address), PlainSerializer(str)], ...],
    BeforeValidator(_as_list),
    AfterValidator(_dns_servers),
    Allowed("an IP address with its port such as 10.0.0.2:53, or a list of them"),
]
SocketioPaths = Annotated[
    tuple[Annotated[str, AfterValidator(_socketio_path)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    AfterValidator(_distinct_texts),
    Allowed("a path that starts with /, or a list of them"),
]
RootPaths = Annotated[
    tuple[Annotated[str, AfterValidator(_root_path)], ...],
    BeforeValidator(_as_list),
    AfterValidator(_distinct_texts),
    Allowed("a path that starts with /, or a list of them"),
]
Networks = Annotated[
    tuple[Annotated[Network, PlainValidator(network), PlainSerializer(str)], ...],
    BeforeValidator(_as_list),
    Allowed("an IP address or network, or a list of them"),
]
