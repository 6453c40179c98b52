"""Start lines and whole heads: what is accepted, and what is refused with 400 or 502 (RFC 9112)."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest, BadResponse
from proxy.wire.head import HeadSearch, RequestHead, parse_request, parse_response


def request(text: str) -> RequestHead:
    """Parse a request written with line ends of its own."""
    return parse_request(text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")


# start line, Host, what is understood: target, path, query, Host
TARGETS = [
    ("GET / HTTP/1.1", "a", b"/", b"/", b"", b"a"),
    ("GET /a?b=c?d HTTP/1.1", "a", b"/a?b=c?d", b"/a", b"b=c?d", b"a"),
    ("GET //a/../b%00 HTTP/1.1", "a", b"//a/../b%00", b"//a/../b%00", b"", b"a"),
    ("GET /? HTTP/1.1", "a", b"/?", b"/", b"", b"a"),
    ('get /a|b{c}"<>^` HTTP/1.1', "a", b'/a|b{c}"<>^`', b'/a|b{c}"<>^`', b"", b"a"),
    ("OPTIONS * HTTP/1.1", "a", b"*", b"*", b"", b"a"),
    ("GET http://b/x?y HTTP/1.1", "a", b"/x?y", b"/x", b"y", b"b"),
    ("GET HTTPS://b:8443/ HTTP/1.1", "a", b"/", b"/", b"", b"b:8443"),
    ("GET http://b HTTP/1.1", "a", b"/", b"/", b"", b"b"),
    ("GET http://b?c HTTP/1.1", "a", b"/?c", b"/", b"c", b"b"),
    ("GET http://[::1]:80/x HTTP/1.1", "a", b"/x", b"/x", b"", b"[::1]:80"),
    ("GET / HTTP/1.1", "chat.example.org:8000", b"/", b"/", b"", b"chat.example.org:8000"),
    ("GET / HTTP/1.1", "[2001:db8::1]", b"/", b"/", b"", b"[2001:db8::1]"),
    ("GET / HTTP/1.1", "", b"/", b"/", b"", b""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "host", "target", "path", "query", "shown"), TARGETS)
def test_target_forms(line: str, host: str, target: bytes, path: bytes, query: bytes, shown: bytes) -> None:
    """RFC 9112 section 3.2: origin, absolute and asterisk form; an absolute one's authority is Host."""
    head = request(f"{line}\nHost: {host}")
    assert (head.target, head.path, head.query) == (target, path, query)
    assert head.fields.get_all(b"host") == [shown]


# the head, why it is refused
REFUSED = [
    # RFC 9112 section 3: one space each, a token, visible ASCII, a known version
    ("GET  / HTTP/1.1\nHost: a", "request line"),
    (" GET / HTTP/1.1\nHost: a", "request line"),
    ("GET / HTTP/1.1 \nHost: a", "request line"),
    ("GET\t/ HTTP/1.1\nHost: a", "request line"),
    ("GET /\nHost: a", "request line"),
    ("GET HTTP/1.1\nHost: a", "request line"),
    ("G(T / HTTP/1.1\nHost: a", "request line"),
    (f"{'G' * 33} / HTTP/1.1\nHost: a", "request line"),
    ("GET / HTTP/2.0\nHost: a", "request line"),
    ("GET / HTTP/1.2\nHost: a", "request line"),
    ("GET / http/1.1\nHost: a", "request line"),
    ("PRI * HTTP/2.0\nHost: a", "request line"),
    # section 3.2: no control byte, no space, no fragment in the target
    ("GET /\x00 HTTP/1.1\nHost: a", "request line"),
    ("GET /\x01 HTTP/1.1\nHost: a", "request line"),
    ("GET /\x7f HTTP/1.1\nHost: a", "request line"),
    ("GET /\x0b HTTP/1.1\nHost: a", "request line"),
    ("GET /\xe9 HTTP/1.1\nHost: a", "request line"),
    ("GET /a b HTTP/1.1\nHost: a", "request line"),
    ("GET /a\tb HTTP/1.1\nHost: a", "request line"),
    ("GET /a#b HTTP/1.1\nHost: a", "request line"),
    ("GET http://a/#b HTTP/1.1\nHost: a", "request line"),
    # section 3.2.2 to 3.2.4: forms that are no proxy's of this kind
    ("GET * HTTP/1.1\nHost: a", "target"),
    ("GET a HTTP/1.1\nHost: a", "target"),
    ("GET ftp://a/ HTTP/1.1\nHost: a", "target"),
    ("GET http:/// HTTP/1.1\nHost: a", "target"),
    ("GET http://user@a/ HTTP/1.1\nHost: a", "target"),
    ("GET http://a:b/ HTTP/1.1\nHost: a", "authority"),
    ("GET http://a\\b/ HTTP/1.1\nHost: a", "authority"),
    ("CONNECT a:443 HTTP/1.1\nHost: a", "CONNECT"),
    ("CONNECT / HTTP/1.1\nHost: a", "CONNECT"),
    ("CONNECT http://a/ HTTP/1.1\nHost: a", "CONNECT"),
    # section 3.2: Host
    ("GET / HTTP/1.1", "Host"),
    ("GET / HTTP/1.1\nX-Host: a", "Host"),
    ("GET / HTTP/1.1\nHost: a\nHost: a", "Host"),
    ("GET / HTTP/1.0\nHost: a\nHost: b", "Host"),
    ("GET http://a/ HTTP/1.1", "Host"),
    ("GET / HTTP/1.1\nHost: a b", "Host"),
    ("GET / HTTP/1.1\nHost: a/b", "Host"),
    ("GET / HTTP/1.1\nHost: a@b", "Host"),
    ("GET / HTTP/1.1\nHost: a:port", "Host"),
    ("GET / HTTP/1.1\nHost: a:123456", "Host"),
    ("GET / HTTP/1.1\nHost: [::1", "Host"),
    ('GET / HTTP/1.1\nHost: "a"', "Host"),
    ("GET / HTTP/1.1\nHost: \xe9", "Host"),
    # section 6.1: no chunks in HTTP/1.0
    ("POST / HTTP/1.0\nTransfer-Encoding: chunked", "HTTP/1.0"),
    ("POST / HTTP/1.0\nConnection: keep-alive\nTransfer-Encoding: chunked", "HTTP/1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_bad_requests(text: str, reason: str) -> None:
    """RFC 9112 sections 3 and 6: a request of doubtful form or target is answered 400."""
    with pytest.raises(BadRequest, match=reason) as caught:
        request(text)
    assert caught.value.status == 400


# (lines, minor version, keeps alive, wants an upgrade)
CONNECTION = [
    ("", 1, True, False),
    ("\nConnection: close", 1, False, False),
    ("\nConnection: Keep-Alive", 1, True, False),
    ("\nConnection: foo, CLOSE", 1, False, False),
    ("\nConnection: foo\nConnection: close", 1, False, False),
    ("\nConnection: closer", 1, True, False),
    ("", 0, False, False),
    ("\nConnection: keep-alive", 0, True, False),
    ("\nConnection: keep-alive, close", 0, False, False),
    ("\nConnection: keep-alive, Upgrade\nUpgrade: websocket", 1, True, True),
    ("\nConnection: upgrade\nUpgrade: a, b", 1, True, True),
    ("\nUpgrade: websocket", 1, True, False),
    ("\nConnection: upgrade", 1, True, False),
    ("\nConnection: upgrade\nUpgrade: websocket", 0, False, False),
    ("\nConnection: upgrade\nUpgrade: h2c", 1, True, False),
    ("\nConnection: upgrade\nUpgrade: websocket, H2C", 1, True, False),
    ("\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 5", 1, True, False),
    ("\nConnection: upgrade\nUpgrade: websocket\nContent-Length: 0", 1, True, True),
    ("\nConnection: upgrade\nUpgrade: websocket\nTransfer-Encoding: chunked", 1, True, False),
]


@pytest.mark.parametrize(("lines", "minor", "keeps", "upgrades"), CONNECTION)
def test_connection_options(lines: str, minor: int, keeps: bool, upgrades: bool) -> None:
    """RFC 9112 section 9.3 and RFC 9110 section 7.8: what keeps a connection and what asks for a tunnel."""
    head = request(f"GET / HTTP/1.{minor}\nHost: a{lines}")
    assert (head.minor, head.keeps_alive, head.wants_upgrade) == (minor, keeps, upgrades)


def test_equal_blocks_are_parsed_once() -> None:
    """A browser repeats its fields on every poll: an equal block is the same Fields."""
    first = request("GET /0 HTTP/1.1\nHost: a\nX: y")
    again = parse_request(b"GET /1 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", first.fields)
    assert (again.path, again.fields) == (b"/1", first.fields)


def test_known_blocks_are_read_anew_in_older_requests() -> None:
    """What is right in HTTP/1.1 (chunks) is not taken for right in HTTP/1.0."""
    first = request("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked")
    with pytest.raises(BadRequest, match=r"HTTP/1\.0"):
        parse_request(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", first.fields)


@pytest.mark.parametrize("line", [row[0] for row in TARGETS])
def test_every_start_of_a_good_head_may_still_become_one(line: str) -> None:
    """However a good head is cut up on its way, no part of it is refused."""
    head = f"{line}\r\nHost: a\r\nX-Tab:\ta\r\n\r\n".encode()
    for length in range(len(head) + 1):
        HeadSearch().find(head[:length])


# bytes that came so far, why no head can begin so
HOPELESS = [
    (b"GET / HTTP/1.1\n", "bare"),
    (b"GET / HTTP/1.1\nHost: a\n\n", "bare"),
    (b"GET / HTTP/1.1\r\nHost: a\n", "bare"),
    (b"GET / HTTP/1.1\r\nHost: a\rX", "bare"),
    (b"GET / HTTP/1.1\r\r\n", "bare"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "NUL"),  # TLS on a plain port
    (b"GET / HTTP/1.1\r\nHo\x00", "NUL"),
    (b"GET /\r\n", "request line"),
    (b"hello\r\n", "request line"),
]


@pytest.mark.parametrize(("start", "reason"), HOPELESS)
def test_hopeless_starts_are_refused_at_once(start: bytes, reason: str) -> None:
    """RFC 9112 section 2.2: nobody has to wait for the end of a head that cannot be right."""
    with pytest.raises(BadRequest, match=reason):
        HeadSearch().find(start)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize(("start", "reason"), HOPELESS)
def test_hopeless_starts_are_refused_however_they_are_cut(start: bytes, reason: str, size: int) -> None:
    """What is wrong with a head may be at the border of two pieces."""
    search, buffer, said = HeadSearch(), bytearray(), ""
    for at in range(0, len(start), size):
        buffer += start[at : at + size]
        try:
            assert search.find(buffer) == -1
        except BadRequest as error:
            said = error.reason
            break
    assert reason in said


PIECES = [b"\r", b"\n", b"\r\n", b"a", b": b", b"\x00", b"GET / HTTP/1.1"]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_head_in_pieces_is_found_where_a_whole_one_is(pieces: list[bytes]) -> None:
    """The search that goes on says what one from the beginning would."""
    search, buffer = HeadSearch(), bytearray()
    for piece in pieces:
        buffer += piece
        said: list[int | str] = []
        for one in (search, HeadSearch()):
            try:
                said.append(one.find(buffer))
            except BadRequest as error:
                said.append(error.reason)
        assert said[0] == said[1]
        if said[0] != -1:
            break


class Counted(bytearray):
    """A buffer that counts the bytes in which something is looked for."""

    seen = 0

    def find(self, *args: Any) -> int:
        """As bytearray."""
        self.seen += len(self) - args[1]
        return super().find(*args)


def test_a_head_in_pieces_is_searched_once() -> None:
    """A head of 32 KB in pieces of 4 bytes costs what a whole one does, not a thousand times that."""
    search, buffer = HeadSearch(), Counted()
    head = b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 24000 + b"\r\n\r\n"
    for at in range(0, len(head), 4):
        buffer += head[at : at + 4]
        end = search.find(buffer)
    assert end == len(head) - 4
    assert buffer.seen < 5 * len(head)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No input raises anything but the error that stands for its side."""
    for parse in (parse_request, parse_response):
        with contextlib.suppress(BadRequest, BadResponse):
            parse(data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")


# status line, what is understood: status, reason, minor version
STATUS = [
    (b"HTTP/1.1 200 OK", 200, b"OK", 1),
    (b"HTTP/1.0 404 Not Found", 404, b"Not Found", 0),
    (b"HTTP/1.1 200 ", 200, b"", 1),
    (b"HTTP/1.1 200", 200, b"", 1),
    (b"HTTP/1.1 599 \xe9t\xe9\t!", 599, b"\xe9t\xe9\t!", 1),
]


@pytest.mark.parametrize(("line", "status", "reason", "minor"), STATUS)
def test_status_lines(line: bytes, status: int, reason: bytes, minor: int) -> None:
    """RFC 9112 section 4: a version, three digits, and any reason or none."""
    head = parse_response(line + b"\r\n\r\n")
    assert (head.status, head.reason, head.minor) == (status, reason, minor)


BAD_RESPONSES = [
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 200\tOK",
    b"HTTP/1.1 -20 OK",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 O\rK",
    b"ICY 200 OK",
    b"HTTP/1.1 200 OK\r\nX: a\nb",
    b"HTTP/1.1 200 OK\r\n folded: x",
    b"HTTP/1.1 200 OK\r\nX : a",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
]


@pytest.mark.parametrize("head", BAD_RESPONSES)
def test_bad_responses(head: bytes) -> None:
    """RFC 9112 sections 4 to 6: a backend is held to the same rules as a client; the answer is 502."""
    with pytest.raises(BadResponse) as caught:
        parse_response(head + b"\r\n\r\n")
    assert caught.value.status == 502


def test_responses_keep_their_connection() -> None:
    """RFC 9112 section 9.3: HTTP/1.1 unless it says close, HTTP/1.0 only if it says keep-alive.

    A server error is trusted with no further request: uvicorn closes behind one without saying so.
    """
    heads = [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
             b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n",
             b"HTTP/1.1 499 X\r\n", b"HTTP/1.1 500 X\r\n",
             b"HTTP/1.1 503 X\r\nContent-Length: 1\r\n"]  # fmt: skip
    read = [parse_response(head + b"\r\n") for head in heads]
    assert [head.keeps_alive for head in read] == [True, False, False, True, True, False, False]
    assert {head.size for head in read} == {-1}
