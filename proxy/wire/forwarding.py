"""The heads that go on: what is added, replaced and taken out on the way up and on the way down.

Up: hop-by-hop fields out (RFC 9110 section 7.6.1), `Via` in (7.6.3), `X-Forwarded-For/-Proto/-Host` and
`Forwarded` (RFC 7239) set; what a client says in them, and in all fields like them, is believed only from a
trusted address, and goes no further from others. Host stays
the client's: Chainlit builds its OAuth redirect from it. Paths are passed through unchanged. Both ways the
framing fields are written anew from what was parsed, so that nobody can see another message than we did.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from proxy.wire.cookies import without_cookie
from proxy.wire.fields import HOP_BY_HOP, Fields
from proxy.wire.head import RequestHead, ResponseHead

# RFC 9110 section 7.6.3: each is named with the version in which the message came.
OUR_NAME = b"chainlit-proxy"
_VIA = (b"1.0 " + OUR_NAME, b"1.1 " + OUR_NAME)
_VIA_HTTP2 = b"2.0 " + OUR_NAME
# An address in X-Forwarded-For; some proxies add the port.
_PORT = rb"(?::[0-9]{1,5})?"
_HOP = re.compile(
    rb"\[([0-9A-Fa-f:.]{2,45})\]" + _PORT + rb"|([0-9.]{7,15})" + _PORT + rb"|([0-9A-Fa-f:.]{2,45})"
)
# Version, trace, parent and flags; ff and ids of zeros are invalid, versions after 00 may have further parts.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
HTTP1, HTTP2 = "http/1.1", "h2"  # RFC 7301 section 6, RFC 9113 section 3.1
UNIX = "unix"  # the address of whoever comes by a socket file: none that could be told
_MOST_HOPS = 100  # proxies in a row that may be trusted: a client can write their addresses before its own
_MOST_ORIGINS = 8192  # of which is remembered what their requests get
_REWRITTEN = HOP_BY_HOP | {b"content-length", b"via", b"x-request-id"}
_FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"}
# A probe's question: who could ask it through here could prove to be an instance (proxy/sessions/proof.py).
_OURS = {b"x-chainlit-proxy-challenge"}


class Variant(StrEnum):
    """What a request is, as far as its fields are rewritten differently for it."""

    __hash__ = str.__hash__  # that of Enum is a call of Python

    NORMAL = "normal"
    INSPECTED = "inspected"  # its body was read here, so Expect is answered already
    POLLING_HANDSHAKE = "polling_handshake"  # its answer is rewritten, so it must come uncompressed
    REHOME = "rehome"  # a polling handshake made for a client, from the fields of its POST
    LOCATE = "locate"  # a question to a backend on behalf of a client
    SOCKETIO_UPGRADE = "socketio_upgrade"  # its first message is read, so compression is not offered
    UPGRADE = "upgrade"
    FINITE = "finite"  # its Max-Forwards counts, and one hop is taken off


_OF_BODY = {b"content-type", b"content-encoding", b"expect", b"trailer"}
_DROPPED = {
    variant: _REWRITTEN | _FORWARDED | _OURS | {b"cookie"} | without
    for variant, without in {
        Variant.NORMAL: set[bytes](),
        Variant.INSPECTED: {b"expect"},
        Variant.POLLING_HANDSHAKE: {b"accept-encoding"},
        Variant.REHOME: _OF_BODY | {b"accept-encoding"},
        Variant.LOCATE: _OF_BODY | {b"accept-encoding", b"range", b"if-none-match", b"if-modified-since"},
        Variant.SOCKETIO_UPGRADE: {b"sec-websocket-extensions"},
        Variant.UPGRADE: set[bytes](),
        Variant.FINITE: {b"max-forwards"},
    }.items()
}
_OWN = (Variant.REHOME, Variant.LOCATE)  # requests of the proxy itself, without a body
_LONGEST_TRACE = 1024  # bytes: W3C Trace Context section 3.3.1.5 has proxies pass on 512 of tracestate
_UPGRADES = (Variant.SOCKETIO_UPGRADE, Variant.UPGRADE)
_ANSWERED_AS_IT_IS = (Variant.NORMAL, Variant.INSPECTED, Variant.FINITE)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a connection's requests come from; compared by identity, so that it is cheap to look up.

    The Site makes one for all connections from there.
    """

    address: str  # of the peer, or as its PROXY header has it; "unix" for a socket file
    scheme: bytes  # http or https
    trusted: bool  # whether the peer's own forwarding fields are believed
    peer: str = ""  # who sent that header, "" where the peer speaks for itself
    protocol: str = HTTP1  # what is spoken on it, as ALPN calls it
    hops: int = 0  # addresses that those in front add to X-Forwarded-For; 0: their networks are known


def request_fields(head: RequestHead, origin: Origin, variant: Variant, cookie: bytes) -> bytes:
    """The field block that goes to the backend, all but the request id and the empty line.

    `cookie` is the name of the pin cookie, which never goes on.
    """
    fields = head.fields
    dropped = _DROPPED[variant]
    if claims := fields.claims(trusted=origin.trusted):
        dropped |= claims
    if head.minor == 0:
        dropped |= {b"expect"}  # RFC 9110 section 10.1.1: it says nothing in HTTP/1.0
    out = [fields.end_to_end(dropped)]
    for value in fields.get_all(b"cookie"):
        kept = without_cookie(value, cookie)
        if kept:
            out.append(b"Cookie: %b\r\n" % kept)
    if head.minor == 0 and fields.get(b"host") is None:
        out.append(b"Host: localhost\r\n")
    out.append(_forwarded(fields, origin))
    out.append(_via(fields, _VIA_HTTP2 if origin.protocol == HTTP2 else _VIA[head.minor]))
    if variant in _UPGRADES:
        out.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % fields.upgrade)
    elif variant in _ANSWERED_AS_IT_IS and _takes_trailers(fields):
        # Trailers are passed on, so a client that takes them is taken at its word for our connection as well.
        out.append(b"Connection: TE\r\nTE: trailers\r\n")
    if variant is Variant.FINITE and fields.max_forwards.isdigit():
        out.append(b"Max-Forwards: %d\r\n" % max(int(fields.max_forwards) - 1, 0))
    if variant not in _OWN:
        out.append(_framing(fields))
    return b"".join(out)


def trace_id(fields: Fields) -> str:
    """The trace that `traceparent` names (W3C Trace Context, section 3.2), "" if it names none."""
    given = fields.get_all(b"traceparent")
    match = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    return match[1].decode("ascii") if match else ""


def trace_fields(fields: Fields) -> Fields:
    """Those alone that tell of the trace; none of them if they are too long to be kept for hours."""
    lines = [line.raw + b"\r\n" for line in fields.lines if line.name in (b"traceparent", b"tracestate")]
    block = b"".join(lines)
    return Fields(block if len(block) <= _LONGEST_TRACE else b"")


def _takes_trailers(fields: Fields) -> bool:
    """Whether the sender takes trailers (RFC 9110 section 10.1.4: Connection has to nominate TE)."""
    if b"te" not in fields.nominated:
        return False
    codings = b",".join(fields.get_all(b"te")).lower().split(b",")
    return any(coding.strip(b" \t") == b"trailers" for coding in codings)


def _framing(fields: Fields) -> bytes:
    """The one line that says where the body ends, or none (RFC 9112 section 6)."""
    if fields.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    return b"" if fields.length is None else b"Content-Length: %d\r\n" % fields.length


def _via(fields: Fields, ours: bytes) -> bytes:
    if fields.via:
        return b"Via: %b, %b\r\n" % (fields.via, ours)
    return b"Via: %b\r\n" % ours


@lru_cache(maxsize=8192)
def read_address(text: str) -> IPAddress | None:
    """An IP address; an IPv4 one in the dress of IPv6 as itself: a listener for both families sees these.

    The zone of a link-local one is dropped (RFC 4007 section 6): it means something on this machine only.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        return address.ipv4_mapped or address
    return address


def client_address(fields: Fields, origin: Origin, is_trusted: Callable[[IPAddress], bool]) -> str:
    """The client's own address: the peer's, or what trusted peers say of it.

    Every proxy adds who it was asked by at the end of X-Forwarded-For, so the list is read from there, as
    far as those who wrote it are trusted; what is before that, anybody may have made up. Where it is known
    how many they add, so many are read, whoever they are: with fewer in it, the first.
    """
    address, counted = origin.address, origin.hops
    if not origin.trusted:
        return address
    hops = b",".join(fields.get_all(b"x-forwarded-for")).split(b",")
    for hop in reversed(hops[-(counted or _MOST_HOPS) :]):
        ip = _read_hop(hop)
        if ip is None:
            break  # nobody knows who that is: the one who said so has to do
        address = str(ip)
        if not counted and not is_trusted(ip):
            break
    return address


def _read_hop(hop: bytes) -> IPAddress | None:
    match = _HOP.fullmatch(hop.strip(b" \t"))
    return read_address(match[match.lastindex or 0].decode("ascii")) if match else None


def client_scheme(fields: Fields, origin: Origin) -> bytes:
    """The scheme of the client's own request, http or https, by what trusted peers say of it.

    Each may have added its own value at the end of X-Forwarded-Proto, so the first is the client's, of those
    that count. Some say wss of a websocket. Without it the first element of Forwarded tells (RFC 7239 section
    5.4), unless it is counted who may be believed: a client can write that one.
    """
    if not origin.trusted:
        return origin.scheme
    said = b",".join(fields.get_all(b"x-forwarded-proto")).split(b",")[-origin.hops :][0]
    if not said and not origin.hops:
        element = b",".join(fields.get_all(b"forwarded")).partition(b",")[0]
        pairs = (pair.strip(b" \t") for pair in element.split(b";"))
        said = next((pair[6:].strip(b'"') for pair in pairs if pair[:6].lower() == b"proto="), b"")
    return _SCHEMES.get(said.strip(b" \t").lower(), origin.scheme)


def _forwarded(fields: Fields, origin: Origin) -> bytes:
    host = fields.get(b"host") or b""
    before, element = _seen(origin)
    if host:
        # RFC 7239 section 4: a value with characters beyond a token is quoted.
        element = b'%b;host="%b"' % (element, host)
    if not origin.trusted:
        return b"%bX-Forwarded-Host: %b\r\nForwarded: %b\r\n" % (before, host, element)
    chain, elements = fields.get_all(b"x-forwarded-for"), fields.get_all(b"forwarded")
    proto = client_scheme(fields, origin)
    if origin.hops:  # what is before is nobody's word that counts, and nobody has counted in Forwarded
        chain = [hop.strip(b" \t") for hop in b",".join(chain).split(b",")[-origin.hops :]] if chain else []
        elements = [b"for=" + _node(_read_hop(hop)) for hop in chain]
        if elements:
            elements[0] += b";proto=" + proto
    if origin.address != UNIX:
        chain.append(origin.address.encode())
    lines = [b"X-Forwarded-For: %b\r\n" % b", ".join(chain)] if chain else []
    shown_host = fields.get(b"x-forwarded-host") or host
    lines.append(b"X-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (proto, shown_host))
    lines.append(b"Forwarded: %b\r\n" % b", ".join([*elements, element]))
    return b"".join(lines)


@lru_cache(maxsize=_MOST_ORIGINS)
def _seen(origin: Origin) -> tuple[bytes, bytes]:
    """What a stranger's requests get of its address: two lines, and the start of an element of Forwarded."""
    node = _node(read_address(origin.address))
    chain = b"" if origin.address == UNIX else b"X-Forwarded-For: %b\r\n" % origin.address.encode()
    return chain + b"X-Forwarded-Proto: %b\r\n" % origin.scheme, b"for=%b;proto=%b" % (node, origin.scheme)


def _node(ip: IPAddress | None) -> bytes:
    """How Forwarded names an address (RFC 7239 section 6)."""
    if ip is None:
        return b"unknown"
    return (b'"[%b]"' if ip.version == 6 else b"%b") % str(ip).encode()


_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}


def request_head(method: bytes, target: bytes, fields: bytes, request_id: bytes) -> bytes:
    """The head that goes to the backend."""
    return b"".join(
        (method, b" ", target, b" HTTP/1.1\r\n", fields, b"X-Request-ID: ", request_id, b"\r\n\r\n")
    )


def plain_answer(head: ResponseHead) -> tuple[bytes, bytes] | tuple[()]:
    """What goes before and after the request id in the head of a counted 200 to an HTTP/1.1 client.

    Made once for equal heads; empty if it is another response.
    """
    fields = head.fields
    answer = fields.answer
    if answer is None:
        answer = ()
        if head.status == 200 and fields.length is not None:
            opening = b"HTTP/1.1 200 %b\r\n%bX-Request-ID: " % (head.reason, _passed(head))
            answer = (opening, b"\r\n%b\r\n" % _framing(fields))
        fields.answer = answer
    return answer


def _passed(head: ResponseHead) -> bytes:
    """The fields that go on as they came."""
    fields = head.fields
    passed = fields.passed
    if passed is None:
        passed = fields.passed = fields.end_to_end(_REWRITTEN) + _via(fields, _VIA[head.minor])
    return passed


def response_head(
    head: ResponseHead,
    request: RequestHead,
    request_id: bytes,
    *,
    close: bool,
    extra: bytes = b"",
    length: int | None = None,
    unpacked: bool = False,
) -> bytes:
    """The head that goes to the client.

    `close` says that the connection ends with this message; `length` replaces the body's framing;
    `extra` are further lines; `unpacked` says that the body's content coding was taken off.
    """
    status, reason, _, fields, _ = head
    passed = _passed(head)
    if (length is not None or not request.minor) and fields.get(b"trailer") is not None:
        # RFC 9110 section 6.6.2: what announces trailers goes with them, where the body is framed anew.
        passed = fields.end_to_end(_REWRITTEN | {b"trailer"}) + _via(fields, _VIA[head.minor])
    if unpacked and fields.get(b"content-encoding") is not None:
        passed = fields.end_to_end(_REWRITTEN | {b"content-encoding"}) + _via(fields, _VIA[head.minor])
    last = b""
    if status == 101:
        last = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % fields.upgrade
    elif status >= 200:
        if length is not None:
            last = b"Content-Length: %d\r\n" % length
        elif status != 204 and (request.minor or not fields.chunked):  # RFC 9110 section 8.6: never with 204
            last = _framing(fields)
        if close:
            last += b"Connection: close\r\n"
        elif not request.minor:
            last += b"Connection: keep-alive\r\n"
    return b"HTTP/1.1 %d %b\r\n%bX-Request-ID: %b\r\n%b%b\r\n" % (
        status,
        reason,
        passed,
        request_id,
        extra,
        last,
    )
