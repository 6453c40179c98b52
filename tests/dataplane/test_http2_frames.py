# ruff: noqa: E501 - the table has a case a line
"""The rules of RFC 9113 and RFC 7541 for servers: what a client says, and what it is answered.

In memory: one connection that no socket has, of a proxy whose backend is not there. A good request names a sid
that is nobody's, which the proxy answers itself.
"""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import pytest
from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from proxy.config import Config
from proxy.dataplane.http2 import Http2Connection
from proxy.dataplane.http2_stream import Stream
from proxy.parts import Parts
from tests.dataplane.loop import run_loop
from tests.dataplane.multiplexed import PREFACE, request

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1
BACKENDS = [{"name": "a", "url": "http://127.0.0.1:1"}]
NOBODYS = b"/ws/socket.io/?EIO=4&transport=polling&sid=nobodys.sid"
READ = b"/mcp"  # its body is read before it goes anywhere
BEGIN = PREFACE + b"\0\0\0\4\0\0\0\0\0"


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.extra: dict[str, Any] = {"peername": ("192.0.2.1", 4000), "sockname": ("192.0.2.2", 443)}

    def write(self, data: bytes) -> None:
        """As Transport."""
        self.written += data

    def close(self) -> None:
        """As Transport."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """As Transport."""
        return self.closed

    def get_extra_info(self, name: str) -> Any:
        """As Transport."""
        return self.extra.get(name)

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return 0


class Nobody:
    """As Host: it forgets everything."""

    def admitted(self, connection: object) -> None:
        """As Host."""

    def left(self, connection: Stream) -> None:
        """As Host."""

    def http2_admitted(self, connection: Http2Connection) -> None:
        """As Host."""

    def http2_left(self, connection: Http2Connection) -> None:
        """As Host."""


def hear(said: list[bytes]) -> tuple[list[Frame], bool]:
    """What a client that says this is answered, each piece in a turn of its own, and whether it was closed."""
    wire = Wire()

    async def main() -> None:
        parts = Parts(Config.model_validate({"backends": BACKENDS, "log": {"access": False}}))
        async with asyncio.TaskGroup() as tasks:
            parts.plane.site.run_in(tasks)
            connection = Http2Connection(parts.plane.site, Nobody())
            connection.connection_made(cast("asyncio.Transport", wire))
            for piece in said:
                if not wire.closed:
                    connection.data_received(piece)
                for _ in range(3):
                    await asyncio.sleep(0)
            connection.connection_lost(None)

    run_loop(main(), debug=False)
    frames, rest = [], wire.written
    while rest:
        frame, length = Frame.parse_frame_header(memoryview(rest[:9]))
        frame.parse_body(memoryview(rest[9 : 9 + length]))
        frames.append(frame)
        rest = rest[9 + length :]
    return frames, wire.closed


def raw(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame of any kind."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def block(
    *more: tuple[bytes, bytes],
    method: bytes = b"GET",
    without: bytes = b"",
    first: tuple[bytes, bytes] | None = None,
) -> bytes:
    """The block of a good request, and more fields; `without` one of it. Nothing is put into a table."""
    path = NOBODYS if method == b"GET" else READ
    fields = [field for field in [*request(path, method=method), *more] if field[0] != without]
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
    status: int = 0  # of the answer on stream 1


E = ErrorCodes
CASES = [
    # RFC 9113 section 4: frames
    Case("4.1 an unknown kind is ignored", raw(0xEE, 0xFF, 0, b"x") + good(), status=400),
    Case("4.1 an unknown kind on a stream is ignored", raw(0xEE, 0xFF, 9, b"x") + good(), status=400),
    Case("4.1 undefined flags are ignored", raw(PING, 0x16, 0, b"12345678") + good(), status=400),
    Case("4.1 the reserved bit is ignored", raw(PING, 0, 1 << 31, b"12345678") + good(), status=400),
    Case("4.2 a frame that is too large", raw(DATA, 0, 1, b"x" * 16385), E.FRAME_SIZE_ERROR),
    Case("4.2 a large frame of no kind", raw(0xEE, 0, 0, b"x" * 16385), E.FRAME_SIZE_ERROR),
    Case("4.3 a block that cannot be unpacked", raw(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR),
    Case("4.3 another frame in a block", raw(HEADERS, 1, 1, block()) + raw(PING, 0, 0, b"12345678"), E.PROTOCOL_ERROR),
    Case("4.3 an unknown frame in a block", raw(HEADERS, 1, 1, block()) + raw(0xEE), E.PROTOCOL_ERROR),
    Case("4.3 a block of another stream", raw(HEADERS, 1, 1, block()) + raw(HEADERS, 5, 3, block()), E.PROTOCOL_ERROR),
    Case("4.3 a block in pieces", raw(HEADERS, 1, 1, block()[:9]) + raw(CONTINUATION, 4, 1, block()[9:]), status=400),
    # Section 5: streams
    Case("5.1 DATA on an idle stream", raw(DATA, 1, 1, b"x"), E.PROTOCOL_ERROR),
    Case("5.1 WINDOW_UPDATE on an idle stream", raw(WINDOW_UPDATE, 0, 1, integer(1)), E.PROTOCOL_ERROR),
    Case("5.1 RST_STREAM on an idle stream", raw(RST_STREAM, 0, 1, integer(8)), E.PROTOCOL_ERROR),
    Case("5.1 CONTINUATION on an idle stream", raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("5.1 PRIORITY on an idle stream", raw(PRIORITY, 0, 1, integer(0) + b"\1") + good(), status=400),
    Case("5.1 DATA behind the end", [good() + raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED),
    Case("5.1 a head behind the end", [good() + good()], None, E.STREAM_CLOSED),
    Case("5.1 WINDOW_UPDATE behind the end", good() + raw(WINDOW_UPDATE, 0, 1, integer(1)), status=400),
    Case("5.1 WINDOW_UPDATE on a closed stream", [good(), raw(WINDOW_UPDATE, 0, 1, integer(1))], status=400),
    Case("5.1 RST_STREAM on a closed stream", [good(), raw(RST_STREAM, 0, 1, integer(8))], status=400),
    Case("5.1 DATA on a closed stream", [good(), raw(DATA, 1, 1, b"x")], None, E.STREAM_CLOSED, 400),
    Case("5.1 DATA on a stream that was reset", [post() + raw(RST_STREAM, 0, 1, integer(8)), raw(DATA, 1, 1, b"x")],
         None, E.STREAM_CLOSED),
    Case("5.1 a head on a stream that was reset", [post() + raw(RST_STREAM, 0, 1, integer(8)), good()],
         None, E.STREAM_CLOSED),
    Case("5.1 a head on a closed stream", [good(), good()], E.STREAM_CLOSED, None, 400),
    Case("5.1.1 an even stream", good(2), E.PROTOCOL_ERROR),
    Case("5.1.1 a lower stream", [good(5), good(3)], E.PROTOCOL_ERROR, status=400),
    Case("5.3.1 a stream that depends on itself", raw(PRIORITY, 0, 1, integer(1) + b"\1"), E.PROTOCOL_ERROR),
    # Section 6: frames of each kind
    Case("6.1 DATA on the connection", raw(DATA, 1, 0, b"x"), E.PROTOCOL_ERROR),
    Case("6.1 more padding than DATA", post() + raw(DATA, PADDED, 1, b"\x05x"), E.PROTOCOL_ERROR),
    Case("6.2 HEADERS on the connection", good(0), E.PROTOCOL_ERROR),
    Case("6.2 more padding than HEADERS", raw(HEADERS, 5 | PADDED, 1, b"\xff" + block()), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY on the connection", raw(PRIORITY, 0, 0, integer(3) + b"\1"), E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY of another size", raw(PRIORITY, 0, 1, b"\0\0\0\3"), E.FRAME_SIZE_ERROR),
    Case("6.4 RST_STREAM on the connection", raw(RST_STREAM, 0, 0, integer(8)), E.PROTOCOL_ERROR),
    Case("6.4 RST_STREAM of another size", post() + raw(RST_STREAM, 0, 1, b"\0\0\0"), E.FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS are acknowledged", setting(1, 0) + good(), status=400),
    # The library takes this one for any other error of the protocol, where the RFC has FRAME_SIZE_ERROR.
    Case("6.5 ACK with content", raw(SETTINGS, ACK, 0, b"\0\1" + integer(0)), E.PROTOCOL_ERROR),
    Case("6.5 SETTINGS on a stream", raw(SETTINGS, 0, 1), E.PROTOCOL_ERROR),
    Case("6.5 SETTINGS of another size", raw(SETTINGS, 0, 0, b"\0\1\0"), E.FRAME_SIZE_ERROR),
    Case("6.5.2 ENABLE_PUSH is a flag", setting(2, 2), E.PROTOCOL_ERROR),
    Case("6.5.2 an initial window that is too large", setting(4, 1 << 31), E.FLOW_CONTROL_ERROR),
    Case("6.5.2 a small frame size", setting(5, 16383), E.PROTOCOL_ERROR),
    Case("6.5.2 a large frame size", setting(5, 1 << 24), E.PROTOCOL_ERROR),
    Case("6.5.2 an unknown setting", setting(0xEE, 1) + good(), status=400),
    Case("6.6 PUSH_PROMISE of a client", post() + raw(PUSH_PROMISE, 4, 1, integer(2) + block()), E.PROTOCOL_ERROR),
    Case("6.7 PING on a stream", raw(PING, 0, 1, b"12345678"), E.PROTOCOL_ERROR),
    Case("6.7 PING of another size", raw(PING, 0, 0, b"1234"), E.FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY on a stream", raw(GOAWAY, 0, 1, integer(0) * 2), E.PROTOCOL_ERROR),
    Case("6.9 a window opened by nothing", raw(WINDOW_UPDATE, 0, 0, integer(0)), E.PROTOCOL_ERROR),
    Case("6.9 a stream's window opened by nothing", post() + raw(WINDOW_UPDATE, 0, 1, integer(0)), E.PROTOCOL_ERROR),
    Case("6.9 WINDOW_UPDATE of another size", raw(WINDOW_UPDATE, 0, 0, b"\0\0\1"), E.FRAME_SIZE_ERROR),
    Case("6.9.1 the connection's window too far", raw(WINDOW_UPDATE, 0, 0, integer(2**31 - 1)), E.FLOW_CONTROL_ERROR),
    Case("6.9.1 a stream's window too far", post() + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1)), None,
         E.FLOW_CONTROL_ERROR),
    Case("6.9.2 windows too far by a setting", [setting(4, 1 << 20) + post()
         + raw(WINDOW_UPDATE, 0, 1, integer(2**31 - 1 - (1 << 20))), setting(4, 1 << 21)], E.FLOW_CONTROL_ERROR),
    Case("6.10 CONTINUATION behind a whole block", post() + raw(CONTINUATION, 4, 1, block()), E.PROTOCOL_ERROR),
    Case("6.10 CONTINUATION on the connection", raw(HEADERS, 1, 1, block()) + raw(CONTINUATION, 4, 0), E.PROTOCOL_ERROR),
    # Section 8: messages; the library ends the connection for a malformed one, as section 5.4.1 allows
    Case("8.1 trailers that end nothing", post() + raw(HEADERS, END_HEADERS, 1, Encoder().encode([(b"x", b"y")])),
         E.PROTOCOL_ERROR),
    Case("8.1.1 more content than length", post(1, (b"content-length", b"1")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR),
    Case("8.1.1 less content than length", post(1, (b"content-length", b"3")) + raw(DATA, 1, 1, b"xx"), E.PROTOCOL_ERROR),
    Case("8.1.1 a length without content", fields((b"content-length", b"3")), status=400),
    Case("8.1.1 less content than length before trailers", post(1, (b"content-length", b"3")) + raw(DATA, 0, 1, b"xx")
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 no content before trailers", post(1, (b"content-length", b"3"))
         + raw(HEADERS, 5, 1, Encoder().encode([(b"x", b"y")])), None, E.PROTOCOL_ERROR),
    Case("8.1.1 a length that is none", fields((b"content-length", b"x")), E.PROTOCOL_ERROR),
    Case("8.1.1 two lengths", fields((b"content-length", b"0"), (b"content-length", b"0")), status=400),
    Case("8.2.1 capitals in a name", fields((b"X-Large", b"y")), E.PROTOCOL_ERROR),
    Case("8.2.1 a line end in a value", fields((b"x", b"y\r\nevil: 1")), E.PROTOCOL_ERROR),
    Case("8.2.1 a bare line feed in a value", fields((b"x", b"y\nevil: 1")), E.PROTOCOL_ERROR),
    Case("8.2.1 NUL in a value", fields((b"x", b"y\0")), E.PROTOCOL_ERROR),
    Case("8.2.1 a blank around a value", fields((b"x", b" y")), E.PROTOCOL_ERROR),
    Case("8.2.1 a colon in a name", fields((b"x:y", b"z")), E.PROTOCOL_ERROR),
    Case("8.2.1 a blank in a name", fields((b"x y", b"z")), E.PROTOCOL_ERROR),
    Case("8.2.1 no name", raw(HEADERS, 5, 1, block() + b"\0\0\1z"), E.PROTOCOL_ERROR),
    Case("8.2.1 a name that is no token", fields((b"x(y)", b"z")), status=400),
    Case("8.2.1 another control character in a value", fields((b"x", b"y\x01")), status=400),
    Case("8.2.2 Connection", fields((b"connection", b"close")), E.PROTOCOL_ERROR),
    Case("8.2.2 Transfer-Encoding", fields((b"transfer-encoding", b"chunked")), E.PROTOCOL_ERROR),
    Case("8.2.2 Upgrade", fields((b"upgrade", b"websocket")), E.PROTOCOL_ERROR),
    Case("8.2.2 TE that is not trailers", fields((b"te", b"gzip")), E.PROTOCOL_ERROR),
    Case("8.3 an unknown pseudo-field", fields(first=(b":x", b"y")), E.PROTOCOL_ERROR),
    Case("8.3 one of responses", fields(first=(b":status", b"200")), E.PROTOCOL_ERROR),
    Case("8.3 a pseudo-field behind a field", fields(first=(b"x", b"y")), E.PROTOCOL_ERROR),
    Case("8.3 a pseudo-field in trailers", post() + raw(HEADERS, 5, 1, Encoder().encode([(b":path", b"/")])),
         E.PROTOCOL_ERROR),
    Case("8.3.1 no method", fields(without=b":method"), E.PROTOCOL_ERROR),
    Case("8.3.1 no scheme", fields(without=b":scheme"), E.PROTOCOL_ERROR),
    Case("8.3.1 no path", fields(without=b":path"), E.PROTOCOL_ERROR),
    Case("8.3.1 no authority and no Host", fields(without=b":authority"), E.PROTOCOL_ERROR),
    Case("8.3.1 Host in place of the authority", fields((b"host", b"chat.test"), without=b":authority"), status=400),
    Case("8.3.1 another Host", fields((b"host", b"evil.test")), E.PROTOCOL_ERROR),
    Case("8.3.1 two methods", fields(first=(b":method", b"GET")), E.PROTOCOL_ERROR),
    Case("8.3.1 an empty path", fields(without=b":path", first=(b":path", b"")), E.PROTOCOL_ERROR),
    Case("8.3.1 a path that is an address", fields(without=b":path", first=(b":path", b"http://evil/")), status=400),
    Case("8.3.1 a path with a blank", fields(without=b":path", first=(b":path", b"/ HTTP/1.1")), status=400),
    Case("8.3.1 a method with a blank", fields(without=b":method", first=(b":method", b"GET /evil")), status=400),
    Case("8.5 CONNECT", raw(HEADERS, 5, 1, Encoder().encode([(b":method", b"CONNECT"), (b":authority", b"x:1")])), status=400),
    # RFC 7541
    Case("6.1 index 0", raw(HEADERS, 5, 1, b"\x80"), E.COMPRESSION_ERROR),
    Case("2.3.3 an index beyond the table", raw(HEADERS, 5, 1, b"\xc0"), E.COMPRESSION_ERROR),
    Case("5.2 a string beyond the block", raw(HEADERS, 5, 1, b"\x00\x7f"), E.COMPRESSION_ERROR),
    Case("5.1 an integer without an end", raw(HEADERS, 5, 1, b"\xff" + b"\x80" * 20), E.COMPRESSION_ERROR),
    Case("5.2 Huffman code with its end in it", raw(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01x"),
         E.COMPRESSION_ERROR),
    Case("5.2 Huffman code with much padding", raw(HEADERS, 5, 1, b"\x00\x82\x1f\xff\x01x"), E.COMPRESSION_ERROR),
    Case("6.3 a table beyond what we allow", raw(HEADERS, 5, 1, b"\x3f\xe2\x1f" + block()), E.COMPRESSION_ERROR),
    Case("4.2 a table changed in the middle", raw(HEADERS, 5, 1, block() + b"\x20"), E.COMPRESSION_ERROR),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("bytewise", [False, True])
def test_rules(case: Case, bytewise: bool) -> None:
    """Each break of a rule is answered with the code that the RFC names for it, also when it comes bytewise."""
    said = case.said if isinstance(case.said, list) else [case.said]
    if bytewise:
        said = [bytes((byte,)) for piece in said for byte in piece]
        if len(said) > 4000 or (isinstance(case.said, list) and len(case.said) == 1):
            pytest.skip("too long, or about what comes at once")
    frames, closed = hear([BEGIN, *said])
    goaway = [frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)]
    resets = [frame.error_code for frame in frames if isinstance(frame, RstStreamFrame) and frame.error_code]
    assert goaway == ([] if case.goaway is None else [case.goaway])
    assert resets == ([] if case.reset is None else [case.reset])
    assert closed == (case.goaway is not None)
    heads = [frame for frame in frames if isinstance(frame, HeadersFrame)]
    assert [dict(Decoder().decode(frame.data, raw=True))[b":status"] for frame in heads[:1]] == (
        [b"%d" % case.status] if case.status else []
    )


def test_preface() -> None:
    """Ours are SETTINGS, and a connection that begins otherwise is closed (RFC 9113 section 3.4)."""
    frames, closed = hear([BEGIN])
    assert isinstance(frames[0], SettingsFrame)
    assert not closed
    _, closed = hear([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert closed


def test_ping() -> None:
    """A PING is answered with its content, and its answer with nothing (section 6.7)."""
    frames, _ = hear([BEGIN, raw(PING, 0, 0, b"12345678") + raw(PING, ACK, 0, b"12345678")])
    pings = [frame for frame in frames if isinstance(frame, PingFrame)]
    assert [(frame.opaque_data, "ACK" in frame.flags) for frame in pings] == [(b"12345678", True)]


@pytest.mark.parametrize("seed", range(40))
def test_noise(seed: int) -> None:
    """Frames by chance, between good requests: nothing but what the rules have for them comes of it."""
    chance = Random(seed)
    for _ in range(10):
        said = [BEGIN, good(), post(3)]
        for number in range(5, 25, 2):
            payload = chance.choice(
                [b"", chance.randbytes(4), chance.randbytes(5), chance.randbytes(40), block()]
            )
            kind, flags = chance.randrange(11), chance.choice([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF])
            stream = chance.choice([0, 1, 3, number, number])
            said.append(
                raw(kind, flags, stream, payload) + (good(number + 100) if chance.random() < 0.3 else b"")
            )
        hear(said if chance.random() < 0.5 else [b"".join(said)])
