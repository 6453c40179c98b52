"""The types of the values in a configuration, each with the words that say what it may be.

Rules: numbers are strict, so a quoted "5" is a mistake and not a 5. A list of one may be written as
the value alone. The words of `Allowed` stand in messages ("must be ...") and in the reference, so
they have to name every limit that the type has. A url that may hold a password is a secret.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from annotated_types import Predicate
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    ValidationError,
    WrapValidator,
)

from proxy.config.address import (
    DOOR_FORMS,
    LISTEN_FORMS,
    URL_FORMS,
    Address,
    backend_url,
    host_name,
    is_host,
    is_ip,
)
from proxy.config.problems import got
from proxy.config.span import SPAN_FORM, Span
from proxy.units import Unit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DOMAIN_FORM = "a host name with a dot in it such as chat.example.com, not an IP address and without *"
DIRECTORY_FORM = "an https URL such as https://acme-v02.api.letsencrypt.org/directory"
OTLP_FORM = "an http or https URL such as http://127.0.0.1:4318/v1/traces"
REDIS_FORMS = "redis://HOST:PORT, rediss://HOST:PORT or unix:///SOCKET"
STORE_FORMS = f"sqlite, sqlite:///FILE, {REDIS_FORMS}"
SERVER_FORM = "an IP address with its port such as 10.0.0.2:53"
STATUS_FORMS = "a status such as 204, a range such as 200-399 or a class such as 2xx"

T = TypeVar("T")

MASK = "***"
"""What stands for a secret wherever the configuration is shown."""

_STATUS = r"^(?:[1-5][0-9]{2}(?:-[1-5][0-9]{2})?|[1-5]xx)$"
_IN_PATH = "A-Za-z0-9._~!$&'()*+,;=:@%-"  # RFC 3986 3.3, between two /
_HOST_AND_PORT = r"^(?:\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::[0-9]{1,5})?$"  # RFC 9110 7.2
_MAPPED = 96  # bits of ::ffff:0:0/96, below which are the IPv4 addresses (RFC 4291 section 2.5.5.2)
_BASE64URL = re.compile(r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?={0,2}")
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a value may be, in words that follow "must be", and in `few` where a table has no room for these.

    A number that has a `unit` may be written with it; a `path` is relative to the file that names it.
    """

    text: str
    few: str = ""
    unit: Unit | None = None
    path: bool = False


def _counts(unit: Unit, limit: str, few: str = "") -> tuple[BeforeValidator, Allowed]:
    """Of a number of seconds or bytes that may be written with its unit; `limit` says how large it may be."""

    def read(value: object) -> object:
        number = unit.read(value) if isinstance(value, str) else None
        return value if number is None else int(number) if number == int(number) else number

    return BeforeValidator(read), Allowed(f"{unit.value}{limit}", few, unit)


class _Word(StrEnum):
    """One of some words, whatever their case."""

    @classmethod
    def _missing_(cls, value: object) -> "_Word | None":
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class Locate(_Word):
    """When the backends are asked which of them holds a session."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class HandOver(_Word):
    """Whether clients are handed over to another instance when theirs goes away."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class StoreUrl(SecretStr):
    """Where sessions are kept: shown as it is where it is a file, else it may hold a password."""

    def _display(self) -> str:
        url = self.get_secret_value()
        return url if url.startswith("sqlite") else MASK


def _address(value: object) -> object:
    return Address.parse(value) if isinstance(value, str) else value


def _server(value: object) -> object:
    if isinstance(value, str) and value.startswith((":", "*:")):  # nobody can be asked at every interface
        raise ValueError(f"must be {SERVER_FORM}{got(value)}")
    return _address(value)


def _span(value: object) -> object:
    return value if isinstance(value, Span) else Span.parse(value)


def _door(value: object) -> object:
    return Address.parse_door(value) if isinstance(value, str) else value


def _domain(value: str) -> str:
    name = value.lower().removesuffix(".")
    if "_" in name or "." not in name or is_ip(name) or not is_host(name):
        raise ValueError(f"must be {DOMAIN_FORM}{got(value)}")
    return name


def _directory(value: str) -> str:
    if set(value) & set("@?#") or not value.startswith("https://") or not _has_host(value):
        raise ValueError(f"must be {DIRECTORY_FORM}, without a name, password or query")
    return value


def network(value: object) -> Network:
    """Read an IP network; a bare address is the network of that one address. Raises ValueError.

    One of IPv4 addresses in the dress of IPv6 is the network of these.
    """
    try:
        interface = ipaddress.ip_interface(str(value))
    except ValueError:
        raise ValueError(f"must be an IP address or network such as 10.0.0.0/8{got(value)}") from None
    if interface.ip != interface.network.network_address and "/" in str(value):
        raise ValueError(f"must not have host bits: the network is written {interface.network}{got(value)}")
    found = interface.network
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= _MAPPED:
        mapped = (
            found.network_address.ipv4_mapped
        )  # clients of such a network are known by their IPv4 address
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, found.prefixlen - _MAPPED))
    return found


def statuses(texts: Iterable[str]) -> frozenset[int]:
    """All that `health.status` names."""
    return frozenset(status for text in texts for status in _range(text))


def _range(text: str) -> range:
    low, _, high = text.replace("xx", "00").partition("-")
    return range(int(low), int(high or text.replace("xx", "99")) + 1)


def _status(value: str) -> str:
    if not _range(value):
        raise ValueError(f"must begin with the lower status: {'-'.join(value.split('-')[::-1])}{got(value)}")
    return value


def _probe_host(value: str) -> str:
    host_name(re.sub(":[0-9]+$", "", value).strip("[]"))
    return value


def _cookie_name(value: str) -> str:
    if value.lower() == "x-chainlit-session-id" or value.startswith(("access_token", "oauth_state")):
        raise ValueError(f"must not be the name of one of Chainlit's own cookies{got(value)}")
    return value


def _secret(value: SecretStr) -> SecretStr:
    # An empty one would count as set and protect nothing.
    if not value.get_secret_value():
        raise ValueError("must not be empty; leave the key out to have none")
    if value.get_secret_value() == MASK:
        raise ValueError("must be the secret itself, not the mask that stands for one where it is printed")
    return value


def _is_redis(value: SecretStr) -> bool:
    url = value.get_secret_value()  # its client knows the schemes in small letters only
    if url.startswith("unix://"):
        return "/" in url.removeprefix("unix://")
    return url.startswith(("redis://", "rediss://")) and _has_host(url)


def _is_store(value: StoreUrl) -> bool:
    url = value.get_secret_value()
    return url == "sqlite" or url.startswith("sqlite:///") or _is_redis(value)


def _otlp(value: str) -> str:
    if set(value) & set("@?"):
        raise ValueError("must hold no name, password or query: those go into OTEL_EXPORTER_OTLP_HEADERS")
    if not value.startswith(("http://", "https://")) or not _has_host(value):
        raise ValueError(f"must be {OTLP_FORM}{got(value)}")
    return value


def _has_host(url: str) -> bool:
    """Whether the host of a url can be looked up, and its port can be."""
    try:
        parts = urlsplit(url)
        return parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        return False


def _in_any_case(value: object, read: Callable[[object], object]) -> object:
    if isinstance(value, str) and not value.islower():
        with suppress(ValidationError):
            return read(value.lower())
    return read(value)  # what is wrong is told as it was written


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str | SecretStr | Address | Network) else value


def _distinct_addresses(values: tuple[Address, ...]) -> tuple[Address, ...]:
    for index, value in enumerate(values):
        if rival := next((other for other in values[:index] if value.collides_with(other)), None):
            raise ValueError(f"must not be taken twice: {value} and {rival} cannot both be bound")
    return values


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"must not hold a value twice{got(value) if isinstance(value, str) else ''}")
    return values


ONE_ALONE = BeforeValidator(_as_list)
Several = Annotated[tuple[T, ...], ONE_ALONE]

_Strict = Field(strict=True, allow_inf_nan=False)

Seconds = Annotated[float, _Strict, Field(gt=0), *_counts(Unit.SECONDS, ", greater than 0")]
SecondsOrZero = Annotated[float, _Strict, Field(ge=0), *_counts(Unit.SECONDS, ", 0 or greater")]
WholeSeconds = Annotated[
    int, Field(strict=True, ge=0), *_counts(Unit.SECONDS, ", in whole seconds, 0 or greater")
]
Hold = Annotated[  # Engine.IO's clients give a ping 20 s, pingTimeout, and Socket.IO's a connection as many
    float,
    _Strict,
    Field(ge=0, lt=20),
    *_counts(
        Unit.SECONDS, ", from 0 to below the 20 after which Engine.IO's clients give up", "0 to below 20"
    ),
]
Bytes = Annotated[int, Field(strict=True, ge=1), *_counts(Unit.BYTES, ", 1 or greater")]
BytesOrZero = Annotated[int, Field(strict=True, ge=0), *_counts(Unit.BYTES, ", 0 or greater")]
HeadBytes = Annotated[int, Field(strict=True, ge=1024), *_counts(Unit.BYTES, ", 1024 or greater")]
Rate = Annotated[float, _Strict, Field(gt=0), Allowed("a number greater than 0")]
RateOrZero = Annotated[float, _Strict, Field(ge=0), Allowed("a number, 0 or greater")]
Weight = Annotated[float, _Strict, Field(gt=0, le=100), Allowed("a number greater than 0 and at most 100")]
Share = Annotated[float, _Strict, Field(ge=0, le=1), Allowed("a number from 0 to 1")]
Factor = Annotated[float, _Strict, Field(gt=1), Allowed("a number greater than 1")]
Count = Annotated[int, Field(strict=True, ge=1), Allowed("a whole number, 1 or greater")]
CountOrZero = Annotated[int, Field(strict=True, ge=0), Allowed("a whole number, 0 or greater")]
Port = Annotated[int, Field(strict=True, ge=1, le=65535), Allowed("a whole number from 1 to 65535")]
Flag = Annotated[bool, Field(strict=True), Allowed("true or false")]
_ANY_CASE = WrapValidator(_in_any_case)

FlagOrAuto = Annotated[Literal["auto", True, False], _ANY_CASE]
HealthType = Annotated[Literal["http", "engineio", "tcp", "none"], _ANY_CASE]  # how a backend is probed
LogFormat = Annotated[Literal["console", "json"], _ANY_CASE]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], _ANY_CASE]  # the least that is written
Records = Annotated[Literal["a", "aaaa", "srv"], _ANY_CASE]
TlsVersion = Literal["1.2", "1.3"]

Text = Annotated[str, Allowed("text")]
Given = Annotated[str, Field(min_length=1), Allowed("text that is not empty", "text")]
BackendName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._:-]{1,63}$"), Allowed("1 to 63 letters, digits and . _ : -")
]
Label = Annotated[  # RFC 1123: names of Kubernetes
    str,
    Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"),
    Allowed("1 to 63 small letters, digits and -"),
]
CookieName = Annotated[  # RFC 6265 4.1.1: a token
    str,
    Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"),
    AfterValidator(_cookie_name),
    Allowed("a cookie name: letters, digits and - _ . without spaces", "cookie name"),
]
UrlPath = Annotated[
    str,
    Field(pattern=f"^/[/{_IN_PATH}]*$"),
    Allowed("a path that starts with /, without a query or spaces", "path that starts with /"),
]
File = Annotated[str, Field(pattern=r"^[^\x00]+$"), Allowed("the path of a file", "path", path=True)]
SocketMode = Annotated[str, Field(pattern="^0?[0-7]{3}$"), Allowed("three octal digits, such as 660")]
SocketPath = Annotated[str, Field(pattern=r"^/[^\x00]*$"), Allowed("the absolute path of a socket")]
HostName = Annotated[str, AfterValidator(host_name), Allowed("a host name or an IP address")]
ProbeHost = Annotated[
    str,
    Field(pattern=_HOST_AND_PORT),
    AfterValidator(_probe_host),
    Allowed("a host name or an IP address, with or without a port", "host or host:port"),
]
Replicas = Annotated[
    InstanceOf[Span], BeforeValidator(_span), PlainSerializer(Span.plain), Allowed(SPAN_FORM)
]
Status = Annotated[
    str, Field(pattern=_STATUS), AfterValidator(_status), Allowed(STATUS_FORMS, "such as 204, 200-399 or 2xx")
]
BackendUrl = Annotated[str, AfterValidator(backend_url), Allowed(URL_FORMS)]
DirectoryUrl = Annotated[str, AfterValidator(_directory), Allowed(DIRECTORY_FORM, "https URL")]
Email = Annotated[
    str, Field(pattern=r"^[^@\s,?;]+@[^@\s,?;]+$"), Allowed("an e-mail address such as ops@example.com")
]
OtlpUrl = Annotated[str, AfterValidator(_otlp), Allowed(OTLP_FORM, "http or https URL")]

Secret = Annotated[SecretStr, AfterValidator(_secret), Allowed("text")]
Secrets = Annotated[
    Several[Secret],
    Field(min_length=1),
    AfterValidator(_distinct),
    Allowed("text, or a list of one text or more, the newest first", "text, or a list"),
]
Token = Annotated[  # it travels in an Authorization header
    Secret,
    Predicate(lambda token: _VISIBLE_ASCII.fullmatch(token.get_secret_value()) is not None),
    Allowed("visible ASCII characters without spaces or line ends", "visible ASCII"),
]
Tokens = Annotated[
    Several[Token],
    Field(min_length=1),
    AfterValidator(_distinct),
    Allowed("visible ASCII characters without spaces or line ends, or a list of them", "visible ASCII"),
]
MacKey = Annotated[  # RFC 8555 section 7.3.4
    Secret,
    Predicate(lambda key: _BASE64URL.fullmatch(key.get_secret_value()) is not None),
    Allowed("the key as the authority shows it, in base64url: letters, digits, - and _", "base64url"),
]
RedisUrl = Annotated[Secret, Predicate(_is_redis), Allowed(REDIS_FORMS)]
Store = Annotated[StoreUrl, AfterValidator(_secret), Predicate(_is_store), Allowed(STORE_FORMS)]

OneAddress = Annotated[
    InstanceOf[Address], BeforeValidator(_address), PlainSerializer(str), Allowed(LISTEN_FORMS)
]
Door = Annotated[InstanceOf[Address], BeforeValidator(_door), PlainSerializer(str), Allowed(DOOR_FORMS)]
Addresses = Annotated[Several[Door], Field(min_length=1), AfterValidator(_distinct_addresses)]
Domain = Annotated[str, AfterValidator(_domain), Allowed(DOMAIN_FORM, "host name with a dot")]
Domains = Annotated[Several[Domain], Field(max_length=100), AfterValidator(_distinct)]
DnsServer = Annotated[
    InstanceOf[Address],
    BeforeValidator(_server),
    PlainSerializer(str),
    Predicate(lambda server: is_ip(server.host)),
    Allowed(SERVER_FORM, "IP:port"),
]
DnsServers = Several[DnsServer]
Networks = Several[
    Annotated[Network, BeforeValidator(network), Allowed("an IP address or network such as 10.0.0.0/8")]
]
SocketioPath = Annotated[
    str,
    Field(pattern=f"^/[/{_IN_PATH}]*[{_IN_PATH}]/*$"),
    AfterValidator(lambda path: path.rstrip("/")),
    Allowed("a path below /, such as /ws/socket.io, without a query or spaces", "path below /"),
]
SocketioPaths = Annotated[Several[SocketioPath], Field(min_length=1), AfterValidator(_distinct)]
RootPath = Annotated[UrlPath, AfterValidator(lambda path: path.rstrip("/") or "/")]
RootPaths = Annotated[Several[RootPath], AfterValidator(_distinct)]
Statuses = Annotated[Several[Status], Field(min_length=1)]
