"""What a request carries: the kind of its path, the session in its query, what its fields tell."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.evidence import Hints, Kind, Paths, query_session, read_hints
from proxy.errors import OddId
from proxy.wire.fields import Fields

PATHS = Paths(("/ws/socket.io",))

# method, path behind the root path, kind (chainlit/server.py)
KINDS = [
    ("GET", "/ws/socket.io/", Kind.SOCKETIO),
    ("POST", "/ws/socket.io/", Kind.SOCKETIO),
    ("GET", "/ws/socket.io", Kind.SOCKETIO),
    ("OPTIONS", "/ws/socket.io/", Kind.SOCKETIO),
    ("GET", "/ws/socket.io/other", Kind.SOCKETIO),  # Starlette mounts all that is below
    ("GET", "/ws/socket%2Eio/", Kind.SOCKETIO),  # uvicorn decodes the path, once
    ("GET", "/ws/%73ocket.io", Kind.SOCKETIO),
    ("GET", "/ws%2fsocket.io%2F", Kind.SOCKETIO),
    ("GET", "/ws/socket.io//", Kind.SOCKETIO),
    ("GET", "//ws/socket.io/./x", Kind.SOCKETIO),
    ("GET", "/ws/socket%252Eio/", Kind.PLAIN),
    ("GET", "/WS/socket.io/", Kind.PLAIN),
    ("GET", "/ws//socket.io/", Kind.PLAIN),
    ("GET", "/ws/socket.io.html", Kind.PLAIN),
    ("POST", "/project%2Faction", Kind.NAMES_SESSION),
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
    (b"session_id=0b6a-1_Z", "0b6a-1_Z"),
    (b"a=b&session_id=session-1&c=d", "session-1"),
    (b"session_id=session-1&session_id=session-1", "session-1"),
    (b"session%5Fid=%73ession-1", "session-1"),
    (b"session_id=" + b"a" * 64, "a" * 64),
    (b"xsession_id=s", None),
    (b"Session_id=s", None),
    (b"a=session_id=s", None),
    (b"", None),
]


@pytest.mark.parametrize(("query", "session"), QUERIES)
def test_sessions_in_queries(query: bytes, session: str | None) -> None:
    """Evidence 2: uploads and element fetches name their session in the query, as Starlette reads it."""
    assert query_session(query) == session


ODD_QUERIES = [
    b"session_id=", b"session_id", b"session_id=short", b"session_id=" + b"a" * 65,
    b"session_id=..%2F..%2Ftmp",
    b"session_id=%2Ftmp%2Fsomewhere", b"session_id=session+1", b"session_id=session-1%0a",
    b"session_id=session-%C3%A9", b"session_id=session-%00", b"session_id=session-1&session_id=session-2",
    b"session_id=session-1&%73ession_id=..%2f..%2ftmp",
]  # fmt: skip


@pytest.mark.parametrize("query", ODD_QUERIES)
def test_odd_sessions_in_queries(query: bytes) -> None:
    """What is no session id, or two of them, is refused where Chainlit takes one, and believed nowhere."""
    for path in (b"/project/file", b"/chat/project/file/0b6a", b"/project%2Ffile/"):
        with pytest.raises(OddId):
            PATHS.query_session(path, query)
    assert PATHS.query_session(b"/who", query) is None


def hints(lines: str, client: str = "192.0.2.1") -> Hints:
    """The hints of these fields."""
    return read_hints(Fields(lines.replace("\n", "\r\n").encode("latin-1")), client, b"chainlit_pin")


# fields, session, session of Chainlit's cookie, pin
HINTS = [
    ("Host: a\n", None, None, None),
    ("X-Session-Id: session-s\n", "session-s", None, None),
    ("x-chainlit-session-id: session-s\n", "session-s", None, None),
    ("X-Session-Id:\n", None, None, None),
    ("X-Session-Id: \xe9\n", None, None, None),
    (f"X-Session-Id: {'s' * 65}\n", None, None, None),
    ("Cookie: X-Chainlit-Session-id=session-s\n", None, "session-s", None),
    ("X-Session-Id: session-s\nX-Session-Id: session-t\n", None, None, None),
    ("X-Session-Id: ../../tmp\n", None, None, None),
    ("Cookie: X-Chainlit-Session-id=../../tmp\n", None, None, None),
    ("Cookie: x-chainlit-session-id=s\n", None, None, None),
    ("Cookie: chainlit_pin=AbC\n", None, None, b"AbC"),
    ("Cookie: a=1; chainlit_pin=AbC; X-Chainlit-Session-id=session-s; b=2\n", None, "session-s", b"AbC"),
    ("Cookie: a=1; chainlit_pin=AbC\nCookie: X-Chainlit-Session-id=session-s\n", None, "session-s", b"AbC"),
    ("X-Session-Id: session-t\nCookie: X-Chainlit-Session-id=session-s\n", "session-t", "session-s", None),
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
    with suppress(OddId):
        assert query_session(query) is None or b"session_id" in query or b"%" in query
