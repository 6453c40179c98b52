"""Header fields: the strict parser and the rules of Connection (RFC 9110, RFC 9112)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import FieldError
from proxy.wire.fields import HOP_BY_HOP, Fields

# the block, why it is refused
REFUSED = [
    # RFC 9112 section 5.1: no space before the colon, and a name that is a token
    (b"X : a\r\n", "malformed"),
    (b"X\t: a\r\n", "malformed"),
    (b": a\r\n", "malformed"),
    (b"no colon\r\n", "malformed"),
    (b"na me: a\r\n", "malformed"),
    (b"na\x00me: a\r\n", "malformed"),
    (b"n\xe9: a\r\n", "malformed"),
    (b'"x": a\r\n', "malformed"),
    # section 5.2: obs-fold
    (b" X: a\r\n", "malformed"),
    (b"X: a\r\n b\r\n", "malformed"),
    (b"X: a\r\n\tb: c\r\n", "malformed"),
    # section 2.2: bare CR and LF
    (b"X: a\rb\r\n", "malformed"),
    (b"X: a\nb\r\n", "malformed"),
    (b"X: a\n", "malformed"),
    (b"X: a\r", "malformed"),
    (b"X: a\r\r\n", "malformed"),
    (b"X: a", "malformed"),
    (b"X: a\r\n\r\n", "malformed"),
    (b"\r\nX: a\r\n", "malformed"),
    # RFC 9110 section 5.5: control bytes in a value
    (b"X: a\x00b\r\n", "malformed"),
    (b"X: a\x01\r\n", "malformed"),
    (b"X: a\x0b\r\n", "malformed"),
    (b"X: a\x0c\r\n", "malformed"),
    (b"X: a\x1f\r\n", "malformed"),
    (b"X: a\x7f\r\n", "malformed"),
    # RFC 9112 section 6.3 and RFC 9110 section 8.6: Content-Length
    (b"Content-Length: 1\r\nContent-Length: 2\r\n", "Content-Length"),
    (b"Content-Length: 1\r\ncontent-length: 1\r\n", "Content-Length"),
    (b"Content-Length: 1, 1\r\n", "Content-Length"),
    (b"Content-Length: +1\r\n", "Content-Length"),
    (b"Content-Length: -1\r\n", "Content-Length"),
    (b"Content-Length: 0x1\r\n", "Content-Length"),
    (b"Content-Length: 1 1\r\n", "Content-Length"),
    (b"Content-Length: 1_0\r\n", "Content-Length"),
    (b"Content-Length: 1.0\r\n", "Content-Length"),
    (b"Content-Length: \xb2\r\n", "Content-Length"),
    (b"Content-Length:\r\n", "Content-Length"),
    (b"Content-Length: 1000000000000000000\r\n", "Content-Length"),
    # RFC 9112 sections 6.1 and 6.3: Transfer-Encoding
    (b"Transfer-Encoding: gzip\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: identity\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked, gzip\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: xchunked\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked;a=b\r\n", "Transfer-Encoding"),
    (b'Transfer-Encoding: "chunked"\r\n', "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked,\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding:\r\n", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "both"),
    (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "both"),
    (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "both"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "reason"), REFUSED)
def test_ambiguous_blocks_are_refused(block: bytes, reason: str) -> None:
    """RFC 9112 section 11.2: what two readers could read differently is refused, never repaired."""
    with pytest.raises(FieldError, match=reason) as caught:
        Fields(block)
    assert caught.value.status == 400


# the block, name and value of each field
ACCEPTED = [
    (b"", []),
    (b"X: a\r\n", [(b"x", b"a")]),
    (b"X:a\r\n", [(b"x", b"a")]),
    (b"X: \t a \t\r\n", [(b"x", b"a")]),
    (b"X:\r\n", [(b"x", b"")]),
    (b"X: \r\n", [(b"x", b"")]),
    (b"X: a\tb: c \xe9\xff\r\n", [(b"x", b"a\tb: c \xe9\xff")]),
    (b"!#$%&'*+-.^_`|~9Z: a\r\n", [(b"!#$%&'*+-.^_`|~9z", b"a")]),
    (b"A: 1\r\nB: 2\r\na: 3\r\n", [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]),
]


@pytest.mark.parametrize(("block", "expected"), ACCEPTED)
def test_valid_blocks(block: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    """RFC 9110 section 5: names are compared in lower case, order is kept, outer blanks are no value."""
    assert [(line.name, line.value) for line in Fields(block).lines] == expected


def test_values_by_name() -> None:
    """The first value of a name, every value of it, or none."""
    fields = Fields(b"A: 1\r\nB: 2\r\na: 3\r\n")
    assert (fields.get(b"a"), fields.get(b"b"), fields.get(b"c")) == (b"1", b"2", None)
    assert (fields.get_all(b"a"), fields.get_all(b"c")) == ([b"1", b"3"], [])


# the block, length, chunked
FRAMING = [
    (b"", None, False),
    (b"Content-Length: 0\r\n", 0, False),
    (b"Content-Length: 5\r\n", 5, False),
    (b"content-LENGTH:\t0007 \r\n", 7, False),
    (b"Content-Length: 999999999999999999\r\n", 999999999999999999, False),
    (b"Transfer-Encoding: chunked\r\n", None, True),
    (b"transfer-encoding:Chunked \r\n", None, True),
]


@pytest.mark.parametrize(("block", "length", "chunked"), FRAMING)
def test_framing(block: bytes, length: int | None, chunked: bool) -> None:
    """RFC 9112 section 6: digits, or chunked in any case of letters."""
    fields = Fields(block)
    assert (fields.length, fields.chunked) == (length, chunked)


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_fields_of_one_connection_do_not_pass(name: bytes) -> None:
    """RFC 9110 section 7.6.1: what speaks of one connection ends with it, nominated or not."""
    value = b"chunked" if name == b"transfer-encoding" else b"x"
    assert Fields(b"A: 1\r\n%b: %b\r\nB: 2\r\n" % (name, value)).end_to_end(HOP_BY_HOP) == b"A: 1\r\nB: 2\r\n"


def test_nominated_fields_do_not_pass() -> None:
    """RFC 9110 section 7.6.1: Connection names further fields, in any case, over several lines."""
    block = b"Connection: foo, BAR\r\nFoo: 1\r\nKeep: 2\r\nbar: 3\r\nconnection: baz\r\nBaz: 4\r\nfoo: 5\r\n"
    assert Fields(block).end_to_end(HOP_BY_HOP) == b"Keep: 2\r\n"


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_framing_and_host_cannot_be_nominated(name: bytes) -> None:
    """RFC 9110 section 7.6.1: what all recipients need cannot be taken out of a message."""
    fields = Fields(b"Connection: keep-alive, %b\r\nHost: a\r\n" % name)
    assert fields.nominated == {b"keep-alive"}
    assert fields.end_to_end(HOP_BY_HOP) == b"Host: a\r\n"


def test_lines_pass_as_they_came() -> None:
    """Spelling and blanks of a field that passes are nobody's business."""
    block = b"hOsT:a\r\nX-Odd:\t b \r\nX-Odd: c\r\n"
    assert Fields(block).end_to_end(frozenset()) == block
    assert Fields(block).end_to_end(frozenset((b"host", b"x-odd"))) == b""


def test_lists_over_several_lines_are_one() -> None:
    """RFC 9110 section 5.3: repeated Upgrade and Via fields are one list, in order."""
    fields = Fields(b"Upgrade: a\r\nVia: 1.1 x\r\nUpgrade: b, c\r\nvia: 1.0 y\r\n")
    assert (fields.upgrade, fields.via) == (b"a, b, c", b"1.1 x, 1.0 y")


TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=12).map(lambda v: bytes(b for b in v if b == 9 or 32 <= b != 127))


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=6))
def test_what_is_written_is_read(pairs: list[tuple[bytes, bytes]]) -> None:
    """Every block of valid names and values is read as it was written, and passes unchanged."""
    pairs = [(b"x" + name, value) for name, value in pairs]
    block = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
    fields = Fields(block)
    assert [(line.name, line.value) for line in fields.lines] == [
        (n.lower(), v.strip(b" \t")) for n, v in pairs
    ]
    assert fields.end_to_end(HOP_BY_HOP) == block


def test_repr_tells_no_values() -> None:
    """What is logged of fields are their names: values may be secrets."""
    assert repr(Fields(b"Cookie: secret\r\nHost: a\r\n")) == "<Fields cookie host>"
