"""What our parser accepts, h11 and llhttp accept too, and understand the same: no head has two meanings."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.judges import (
    Seen,
    by_h11,
    by_h11_response,
    by_httptools,
    by_httptools_response,
    ours,
    ours_response,
)

METHODS = {b"GET", b"POST", b"OPTIONS", b"DELETE"}  # llhttp knows those that are registered, we pass on all
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"  # as chunks: hello; as counted bytes: themselves

START = [
    b"GET / HTTP/1.1", b"POST /a/b?c=d&e HTTP/1.1", b'GET /%00"<>^`{|}~ HTTP/1.0', b"OPTIONS * HTTP/1.1",
    b"GET http://h/x?y HTTP/1.1", b"DELETE /;:@&=+$, HTTP/1.1",
]  # fmt: skip
STATUS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 204 No Content", b"HTTP/1.0 200 OK", b"HTTP/1.1 599 x",
]  # fmt: skip
LINES = [
    b"Host: chat.example.org", b"Host:a:80", b"Host: [::1]:80", b"Host:", b"HOST: b",
    b"Content-Length: 5", b"content-length:\t7 ", b"Content-Length: 0", b"Content-Length: 15",
    b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: 0x5", b"Content-Length: 00005",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding : chunked",
    b"Connection: keep-alive, Upgrade", b"Connection: close", b"Upgrade: websocket",
    b"Cookie: a=1; b=2", b"X-Empty:", b"X-Tabs:\t a \t b\t", b"X-Latin: \xe9\xff", b"!#$%&'*+-.^_`|~9: token",
    b" folded", b"\tfolded", b"no colon", b": no name", b"na me: x", b"X: a\x00b", b"X: a\rb", b"X: a\nb",
    b"X: \x7f", b"X: a\x01b", b"Expect: 100-continue", b"Trailer: x",
]  # fmt: skip
ENDS = [b"\r\n"] * 9 + [b"\n", b"\r", b"\r\r\n", b"\n\n"]


def line_list(start: list[bytes]) -> st.SearchStrategy[bytes]:
    """Heads put together from good and bad lines, most with a Host first and most with good line ends."""
    lines = st.lists(st.sampled_from(LINES), max_size=5)
    hosts = st.sampled_from([[b"Host: a"], [b"Host: a"], []])
    ends = st.lists(st.sampled_from(ENDS), min_size=8, max_size=8)
    return st.tuples(st.sampled_from(start), hosts, lines, ends).map(
        lambda t: (
            b"".join(line + end for line, end in zip([t[0], *t[1], *t[2]], t[3], strict=False)) + b"\r\n"
        )
    )


def damaged(head: bytes) -> st.SearchStrategy[bytes]:
    """The head with a few bytes put in, taken out or replaced."""
    blanks = [b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b"\x0b", b"\x7f", b"\x80"]
    odd = st.sampled_from([*blanks, b":", b"#", b"?", b",", b"0"])
    edit = st.tuples(st.integers(0, len(head) - 3), st.integers(0, 2), odd)

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = head
        for at, length, new in edits:
            result = result[:at] + new + result[at + length :]
        return result

    return st.lists(edit, min_size=1, max_size=3).map(apply)


def whole(head: bytes) -> bool:
    """Whether it is one head for us: it has one empty line, at its end."""
    return head.find(b"\r\n\r\n") == len(head) - 4


def same(us: Seen, them: Seen | None, *, target: bool = True) -> None:
    """They accept it, and mean the same."""
    assert them is not None
    assert them.start == us.start or not target
    assert (them.minor, them.fields, them.body, them.whole) == (us.minor, us.fields, us.body, us.whole)


def check_request(head: bytes) -> None:
    """What we accept, both accept with the same meaning."""
    if not whole(head):
        return
    us = ours(head, CHUNKS)
    if us is None:
        return
    absolute = b" http://" in head[:20].lower()
    if absolute:  # its authority has replaced Host, which the others leave to their callers
        host, us.fields = us.fields[0][1], []
        assert host in head.split(b"\r\n", 1)[0]
    readers = (by_h11, by_httptools) if us.start[0] in METHODS else (by_h11,)
    for them in (read(head, CHUNKS) for read in readers):
        if absolute and them is not None:
            assert them.start[1].endswith(us.start[1].removeprefix(b"/"))
            them.fields = []
        same(us, them, target=not absolute)


def check_response(head: bytes) -> None:
    """As check_request."""
    if not whole(head):
        return
    us = ours_response(head, CHUNKS)
    if us is not None:
        same(us, by_h11_response(head, CHUNKS))
        same(us, by_httptools_response(head, CHUNKS))


@settings(max_examples=300, deadline=None)
@given(line_list(START))
def test_requests_of_good_and_bad_lines(head: bytes) -> None:
    """RFC 9112 section 2.2: a request that we pass on has one meaning, whoever reads it."""
    check_request(head)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(START).flatmap(
    lambda start: damaged(start + b"\r\nHost: a\r\nContent-Length: 5\r\nX-A: b\r\n\r\n")))  # fmt: skip
@example(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n")
def test_damaged_requests(head: bytes) -> None:
    """A few wrong bytes make a request refused, or mean the same to all."""
    check_request(head)


@settings(max_examples=300, deadline=None)
@given(line_list(STATUS))
def test_responses_of_good_and_bad_lines(head: bytes) -> None:
    """A response that we pass on has one meaning, whoever reads it."""
    check_response(head)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STATUS).flatmap(
    lambda start: damaged(start + b"\r\nContent-Length: 5\r\nX-A: b\r\n\r\n")))  # fmt: skip
def test_damaged_responses(head: bytes) -> None:
    """A few wrong bytes make a response refused, or mean the same to all."""
    check_response(head)


@settings(max_examples=300, deadline=None)
@given(damaged(b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: y\r\n\r\n"))
def test_damaged_chunks(body: bytes) -> None:
    """RFC 9112 section 7.1: a chunked body that we take for whole is whole for all, with the same content."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    us = ours(head, body)
    if us is not None and us.whole:
        same(us, by_h11(head, body))
        same(us, by_httptools(head, body))


@pytest.mark.parametrize("start", START)
def test_plain_heads_are_accepted_by_all(start: bytes) -> None:
    """The comparison is not empty: these heads are good for all three."""
    head = start + b"\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    assert ours(head, CHUNKS) is not None
    check_request(head)
