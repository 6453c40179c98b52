"""Start lines and heads of HTTP/1 messages (RFC 9112).

A head is found by its empty line, its start line read by a strict pattern, its fields by `Fields`.
Request targets are taken in origin form, absolute form (its authority replaces Host, RFC 9112 section
3.2.2) and, for OPTIONS, asterisk form; CONNECT is refused, this is no forward proxy. A target is visible
ASCII without a `#`: no form has a fragment (section 3.2), and peers differ in what they make of one.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from proxy.errors import BadRequest, BadResponse, FieldError
from proxy.wire.fields import Fields

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!\x22$-~]+) HTTP/1\.([01])")
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))  # that clients use
_VISIBLE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@\x00-\x20]+)([/?].*)?")
_BROKEN = re.compile(rb"\x00|\r[^\n]|(?<!\r)\n")  # in no part of any head
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?|")


# The heads are tuples since one of each is made per request: a frozen dataclass takes three times as long.
class RequestHead(NamedTuple):
    """A request's head. `path` and `query` are the target split at its first `?`, as they came."""

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    minor: int
    fields: Fields

    @property
    def wants_upgrade(self) -> bool:
        """Whether it asks for another protocol (RFC 9110 section 7.8); HTTP/1.0 cannot.

        The wish may be ignored, and is where it comes with a body, which would have to end before the
        tunnel begins, and for h2c, which RFC 9113 section 3.1 withdrew: its settings speak of one
        connection and are not passed on. It is ignored too with a Max-Forwards that counts: who asks along
        the way wants to hear of the way.
        """
        fields = self.fields
        return (
            bool(fields.upgrade)
            and b"upgrade" in fields.nominated
            and self.minor == 1
            and not (fields.length or fields.chunked)
            and b"h2c" not in fields.upgrade.lower()
            and not self.is_finite
        )

    @property
    def is_finite(self) -> bool:
        """Whether it is passed on only so often (RFC 9110 section 7.6.2: for no other methods)."""
        return bool(self.fields.max_forwards) and self.method in (b"TRACE", b"OPTIONS")

    @property
    def keeps_alive(self) -> bool:
        """Whether the client keeps its connection after this exchange (RFC 9112 section 9.3)."""
        return not self.fields.close and (self.minor == 1 or self.fields.keep_alive)


# As RequestHead, at a third of the cost: what a NamedTuple is called with goes through a function of Python.
_made: Callable[[tuple[bytes, bytes, bytes, bytes, int, Fields]], RequestHead] = partial(
    tuple.__new__, RequestHead
)


class ResponseHead(NamedTuple):
    """A response's head."""

    status: int
    reason: bytes
    minor: int
    fields: Fields
    size: int  # of the body, where it is counted and the connection goes on behind it; else -1

    @property
    def keeps_alive(self) -> bool:
        """Whether the backend keeps its connection after this exchange.

        Not behind a server error: uvicorn closes after an unhandled exception and does not say so.
        """
        fields = self.fields
        return self.status < 500 and not fields.close and (self.minor == 1 or fields.keep_alive)


def parse_request(head: bytes | bytearray, known: Fields | None = None) -> RequestHead:
    """Read a request's head: all bytes up to and with the empty line.

    `known` is what an equal field block of an HTTP/1.1 request was parsed to; where the head is of 1.0 it is
    read anew, for other rules hold there. Raises BadRequest.
    """
    end = head.index(b"\r\n")
    match = _REQUEST_LINE.fullmatch(head, 0, end)
    if match is None:
        raise BadRequest("malformed request line")
    method, target, minor = match.groups()
    is_newer = minor == b"1"
    fields = known if is_newer else None
    if fields is None:
        try:
            fields = Fields(bytes(head[end + 2 : -2]))
        except FieldError as error:
            raise BadRequest(error.reason) from None
        _check(fields, is_newer=is_newer)
    method, target = bytes(method), bytes(target)
    if method == b"CONNECT":
        raise BadRequest("CONNECT, but this is no forward proxy")
    if not target.startswith(b"/"):
        target, fields = _other_form(method, target, fields)
    path, _, query = target.partition(b"?")
    return RequestHead(method, target, path, query, 1 if is_newer else 0, fields)


def repeated_request(line: bytes, fields: Fields) -> RequestHead | None:
    """The head of a further HTTP/1.1 request with fields that `parse_request` has read.

    It reads the ways in which browsers write a request line, at a third of the cost; None for others.
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        return None
    method, target, version = parts
    if (
        version != b"HTTP/1.1"
        or method not in METHODS
        or target[:1] != b"/"
        or target.translate(None, _VISIBLE)
    ):
        return None
    path, _, query = target.partition(b"?")
    return _made((method, target, path, query, 1, fields))


def _check(fields: Fields, *, is_newer: bool) -> None:
    """RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1; section 6.1: HTTP/1.0 knows no chunks."""
    hosts = fields.get_all(b"host")
    if len(hosts) > 1 or (not hosts and is_newer):
        raise BadRequest("missing or repeated Host")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise BadRequest("malformed Host")
    if fields.chunked and not is_newer:
        raise BadRequest("Transfer-Encoding in HTTP/1.0")


class HeadSearch:
    """The search for the end of a head that comes in pieces: no byte of it is looked at twice.

    Made when a head is not whole, thrown away when it is. `find` is given the same buffer each time, with
    what has come since at its end; a `bytearray` that is appended to makes all of it linear.
    """

    __slots__ = ("_has_line", "_searched")

    def __init__(self) -> None:
        self._searched = 0  # bytes in which the end is not
        self._has_line = False  # whether the request line is whole, and good

    def find(self, buffer: bytes | bytearray) -> int:
        """Where the empty line begins, or -1 until more bytes come.

        Raises BadRequest if none can make the head valid: one with bare LFs never becomes whole, and its
        client would wait for an answer until its time is up.
        """
        begun = max(0, self._searched - 3)  # so much of the empty line may have been there
        end = buffer.find(b"\r\n\r\n", begun)
        if end < 0:
            self._check(buffer, begun)
            self._searched = len(buffer)
        return end

    def _check(self, buffer: bytes | bytearray, begun: int) -> None:
        if _BROKEN.search(buffer, begun) is not None:
            raise BadRequest("NUL, bare CR or bare LF in the request head")
        if not self._has_line:
            end = buffer.find(b"\r\n", begun)
            if end >= 0 and _REQUEST_LINE.fullmatch(buffer, 0, end) is None:
                raise BadRequest("malformed request line")
            self._has_line = end >= 0

    def __repr__(self) -> str:
        return f"<HeadSearch at {self._searched}>"


def _other_form(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    if target == b"*" and method == b"OPTIONS":
        return target, fields
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("unsupported request target")
    authority, rest = match.groups()
    if _HOST.fullmatch(authority) is None:
        raise BadRequest("malformed authority")
    others = b"".join(line.raw + b"\r\n" for line in fields.lines if line.name != b"host")
    if not rest or rest.startswith(b"?"):
        rest = b"/" + (rest or b"")
    return rest, Fields(b"Host: " + authority + b"\r\n" + others)


def parse_response(head: bytes | bytearray) -> ResponseHead:
    """Read a response's head: all bytes up to and with the empty line. Raises BadResponse."""
    end = head.index(b"\r\n")
    match = _STATUS_LINE.fullmatch(head, 0, end)
    if match is None:
        raise BadResponse("malformed status line")
    minor, status, reason = match.groups()
    try:
        fields = Fields(bytes(head[end + 2 : -2]))
    except FieldError as error:
        raise BadResponse(error.reason) from None
    is_newer = minor == b"1"
    if fields.chunked and not is_newer:
        raise BadResponse("Transfer-Encoding in HTTP/1.0")
    goes_on = not fields.close and is_newer and status not in (b"204", b"304") and b"200" <= status < b"500"
    size = fields.length if goes_on and fields.length is not None else -1
    return ResponseHead(int(status), bytes(reason or b""), 1 if is_newer else 0, fields, size)
