"""Heads of HTTP/2 in the form of HTTP/1.1, and back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import BadRequest, ProxyError
from proxy.wire.head import parse_request
from proxy.wire.http2 import Progress, request_head, response_fields, trailer_fields, trailer_lines

REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"chat.test"), (b":path", b"/x?y")]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_a_request() -> None:
    """Host is the authority, cookies are one field, everything else is as it came."""
    head = request_head([*REQUEST, (b"cookie", b"a=1"), (b"x", b"y: z"), (b"cookie", b"b=2")], has_body=False)
    assert head == b"GET /x?y HTTP/1.1\r\nx: y: z\r\nHost: chat.test\r\nCookie: a=1; b=2\r\n\r\n"


@pytest.mark.parametrize(
    ("fields", "has_body", "framing"),
    [
        ([], False, (None, False)),
        ([], True, (None, True)),
        ([(b"content-length", b"3")], True, (3, False)),
        ([(b"content-length", b"0")], False, (0, False)),
    ],
)
def test_how_a_body_is_framed(
    fields: list[tuple[bytes, bytes]], has_body: bool, framing: tuple[int | None, bool]
) -> None:
    """By its length where that is told, else in chunks, and not at all where there is none."""
    found = parse_request(request_head([*REQUEST, *fields], has_body=has_body)).fields
    assert (found.length, found.chunked) == framing


PIECE = st.text(alphabet="aA:/ ?#*\r\n\t\0\x7f\u00e9-", max_size=6).map(lambda text: text.encode("latin-1"))


@given(
    method=st.sampled_from([b"GET", b"POST", b"CONNECT", b"OPTIONS"]) | PIECE,
    path=st.sampled_from([b"/", b"*", b"/a?b"]) | PIECE,
    authority=st.sampled_from([b"chat.test", b""]) | PIECE,
    fields=st.lists(st.tuples(st.sampled_from([b"x", b"te", b"cookie", b"host"]) | PIECE, PIECE), max_size=4),
    has_body=st.booleans(),
)
@example(method=b"GET", path=b"/", authority=b"chat.test", fields=[(b"cookie:", b"a=1")], has_body=False)
def test_nothing_is_smuggled(
    method: bytes, path: bytes, authority: bytes, fields: list[tuple[bytes, bytes]], has_body: bool
) -> None:
    """Whatever fields hold, also without the library's checks: they are refused, or are one head."""
    said = [(b":method", method), (b":path", path), (b":authority", authority), *fields]
    try:
        head = request_head(said, has_body=has_body)
        parsed = parse_request(head)
    except ProxyError:
        return
    assert head.index(b"\r\n\r\n") == len(head) - 4
    assert (parsed.method, parsed.target) == (method, path)
    hosts = [authority] if authority else [value for name, value in fields if name == b"host"][-1:]
    assert parsed.fields.get_all(b"host") == [host.strip(b" \t") for host in hosts or [b""]]
    own = {b"host", b"cookie", b"connection", b"transfer-encoding"}
    expected = sorted(name.lower() for name, _ in fields if name not in own and name[:1] != b":")
    assert sorted(line.name for line in parsed.fields.lines if line.name not in own) == expected
    assert parsed.fields.chunked == has_body


def test_a_response() -> None:
    """Names are small, what is of one connection is left out, and what differs each time is never indexed."""
    head = (
        b"HTTP/1.1 200 OK\r\nX-A:  b \r\nTransfer-Encoding: chunked\r\nConnection: close\r\nDate: x\r\n\r\n"
    )
    fields = response_fields(head)
    assert fields == [(b":status", b"200"), (b"x-a", b"b"), (b"date", b"x")]
    assert [getattr(field, "indexable", True) for field in fields] == [True, True, False]


def test_trailers() -> None:
    """They are lines in HTTP/1.1, and none brings another with it."""
    assert trailer_lines([(b"x-sum", b"4")]) == b"x-sum: 4\r\n"
    assert trailer_fields(b"X-Sum: 4\r\nX-B: c\r\n") == [(b"x-sum", b"4"), (b"x-b", b"c")]
    assert trailer_lines([(b"x", b"")]) == b"x: \r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x", b"y\r\nz: 1"),
        (b"x", b"y\0"),
        (b"x:", b"y"),
        (b"x\r", b"y"),
        (b"x y", b"z"),
        (b"", b"y"),
        (b"transfer-encoding", b"chunked"),
    ],
)
def test_trailers_that_are_none(name: bytes, value: bytes) -> None:
    """Nobody reads them anew on their way to the instance: what is no field is refused here."""
    with pytest.raises(ProxyError):
        trailer_lines([(b"x-sum", b"4"), (name, value)])


@pytest.mark.parametrize("step", [1, 2, 7, 10, 1000])
def test_how_far_frames_have_come(step: int) -> None:
    """It is partial within the preface, a frame or a block, and whole between, however the bytes come."""
    settings, headers = b"\0\0\0\4\0\0\0\0\0", b"\0\0\2\1\0\0\0\0\1ab"
    last = b"\0\0\1\x09\4\0\0\0\1c"
    said = PREFACE + settings + headers + last + settings
    whole = {len(PREFACE), len(PREFACE + settings), len(said) - len(settings), len(said)}
    progress = Progress()
    for at in range(0, len(said), step):
        progress.feed(said[at : at + step])
        end = min(at + step, len(said))
        assert progress.is_partial == (end not in whole), end
        in_block = len(PREFACE + settings + headers) <= end < len(PREFACE + settings + headers) + 9
        assert progress.block == 2 or not in_block
    assert progress.take_heads() == 64 + 3  # its two frames hold three bytes, and it has some beside them
    assert progress.take_heads() == 0


WEBSOCKET = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":path", b"/ws"),
    (b":authority", b"chat.test"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"ours is another"),
]


def test_a_websocket() -> None:
    """RFC 8441 section 5: it is asked for by GET with a key of ours, and its 101 is a 200 without proof."""
    head = parse_request(request_head(WEBSOCKET, has_body=True, key=b"A" * 24))
    assert (head.method, head.target, head.wants_upgrade) == (b"GET", b"/ws", True)
    assert head.fields.get(b"sec-websocket-key") == b"A" * 24
    assert not head.fields.chunked
    answer = b"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nVia: y\r\n\r\n"
    assert response_fields(answer) == [(b":status", b"200"), (b"via", b"y")]


@pytest.mark.parametrize(
    ("key", "protocol"), [(b"", b"websocket"), (b"A" * 24, b"connect-udp"), (b"A" * 24, b"")]
)
def test_what_is_no_websocket(key: bytes, protocol: bytes) -> None:
    """Where they are not offered, and for any other protocol, CONNECT is refused."""
    fields = [(name, protocol if name == b":protocol" else value) for name, value in WEBSOCKET]
    with pytest.raises(BadRequest):
        request_head(fields, has_body=True, key=key)


def test_a_websocket_has_no_content() -> None:
    """What has some is no wish for a websocket in HTTP/1.1, so its answer could be none to one."""
    with pytest.raises(BadRequest):
        request_head([*WEBSOCKET, (b"content-length", b"3")], has_body=True, key=b"A" * 24)
