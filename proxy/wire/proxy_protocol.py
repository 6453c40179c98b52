r"""The header by which a load balancer says whom a connection is for: PROXY protocol, versions 1 and 2.

Rules, from the specification that HAProxy keeps (doc/proxy-protocol.txt): version 1 is one line of at most
107 bytes, version 2 is binary and says how long it is. Both stand before everything else, TLS included. One
that names no client (`UNKNOWN`, `LOCAL`, a socket file's) leaves the connection to who made it. What follows
the addresses in version 2 is skipped unread. Anything that is not exactly so is refused: its sender is
trusted, and what we misread would be a client's address.
"""

import ipaddress
import re
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""How version 2 begins: in no other protocol can this be the start."""

LONGEST = 4096  # bytes of a header: addresses take at most 216, the rest are extensions, unread here
_LONGEST_LINE = 107  # section 2.1, its line end included
_FIXED = 16  # bytes of version 2 before the addresses
_LINE = re.compile(
    rb"PROXY (?:(TCP4) ([0-9.]{7,15}) ([0-9.]{7,15})|(TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_HIGHEST_PORT = 65535
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the upper half, the command in the lower
_TCP4, _TCP6 = 0x11, 0x21
_NAMES_NOBODY = (0x00, 0x31)  # nothing said; a unix socket
_ADDRESSES = {_TCP4: 12, _TCP6: 36}  # bytes: two addresses and two ports


class ProxyHeader(NamedTuple):
    """A header that is whole: how many bytes it took, and the client's address, "" if it names none."""

    length: int
    client: str


class ProxyHeaderError(Exception):
    """What a connection began with is no PROXY header; the text says why."""


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header at the start of a connection, None until more bytes come; raises ProxyHeaderError.

    Bytes that did not make it whole all belong to it.
    """
    if data.startswith(SIGNATURE):
        return _read_binary(data)
    if SIGNATURE.startswith(data):
        return None
    if not data.startswith(b"PROXY "[: len(data)]):
        raise ProxyHeaderError("it did not begin with one")
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(data) >= _LONGEST_LINE:
            raise ProxyHeaderError("its line is too long")
        return None
    return ProxyHeader(end + 2, _client_of(data[:end]))


def _client_of(line: bytes) -> str:
    match = _LINE.fullmatch(line)
    if match is None:
        if _UNKNOWN.fullmatch(line) is None:
            raise ProxyHeaderError("its line is malformed")
        return ""
    _, source4, target4, _, source6, target6, *ports = match.groups()
    if any(int(port) > _HIGHEST_PORT for port in ports):
        raise ProxyHeaderError("it holds no port")
    parse = ipaddress.IPv4Address if source4 else ipaddress.IPv6Address
    try:
        client, _ = (str(parse(text.decode("ascii"))) for text in (source4 or source6, target4 or target6))
    except ValueError:
        raise ProxyHeaderError("it holds no address") from None
    return client


def _read_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:_FIXED], "big")
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("its version or command is unknown")
    if _FIXED + length > LONGEST:
        raise ProxyHeaderError("it is too long")
    if command == _PROXY and family not in _NAMES_NOBODY and length < _ADDRESSES.get(family, LONGEST):
        raise ProxyHeaderError("its addresses are of another kind, or cut short")
    if len(data) < _FIXED + length:
        return None
    client = ""
    if command == _PROXY and family == _TCP4:
        client = str(ipaddress.IPv4Address(data[_FIXED : _FIXED + 4]))
    elif command == _PROXY and family == _TCP6:
        client = str(ipaddress.IPv6Address(data[_FIXED : _FIXED + 16]))
    return ProxyHeader(_FIXED + length, client)
