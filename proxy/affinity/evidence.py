"""Evidence: what a request carries that tells where it belongs, read from its target and fields.

The order of trust is the order of `Evidence`. Paths are matched at their end, so that a root path needs
no setting. The endpoints whose JSON body names the session are Chainlit's (chainlit/server.py).
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_plus

from proxy.wire.cookies import CHAINLIT_SESSION, get_cookie
from proxy.wire.engineio import session_id
from proxy.wire.fields import Fields


class Evidence(StrEnum):
    """What told the backend."""

    __hash__ = str.__hash__  # that of Enum is a call of Python

    SID = "sid"  # the pin in a polled sid: exact
    SESSION = "session"  # the session id itself: in the query, the body, a header or the CONNECT packet
    CHAINLIT_COOKIE = "chainlit_cookie"  # a guess, until CONNECT tells
    PIN_COOKIE = "pin_cookie"  # a guess
    CLIENT = "client"  # nothing but address and user agent


class Kind(StrEnum):
    """What a request is to affinity."""

    __hash__ = str.__hash__  # that of Enum is a call of Python

    PLAIN = "plain"
    SOCKETIO = "socketio"
    NAMES_SESSION = "names_session"  # its JSON body names the session
    ANNOUNCES = "announces"  # its JSON body announces a new one


_ANNOUNCES = b"/set-session-cookie"
_NAMES_SESSION = (b"/project/action", b"/project/element", b"/mcp", b"/feedback")
_ENDPOINT = re.compile(rb"/(?:project/(?:file(?:/[^/]*)?|action|element)|mcp|feedback|set-session-cookie)$")
_SESSION_QUERY = re.compile(rb"(?:.*&)?session_id=([^&]+)")  # the last one: Starlette takes that


@dataclass(frozen=True, slots=True)
class Hints:
    """What the header fields of a client tell; equal for all its requests with equal fields."""

    session: str | None  # a header that names the session
    cookie_session: str | None  # Chainlit's cookie: the newest tab's
    pin: bytes | None  # our cookie: a backend's token
    client: bytes  # hash of address and user agent


class Paths:
    """Tells the kind of a request by its path; built from the configured Socket.IO paths."""

    __slots__ = ("_socketio",)

    def __init__(self, socketio_paths: tuple[str, ...]) -> None:
        self._socketio = tuple(path.encode() for path in socketio_paths)

    def is_socketio(self, path: bytes) -> bool:
        """Whether it is a path of Socket.IO."""
        return path.rstrip(b"/").endswith(self._socketio)

    def kind(self, method: bytes, path: bytes) -> Kind:
        """The kind of a request."""
        path = path.rstrip(b"/")
        if path.endswith(self._socketio):
            return Kind.SOCKETIO
        if method != b"GET":
            if path.endswith(_NAMES_SESSION):
                return Kind.NAMES_SESSION
            if path.endswith(_ANNOUNCES):
                return Kind.ANNOUNCES
        return Kind.PLAIN

    def root(self, path: bytes) -> bytes | None:
        """The root path before Chainlit's own paths (`--root-path`); None if `path` does not show it."""
        path = path.rstrip(b"/")
        for known in self._socketio:
            if path.endswith(known):
                return path[: -len(known)]
        match = _ENDPOINT.search(path)
        return path[: match.start()] if match else None


def read_hints(fields: Fields, client: str, cookie_name: bytes) -> Hints:
    """Read the header fields once; `client` is the client's address as text."""
    session = fields.get(b"x-session-id") or fields.get(b"x-chainlit-session-id")
    cookies = b";".join(fields.get_all(b"cookie"))  # a proxy before us may have split them as in HTTP/2
    named = get_cookie(cookies, CHAINLIT_SESSION)
    key = client.encode() + b"\n" + (fields.get(b"user-agent") or b"")
    return Hints(
        session=_session(session),
        cookie_session=_session(named),
        pin=get_cookie(cookies, cookie_name),
        client=hashlib.blake2b(key, digest_size=8).digest(),
    )


def query_session(query: bytes) -> str | None:
    """The session id of a query."""
    match = _SESSION_QUERY.match(query)
    return session_id(unquote_plus(match[1].decode("latin-1"))) if match else None


def _session(value: bytes | None) -> str | None:
    return session_id(value.decode("latin-1")) if value else None
