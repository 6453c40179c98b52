"""Evidence: what a request carries that tells where it belongs, read from its target and fields.

The order of trust is the order of `Evidence`. It is believed only where Chainlit reads it: a session id in
a query, a body or a field counts on the endpoints that take one there (chainlit/server.py), by method and
whole path. The Socket.IO path is matched at its end, and tells the root path of the others.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
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
    QUERIES_SESSION = "queries_session"  # its query names the session
    NAMES_SESSION = "names_session"  # its JSON body names the session
    NAMES_MCP_SESSION = "names_mcp_session"  # the same; pages before Chainlit 2.12 name it in a field too
    ANNOUNCES = "announces"  # its JSON body announces a new one

    @property
    def key(self) -> str | None:
        """What names the session in its JSON body; None: its body is not read."""
        return _KEYS.get(self)


_KEYS = {
    Kind.NAMES_SESSION: "sessionId",
    Kind.NAMES_MCP_SESSION: "sessionId",
    Kind.ANNOUNCES: "session_id",
}
# Path below the root path and method (chainlit/server.py). Chainlit reads a session nowhere else.
_ENDPOINTS = {
    (b"/project/file", b"POST"): Kind.QUERIES_SESSION,
    (b"/project/action", b"POST"): Kind.NAMES_SESSION,
    (b"/project/element", b"PUT"): Kind.NAMES_SESSION,
    (b"/project/element", b"DELETE"): Kind.NAMES_SESSION,
    (b"/feedback", b"PUT"): Kind.NAMES_SESSION,
    (b"/mcp", b"POST"): Kind.NAMES_MCP_SESSION,
    (b"/mcp", b"DELETE"): Kind.NAMES_MCP_SESSION,
    (b"/set-session-cookie", b"POST"): Kind.ANNOUNCES,
}
_FILE = b"/project/file/"  # and one segment: GET names its session in the query
_ENDS = tuple({path for path, _ in _ENDPOINTS})  # how the path of an endpoint may end
_SOCKETIO = b"/ws/socket.io"  # below the root path (chainlit/server.py, SOCKET_IO_PATH)
_MOST_FIELDS = 100  # of a query that is looked through for a session id: Chainlit's have three
_LONGEST_AGENT = 256  # bytes of a user agent that tell it from others
_MOST_ROOTS = 64  # that are learnt: a fleet has one or two


@dataclass(frozen=True, slots=True)
class Hints:
    """What the header fields of a client tell; equal for all its requests with equal fields."""

    session: str | None  # the field in which pages before Chainlit 2 named it, on handshakes
    cookie_session: str | None  # Chainlit's cookie: the newest tab's
    pin: bytes | None  # our cookie: a backend's token
    client: bytes  # address and user agent
    mcp_session: str | None = None  # the field in which pages before Chainlit 2.12 name it, on MCP requests


class Paths:
    """Tells the kind of a request by its path; owned by the plane.

    An endpoint counts below a root path of Chainlit only: one that is configured, or one below which a
    backend has opened a Socket.IO session. Until there is any, it is the empty one.
    """

    __slots__ = ("_below", "_configured", "_ends", "_learnt", "_roots", "_socketio")

    def __init__(self, socketio_paths: Sequence[str], roots: Sequence[str] = ()) -> None:
        self._learnt: set[bytes] = set()
        self.use(socketio_paths, roots)

    def use(self, socketio_paths: Sequence[str], roots: Sequence[str]) -> None:
        """Go by other settings from now on; what was learnt stays."""
        self._socketio = tuple(path.encode() for path in socketio_paths)
        self._below = tuple(path + b"/" for path in self._socketio)
        self._ends = self._socketio + self._below  # of the paths of Socket.IO
        self._configured = frozenset(_decoded(root.rstrip("/").encode()) for root in roots)
        self._roots: AbstractSet[bytes] = self._configured | self._learnt or {b""}

    def opened(self, path: bytes) -> None:
        """A backend has answered a request for `path` with an OPEN packet: Chainlit is below its root."""
        root = self._root(_decoded(path))
        if root is not None and root not in self._learnt and len(self._learnt) < _MOST_ROOTS:
            self._learnt.add(root)
            self._roots = self._configured | self._learnt

    def is_socketio(self, path: bytes) -> bool:
        """Whether a backend takes it for a path of Socket.IO: it decodes it, and mounts all that is below."""
        return path.endswith(self._ends) or self._is_socketio(_decoded(path))

    def _is_socketio(self, path: bytes) -> bool:
        return path.rstrip(b"/").endswith(self._socketio) or any(mount in path for mount in self._below)

    def kind(self, method: bytes, path: bytes) -> Kind:
        """The kind of a request."""
        if path.endswith(self._ends):  # as nearly all do; no escape reaches into the end
            return Kind.SOCKETIO
        path = _decoded(path)
        if self._is_socketio(path):
            return Kind.SOCKETIO
        if method == b"GET":
            root, file, name = path.rpartition(_FILE)
            if file and name and b"/" not in name and root in self._roots:
                return Kind.QUERIES_SESSION
        elif path.endswith(_ENDS):
            for root in self._roots:
                kind = _ENDPOINTS.get((path[len(root) :], method)) if path.startswith(root) else None
                if kind is not None:
                    return kind
        return Kind.PLAIN

    def root(self, path: bytes) -> bytes | None:
        """The root path of Chainlit that a path is below, None if it is below none that is known."""
        path = _decoded(path)
        root = self._root(path)
        if root is not None:
            return root if root in self._roots else None
        below = [root for root in self._roots if path.startswith(root + b"/")]
        return max(below, key=len, default=None)

    def _root(self, path: bytes) -> bytes | None:
        """What is before Chainlit's Socket.IO path in `path`, None if that is not in it."""
        path += b"/"
        for known, mount in zip(self._socketio, self._below, strict=True):
            at = path.find(mount)
            if at >= 0:
                return path[:at] + known.removesuffix(_SOCKETIO) if known.endswith(_SOCKETIO) else path[:at]
        return None

    def __repr__(self) -> str:
        roots = ", ".join(sorted(root.decode("latin-1") or "/" for root in self._roots))
        return f"<Paths below {roots}>"


def _decoded(path: bytes) -> bytes:
    """The path as a backend reads it: percent-decoded, once."""
    return unquote_to_bytes(path) if b"%" in path else path


def read_hints(fields: Fields, client: str, cookie_name: bytes | None) -> Hints:
    """Read the header fields; `client` is the client's address as text, None stands for no pin cookie."""
    cookies = b";".join(fields.get_all(b"cookie"))  # a proxy before us may have split them as in HTTP/2
    agent = fields.get(b"user-agent") or b""
    return Hints(
        session=_named(fields, b"x-chainlit-session-id"),
        cookie_session=_session(get_cookie(cookies, CHAINLIT_SESSION)),
        pin=get_cookie(cookies, cookie_name) if cookie_name is not None else None,
        client=b"%b\n%b" % (client.encode(), agent[:_LONGEST_AGENT]),
        mcp_session=_named(fields, b"x-session-id"),
    )


def _named(fields: Fields, name: bytes) -> str | None:
    if fields.get(name) is None:
        return None
    named = set(fields.get_all(name))
    return _session(named.pop()) if len(named) == 1 else None  # two that differ name none


def query_session(query: bytes) -> str | None:
    """The session id of a query, read as Starlette reads it. Raises OddId for an odd one, or several."""
    if b"session_id" not in query and b"%" not in query:
        return None
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise OddId(Odd.SESSION, "too many fields to find a session id") from None
    named = {value for key, value in pairs if key == "session_id"}
    if not named:
        return None
    session = session_id(named.pop()) if len(named) == 1 else None
    if session is None:
        raise OddId(Odd.SESSION, ODD_SESSION)
    return session


def _session(value: bytes | None) -> str | None:
    return session_id(value.decode("latin-1")) if value else None
