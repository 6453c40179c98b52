"""Addresses in the configuration: where a listener binds, and where a backend is.

Rules: a listener is `host:port`, `[v6]:port` or `unix:/path`, where `:port` and `*:port` are `0.0.0.0:port`;
one that only leads to HTTPS is `http://host:port`; a backend is `http://host:port`, `https://host:port` or
`http+unix:///path`.
What cannot be meant is refused with the form that is allowed. Names are not resolved here, but each is one
that can be looked up (RFC 1123 2.1, and the underscore that Docker and SRV records use).
A text that may hold a password is never repeated in a message.
"""

import ipaddress
import re
from dataclasses import dataclass, field, replace
from typing import Self

from proxy.config.problems import got

LISTEN_FORMS = "host:port, :port for every interface, [v6]:port or unix:/path"
DOOR_FORMS = f"{LISTEN_FORMS}; with TLS also http://host:port, which only redirects to https"
URL_FORMS = "http://host:port, https://host:port or http+unix:///path"
UNIX = "http+unix://"
"""How the url of a backend on a unix socket begins."""

_NAME_FORM = (
    "a host name is labels of 1 to 63 letters, digits, - and _ with dots between them, at most 253 characters"
)
_NAME_CHARACTERS = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME = 253  # RFC 1035 2.3.4: 255 bytes on the wire
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_UNIX_PATH_BYTES = 107  # sun_path has 108 with its final zero
_HIGHEST_PORT = 65535
_EVERY = "0.0.0.0"  # noqa: S104 - whoever writes no host asks for it
_EVERYWHERE = {_EVERY, "::"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: `host` and `port`, or `path` of a unix socket (then host is empty).

    A listener that is `plain` speaks no TLS where the others do, and only leads there. It is the same address
    with and without: its socket can be bound once.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    plain: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the address of a listener; port 0 means any free one. Raises ValueError."""
        if text.startswith("unix:"):
            return cls(path=_unix_path(text))
        if text.isdecimal():
            raise ValueError(
                f'must be ":{text}" for every interface, or "127.0.0.1:{text}" for this machine only'
                + got(text)
            )
        is_bare = text.startswith((":", "*:"))
        if (pair := _host_and_port(_EVERY + text.removeprefix("*") if is_bare else text)) is None:
            raise ValueError(f"must be {LISTEN_FORMS}{_of_names(text)}{got(text)}")
        return cls(*pair)

    @classmethod
    def parse_door(cls, text: str) -> Self:
        """Read the address of a listener for clients. Raises ValueError."""
        if not text.startswith("http://"):
            return cls.parse(text)
        address = cls.parse(text.removeprefix("http://"))
        if address.is_unix:
            raise ValueError(f"must be {DOOR_FORMS}{got(text)}")
        return replace(address, plain=True)

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.is_unix or self.host.lower() == "localhost":
            return True
        return is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback

    def collides_with(self, other: "Address") -> bool:
        """Return whether the two cannot both be bound for certain; names are not resolved."""
        if self.is_unix or other.is_unix:
            return self.path == other.path
        hosts = {self.host, other.host}
        if self.port != other.port or self.port == 0:
            return False
        if "0.0.0.0" in hosts:  # noqa: S104 - compared, not bound
            return not any(":" in host for host in hosts)
        return len(hosts) == 1 or ("::" in hosts and all(":" in host for host in hosts))

    def answers(self, other: "Address") -> bool:
        """Return whether who connects to `other` on this machine is answered here, for certain."""
        host = "localhost" if other.host in _EVERYWHERE else other.host.lower().removesuffix(".")
        if (self.port, self.path) != (other.port, other.path):
            return False
        if self.host in _EVERYWHERE:
            return Address(host).is_loopback and (self.host == "::" or ":" not in host)
        hosts = {self.host.lower(), host}
        return len(hosts) == 1 or ("localhost" in hosts and hosts <= {"localhost", "127.0.0.1", "::1"})

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http://' if self.plain else ''}{host}:{self.port}"


def backend_url(text: str) -> str:
    """Return the url of a backend in its one form, all lower case. Raises ValueError."""
    shown = "" if set(text) & set("@?#") else got(text)
    scheme, found, rest = text.partition("://")
    if not found or scheme.lower() not in {"http", "https", "http+unix"}:
        raise ValueError(f"must be {URL_FORMS}{shown}")
    if scheme.lower() == "http+unix":
        if set(rest) & set("%?#"):
            raise ValueError("must be http+unix:// and the absolute path of a socket as it is, without % ? #")
        return f"http+unix://{_unix_path(rest, 'http+unix:///run/app.sock')}"
    authority, _, path = rest.partition("/")
    if path:
        raise ValueError(
            "must end after the port: the proxy passes paths through unchanged; to serve below a path, "
            f"start Chainlit with --root-path{shown}"
        )
    if set(authority) & set("@?#"):
        raise ValueError(f"must be {URL_FORMS} without a user name, query or fragment")
    if _ADDRESS.fullmatch(authority) is None and ":" not in authority.rpartition("]")[2]:
        raise ValueError(f"must name the port, as in http://127.0.0.1:8001{shown}")
    pair = _host_and_port(authority)
    if pair is None or pair[1] == 0:
        raise ValueError(f"must be {URL_FORMS}{_of_names(authority)}{shown}")
    return f"{scheme}://{Address(*pair)}".lower()


def backend_name(url: str) -> str:
    """Return what a backend is called that has no name of its own."""
    if url.startswith(UNIX):  # the file's name, as far as a backend may be called so
        return re.sub(r"[^A-Za-z0-9._:-]", "_", url.rpartition("/")[2].removesuffix(".sock"))[:63]
    host, _, port = url.partition("://")[2].rpartition(":")
    # The final dot of an absolute name says how it is looked up, not whose it is.
    return f"{host.removesuffix('.')}:{port}".translate(str.maketrans("%", "_", "[]"))


def host_name(text: str) -> str:
    """Return the name or the address of a host as it is. Raises ValueError."""
    if not is_host(text):
        raise ValueError(f"must be a host name or an IP address{_of_names(f'{text}:1')}{got(text)}")
    return text


def is_host(text: str) -> bool:
    """Return whether a text is the name or the address of a host, an IPv6 one without brackets."""
    return _host_and_port(f"[{text}]:1" if ":" in text else f"{text}:1") is not None


def _host_and_port(text: str) -> tuple[str, int] | None:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > _HIGHEST_PORT:
        return None
    if match["v6"] is not None:
        return (match["v6"], int(match["port"])) if is_ip(match["v6"], 6) else None
    host = match["host"]
    looks_like_v4 = host.removesuffix(".").rpartition(".")[2].isdecimal()
    if not _is_name(host) or (looks_like_v4 and not is_ip(host, 4)):
        return None
    return host, int(match["port"])


def _is_name(host: str) -> bool:
    name = host.removesuffix(".")
    return len(name) <= _LONGEST_NAME and all(map(_LABEL.fullmatch, name.split(".")))


def _of_names(text: str) -> str:
    """More words for a message where the characters are those of a name, and yet it is none."""
    match = _ADDRESS.fullmatch(text)
    host = (match and match["host"]) or ""
    return f"; {_NAME_FORM}" if _NAME_CHARACTERS.fullmatch(host) and not _is_name(host) else ""


def is_ip(text: str, *versions: int) -> bool:
    """Return whether a text is an IP address, of one of some versions."""
    try:
        return ipaddress.ip_address(text).version in (versions or (4, 6))
    except ValueError:
        return False


def _unix_path(text: str, example: str = "unix:/run/proxy.sock") -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        form = example.partition("/run")[0]
        raise ValueError(f"must be {form} and the absolute path of a socket, as in {example}{got(text)}")
    if len(path.encode(errors="surrogateescape")) > _UNIX_PATH_BYTES:
        raise ValueError(f"must have a shorter path: a unix socket's has at most {_UNIX_PATH_BYTES} bytes")
    return path
