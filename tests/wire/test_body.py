"""Where bodies end (RFC 9112 sections 6 and 7): counted, chunked, until the connection closes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BodyError, FramingError
from proxy.wire.body import (
    ChunkedBody,
    CountedBody,
    Framer,
    UntilClose,
    request_body,
    response_body,
)
from proxy.wire.fields import Fields


def feed(framer: Framer, data: bytes, sizes: list[int] | None = None) -> tuple[int, bytes]:
    """Feed data in pieces (at first of these sizes, then one byte each): bytes taken, and content."""
    content: list[bytes] = []
    taken, at = 0, 0
    sizes = list(sizes or ())
    while at < len(data) and not framer.done:
        size = sizes.pop(0) if sizes else 1
        taken += framer.feed(data[at : at + size], content)
        at += size
    return taken, b"".join(content)


CHUNKS = b'5\r\nhello\r\n0b;a=b;c="d\\"";e\r\n wide world\r\n000\r\nX-Trailer: y\r\nServer-Timing: z\r\n\r\n'

# what makes the framer, the body as it goes over the wire, its content
WHOLE: list[tuple[Callable[[], Framer], bytes, bytes]] = [
    (lambda: CountedBody(5), b"hello", b"hello"),
    (lambda: CountedBody(1), b"\n", b"\n"),
    (ChunkedBody, b"0\r\n\r\n", b""),
    (ChunkedBody, b"0\r\nX: y\r\n\r\n", b""),
    (ChunkedBody, b"1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n", b"\r\r\n"),
    (ChunkedBody, b"A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n", b"0123456789" * 2),
    (ChunkedBody, CHUNKS, b"hello wide world"),
]


@pytest.mark.parametrize(("make", "wire", "content"), WHOLE)
def test_bodies_end_where_they_end(make: Callable[[], Framer], wire: bytes, content: bytes) -> None:
    """A body takes its own bytes and leaves those of the next message, fed at once or byte by byte."""
    for sizes in ([len(wire) + 9], [], [len(wire) - 1, 9]):
        framer = make()
        assert feed(framer, wire + b"GET / HTTP", sizes) == (len(wire), content)
        assert framer.done
        assert framer.feed(b"more") == 0


@pytest.mark.parametrize(("make", "wire", "content"), WHOLE)
def test_bodies_are_not_done_early(make: Callable[[], Framer], wire: bytes, content: bytes) -> None:
    """RFC 9112 section 8: a body that was cut off anywhere is not whole."""
    for length in range(len(wire)):
        framer = make()
        feed(framer, wire[:length])
        assert not framer.done


def test_no_body_is_done_at_once() -> None:
    """A body of no bytes is whole before any came."""
    assert CountedBody(0).done
    assert CountedBody(0).feed(b"next") == 0


def test_until_close_takes_all_and_never_ends() -> None:
    """RFC 9112 section 6.3: only the end of the connection ends such a body."""
    framer = UntilClose()
    assert feed(framer, b"0\r\n\r\nanything", []) == (13, b"0\r\n\r\nanything")
    assert not framer.done


# a chunked body, why it is refused
REFUSED = [
    # RFC 9112 section 7.1: the size is hex digits, and no more than fit
    (b"\r\nhello\r\n", "size"),
    (b"g\r\n", "size"),
    (b"0x5\r\nhello\r\n", "size"),
    (b"+5\r\nhello\r\n", "size"),
    (b"-5\r\nhello\r\n", "size"),
    (b" 5\r\nhello\r\n", "size"),
    (b"5 \r\nhello\r\n", "size"),
    (b"5\t\r\nhello\r\n", "size"),
    (b"5,5\r\nhello\r\n", "size"),
    (b"5_0\r\nhello\r\n", "size"),
    (b"\xb2\r\nhello\r\n", "size"),
    (b"5\x00\r\nhello\r\n", "size"),
    (b"5\r\r\nhello\r\n", "size"),
    (b"1000000000000000\r\n", "size"),
    (b"0000000000000005\r\nhello\r\n", "size"),
    # section 7.1.1: extensions by their grammar
    (b"5;\r\nhello\r\n", "size"),
    (b"5;a=\r\nhello\r\n", "size"),
    (b"5;=a\r\nhello\r\n", "size"),
    (b"5;a;\r\nhello\r\n", "size"),
    (b"5;a b\r\nhello\r\n", "size"),
    (b"5 ;a\r\nhello\r\n", "size"),
    (b"5; a\r\nhello\r\n", "size"),
    (b'5;a="b\r\nhello\r\n', "size"),
    (b'5;a="b"c\r\nhello\r\n', "size"),
    (b"5;a=\x00\r\nhello\r\n", "size"),
    (b"5;a=\rb\r\nhello\r\n", "size"),
    (b"5;" + b"a" * 1024 + b"\r\n", "too long"),
    # section 7.1: the data is as long as its size says
    (b"5\r\nhello!\r\n0\r\n\r\n", "longer"),
    (b"5\r\nhell\r\n0\r\n\r\n", "longer"),
    (b"5\r\nhello0\r\n\r\n", "longer"),
    (b"5\r\nhello\n0\r\n\r\n", "longer"),
    (b"5\r\nhello\rX", "longer"),
    (b"5\r\nhello\r\r\n", "longer"),
    # section 2.2: bare LF
    (b"5\nhello\r\n", "bare LF"),
    (b"0\n\n", "bare LF"),
    (b"0\r\n\n", "bare LF"),
    (b"0\r\nX: y\n\r\n", "bare LF"),
    # RFC 9110 section 6.5.1: trailers are fields, and none that routes, frames or authorises
    (b"0\r\nX : y\r\n\r\n", "trailer"),
    (b"0\r\n X: y\r\n\r\n", "trailer"),
    (b"0\r\nX: y\r\n z\r\n\r\n", "trailer"),
    (b"0\r\nX: \x00\r\n\r\n", "trailer"),
    (b"0\r\nX\r\n\r\n", "trailer"),
    (b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n", "too long"),
    (b"0\r\n" + b"X: y\r\n" * 1500 + b"\r\n", "too long"),
    *(
        (b"0\r\n%b: 5\r\n\r\n" % name, "trailers")
        for name in (b"Content-Length", b"HOST", b"Connection", b"Trailer", b"TE", b"Upgrade", b"Keep-Alive",
                     b"Content-Type", b"Content-Encoding", b"Cookie", b"Set-Cookie", b"Authorization",
                     b"X-Forwarded-For", b"Forwarded", b"Expect", b"Max-Forwards", b"Via", b"X-Real-IP",
                     b"X-Forwarded-Port", b"X_Forwarded_For", b"content_type", b"Front-End-Https")
    ),
    (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailers"),
    (b"0\r\nTransfer-Encoding: gzip\r\n\r\n", "trailer"),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "reason"), REFUSED)
def test_bad_chunks_are_refused(wire: bytes, reason: str) -> None:
    """RFC 9112 section 7.1: chunks that two readers could read differently are refused, in any pieces."""
    for sizes in ([len(wire)], []):
        with pytest.raises(BodyError, match=reason):
            feed(ChunkedBody(), wire, sizes)


def test_long_lines_are_refused_before_their_end() -> None:
    """What is kept of a size line or of trailers is bounded, also when their end never comes."""
    for start in (b"", b"0\r\n"):
        framer = ChunkedBody()
        framer.feed(start)
        with pytest.raises(BodyError, match="too long"):
            feed(framer, b"5" * 10_000)


@given(st.lists(st.binary(min_size=1, max_size=40)), st.lists(st.integers(1, 30)), st.booleans())
def test_chunks_are_read_as_written(parts: list[bytes], sizes: list[int], trailer: bool) -> None:
    """Whatever the content and wherever it is cut, chunks give it back, and take just their own bytes."""
    wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    wire += b"0\r\n" + (b"X-T: 1\r\n" if trailer else b"") + b"\r\n"
    framer = ChunkedBody()
    assert feed(framer, wire + b"0\r\n\r\n", sizes) == (len(wire), b"".join(parts))
    assert framer.done


@given(st.binary(max_size=80), st.lists(st.integers(1, 9)))
def test_pieces_do_not_matter(data: bytes, sizes: list[int]) -> None:
    """Any bytes are taken, or refused, alike however they are cut."""

    def outcome(cut: list[int]) -> object:
        framer = ChunkedBody()
        try:
            return feed(framer, b"4\r\nabcd\r\n" + data, cut), framer.done
        except BodyError:
            return "refused"

    assert outcome([len(data) + 9]) == outcome(sizes) == outcome([])


LENGTH, CHUNKED, NEITHER = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""

# method, status, fields, the framer and what it says about being done
RESPONSES = [
    (b"GET", 200, LENGTH, CountedBody, False),
    (b"GET", 200, CHUNKED, ChunkedBody, False),
    (b"GET", 200, NEITHER, UntilClose, False),
    (b"GET", 200, b"Content-Length: 0\r\n", CountedBody, True),
    (b"HEAD", 200, LENGTH, CountedBody, True),
    (b"HEAD", 200, CHUNKED, CountedBody, True),
    (b"HEAD", 200, NEITHER, CountedBody, True),
    (b"GET", 204, LENGTH, CountedBody, True),
    (b"GET", 204, CHUNKED, CountedBody, True),
    (b"GET", 304, LENGTH, CountedBody, True),
    (b"GET", 304, NEITHER, CountedBody, True),
    (b"GET", 103, LENGTH, CountedBody, True),
    (b"GET", 101, NEITHER, CountedBody, True),
    (b"GET", 205, NEITHER, UntilClose, False),
    (b"GET", 500, NEITHER, UntilClose, False),
    (b"POST", 413, LENGTH, CountedBody, False),
]


@pytest.mark.parametrize(("method", "status", "block", "kind", "done"), RESPONSES)
def test_response_framing(method: bytes, status: int, block: bytes, kind: type, done: bool) -> None:
    """RFC 9112 section 6.3: the order in which method, status and fields tell where a response ends."""
    framer = response_body(method, status, Fields(block))
    assert isinstance(framer, kind)
    assert framer.done is done


@pytest.mark.parametrize(
    ("block", "kind", "done"),
    [(LENGTH, CountedBody, False), (CHUNKED, ChunkedBody, False), (NEITHER, CountedBody, True)],
)
def test_request_framing(block: bytes, kind: type, done: bool) -> None:
    """RFC 9112 section 6.3: a request with neither field has no body; it never ends by closing."""
    framer = request_body(Fields(block))
    assert isinstance(framer, kind)
    assert framer.done is done


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("extension", [b"", b";x=" + b"y" * 100])
def test_a_body_of_framing_is_refused(size: int, extension: bytes) -> None:
    """Chunks of a byte make hundreds of times the work of their content: so many are taken of a client."""
    chunk = b"%x%b\r\n%b\r\n" % (size, extension, b"a" * size)
    fields = Fields(b"Transfer-Encoding: chunked\r\n")
    framer = request_body(fields)
    with pytest.raises(FramingError, match="framing"):
        framer.feed(chunk * (16384 // (len(chunk) - 2 * size) + 2))
    few = request_body(fields)
    few.feed(chunk * 100 + b"0\r\n\r\n")
    assert few.done
    answer = response_body(b"GET", 200, fields)  # an app may stream its answer so
    answer.feed(chunk * 10_000 + b"0\r\n\r\n")
    assert answer.done


def test_content_outweighs_its_framing() -> None:
    """Small chunks beside large ones are no trouble, nor is any number of chunks with more content."""
    framer = request_body(Fields(b"Transfer-Encoding: chunked\r\n"))
    framer.feed(b"6\r\nabcdef\r\n" * 100_000)
    framer.feed(b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n" + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")
    assert framer.done


def test_content_that_is_announced_has_not_come() -> None:
    """The size of a chunk counts when it is there."""
    framer = request_body(Fields(b"Transfer-Encoding: chunked\r\n"))
    with pytest.raises(FramingError):
        framer.feed(b"1\r\na\r\n" * 5000 + b"fffffffff\r\n")
