"""The heads that go on (RFC 9110 section 7.6, RFC 7239): what passes, what is new, what is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.body import request_body
from proxy.wire.fields import Fields
from proxy.wire.forwarding import (
    Origin,
    Variant,
    client_address,
    request_fields,
    request_head,
    response_head,
)
from proxy.wire.head import RequestHead, ResponseHead, parse_request, parse_response

STRANGER = Origin("192.0.2.1", b"http", trusted=False)
FRIEND = Origin("10.0.0.1", b"http", trusted=True)
UP = [variant for variant in Variant if variant not in (Variant.REHOME, Variant.LOCATE)]


def request(lines: str = "", start: str = "GET / HTTP/1.1\nHost: h") -> RequestHead:
    """A request's head from further lines."""
    text = start + "\n" + lines.strip()
    return parse_request((text.strip().replace("\n", "\r\n") + "\r\n\r\n").encode("latin-1"))


def sent(
    lines: str = "",
    origin: Origin = STRANGER,
    variant: Variant = Variant.NORMAL,
    start: str = "GET / HTTP/1.1\nHost: h",
) -> Fields:
    """The fields that go to the backend, parsed again: what is written is always valid."""
    return Fields(request_fields(request(lines, start), origin, variant, b"pin"))


def test_the_whole_head_of_a_common_request() -> None:
    """Byte for byte: what a backend gets for a poll of a browser."""
    head = request("User-Agent: x\nConnection: keep-alive\nCookie: a=1; pin=t; b=2\nAccept: */*")
    block = request_fields(head, STRANGER, Variant.NORMAL, b"pin")
    assert request_head(b"GET", b"/x?y", block, b"id").decode().split("\r\n") == [
        "GET /x?y HTTP/1.1",
        "Host: h",
        "User-Agent: x",
        "Accept: */*",
        "Cookie: a=1; b=2",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: h",
        'Forwarded: for=192.0.2.1;proto=http;host="h"',
        "Via: 1.1 chainlit-proxy",
        "X-Request-ID: id",
        "",
        "",
    ]


# lines of the client, what is left of the names in them
TAKEN_OUT = [
    ("Connection: keep-alive", {}),
    ("Connection: foo, keep-alive\nFoo: 1\nBar: 2", {"bar": ["2"]}),
    ("Keep-Alive: timeout=5", {}),
    ("Proxy-Connection: keep-alive", {}),
    ("Proxy-Authorization: Basic x", {}),
    ("TE: trailers\nTrailer: X", {"te": [], "trailer": ["X"]}),
    ("Upgrade: websocket", {}),
    ("Connection: upgrade, http2-settings\nUpgrade: h2c\nHTTP2-Settings: x", {}),
    ("X-Request-ID: theirs", {}),
    ("X-Chainlit-Proxy-Challenge: 1", {}),  # else a stranger could have an instance prove for it
    ("Cookie: pin=t", {}),
    ("Cookie: pin=t\nCookie: a=1", {"cookie": ["a=1"]}),
    ("Connection: cookie\nCookie: a=1", {"connection": [], "cookie": ["a=1"]}),
    ("Authorization: Bearer x\nX-A: 1\nX-A: 2", {"authorization": ["Bearer x"], "x-a": ["1", "2"]}),
    ("Expect: 100-continue", {"expect": ["100-continue"]}),
]


@pytest.mark.parametrize(("lines", "left"), TAKEN_OUT)
def test_what_does_not_go_up(lines: str, left: dict[str, list[str]]) -> None:
    """RFC 9110 section 7.6.1: fields of one connection end here; so do our cookie and a stranger's id."""
    fields = sent(lines)
    for name in {line.split(":")[0].lower() for line in lines.split("\n")}:
        assert fields.get_all(name.encode()) == [value.encode() for value in left.get(name, [])], name


# lines of the client, the framing that goes up
FRAMING = [
    ("", []),
    ("Content-Length: 5", [b"Content-Length: 5"]),
    ("content-length:\t0005 ", [b"Content-Length: 5"]),
    ("Content-Length: 0", [b"Content-Length: 0"]),
    ("Transfer-Encoding: chunked", [b"Transfer-Encoding: chunked"]),
    ("transfer-encoding:CHUNKED ", [b"Transfer-Encoding: chunked"]),
    ("Connection: content-length\nContent-Length: 5", [b"Content-Length: 5"]),
    ("Connection: transfer-encoding\nTransfer-Encoding: chunked", [b"Transfer-Encoding: chunked"]),
]


@pytest.mark.parametrize("variant", UP)
@pytest.mark.parametrize(("lines", "framing"), FRAMING)
def test_framing_goes_up_as_it_was_understood(lines: str, framing: list[bytes], variant: Variant) -> None:
    """RFC 9112 section 11.2: one framing field, of our spelling, in every kind of request: no smuggling."""
    fields = sent(lines, variant=variant)
    framed = {b"content-length", b"transfer-encoding"}
    assert [line.raw for line in fields.lines if line.name in framed] == framing


@pytest.mark.parametrize("variant", [Variant.REHOME, Variant.LOCATE])
def test_own_requests_have_no_body(variant: Variant) -> None:
    """What the proxy asks on a client's behalf takes over who it is, and nothing of its body."""
    lines = (
        "Content-Type: a/b\nContent-Encoding: gzip\nExpect: 100-continue\nAccept-Encoding: br\nCookie: a=1"
    )
    for framing in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        fields = sent(f"{lines}\n{framing}", variant=variant)
        assert (fields.length, fields.chunked) == (None, False)
        for name in (b"content-type", b"content-encoding", b"expect", b"accept-encoding"):
            assert fields.get(name) is None
        assert fields.get(b"cookie") == b"a=1"


# variant, lines, names that do not go up
VARIANTS = [
    (Variant.INSPECTED, "Expect: 100-continue", b"expect"),
    (Variant.POLLING_HANDSHAKE, "Accept-Encoding: gzip", b"accept-encoding"),
    (Variant.LOCATE, "Range: bytes=0-1", b"range"),
    (Variant.LOCATE, 'If-None-Match: "x"', b"if-none-match"),
    (Variant.LOCATE, "If-Modified-Since: x", b"if-modified-since"),
    (Variant.SOCKETIO_UPGRADE, "Sec-WebSocket-Extensions: permessage-deflate", b"sec-websocket-extensions"),
]


@pytest.mark.parametrize(("variant", "lines", "name"), VARIANTS)
def test_what_a_kind_of_request_leaves_out(variant: Variant, lines: str, name: bytes) -> None:
    """Each kind drops what its answer must not depend on; a normal request keeps it."""
    assert sent(lines, variant=variant).get(name) is None
    assert sent(lines).get(name) is not None


@pytest.mark.parametrize("variant", [Variant.UPGRADE, Variant.SOCKETIO_UPGRADE])
def test_upgrades_are_asked_for_anew(variant: Variant) -> None:
    """RFC 9110 section 7.8: Upgrade speaks of one connection, so we say it for ours."""
    lines = (
        "Connection: keep-alive, Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: k\nSec-WebSocket-Protocol: p"
    )
    fields = sent(lines, variant=variant)
    assert fields.get_all(b"connection") == [b"Upgrade"]
    assert fields.get_all(b"upgrade") == [b"websocket"]
    assert (fields.get(b"sec-websocket-key"), fields.get(b"sec-websocket-protocol")) == (b"k", b"p")


def test_older_clients() -> None:
    """HTTP/1.0: a Host for the backend, no Expect (RFC 9110 section 10.1.1), and Via tells the version."""
    fields = sent("Expect: 100-continue", start="GET / HTTP/1.0")
    assert (fields.get(b"host"), fields.get(b"expect")) == (b"localhost", None)
    assert fields.get_all(b"via") == [b"1.0 chainlit-proxy"]
    assert sent(start="GET / HTTP/1.0\nHost: own").get_all(b"host") == [b"own"]


def test_via_is_added_at_the_end() -> None:
    """RFC 9110 section 7.6.3: every proxy adds itself behind those before it."""
    assert sent("Via: 1.1 a\nVia: 1.0 b (c)").get_all(b"via") == [b"1.1 a, 1.0 b (c), 1.1 chainlit-proxy"]


SAID = """X-Forwarded-For: 203.0.113.7
X-Forwarded-For: 198.51.100.1
X-Forwarded-Proto: https
X-Forwarded-Host: chat.example.org
Forwarded: for=203.0.113.7;proto=https"""

# origin, lines, X-Forwarded-For, -Proto, -Host, Forwarded
FORWARDED = [
    (STRANGER, "", b"192.0.2.1", b"http", b"h", b'for=192.0.2.1;proto=http;host="h"'),
    (STRANGER, SAID, b"192.0.2.1", b"http", b"h", b'for=192.0.2.1;proto=http;host="h"'),
    (FRIEND, "", b"10.0.0.1", b"http", b"h", b'for=10.0.0.1;proto=http;host="h"'),
    (FRIEND, SAID, b"203.0.113.7, 198.51.100.1, 10.0.0.1", b"https", b"chat.example.org",
     b'for=203.0.113.7;proto=https, for=10.0.0.1;proto=http;host="h"'),
    (Origin("2001:db8::1", b"https", trusted=False), "", b"2001:db8::1", b"https", b"h",
     b'for="[2001:db8::1]";proto=https;host="h"'),
    (Origin("unix", b"http", trusted=True), SAID, b"203.0.113.7, 198.51.100.1", b"https", b"chat.example.org",
     b'for=203.0.113.7;proto=https, for=unknown;proto=http;host="h"'),
    (Origin("10.0.0.1", b"http", trusted=True, hops=1), SAID, b"198.51.100.1, 10.0.0.1", b"https",
     b"chat.example.org", b'for=198.51.100.1;proto=https, for=10.0.0.1;proto=http;host="h"'),
    (Origin("unix", b"http", trusted=True), "", None, b"http", b"h", b'for=unknown;proto=http;host="h"'),
]  # fmt: skip


@pytest.mark.parametrize(("origin", "lines", "chain", "proto", "host", "forwarded"), FORWARDED)
def test_forwarding_fields(
    origin: Origin, lines: str, chain: bytes | None, proto: bytes, host: bytes, forwarded: bytes
) -> None:
    """RFC 7239: each field once, whatever came; what came is believed from trusted addresses only."""
    fields = sent(lines, origin)
    names = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")
    expected = [[chain] if chain else [], [proto], [host], [forwarded]]
    assert [fields.get_all(name) for name in names] == expected


# origin, lines, the client's address
ADDRESSES = [
    (STRANGER, "", "192.0.2.1"),
    (STRANGER, SAID, "192.0.2.1"),
    (FRIEND, "", "10.0.0.1"),
    (FRIEND, SAID, "198.51.100.1"),
    (FRIEND, "X-Forwarded-For: 203.0.113.7 , 198.51.100.1 ", "198.51.100.1"),
    (FRIEND, "X-Forwarded-For:", "10.0.0.1"),
    (FRIEND, "X-Forwarded-For: 203.0.113.7,", "10.0.0.1"),
]


@pytest.mark.parametrize(("origin", "lines", "address"), ADDRESSES)
def test_client_address(origin: Origin, lines: str, address: str) -> None:
    """A trusted proxy names its client last; a stranger is who it is."""
    assert client_address(request(lines).fields, origin, lambda ip: str(ip) == FRIEND.address) == address


PIECES = [
    "Connection: close, x-a", "Connection: content-length, host, via", "X-A: 1", "TE: trailers", "Trailer: x",
    "Content-Length: 7", "Transfer-Encoding: chunked", "Cookie: pin=1; a=2", "Via: 1.1 z",
    "Upgrade: websocket", "X-Forwarded-For: evil", "Forwarded: for=evil",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=6, unique=True), st.sampled_from(UP))
def test_the_backend_sees_the_body_that_we_saw(lines: list[str], variant: Variant) -> None:
    """Whatever a client combines, the head that goes up is valid and frames the body alike."""
    text = "\n".join(lines)
    if "Content-Length" in text and "Transfer" in text:
        return
    before = request(text)
    block = request_fields(before, STRANGER, variant, b"pin")
    after = parse_request(request_head(b"POST", b"/x", block, b"id"))
    assert (after.fields.length, after.fields.chunked) == (before.fields.length, before.fields.chunked)
    assert type(request_body(after.fields)) is type(request_body(before.fields))
    assert after.fields.get_all(b"host") == [b"h"]
    assert b"evil" not in block


METHOD = st.text("GETPOSgetpos-!~", min_size=1, max_size=32).map(str.encode)
TARGET = st.text(alphabet=[chr(c) for c in range(0x21, 0x7F) if c != ord("#")], max_size=30)
VALUE = st.text(st.characters(max_codepoint=255, exclude_characters="".join(map(chr, range(32))) + "\x7f"))
LINES = st.lists(st.tuples(st.text("abcXYZ-09", min_size=1, max_size=9), VALUE), max_size=5)


def block_of(pairs: list[tuple[str, str]]) -> str:
    """Fields that are no hop's own."""
    return "".join(f"\nx-{name}: {value.strip(' ')}" for name, value in pairs)


@given(METHOD, TARGET, LINES, st.sampled_from(["", "Content-Length: 7", "Transfer-Encoding: chunked"]))
def test_a_request_that_is_written_is_read(
    method: bytes, target: str, pairs: list[tuple[str, str]], framing: str
) -> None:
    """parse(serialise(x)) is x: method, target, every field and the framing survive the proxy's writing."""
    start = f"{method.decode()} /{target} HTTP/1.1\nHost: h"
    before = parse_request(
        (start + block_of(pairs) + f"\n{framing}" * bool(framing)).replace("\n", "\r\n").encode("latin-1")
        + b"\r\n\r\n"
    )
    block = request_fields(before, STRANGER, Variant.NORMAL, b"pin")
    after = parse_request(request_head(before.method, before.target, block, b"id"))
    assert after[:5] == before[:5]
    assert (after.fields.length, after.fields.chunked) == (before.fields.length, before.fields.chunked)
    mine = tuple(line for line in before.fields.lines if line[0].startswith(b"x-"))
    assert after.fields.lines[: len(mine) + 1][1:] == mine


@given(st.integers(200, 599).filter(lambda s: s != 204), VALUE, LINES, st.booleans())
def test_a_response_that_is_written_is_read(
    status: int, reason: str, pairs: list[tuple[str, str]], chunked: bool
) -> None:
    """parse(serialise(x)) is x: status, reason, every field and the framing survive the proxy's writing."""
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 7"
    text = f"HTTP/1.1 {status} {reason}{block_of(pairs)}\n{framing}\n\n"
    before = parse_response(text.replace("\n", "\r\n").encode("latin-1"))
    after = parse_response(response_head(before, request(), b"id", close=False))
    assert after[:3] == before[:3]
    assert (after.fields.length, after.fields.chunked) == (before.fields.length, before.fields.chunked)
    mine = tuple(line for line in before.fields.lines if line[0].startswith(b"x-"))
    assert after.fields.lines[: len(mine)] == mine


def answered(
    text: str,
    *,
    asked: str = "GET / HTTP/1.1\nHost: h",
    close: bool = False,
    extra: bytes = b"",
    length: int | None = None,
) -> tuple[bytes, Fields]:
    """The status line and fields that go to the client for a backend's response."""
    head = parse_response((text.strip().replace("\n", "\r\n") + "\r\n\r\n").encode("latin-1"))
    out = response_head(head, request(start=asked), b"id", close=close, extra=extra, length=length)
    assert out.endswith(b"\r\n\r\n")
    again: ResponseHead = parse_response(out)
    return out.split(b"\r\n", 1)[0], again.fields


def test_the_whole_head_of_a_common_response() -> None:
    """Byte for byte: what a client gets for uvicorn's answer to a poll."""
    text = (
        b"HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 2\r\nSet-Cookie: a=1\r\nX-Request-ID: theirs\r\n\r\n"
    )
    head = response_head(parse_response(text), request(), b"id", close=False, extra=b"Set-Cookie: pin=t\r\n")
    assert head.decode().split("\r\n") == [
        "HTTP/1.1 200 OK",
        "date: x",
        "Set-Cookie: a=1",
        "Via: 1.1 chainlit-proxy",
        "X-Request-ID: id",
        "Set-Cookie: pin=t",
        "Content-Length: 2",
        "",
        "",
    ]


OLD = "GET / HTTP/1.0\nHost: h"

# the backend's head, the client's request, `length`, the framing that goes down
DOWN = [
    ("HTTP/1.1 200 OK\ncontent-length:  02", None, None, [b"Content-Length: 2"]),
    ("HTTP/1.1 200 OK\ntransfer-encoding: Chunked", None, None, [b"Transfer-Encoding: chunked"]),
    ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", OLD, None, []),
    ("HTTP/1.1 200 OK\nContent-Length: 2", OLD, None, [b"Content-Length: 2"]),
    ("HTTP/1.1 200 OK", None, None, []),
    ("HTTP/1.1 200 OK\nContent-Length: 2", None, 7, [b"Content-Length: 7"]),
    ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", None, 7, [b"Content-Length: 7"]),
    ("HTTP/1.1 200 OK", OLD, 0, [b"Content-Length: 0"]),
    ("HTTP/1.1 200 OK\nConnection: content-length\nContent-Length: 2", None, None, [b"Content-Length: 2"]),
    ("HTTP/1.1 204 No Content\nContent-Length: 2", None, None, []),
    ("HTTP/1.1 204 No Content\nTransfer-Encoding: chunked", None, None, []),
    ("HTTP/1.1 304 Not Modified\nContent-Length: 2", None, None, [b"Content-Length: 2"]),
    ("HTTP/1.1 103 Early Hints\nContent-Length: 2", None, None, []),
    ("HTTP/1.1 101 Switching\nUpgrade: a\nContent-Length: 2", None, None, []),
]


@pytest.mark.parametrize(("text", "asked", "length", "framing"), DOWN)
def test_framing_goes_down_as_it_was_understood(
    text: str, asked: str | None, length: int | None, framing: list[bytes]
) -> None:
    """RFC 9112 section 6: one framing field or none, and none where the status has no body."""
    _, fields = answered(text, asked=asked or "GET / HTTP/1.1\nHost: h", length=length)
    framed = {b"content-length", b"transfer-encoding"}
    assert [line.raw for line in fields.lines if line.name in framed] == framing


# the backend's head, the client's request, whether the connection ends, Connection to the client
CONNECTION = [
    ("HTTP/1.1 200 OK", None, False, []),
    ("HTTP/1.1 200 OK", None, True, [b"close"]),
    ("HTTP/1.1 200 OK\nConnection: close\nKeep-Alive: x", None, False, []),
    ("HTTP/1.0 200 OK\nConnection: keep-alive", None, False, []),
    ("HTTP/1.1 200 OK", OLD, False, [b"keep-alive"]),
    ("HTTP/1.1 200 OK", OLD, True, [b"close"]),
    ("HTTP/1.1 100 Continue", None, True, []),
    ("HTTP/1.1 101 Switching\nConnection: Upgrade\nUpgrade: websocket", None, True, [b"Upgrade"]),
]


@pytest.mark.parametrize(("text", "asked", "close", "options"), CONNECTION)
def test_the_connection_to_the_client_is_its_own(
    text: str, asked: str | None, close: bool, options: list[bytes]
) -> None:
    """RFC 9110 section 7.6.1: what the backend says of its connection is not said of the client's."""
    _, fields = answered(text, asked=asked or "GET / HTTP/1.1\nHost: h", close=close)
    assert fields.get_all(b"connection") == options
    assert fields.get(b"keep-alive") is None


def test_a_switch_names_its_protocol() -> None:
    """RFC 9110 section 15.2.2: 101 says which protocol, and the rest of the answer passes."""
    line, fields = answered("HTTP/1.1 101 Web Socket\nUpgrade: WebSocket\nSec-WebSocket-Accept: x")
    assert line == b"HTTP/1.1 101 Web Socket"
    assert (fields.get_all(b"upgrade"), fields.get(b"sec-websocket-accept")) == ([b"WebSocket"], b"x")


def test_status_and_version_to_the_client() -> None:
    """RFC 9110 section 2.5: the version is ours, status and reason are the backend's."""
    assert answered("HTTP/1.0 418 I'm a teapot", asked=OLD)[0] == b"HTTP/1.1 418 I'm a teapot"
    assert answered("HTTP/1.1 200")[0] == b"HTTP/1.1 200 "


def test_via_of_a_response() -> None:
    """RFC 9110 section 7.6.3: with the version in which the backend answered."""
    assert answered("HTTP/1.0 200 OK\nVia: 1.1 a")[1].get_all(b"via") == [b"1.1 a, 1.0 chainlit-proxy"]


def test_what_does_not_go_down() -> None:
    """RFC 9110 section 7.6.1: fields of the backend's connection, and those that it nominates."""
    text = "HTTP/1.1 200 OK\nConnection: x-a\nX-A: 1\nX-B: 2\nProxy-Authenticate: x\nUpgrade: h2c\nTE: y"
    fields = answered(text)[1]
    assert [line.name for line in fields.lines] == [b"x-b", b"via", b"x-request-id"]
