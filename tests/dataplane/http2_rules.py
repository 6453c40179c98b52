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
    Case("3.4 a first frame that is no SETTINGS", good(), E.PROTOCOL_ERROR, begin=PREFACE),
    Case("3.4 a first frame that acknowledges", raw(SETTINGS, ACK) + good(), E.PROTOCOL_ERROR, begin=PREFACE),
    Case("3.4 SETTINGS with the preface", setting(1, 0) + good(), status=200, begin=PREFACE),
    # Section 4: frames
    Case("4.1 an unknown kind is ignored", raw(0xEE, 0xFF, 0, b"x") + good(), status=200),
    Case("4.1 an unknown kind on a stream is ignored", raw(0xEE, 0xFF, 9, b"x") + good(), status=200),
    Case("4.1 undefined flags are ignored", raw(PING, 0x16, 0, b"12345678") + good(), status=200),
    Case("4.1 the reserved bit is ignored", raw(PING, 0, 1 << 31, b"12345678") + good(), status=200),
    Case("4.2 a frame that is too large", raw(DATA, 0, 1, b"x" * 16385), E.FRAME_SIZE_ERROR, is_harder=True),
    Case("4.2 a large frame of no kind", raw(0xEE, 0, 0, b"x" * 16385), E.FRAME_SIZE_ERROR),
    Case("4.3 a block that cannot be unpacked", raw(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR),
    Case("4.3 another frame in a block", raw(HEADERS, 1, 1, block()) + raw(PING, 0, 0, b"12345678"), E.PROTOCOL_ERROR),
    Case("4.3 an unknown frame in a block", raw(HEADERS, 1, 1, block()) + raw(0xEE), E.PROTOCOL_ERROR),
    Case("4.3 a block of another stream", raw(HEADERS, 1, 1, block()) + raw(HEADERS, 5, 3, block()), E.PROTOCOL_ERROR),
    Case("4.3 a block in pieces", raw(HEADERS, 1, 1, block()[:9]) + raw(CONTINUATION, 4, 1, block()[9:]), status=200),
    # Section 5: streams
    Case("5.1 DATA on an idle stream", raw(DATA, 1, 1, b"x"), E.PROTOCOL_ERROR),
    Case("5.1 WINDOW_UPDATE on an idle stream", raw(WINDOW_UPDATE, 0, 1, integer(1)), E.PROTOCOL_ERROR),
    Case("5.1 RST_STREAM on an idle stream", raw(RST_STREAM, 0, 1, integer(8)), E.PROTOCOL_ERROR),
    Case("5.1 CONTINUATION on an idle stream", raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("5.1 PRIORITY on an idle stream", raw(PRIORITY, 0, 1, integer(0) + b"\1") + good(), status=200),
    Case("5.1 DATA behind the end", [good() + raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED),
    Case("5.1 a head behind the end", [good() + good()], None, E.STREAM_CLOSED),
    Case("5.1 WINDOW_UPDATE behind the end", good() + raw(WINDOW_UPDATE, 0, 1, integer(1)), status=200),
    Case("5.1 WINDOW_UPDATE on a closed stream", [good(), raw(WINDOW_UPDATE, 0, 1, integer(1))], status=200),
    Case("5.1 RST_STREAM on a closed stream", [good(), raw(RST_STREAM, 0, 1, integer(8))], status=200),
    Case("5.1 DATA on a closed stream", [good(), raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED, 200),
    Case("5.1 DATA on a stream that was reset", [post() + raw(RST_STREAM, 0, 1, integer(8)), raw(DATA, 1, 1, b"x")],
         None, E.STREAM_CLOSED),
    Case("5.1 a head on a stream that was reset", [post() + raw(RST_STREAM, 0, 1, integer(8)), good()],
         None, E.STREAM_CLOSED),
    Case("5.1 a head on a closed stream", [good(), good()], E.STREAM_CLOSED, None, 200),
    Case("5.1.1 an even stream", good(2), E.PROTOCOL_ERROR),
    Case("5.1.1 a lower stream", [good(5), good(3)], E.PROTOCOL_ERROR, status=200),
    Case("5.3.1 a stream that depends on itself", raw(PRIORITY, 0, 1, integer(1) + b"\1"), E.PROTOCOL_ERROR, is_harder=True),
    # Section 6: frames of each kind
    Case("6.1 DATA on the connection", raw(DATA, 1, 0, b"x"), E.PROTOCOL_ERROR),
    Case("6.1 more padding than DATA", post() + raw(DATA, PADDED, 1, b"\x05x"), E.PROTOCOL_ERROR),
    Case("6.2 HEADERS on the connection", good(0), E.PROTOCOL_ERROR),
    Case("6.2 more padding than HEADERS", raw(HEADERS, 5 | PADDED, 1, b"\xff" + block()), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY on the connection", raw(PRIORITY, 0, 0, integer(3) + b"\1"), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY of another size", raw(PRIORITY, 0, 1, b"\0\0\0\3"), E.FRAME_SIZE_ERROR, is_harder=True),
    Case("6.4 RST_STREAM on the connection", raw(RST_STREAM, 0, 0, integer(8)), E.PROTOCOL_ERROR),
    Case("6.4 RST_STREAM of another size", post() + raw(RST_STREAM, 0, 1, b"\0\0\0"), E.FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS are acknowledged", setting(1, 0) + good(), status=200),
    Case("6.5 ACK with content", raw(SETTINGS, ACK, 0, b"\0\1" + integer(0)), E.FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS on a stream", raw(SETTINGS, 0, 1), E.PROTOCOL_ERROR),
    Case("6.5 SETTINGS of another size", raw(SETTINGS, 0, 0, b"\0\1\0"), E.FRAME_SIZE_ERROR),
    Case("6.5.2 ENABLE_PUSH is a flag", setting(2, 2), E.PROTOCOL_ERROR),
    Case("6.5.2 an initial window that is too large", setting(4, 1 << 31), E.FLOW_CONTROL_ERROR),
    Case("6.5.2 a small frame size", setting(5, 16383), E.PROTOCOL_ERROR),
    Case("6.5.2 a large frame size", setting(5, 1 << 24), E.PROTOCOL_ERROR),
    Case("6.5.2 ENABLE_CONNECT_PROTOCOL is a flag (RFC 8441)", setting(8, 2), E.PROTOCOL_ERROR),
    Case("6.5.2 an unknown setting", setting(0xEE, 1) + good(), status=200),
    Case("6.6 PUSH_PROMISE of a client", post() + raw(PUSH_PROMISE, 4, 1, integer(2) + block()), E.PROTOCOL_ERROR),
    Case("6.7 PING on a stream", raw(PING, 0, 1, b"12345678"), E.PROTOCOL_ERROR),
    Case("6.7 PING of another size", raw(PING, 0, 0, b"1234"), E.FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY on a stream", raw(GOAWAY, 0, 1, integer(0) * 2), E.PROTOCOL_ERROR),
    Case("6.9 a window opened by nothing", raw(WINDOW_UPDATE, 0, 0, integer(0)), E.PROTOCOL_ERROR),
    Case("6.9 a stream's window opened by nothing", post() + raw(WINDOW_UPDATE, 0, 1, integer(0)), E.PROTOCOL_ERROR, is_harder=True),
    Case("6.9 WINDOW_UPDATE of another size", raw(WINDOW_UPDATE, 0, 0, b"\0\0\1"), E.FRAME_SIZE_ERROR),
    Case("6.9.1 the connection's window too far", raw(WINDOW_UPDATE, 0, 0, integer(2**31 - 1)), E.FLOW_CONTROL_ERROR),
    Case("6.9.1 a stream's window too far", post() + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1)), None,
         E.FLOW_CONTROL_ERROR),
    Case("6.9.2 windows too far by a setting", [setting(4, 1 << 20) + post()
         + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1 - (1 << 20))), setting(4, 1 << 21)], E.FLOW_CONTROL_ERROR),
    Case("6.10 CONTINUATION behind a whole block", post() + raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("6.10 CONTINUATION on the connection", raw(HEADERS, 1, 1, block()) + raw(CONTINUATION, 4, 0), E.PROTOCOL_ERROR),
    # Section 8: messages
    Case("8.1 trailers that end nothing", post() + raw(HEADERS, END_HEADERS, 1, Encoder().encode([(b"x", b"y")])),
         E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 more content than length", post(1, (b"content-length", b"1")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 less content than length", post(1, (b"content-length", b"3")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 a length without content", fields((b"content-length", b"3")), status=400),
    Case("8.1.1 less content than length before trailers", post(1, (b"content-length", b"3")) + raw(DATA, 0, 1, b"xx")
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 no content before trailers", post(1, (b"content-length", b"3"))
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 a length that is none", fields((b"content-length", b"x")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.1.1 two lengths", fields((b"content-length", b"0"), (b"content-length", b"0")), status=400),
    Case("8.2.1 capitals in a name", fields((b"X-Large", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a line end in a value", fields((b"x", b"y\r\nevil: 1")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a bare line feed in a value", fields((b"x", b"y\nevil: 1")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 NUL in a value", fields((b"x", b"y\0")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a blank around a value", fields((b"x", b" y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a colon in a name", fields((b"x:y", b"z")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a blank in a name", fields((b"x y", b"z")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 no name", raw(HEADERS, 5, 1, block() + b"\0\0\1z"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.1 a name that is no token", fields((b"x(y)", b"z")), status=400),
    Case("8.2.1 another control character in a value", fields((b"x", b"y\x01")), status=400),
    Case("8.2.2 Connection", fields((b"connection", b"close")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Transfer-Encoding", fields((b"transfer-encoding", b"chunked")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Keep-Alive", fields((b"keep-alive", b"5")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Proxy-Connection", fields((b"proxy-connection", b"close")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 Upgrade", fields((b"upgrade", b"websocket")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.2.2 TE that is not trailers", fields((b"te", b"gzip")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 an unknown pseudo-field", fields(first=(b":x", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 one of responses", fields(first=(b":status", b"200")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 a pseudo-field behind a field", fields(first=(b"x", b"y")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3 a pseudo-field in trailers", post() + raw(HEADERS, 5, 1, Encoder().encode([(b":path", b"/")])),
         E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no method", fields(without=b":method"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no scheme", fields(without=b":scheme"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no path", fields(without=b":path"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 no authority and no Host", fields(without=b":authority"), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 Host in place of the authority", fields((b"host", b"chat.test"), without=b":authority"), status=200),
    Case("8.3.1 another Host", fields((b"host", b"evil.test")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 a user in the authority", fields(without=b":authority", first=(b":authority", b"me@chat.test")), status=400),
    Case("8.3.1 a blank in the authority", fields(without=b":authority", first=(b":authority", b"chat test")), status=400),
    Case("8.3.1 a path with a fragment", fields(without=b":path", first=(b":path", b"/#top")), status=400),
    Case("8.3.1 two methods", fields(first=(b":method", b"GET")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 an empty path", fields(without=b":path", first=(b":path", b"")), E.PROTOCOL_ERROR, is_harder=True),
    Case("8.3.1 a path that is an address", fields(without=b":path", first=(b":path", b"http://evil/")), status=400),
    Case("8.3.1 a path with a blank", fields(without=b":path", first=(b":path", b"/ HTTP/1.1")), status=400),
    Case("8.3.1 a method with a blank", fields(without=b":method", first=(b":method", b"GET /evil")), status=400),
    Case("8.5 CONNECT", raw(HEADERS, 5, 1, Encoder().encode([(b":method", b"CONNECT"), (b":authority", b"x:1")])), status=400),
    # RFC 7541
    Case("HPACK 6.1 index 0", raw(HEADERS, 5, 1, b"\x80"), E.COMPRESSION_ERROR),
    Case("HPACK 2.3.3 an index beyond the table", raw(HEADERS, 5, 1, b"\xc0"), E.COMPRESSION_ERROR),
    Case("HPACK 5.2 a string beyond the block", raw(HEADERS, 5, 1, b"\x00\x7f"), E.COMPRESSION_ERROR),
    Case("HPACK 5.1 an integer without an end", raw(HEADERS, 5, 1, b"\xff" + b"\x80" * 20), E.COMPRESSION_ERROR),
    Case("HPACK 5.2 Huffman code with its end in it", raw(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01x"),
         E.COMPRESSION_ERROR),
    Case("HPACK 5.2 Huffman code with much padding", raw(HEADERS, 5, 1, b"\x00\x82\x1f\xff\x01x"), E.COMPRESSION_ERROR),
    Case("HPACK 6.3 a table beyond what we allow", raw(HEADERS, 5, 1, b"\x3f\xe2\x1f" + block()), E.COMPRESSION_ERROR),
    Case("HPACK 4.2 a table changed in the middle", raw(HEADERS, 5, 1, block() + b"\x20"), E.COMPRESSION_ERROR),
]  # fmt: skip


def page() -> str:
    """These rules as a page."""
    rows = []
    for case in CASES:
        section, _, what = case.name.removeprefix("HPACK ").partition(" ")
        place = f"RFC 7541, {section}" if case.name.startswith("HPACK") else section
        if case.goaway is not None:
            answer = f"GOAWAY `{case.goaway.name}`" + (
                ", which ends more than the stream" if case.is_harder else ""
            )
        elif case.reset is not None:
            answer = f"RST_STREAM `{case.reset.name}`"
        else:
            answer = "answered" if case.status == OK else f"answered {case.status}"
        rows.append(f"| {place} | {what} | {answer} |\n")
    return _PAGE.format("".join(rows))


_PAGE = """# The rules of HTTP/2

What a client that breaks the rules of HTTP/2 is answered ([HTTPS](https.md#http2) tells what is offered). Each row is
a test; sections without a name are those of RFC 9113. What is *answered* breaks no rule. GOAWAY ends the connection.
Frames and the compression of fields are those of the library `h2`. Where it ends the connection for what the RFC would
end the stream for, as the RFC allows in section 5.4.1, the table says so. Browsers break none of these.

What is no break of a rule, but too much, is in [Limits](limits.md#http2).

| section | a client says | it is answered |
|---|---|---|
{}
A client that does not acknowledge SETTINGS is not waited for (section 6.5.3): what it has not seen yet allows it no more
than what it has. Priorities are not looked at (section 5.3.2), nothing is pushed (section 8.4), and CONNECT is for
forward proxies (section 8.5), or asks for a websocket where `tls.http2_websockets` is on (RFC 8441).
"""

if __name__ == "__main__":
    sys.stdout.write(page())
