"""Header fields of one message: the strict parser, and what framing and connection rules need from them.

A field block is the bytes between the start line and the empty line. Ambiguous input is refused, never
repaired (RFC 9112 section 11.2): obs-fold, bare CR or LF, NUL, a space before the colon, repeated or
malformed Content-Length, any Transfer-Encoding but exactly `chunked`. The same rules hold for clients
and backends; the caller says which error that is. Framing goes on only as it was understood here: the
fields that frame a message are never passed through, `forwarding` writes them anew.

Browsers differ in few lines: most are the same in thousands of blocks, and are read once.
"""

import re
from collections import Counter
from functools import lru_cache
from typing import Final, NamedTuple

from proxy.errors import FieldError

# What a name and a value consist of: to take that out of a long one is five times as quick as to match it.
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TEXT = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
_LONGEST_KNOWN = 256  # bytes of a line that is remembered: a longer one is somebody's own
_MOST_KNOWN = 4096  # lines; some 2 MB with what was read of them, and never more than 5
_MOST_NOMINATIONS = 64  # values of Connection that are remembered: clients have a handful
_DIGITS = re.compile(rb"[0-9]{1,18}")

# RFC 9110 section 7.6.1: fields that speak of one connection. Upgrade is re-added where both sides speak it.
# RFC 9110 section 11.7: the proxy's own authentication, which this proxy has not.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)

# RFC 9110 section 7.6.1: what all recipients need must not be nominated; a client that could take these out
# would have the backend see another message than we do.
_NEVER_NOMINATED = frozenset((b"", b"host", b"content-length", b"transfer-encoding"))


# Fields in which proxies say whose request it is: from what address, by what scheme, for what host and path.
# An app believes them of whoever it is asked by, which is this proxy. Beside them all X-Forwarded-*.
_FORWARDING = frozenset(
    b"""
    forwarded x-forwarded x-original-forwarded-for forwarded-for x-forward-for x-real-ip x-client-ip
    client-ip true-client-ip x-cluster-client-ip x-remote-ip x-remote-addr remote-addr x-proxyuser-ip
    wl-proxy-client-ip cf-connecting-ip cf-connecting-ipv6 cf-pseudo-ipv4 cf-visitor fastly-client-ip
    fly-client-ip do-connecting-ip x-appengine-user-ip x-azure-clientip x-azure-socketip
    cloudfront-viewer-address cloudfront-forwarded-proto x-nf-client-connection-ip
    x-envoy-external-address x-envoy-original-path x-client-port x-real-port x-real-host front-end-https
    x-scheme x-url-scheme x-https x-ssl https x-original-proto proxy x-host x-original-host
    x-http-host-override x-original-url x-original-uri x-original-path x-rewrite-url x-script-name
    """.split()
)
# What this proxy or one before it acts upon, and Chainlit and its libraries read: no name of an app's own.
_KNOWN = HOP_BY_HOP | {
    *(b"content-length", b"content-type", b"content-encoding", b"max-forwards", b"user-agent"),
    *(b"x-request-id", b"x-session-id", b"x-chainlit-session-id", b"x-http-method-override"),
    *(b"remote-user", b"x-remote-user", b"x-webauth-user"),
}
_OF_LOGIN = b"x-auth-request-"  # oauth2-proxy


def is_forwarding(name: bytes) -> bool:
    """Whether a proxy says in a field of this lower-case name whose request it is."""
    return name.startswith(b"x-forwarded-") or name in _FORWARDING


def hyphened(name: bytes) -> bytes:
    """The name whose variable this one has in WSGI, and in the environ that Socket.IO makes of ASGI."""
    return name.replace(b"_", b"-") if b"_" in name else name


_NO_NAMES: frozenset[bytes] = frozenset()


class Line(NamedTuple):
    """One field."""

    name: bytes  # in lower case
    raw: bytes  # the line as it came, without CRLF
    value: bytes  # without the blanks around it
    marks: int  # what has to be known of it, of those below


_FRAMES = 1  # it frames the message, or asks for something of whoever passes it on
_FORWARDS = 2  # a proxy says in it whose request it is
_UNDERSCORED = 4  # its name has a `_`
_ASKED = 8  # nearly every request is asked for it


def is_field(name: bytes, value: bytes) -> bool:
    """Whether it may be a field's line (RFC 9110 section 5)."""
    return bool(name) and not name.translate(None, _TOKEN) and not value.translate(None, _TEXT)


_known_lines: Final[dict[bytes, Line]] = {}  # by themselves with their CR


def _read_line(said: bytes) -> Line:
    """Read a line that ends in CR. Raises FieldError.

    A short one is remembered; when there are too many, all are read anew.
    """
    raw = said[:-1]
    name, colon, value = raw.partition(b":")
    is_whole = name and colon and said[-1:] == b"\r"
    if not is_whole or name.translate(None, _TOKEN) or value.translate(None, _TEXT):
        raise FieldError("malformed header field")
    name = name.lower()
    marks = _FRAMES * (name in _SPECIAL) | _FORWARDS * is_forwarding(name) | _UNDERSCORED * (b"_" in name)
    line = Line(name, raw, value.strip(b" \t"), marks | _ASKED * (name in _OFTEN_ASKED))
    if len(raw) <= _LONGEST_KNOWN:
        if len(_known_lines) >= _MOST_KNOWN:
            _known_lines.clear()
        _known_lines[said] = line
    return line


class Fields:
    """One parsed field block; immutable, so that a connection may keep it for its next equal request."""

    __slots__ = (
        "_marked",
        "_marks",
        "answer",
        "chunked",
        "close",
        "dated",
        "expect",
        "keep_alive",
        "length",
        "lines",
        "max_forwards",
        "nominated",
        "passed",
        "upgrade",
        "usual",
        "via",
    )

    def __init__(self, block: bytes) -> None:
        """Parse `block`, every line with its CRLF; raises FieldError."""
        if block and block[-2:] != b"\r\n":
            raise FieldError("malformed header field")
        said = block[:-1].split(b"\n") if block else []  # by one byte: that is quicker than by two
        self.lines = lines = tuple([_known_lines.get(line) or _read_line(line) for line in said])
        self._marked = marked = [line for line in lines if line[3]]
        marks = 0
        for line in marked:
            marks |= line[3]
        self._marks = marks
        self.length: int | None = None
        self.answer: tuple[bytes, bytes] | tuple[()] | None = None  # kept by `forwarding`
        self.chunked = False
        self.close = False
        self.keep_alive = False
        self.dated = False
        self.expect = b""  # all Expect fields as one list
        self.max_forwards = b""  # all Max-Forwards fields as one list: only a single number is valid
        self.passed: bytes | None = None  # what goes on of it as a response; kept by `forwarding`
        self.upgrade = b""  # all Upgrade fields as one list
        self.via = b""  # all Via fields as one list
        self.nominated = _NO_NAMES  # by Connection, lower-case
        if marks & _FRAMES:
            for name, _, value, own in marked:
                if own & _FRAMES:
                    self._special(name, value)
            self._check_framing()
        # Whether nothing in it asks for more than to be passed on.
        self.usual = not (self.upgrade or self.chunked or self.expect or self.max_forwards or self.close)

    def _special(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if self.length is not None or _DIGITS.fullmatch(value) is None:
                raise FieldError("repeated or malformed Content-Length")
            self.length = int(value)
        elif name == b"transfer-encoding":
            # We understand one coding, once. RFC 9112 section 6.1 allows 501 for others, but what one peer
            # takes for a coding another takes for none: it is ambiguous framing like the rest.
            if self.chunked or value.lower() != b"chunked":
                raise FieldError("Transfer-Encoding other than chunked")
            self.chunked = True
        elif name == b"connection":
            nominated = _nominated(value)
            self.nominated = nominated | self.nominated if self.nominated else nominated
            self.close = self.close or b"close" in nominated
            self.keep_alive = self.keep_alive or b"keep-alive" in nominated
        elif name == b"via":
            self.via = _listed(self.via, value)
        elif name == b"date":
            self.dated = True
        elif name == b"expect":
            self.expect = _listed(self.expect, value)
        elif name == b"max-forwards":
            self.max_forwards = _listed(self.max_forwards, value)
        else:
            self.upgrade = _listed(self.upgrade, value)

    def _check_framing(self) -> None:
        if self.chunked and self.length is not None:
            raise FieldError("both Content-Length and Transfer-Encoding")

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field of this lower-case name."""
        for line in self._marked if name in _OFTEN_ASKED else self.lines:
            if line[0] == name:
                return line[2]
        return None

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of this lower-case name, in order."""
        lines = self._marked if name in _OFTEN_ASKED else self.lines
        return [line[2] for line in lines if line[0] == name]

    def claims(self, *, trusted: bool) -> frozenset[bytes]:
        """The names of the fields that an app would take for a proxy's word, and that nobody may send it.

        Those that say whose request it is, unless a trusted peer sends them; and from everybody those with
        `_` that have the variable of another field: of one of these, of one that is known, or of one that is
        there as well. Any other name with `_` is the app's own, since nothing else is called so.
        """
        suspect = _UNDERSCORED if trusted else _UNDERSCORED | _FORWARDS
        if not self._marks & suspect:
            return _NO_NAMES
        names = {line.name for line in self.lines}
        variables = Counter(map(hyphened, names))
        return frozenset(
            name
            for name in names
            if (not trusted and is_forwarding(name)) or (b"_" in name and _is_twin(name, variables))
        )

    def end_to_end(self, dropped: frozenset[bytes]) -> bytes:
        """The block without the fields in `dropped` and those that Connection nominates.

        `dropped` holds what never passes too (HOP_BY_HOP, Content-Length): a caller's constant, so that no
        set is made for a message.
        """
        if not self.nominated <= dropped:
            dropped |= self.nominated
        kept = [raw for name, raw, _, _ in self.lines if name not in dropped]
        return b"\r\n".join(kept) + b"\r\n" if kept else b""

    def __repr__(self) -> str:
        names = b" ".join(line.name for line in self.lines).decode("ascii")
        return f"<Fields {names}>"


def _is_twin(name: bytes, variables: Counter[bytes]) -> bool:
    twin = hyphened(name)
    return twin in _KNOWN or is_forwarding(twin) or twin.startswith(_OF_LOGIN) or variables[twin] > 1


@lru_cache(_MOST_NOMINATIONS)
def _nominated(value: bytes) -> frozenset[bytes]:
    """What a Connection field names."""
    return frozenset(token.strip(b" \t") for token in value.lower().split(b",")) - _NEVER_NOMINATED


def _listed(known: bytes, value: bytes) -> bytes:
    """RFC 9110 section 5.3: a repeated field is one list."""
    return known + b", " + value if known else value


_OFTEN_ASKED: Final = frozenset(
    (
        *(b"host", b"cookie", b"user-agent", b"accept", b"origin", b"authorization", b"traceparent"),
        *(b"x-request-id", b"x-session-id", b"x-chainlit-session-id"),
    )
)
_SPECIAL: Final = frozenset(
    (
        *(b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"via"),
        *(b"date", b"expect", b"max-forwards"),
    )
)
