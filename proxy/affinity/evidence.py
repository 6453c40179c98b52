"""Evidence: what a request carries that tells where it belongs, read from its target and fields.

The order of trust is the order of `Evidence`. Paths are matched at their end, so that a root path needs
no setting. The endpoints whose JSON body names the session are Chainlit's (chainlit/server.py).
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, unquote_to_bytes

from proxy.errors import Odd, OddId
from proxy.wire.cookies import CHAINLIT_SESSION, get_cookie
from proxy.wire.engineio import ODD_SESSION, session_id
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
_FILE = re.compile(rb"/project/file(?:/[^/]*)?$")


@dataclass(frozen=True, slots=True)
class Hints:
    """What the header fields of a client tell; equal for all its requests with equal fields."""

    session: str | None  # a header that names the session
    cookie_session: str | None  # Chainlit's cookie: the newest tab's
    pin: bytes | None  # our cookie: a backend's token
    client: bytes  # hash of address and user agent


class Paths:
    """Tells the kind of a request by its path; built from the configured Socket.IO paths."""

    __slots__ = ("_below", "_socketio")

    def __init__(self, socketio_paths: tuple[str, ...]) -> None:
        self._socketio = tuple(path.encode() for path in socketio_paths)
        self._below = tuple(path + b"/" for path in self._socketio)

    def is_socketio(self, path: bytes) -> bool:
        """Whether a backend takes it for a path of Socket.IO: it decodes it, and mounts all that is below."""
        if b"%" in path:
            path = unquote_to_bytes(path)
        return path.rstrip(b"/").endswith(self._socketio) or any(mount in path for mount in self._below)

    def kind(self, method: bytes, path: bytes) -> Kind:
        """The kind of a request."""
        if self.is_socketio(path):
            return Kind.SOCKETIO
        if b"%" in path:
            path = unquote_to_bytes(path)
        path = path.rstrip(b"/")
        if method != b"GET":
            if path.endswith(_NAMES_SESSION):
                return Kind.NAMES_SESSION
            if path.endswith(_ANNOUNCES):
                return Kind.ANNOUNCES
        return Kind.PLAIN

    def query_session(self, path: bytes, query: bytes) -> str | None:
        """The session id of a query. Raises OddId for an odd one to an endpoint that takes one there."""
        try:
            return query_session(query)
        except OddId:
            if b"%" in path:
                path = unquote_to_bytes(path)
            if _FILE.search(path.rstrip(b"/")):
                raise
            return None

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
    named = {*fields.get_all(b"x-session-id"), *fields.get_all(b"x-chainlit-session-id")}
    session = named.pop() if len(named) == 1 else None  # two that differ name none
    cookies = b";".join(fields.get_all(b"cookie"))  # a proxy before us may have split them as in HTTP/2
    cookie = get_cookie(cookies, CHAINLIT_SESSION)
    key = client.encode() + b"\n" + (fields.get(b"user-agent") or b"")
    return Hints(
        session=_session(session),
        cookie_session=_session(cookie),
        pin=get_cookie(cookies, cookie_name),
        client=hashlib.blake2b(key, digest_size=8).digest(),
    )


def query_session(query: bytes) -> str | None:
    """The session id of a query, read as Starlette reads it. Raises OddId for an odd one, or several."""
    if b"session_id" not in query and b"%" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    named = {value for key, value in pairs if key == "session_id"}
    if not named:
        return None
    session = session_id(named.pop()) if len(named) == 1 else None
    if session is None:
        raise OddId(Odd.SESSION, ODD_SESSION)
    return session


def _session(value: bytes | None) -> str | None:
    return session_id(value.decode("latin-1")) if value else None
