"""The parsers and machines that a stranger's bytes reach, each with what has to hold for any bytes.

A target takes bytes and raises AssertionError, or whatever the parser must not raise. `SEEDS` are what a
fuzzer starts from: one message of each kind that the parser understands.
"""

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from proxy.errors import BadRequest, BadResponse, BodyError, OddId, OverLimit
from proxy.wire import cookies, engineio
from proxy.wire.body import ChunkedBody, request_body, response_body
from proxy.wire.deflate import CHUNK, Inflater
from proxy.wire.forwarding import Origin, Variant, request_fields, request_head, response_head
from proxy.wire.head import HeadSearch, parse_request, parse_response
from proxy.wire.proxy_protocol import SIGNATURE, ProxyHeader, ProxyHeaderError, read_proxy_header
from proxy.wire.websocket import Frame, FrameError, FrameReader
from tests.fuzz import machines

ORIGIN = Origin("192.0.2.1", b"http", trusted=False)
PIN = b"chainlit_pin"
MOST_INFLATED = 1 << 22  # bytes: more than any input here can become
BROKEN = re.compile(rb"\r[^\n]|(?<!\r)\n|\x00")


def head(data: bytes) -> None:
    """A head is refused, or goes on with the framing that was understood; a response's likewise."""
    end = data.find(b"\r\n\r\n")
    whole = data[: end + 4] if end >= 0 else data + b"\r\n\r\n"
    _request(whole)
    _response(whole)


def _request(whole: bytes) -> None:
    try:
        parsed = parse_request(whole)
    except BadRequest:
        return
    for cut in range(0, len(whole), 7):
        HeadSearch().find(whole[:cut])  # what is right when it is whole is right while it comes
    for variant in (Variant.NORMAL, Variant.FINITE, Variant.UPGRADE):
        block = request_fields(parsed, ORIGIN, variant, PIN)
        sent = request_head(parsed.method, parsed.target, block, b"1")
        assert BROKEN.search(sent) is None
        again = parse_request(sent)
        framing = (parsed.method, parsed.target, parsed.fields.chunked, parsed.fields.length)
        assert (again.method, again.target, again.fields.chunked, again.fields.length) == framing
        assert type(request_body(again.fields)) is type(request_body(parsed.fields))


def _response(whole: bytes) -> None:
    try:
        parsed = parse_response(whole)
    except BadResponse:
        return
    asked = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    sent = response_head(parsed, asked, b"1", close=False)
    assert BROKEN.search(sent) is None
    again = parse_response(sent)
    assert again.status == parsed.status
    framers = (
        response_body(b"GET", parsed.status, again.fields),
        response_body(b"GET", parsed.status, parsed.fields),
    )
    assert type(framers[0]) is type(framers[1])


def cookie(data: bytes) -> None:
    """The pin is found and taken out, whatever stands around it, and nothing else goes."""
    rest = cookies.without_cookie(data, PIN)
    assert cookies.get_cookie(rest, PIN) is None
    assert len(rest) <= len(data)
    cookies.get_cookie(data, b"X-Chainlit-Session-id")


def engine(data: bytes) -> None:
    """Packets and queries of any content are read without an error; a rewritten sid is what is read."""
    if engineio.query_sid(data) is not None:
        assert engineio.query_sid(engineio.with_sid(data, b"new")) == b"new"
    if engineio.open_sid(data) is not None:
        assert engineio.open_sid(engineio.rewrite_open(data, b"new")) == b"new"
    for read in (
        partial(engineio.connect_in_payload, most=1000),
        engineio.connect_session,
        partial(engineio.session_in_json, key="sessionId"),
    ):
        with suppress(OddId, OverLimit):
            named = read(data)
            assert named is None or engineio.session_id(named or "session-1")
    engineio.without_sid(data, b"polling")
    engineio.is_quiet(data)


def chunked(data: bytes) -> None:
    """A body means the same however it is cut: its first byte says where."""
    if not data:
        return
    size, data = data[0] % 16 + 1, data[1:]
    assert _fed(data, len(data) or 1) == _fed(data, size)


def _fed(data: bytes, size: int) -> tuple[int, bytes] | str:
    """How much belongs to the body and what it holds, or that it is refused."""
    framer, content, taken = ChunkedBody(), list[bytes](), 0
    try:
        for at in range(0, len(data), size):
            part = data[at : at + size]
            taken += framer.feed(part, content)
            if framer.done:
                break
    except BodyError:
        return "refused"
    return taken, b"".join(content)


def websocket(data: bytes) -> None:
    """Frames are found alike in whole and in pieces, and their bytes are those that came."""
    whole, pieces = FrameReader(), FrameReader()
    whole.push(data)
    found, error = _frames(whole)
    others: list[Frame] = []
    failed = False
    for at in range(0, len(data), 3):
        pieces.push(data[at : at + 3])
        more, failed = _frames(pieces)
        others += more
        if failed:
            break
    assert (found, error) == (others, failed)
    raw = b"".join(frame.raw for frame in found)
    assert raw + whole.rest == data


def inflating(data: bytes) -> None:
    """Compressed frames are read or refused, alike in whole and in pieces; what goes on is bounded."""
    refused = [_inflated(data, size) for size in (len(data) or 1, 3)]
    assert refused[0] == refused[1]


def _inflated(data: bytes, size: int) -> bool:
    inflater = Inflater(MOST_INFLATED)
    for at in range(0, len(data), size):
        inflater.push(data[at : at + size])
        try:
            while part := inflater.next():
                assert len(part) <= max(CHUNK + 14, len(data))
        except FrameError:
            assert inflater.code in {1002, 1007}
            return True
    return False


def proxy_protocol(data: bytes) -> None:
    """A header is found alike in whole and byte by byte, and ends within what has come."""
    whole = _header(data)
    pieces = next((found for end in range(len(data)) if (found := _header(data[:end])) is not None), whole)
    assert pieces == whole
    if isinstance(whole, ProxyHeader):
        assert 0 < whole.length <= len(data)
        assert not whole.client or ipaddress.ip_address(whole.client)


def _header(data: bytes) -> ProxyHeader | str | None:
    try:
        return read_proxy_header(data)
    except ProxyHeaderError:
        return "refused"


def _frames(reader: FrameReader) -> tuple[list[Frame], bool]:
    found: list[Frame] = []
    try:
        while (frame := reader.next()) is not None:
            found.append(frame)
    except FrameError:
        return found, True
    return found, False


TARGETS: dict[str, Callable[[bytes], None]] = {
    "head": head,
    "cookie": cookie,
    "engineio": engine,
    "chunked": chunked,
    "websocket": websocket,
    "inflating": inflating,
    "proxy_protocol": proxy_protocol,
    "opening": machines.opening,
    "lingering": machines.lingering,
    "packets": machines.packets,
    "handing_over": machines.handing_over,
}
SEEDS: dict[str, list[bytes]] = {
    "head": [
        b"GET /ws/socket.io/?EIO=4&sid=a.b HTTP/1.1\r\nHost: a:1\r\nCookie: chainlit_pin=x; b=c\r\n\r\n",
        b"POST http://a/b HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nConnection: close, x\r\nX: 1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: [::1]\r\nTransfer-Encoding: chunked\r\nMax-Forwards: 3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: x\r\nVia: 1.0 a\r\n\r\n",
        b"HTTP/1.0 101 \r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n",
    ],
    "cookie": [b'chainlit_pin="x"; a=b; X-Chainlit-Session-id=1', b" chainlit_pin =;;=chainlit_pin"],
    "engineio": [
        b'0{"sid":"abc","upgrades":["websocket"]}\x1e2probe',
        b'2\x1e40/ns,{"sessionId":"f0e1-a2b3","clientType":"webapp"}',
        b"EIO=4&transport=polling&sid=x.y&t=1",
        b'{"session_id":"a-b","x":[1,{}]}',
    ],
    "chunked": [b"\x033\r\nabc\r\n0\r\n\r\n", b'\x00a;x="\\""\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest'],
    "inflating": [
        b"\xc1\x87\x01\x02\x03\x04\xf3J\xce\xcd\xc8\xcb\x04",
        b"\x41\x83\x00\x00\x00\x00\xf2\x48\xcd\x80\x84\x00\x00\x00\x00\xc9\xc9\x07\x00\x8a\x80\x00\x00\x00\x00",
        b"\x81\x82\x01\x82\x03\x0442\xc2\x85\x00\x00\x00\x00K\x12\x04\x00\x00",
    ],
    "websocket": [
        b"\x81\x85\x01\x02\x03\x0440{}\x00\x89\x00",
        b"\x82\x7e\x00\x03abc\x88\x02\x03\xe8",
        b"\x81\x7f" + b"\x00" * 7 + b"\x01a",
    ],
    "proxy_protocol": [
        b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET /",
        b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n",
        b"PROXY UNKNOWN x\r\n",
        SIGNATURE + b"\x21\x11\x00\x0c" + b"\x0a" * 12 + b"GET /",
        SIGNATURE + b"\x21\x21\x00\x27" + b"\xfd" * 36 + b"\x04\x00\x00",
        SIGNATURE + b"\x20\x00\x00\x00",
    ],
    "opening": machines.OPENING_SEEDS,
    "lingering": machines.LINGERING_SEEDS,
    "packets": machines.PACKETS_SEEDS,
    "handing_over": machines.HANDING_OVER_SEEDS,
}
