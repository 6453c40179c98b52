"""What a request carries: the kind of its path, the session in its query, what its fields tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.evidence import Hints, Kind, Paths, query_session, read_hints
from proxy.wire.fields import Fields

PATHS = Paths(("/ws/socket.io",))

# method, path behind the root path, kind (chainlit/server.py)
KINDS = [
    ("GET", "/ws/socket.io/", Kind.SOCKETIO),
    ("POST", "/ws/socket.io/", Kind.SOCKETIO),
    ("GET", "/ws/socket.io", Kind.SOCKETIO),
    ("OPTIONS", "/ws/socket.io/", Kind.SOCKETIO),
    ("GET", "/ws/socket.io/other", Kind.PLAIN),
    ("GET", "/ws/socket.iox", Kind.PLAIN),
    ("GET", "/socket.io/", Kind.PLAIN),
    ("POST", "/set-session-cookie", Kind.ANNOUNCES),
    ("GET", "/set-session-cookie", Kind.PLAIN),
    ("POST", "/project/action", Kind.NAMES_SESSION),
    ("PUT", "/project/element", Kind.NAMES_SESSION),
    ("DELETE", "/project/element", Kind.NAMES_SESSION),
    ("GET", "/project/element", Kind.PLAIN),
    ("POST", "/mcp", Kind.NAMES_SESSION),
    ("DELETE", "/mcp", Kind.NAMES_SESSION),
    ("PUT", "/feedback", Kind.NAMES_SESSION),
    ("POST", "/project/action/", Kind.NAMES_SESSION),
    ("POST", "/project/file", Kind.PLAIN),  # its query names the session
    ("GET", "/project/file/0b6a", Kind.PLAIN),
    ("POST", "/project/actions", Kind.PLAIN),
    ("POST", "/login", Kind.PLAIN),
    ("GET", "/", Kind.PLAIN),
]


@pytest.mark.parametrize("root", ["", "/chat", "/a/b", "/mcp", "/feedback"])
@pytest.mark.parametrize(("method", "path", "kind"), KINDS)
def test_kinds_of_paths(root: str, method: str, path: str, kind: Kind) -> None:
    """Paths are matched at their end: a root path needs no setting."""
    assert PATHS.kind(method.encode(), (root + path).encode()) is kind


def test_several_socketio_paths() -> None:
    """Each configured path is one, and no other."""
    paths = Paths(("/ws/socket.io", "/live"))
    assert paths.kind(b"GET", b"/x/live/") is Kind.SOCKETIO
    assert paths.kind(b"GET", b"/ws/socket.io/") is Kind.SOCKETIO
    assert PATHS.kind(b"GET", b"/live/") is Kind.PLAIN
    assert paths.root(b"/x/live/") == b"/x"


# path, the root path that it shows
ROOTS = [
    (b"/ws/socket.io/", b""),
    (b"/chat/ws/socket.io/", b"/chat"),
    (b"/a/b/ws/socket.io", b"/a/b"),
    (b"/chat/project/file", b"/chat"),
    (b"/chat/project/file/0b6a-1", b"/chat"),
    (b"/chat/project/action", b"/chat"),
    (b"/chat/project/element", b"/chat"),
    (b"/chat/mcp", b"/chat"),
    (b"/chat/feedback/", b"/chat"),
    (b"/chat/set-session-cookie", b"/chat"),
    (b"/feedback/project/file/0b6a", b"/feedback"),
    (b"/mcp/mcp", b"/mcp"),
    (b"/project/file/x", b""),
    (b"/", None),
    (b"/some/page", None),
]


@pytest.mark.parametrize(("path", "root"), ROOTS)
def test_root_paths(path: bytes, root: bytes | None) -> None:
    """A question to a backend goes below the same root path as the request that it is asked for, if known."""
    assert PATHS.root(path) == root


# query, the session it names
QUERIES = [
    (b"session_id=0b6a-1", "0b6a-1"),
    (b"a=b&session_id=s&c=d", "s"),
    (b"session_id=a&session_id=b", "b"),  # Starlette takes the last
    (b"session_id=a%2Fb%20c", "a/b c"),
    (b"session_id=a+b", "a b"),
    (b"session_id=", None),
    (b"session_id=%00", None),
    (b"session_id=%0d%0aX", None),
    (b"session_id=%C3%A9", None),
    (b"session_id=%FF", None),
    (b"session_id=" + b"a" * 128, "a" * 128),
    (b"session_id=" + b"a" * 129, None),
    (b"xsession_id=s", None),
    (b"Session_id=s", None),
    (b"a=session_id=s", None),
    (b"", None),
]


@pytest.mark.parametrize(("query", "session"), QUERIES)
def test_sessions_in_queries(query: bytes, session: str | None) -> None:
    """Evidence 2: uploads and element fetches name their session in the query."""
    assert query_session(query) == session


def hints(lines: str, client: str = "192.0.2.1") -> Hints:
    """The hints of these fields."""
    return read_hints(Fields(lines.replace("\n", "\r\n").encode("latin-1")), client, b"chainlit_pin")


# fields, session, session of Chainlit's cookie, pin
HINTS = [
    ("Host: a\n", None, None, None),
    ("X-Session-Id: s\n", "s", None, None),
    ("x-chainlit-session-id: s\n", "s", None, None),
    ("X-Session-Id:\n", None, None, None),
    ("X-Session-Id: \xe9\n", None, None, None),
    (f"X-Session-Id: {'s' * 129}\n", None, None, None),
    ("Cookie: X-Chainlit-Session-id=s\n", None, "s", None),
    ("Cookie: x-chainlit-session-id=s\n", None, None, None),
    ("Cookie: chainlit_pin=AbC\n", None, None, b"AbC"),
    ("Cookie: a=1; chainlit_pin=AbC; X-Chainlit-Session-id=s; b=2\n", None, "s", b"AbC"),
    ("Cookie: a=1; chainlit_pin=AbC\nCookie: X-Chainlit-Session-id=s\n", None, "s", b"AbC"),
    ("X-Session-Id: t\nCookie: X-Chainlit-Session-id=s\n", "t", "s", None),
]


@pytest.mark.parametrize(("lines", "session", "cookie", "pin"), HINTS)
def test_what_fields_tell(lines: str, session: str | None, cookie: str | None, pin: bytes | None) -> None:
    """Evidence 2, 3 and 4: headers, Chainlit's cookie and ours; what no session id can be is none."""
    told = hints(lines)
    assert (told.session, told.cookie_session, told.pin) == (session, cookie, pin)


def test_clients_without_evidence_are_told_apart() -> None:
    """Evidence 5: address and user agent together, and nothing else, make a client's key."""
    one = hints("User-Agent: x\n")
    assert one.client == hints("User-Agent: x\nAccept: y\nCookie: a=1\n").client
    keys = {one.client, hints("User-Agent: y\n").client, hints("").client,
            hints("User-Agent: x\n", "192.0.2.2").client}  # fmt: skip
    assert len(keys) == 4


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_request_breaks_the_reading(path: bytes, query: bytes) -> None:
    """Any path and query has a kind, a root and a session or none."""
    PATHS.kind(b"POST", path)
    assert path.startswith(PATHS.root(path) or b"")
    session = query_session(query)
    assert session is None or (session.isascii() and session.isprintable())
