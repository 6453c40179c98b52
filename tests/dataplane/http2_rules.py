# ruff: noqa: E501 - the table has a case a line
"""The rules of RFC 9113 and RFC 7541 for servers: what a client says, and what it is answered.

`python -m tests.dataplane.http2_rules > docs/http2.md` writes them down for people.
"""

import sys
from dataclasses import dataclass

from h2.errors import ErrorCodes
from hpack import Encoder

from tests.dataplane.multiplexed import PREFACE, request

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1
OK = 200
ACCEPTED = "accepted"
READ = b"/mcp"  # its body is read before it goes anywhere
BEGIN = PREFACE + b"\0\0\0\4\0\0\0\0\0"


def raw(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of any kind."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def block(
    *more: tuple[bytes, bytes],
    method: bytes = b"OPTIONS",
    without: bytes = b"",
    first: tuple[bytes, bytes] | None = None,
) -> bytes:
    """The block of a request, and more fields; `without` one of it. Nothing is put into a table.

    Without a body it asks what the proxy itself answers (RFC 9110 section 7.6.2).
    """
    path, hops = (READ, []) if method == b"POST" else (b"/", [(b"max-forwards", b"0")])
    fields = [field for field in [*request(path, *hops, method=method), *more] if field[0] != without]
    if first is not None:
        fields.insert(0, first)
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(fields, huffman=False)


def good(stream: int = 1) -> bytes:
    """A good request."""
    return raw(HEADERS, END_HEADERS | END_STREAM, stream, block())


def post(stream: int = 1, *more: tuple[bytes, bytes]) -> bytes:
    """The head of a request that has a body."""
    return raw(HEADERS, END_HEADERS, stream, block(*more, method=b"POST"))


def fields(
    *lines: tuple[bytes, bytes], without: bytes = b"", first: tuple[bytes, bytes] | None = None
) -> bytes:
    """A request with these fields too."""
    return raw(HEADERS, END_HEADERS | END_STREAM, 1, block(*lines, without=without, first=first))


def setting(number: int, value: int) -> bytes:
    """A SETTINGS frame."""
    return raw(SETTINGS, payload=number.to_bytes(2, "big") + value.to_bytes(4, "big"))


def integer(value: int) -> bytes:
    """Four bytes."""
    return value.to_bytes(4, "big")


@dataclass
class Case:
    """What is said behind the preface, and the codes that end the connection, or the stream, for it."""

    name: str
    said: bytes | list[bytes]
    goaway: ErrorCodes | None = None
    reset: ErrorCodes | None = None
    status: int = 0  # of the answer on stream 1; 200: nothing is wrong
    begin: bytes = BEGIN  # what is said before
    is_harder: bool = False  # whether the RFC has this code for the stream alone (section 5.4.2)


E = ErrorCodes
CASES = [
    # RFC 9113 section 3: the preface
    Case("3.4 a first frame other than SETTINGS", good(), E.PROTOCOL_ERROR, begin=PREFACE),
    Case("3.4 SETTINGS ACK as the first frame", raw(SETTINGS, ACK) + good(), E.PROTOCOL_ERROR, begin=PREFACE),
    Case("3.4 SETTINGS with the preface", setting(1, 0) + good(), status=200, begin=PREFACE),
    # Section 4: frames
    Case("4.1 a frame of unknown type", raw(0xEE, 0xFF, 0, b"x") + good(), status=200),
    Case("4.1 a frame of unknown type on a stream", raw(0xEE, 0xFF, 9, b"x") + good(), status=200),
    Case("4.1 undefined flags", raw(PING, 0x16, 0, b"12345678") + good(), status=200),
    Case("4.1 the reserved bit", raw(PING, 0, 1 << 31, b"12345678") + good(), status=200),
    Case("4.2 a frame that is too large", raw(DATA, 0, 1, b"x" * 16385), E.FRAME_SIZE_ERROR, is_harder=True),
    Case("4.2 a frame of unknown type that is too large", raw(0xEE, 0, 0, b"x" * 16385), E.FRAME_SIZE_ERROR),
    Case("4.3 a field block that cannot be decoded", raw(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR),
    Case("4.3 another frame within a field block", raw(HEADERS, 1, 1, block()) + raw(PING, 0, 0, b"12345678"), E.PROTOCOL_ERROR),
    Case("4.3 an unknown frame within a field block", raw(HEADERS, 1, 1, block()) + raw(0xEE), E.PROTOCOL_ERROR),
    Case("4.3 HEADERS of another stream within a field block", raw(HEADERS, 1, 1, block()) + raw(HEADERS, 5, 3, block()), E.PROTOCOL_ERROR),
    Case("4.3 a field block in several frames", raw(HEADERS, 1, 1, block()[:9]) + raw(CONTINUATION, 4, 1, block()[9:]), status=200),
    # Section 5: streams
    Case("5.1 DATA on an idle stream", raw(DATA, 1, 1, b"x"), E.PROTOCOL_ERROR),
    Case("5.1 WINDOW_UPDATE on an idle stream", raw(WINDOW_UPDATE, 0, 1, integer(1)), E.PROTOCOL_ERROR),
    Case("5.1 RST_STREAM on an idle stream", raw(RST_STREAM, 0, 1, integer(8)), E.PROTOCOL_ERROR),
    Case("5.1 CONTINUATION on an idle stream", raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("5.1 PRIORITY on an idle stream", raw(PRIORITY, 0, 1, integer(0) + b"\1") + good(), status=200),
    Case("5.1 DATA after END_STREAM", [good() + raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED),
    Case("5.1 HEADERS after END_STREAM", [good() + good()], None, E.STREAM_CLOSED),
    Case("5.1 WINDOW_UPDATE after END_STREAM", good() + raw(WINDOW_UPDATE, 0, 1, integer(1)), status=200),
    Case("5.1 WINDOW_UPDATE on a closed stream", [good(), raw(WINDOW_UPDATE, 0, 1, integer(1))], status=200),
    Case("5.1 RST_STREAM on a closed stream", [good(), raw(RST_STREAM, 0, 1, integer(8))], status=200),
    Case("5.1 DATA on a closed stream", [good(), raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED, 200),
    Case("5.1 DATA on a reset stream", [post() + raw(RST_STREAM, 0, 1, integer(8)), raw(DATA, 1, 1, b"x")],
         None, E.STREAM_CLOSED),
    Case("5.1 HEADERS on a reset stream", [post() + raw(RST_STREAM, 0, 1, integer(8)), good()],
         None, E.STREAM_CLOSED),
    Case("5.1 HEADERS on a closed stream", [good(), good()], E.STREAM_CLOSED, None, 200),
    Case("5.1.1 an even stream id", good(2), E.PROTOCOL_ERROR),
    Case("5.1.1 a lower stream id than before", [good(5), good(3)], E.PROTOCOL_ERROR, status=200),
    Case("5.3.1 a stream that depends on itself", raw(PRIORITY, 0, 1, integer(1) + b"\1"), E.PROTOCOL_ERROR, is_harder=True),
    # Section 6: frames of each kind
    Case("6.1 DATA on stream 0", raw(DATA, 1, 0, b"x"), E.PROTOCOL_ERROR),
    Case("6.1 DATA with more padding than payload", post() + raw(DATA, PADDED, 1, b"\x05x"), E.PROTOCOL_ERROR),
    Case("6.2 HEADERS on stream 0", good(0), E.PROTOCOL_ERROR),
    Case("6.2 HEADERS with more padding than payload", raw(HEADERS, 5 | PADDED, 1, b"\xff" + block()), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY on stream 0", raw(PRIORITY, 0, 0, integer(3) + b"\1"), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY of the wrong size", raw(PRIORITY, 0, 1, b"\0\0\0\3"), E.FRAME_SIZE_ERROR, is_harder=True),
    Case("6.4 RST_STREAM on stream 0", raw(RST_STREAM, 0, 0, integer(8)), E.PROTOCOL_ERROR),
    Case("6.4 RST_STREAM of the wrong size", post() + raw(RST_STREAM, 0, 1, b"\0\0\0"), E.FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS", setting(1, 0) + good(), status=200),
    Case("6.5 SETTINGS ACK with a payload", raw(SETTINGS, ACK, 0, b"\0\1" + integer(0)), E.FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS on a stream", raw(SETTINGS, 0, 1), E.PROTOCOL_ERROR),
    Case("6.5 SETTINGS of the wrong size", raw(SETTINGS, 0, 0, b"\0\1\0"), E.FRAME_SIZE_ERROR),
    Case("6.5.2 ENABLE_PUSH other than 0 or 1", setting(2, 2), E.PROTOCOL_ERROR),
    Case("6.5.2 INITIAL_WINDOW_SIZE too large", setting(4, 1 << 31), E.FLOW_CONTROL_ERROR),
    Case("6.5.2 MAX_FRAME_SIZE too small", setting(5, 16383), E.PROTOCOL_ERROR),
    Case("6.5.2 MAX_FRAME_SIZE too large", setting(5, 1 << 24), E.PROTOCOL_ERROR),
    Case("6.5.2 ENABLE_CONNECT_PROTOCOL other than 0 or 1 (RFC 8441)", setting(8, 2), E.PROTOCOL_ERROR),
    Case("6.5.2 an unknown setting", setting(0xEE, 1) + good(), status=200),
    Case("6.6 PUSH_PROMISE from a client", post() + raw(PUSH_PROMISE, 4, 1, integer(2) + block()), E.PROTOCOL_ERROR),
    Case("6.7 PING on a stream", raw(PING, 0, 1, b"12345678"), E.PROTOCOL_ERROR),
    Case("6.7 PING of the wrong size", raw(PING, 0, 0, b"1234"), E.FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY on a stream", raw(GOAWAY, 0, 1, integer(0) * 2), E.PROTOCOL_ERROR),
    Case("6.9 WINDOW_UPDATE of 0 on the connection", raw(WINDOW_UPDATE, 0, 0, integer(0)), E.PROTOCOL_ERROR),
    Case("6.9 WINDOW_UPDATE of 0 on a stream", post() + raw(WINDOW_UPDATE, 0, 1, integer(0)), E.PROTOCOL_ERROR, is_harder=True),
    Case("6.9 WINDOW_UPDATE of the wrong size", raw(WINDOW_UPDATE, 0, 0, b"\0\0\1"), E.FRAME_SIZE_ERROR),
    Case("6.9.1 the connection's window above its maximum", raw(WINDOW_UPDATE, 0, 0, integer(2**31 - 1)), E.FLOW_CONTROL_ERROR),
    Case("6.9.1 a stream's window above its maximum", post() + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1)), None,
         E.FLOW_CONTROL_ERROR),
    Case("6.9.2 SETTINGS that raise a window above its maximum", [setting(4, 1 << 20) + post()
         + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1 - (1 << 20))), setting(4, 1 << 21)], E.FLOW_CONTROL_ERROR),
    Case("6.10 CONTINUATION after END_HEADERS", post() + raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("6.10 CONTINUATION on stream 0", raw(HEADERS, 1, 1, block()) + raw(CONTINUATION, 4, 0), E.PROTOCOL_ERROR),
    # Section 8: messages
    Case("8.1 trailers without END_STREAM", post() + raw(HEADERS, END_HEADERS, 1, Encoder().encode([(b"x", b"y")])),
         E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 more content than Content-Length", post(1, (b"content-length", b"1")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 less content than Content-Length", post(1, (b"content-length", b"3")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 Content-Length without content", fields((b"content-length", b"3")), status=400),
    Case("8.1.1 less content than Content-Length, then trailers", post(1, (b"content-length", b"3")) + raw(DATA, 0, 1, b"xx")
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 Content-Length, no content, then trailers", post(1, (b"content-length", b"3"))
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 an invalid Content-Length", fields((b"content-length", b"x")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 two Content-Length fields", fields((b"content-length", b"0"), (b"content-length", b"0")), status=400),
    Case("8.2.1 capitals in a name", fields((b"X-Large", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 CRLF in a value", fields((b"x", b"y\r\nevil: 1")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 LF in a value", fields((b"x", b"y\nevil: 1")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 NUL in a value", fields((b"x", b"y\0")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 spaces around a value", fields((b"x", b" y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 colon in a name", fields((b"x:y", b"z")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 space in a name", fields((b"x y", b"z")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 empty name", raw(HEADERS, 5, 1, block() + b"\0\0\1z"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 another invalid character in a name", fields((b"x(y)", b"z")), status=400),
    Case("8.2.1 another control character in a value", fields((b"x", b"y\x01")), status=400),
    Case("8.2.2 Connection", fields((b"connection", b"close")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Transfer-Encoding", fields((b"transfer-encoding", b"chunked")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Keep-Alive", fields((b"keep-alive", b"5")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Proxy-Connection", fields((b"proxy-connection", b"close")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Upgrade", fields((b"upgrade", b"websocket")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 TE other than trailers", fields((b"te", b"gzip")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 an unknown pseudo-header field", fields(first=(b":x", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 a pseudo-header field of responses", fields(first=(b":status", b"200")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 a pseudo-header field after a regular one", fields(first=(b"x", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 a pseudo-header field in trailers", post() + raw(HEADERS, 5, 1, Encoder().encode([(b":path", b"/")])),
         E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no method", fields(without=b":method"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no scheme", fields(without=b":scheme"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no path", fields(without=b":path"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 neither authority nor Host", fields(without=b":authority"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 Host instead of the authority", fields((b"host", b"chat.test"), without=b":authority"), status=200),
    Case("8.3.1 a Host that differs from the authority", fields((b"host", b"evil.test")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 user information in the authority", fields(without=b":authority", first=(b":authority", b"me@chat.test")), status=400),
    Case("8.3.1 a space in the authority", fields(without=b":authority", first=(b":authority", b"chat test")), status=400),
    Case("8.3.1 a path with a fragment", fields(without=b":path", first=(b":path", b"/#top")), status=400),
    Case("8.3.1 two methods", fields(first=(b":method", b"GET")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 an empty path", fields(without=b":path", first=(b":path", b"")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 an absolute URL as the path", fields(without=b":path", first=(b":path", b"http://evil/")), status=400),
    Case("8.3.1 a space in the path", fields(without=b":path", first=(b":path", b"/ HTTP/1.1")), status=400),
    Case("8.3.1 a space in the method", fields(without=b":method", first=(b":method", b"GET /evil")), status=400),
    Case("8.5 CONNECT", raw(HEADERS, 5, 1, Encoder().encode([(b":method", b"CONNECT"), (b":authority", b"x:1")])), status=400),
    # RFC 7541
    Case("HPACK 6.1 index 0", raw(HEADERS, 5, 1, b"\x80"), E.COMPRESSION_ERROR),
    Case("HPACK 2.3.3 an index beyond the table", raw(HEADERS, 5, 1, b"\xc0"), E.COMPRESSION_ERROR),
    Case("HPACK 5.2 a string that exceeds the block", raw(HEADERS, 5, 1, b"\x00\x7f"), E.COMPRESSION_ERROR),
    Case("HPACK 5.1 an endless integer", raw(HEADERS, 5, 1, b"\xff" + b"\x80" * 20), E.COMPRESSION_ERROR),
    Case("HPACK 5.2 EOS in a Huffman string", raw(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01x"),
         E.COMPRESSION_ERROR),
    Case("HPACK 5.2 a Huffman string with too much padding", raw(HEADERS, 5, 1, b"\x00\x82\x1f\xff\x01x"), E.COMPRESSION_ERROR),
    Case("HPACK 6.3 a table size above the allowed one", raw(HEADERS, 5, 1, b"\x3f\xe2\x1f" + block()), E.COMPRESSION_ERROR),
    Case("HPACK 4.2 a table size update in the middle of a block", raw(HEADERS, 5, 1, block() + b"\x20"), E.COMPRESSION_ERROR),
]  # fmt: skip


def page() -> str:
    """The broken rules as a page: those of one chapter that get the same answer share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for case in CASES:
        if answer_to(case) != ACCEPTED:
            rows.setdefault((chapter_of(case), answer_to(case)), []).append(what_of(case))
    return _PAGE.format(
        "".join(f"| {place} | {'. '.join(cases)} | {answer} |\n" for (place, answer), cases in rows.items())
    )


def chapter_of(case: Case) -> str:
    """Where the rule stands, of RFC 9113 where nothing else is said."""
    return "RFC 7541" if case.name.startswith("HPACK") else case.name.partition(".")[0]


def what_of(case: Case) -> str:
    """What the client sends."""
    text = case.name.removeprefix("HPACK ").partition(" ")[2]
    return text[0].upper() + text[1:]


def answer_to(case: Case) -> str:
    """What the proxy answers, in the words of the page."""
    if case.goaway is not None:
        return f"GOAWAY `{case.goaway.name}`" + (" (*)" if case.is_harder else "")
    if case.reset is not None:
        return f"RST_STREAM `{case.reset.name}`"
    return ACCEPTED if case.status == OK else str(case.status)


_PAGE = """# The rules of HTTP/2

The proxy's answers to clients that break the rules of HTTP/2. Browsers break none of them. See [HTTPS](https.md#http2)
for what is supported, and [Limits](limits.md#http2) for what is allowed but too much.

Each case is a test. The chapters are those of RFC 9113. GOAWAY ends the connection. (*): the RFC asks only for the end
of the stream; the library `h2` ends the connection, as section 5.4.1 allows.

| chapter | a client sends | answer |
|---|---|---|
{}
Limits apply at once, before a client acknowledges the proxy's SETTINGS. Priorities are ignored. CONNECT works only for
websockets, with `tls.http2_websockets` (RFC 8441).
"""

if __name__ == "__main__":
    sys.stdout.write(page())
