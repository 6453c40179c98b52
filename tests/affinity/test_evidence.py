"""What a request carries: the kind of its path, the session in its query, what its fields tell."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.evidence import Hints, Kind, Paths, query_session, read_hints
from proxy.errors import OddId
from proxy.wire.fields import Fields

PATHS = Paths(("/ws/socket.io",))

ROOTS = ("", "/chat", "/a/b", "/mcp", "/feedback")
KNOWING = Paths(("/ws/socket.io",), ROOTS)

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
    ("GET", "/ws/socket.iox", Kind.PLAIN),
    ("GET", "/socket.io/", Kind.PLAIN),
    ("POST", "/set-session-cookie", Kind.ANNOUNCES),
    ("GET", "/set-session-cookie", Kind.PLAIN),
    ("PUT", "/set-session-cookie", Kind.PLAIN),
    ("POST", "/project/action", Kind.NAMES_SESSION),
    ("POST", "/project%2Faction", Kind.NAMES_SESSION),
    ("POST", "/project/action/", Kind.PLAIN),
    ("POST", "/project//action", Kind.PLAIN),
    ("PUT", "/project/action", Kind.PLAIN),
    ("POST", "/project/actions", Kind.PLAIN),
    ("PUT", "/project/element", Kind.NAMES_SESSION),
    ("DELETE", "/project/element", Kind.NAMES_SESSION),
    ("GET", "/project/element", Kind.PLAIN),
    ("POST", "/project/element", Kind.PLAIN),
    ("POST", "/mcp", Kind.NAMES_MCP_SESSION),
    ("DELETE", "/mcp", Kind.NAMES_MCP_SESSION),
    ("GET", "/mcp", Kind.PLAIN),
    ("PUT", "/feedback", Kind.NAMES_SESSION),
    ("POST", "/feedback", Kind.PLAIN),
    ("DELETE", "/feedback", Kind.PLAIN),  # it names a feedback, and needs no instance
    ("POST", "/project/file", Kind.QUERIES_SESSION),
    ("GET", "/project/file", Kind.PLAIN),
    ("GET", "/project/file/0b6a", Kind.QUERIES_SESSION),
    ("GET", "/project/f%69le/0b6a", Kind.QUERIES_SESSION),
    ("GET", "/project/file/", Kind.PLAIN),
    ("GET", "/project/file/0b6a/x", Kind.PLAIN),
    ("GET", "/project/file/0b6a%2Fx", Kind.PLAIN),
    ("HEAD", "/project/file/0b6a", Kind.PLAIN),
    ("OPTIONS", "/project/file", Kind.PLAIN),
    ("POST", "/project/file/0b6a", Kind.PLAIN),
    ("GET", "/who", Kind.PLAIN),
    ("POST", "/mcp-sse/messages/", Kind.PLAIN),
    ("POST", "/login", Kind.PLAIN),
    ("GET", "/", Kind.PLAIN),
    ("OPTIONS", "*", Kind.PLAIN),
]


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize(("method", "path", "kind"), KINDS)
def test_kinds_of_paths(root: str, method: str, path: str, kind: Kind) -> None:
    """The whole path below a root path, as it is decoded, and the method tell what Chainlit reads."""
    assert KNOWING.kind(method.encode(), (root + path).encode()) is kind


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"PUT", b"/api/feedback"),
        (b"POST", b"/api/mcp"),
        (b"POST", b"/v1/project/action"),
        (b"POST", b"/shop/project/file"),
        (b"GET", b"/shop/project/file/x"),
        (b"GET", b"/project/file/project/file/x"),
        (b"POST", b"/ws/socket.iox/set-session-cookie"),
        (b"POST", b"//project/action"),
    ],
)
def test_other_apps_call_things_the_same(method: bytes, path: bytes) -> None:
    """What ends as an endpoint of Chainlit below another path is the app's own."""
    assert PATHS.kind(method, path) is Kind.PLAIN
    root = path[: path.index(b"/", 1)] if path[:2] != b"//" else b"/"
    if b"socket" not in path and path.count(b"/") < 5:
        knowing = Paths(("/ws/socket.io",), (root.decode(),))
        assert (knowing.kind(method, path) is not Kind.PLAIN) is (root != b"/")


def test_several_socketio_paths() -> None:
    """Each configured path is one, and no other."""
    paths = Paths(("/ws/socket.io", "/live"))
    assert paths.kind(b"GET", b"/x/live/") is Kind.SOCKETIO
    assert paths.kind(b"GET", b"/ws/socket.io/") is Kind.SOCKETIO
    assert PATHS.kind(b"GET", b"/live/") is Kind.PLAIN
    paths.opened(b"/x/live/")
    assert paths.root(b"/x/live/") == b"/x"


# the path of a handshake, the root path that it shows
OPENED = [
    (b"/ws/socket.io/", b""),
    (b"/chat/ws/socket.io/", b"/chat"),
    (b"/a/b/ws/socket.io", b"/a/b"),
    (b"/ch%61t/ws/socket.io/", b"/chat"),
    (b"/chat/ws/socket.io/x/ws/socket.io/", b"/chat"),  # the first counts: all below it is mounted there
    (b"/ws/socket.io/x/ws/socket.io/", b""),
    (b"/x/ws/socket.iox/ws/socket.io/", b"/x/ws/socket.iox"),
]


@pytest.mark.parametrize(("path", "root"), OPENED)
def test_roots_are_learnt(path: bytes, root: bytes) -> None:
    """Below what a session was opened below, Chainlit is, and nowhere else; / is taken for it until then."""
    paths = Paths(("/ws/socket.io",))
    assert paths.kind(b"POST", b"/project/action") is Kind.NAMES_SESSION
    assert paths.root(path) == (root if not root else None)
    paths.opened(path)
    assert paths.root(path) == root
    assert paths.root(root + b"/project/action") == root
    assert paths.kind(b"POST", root + b"/project/action") is Kind.NAMES_SESSION
    assert (paths.kind(b"POST", b"/project/action") is Kind.NAMES_SESSION) is (not root)
    assert paths.root(b"/other/ws/socket.io/") is None
    paths.use(("/ws/socket.io",), ("/", "/more/"))
    for known in (root, b"", b"/more"):
        assert paths.kind(b"PUT", known + b"/feedback") is Kind.NAMES_SESSION


def test_the_root_is_part_of_a_configured_socketio_path() -> None:
    """Where socketio_path holds the root path, the endpoints are still below that."""
    paths = Paths(("/chat/ws/socket.io",))
    paths.opened(b"/chat/ws/socket.io/")
    assert paths.kind(b"POST", b"/chat/project/action") is Kind.NAMES_SESSION
    assert paths.kind(b"POST", b"/project/action") is Kind.PLAIN


def test_learnt_roots_are_bounded() -> None:
    """Whatever answers, there are only so many."""
    paths = Paths(("/ws/socket.io",))
    for at in range(1000):
        paths.opened(b"/%d/ws/socket.io/" % at)
    assert paths.root(b"/0/mcp") == b"/0"
    assert paths.root(b"/999/mcp") is None


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
    b"session_id=session-1&%73ession_id=..%2f..%2ftmp", b"session_id=session-1" + b"&a" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("query", ODD_QUERIES)
def test_odd_sessions_in_queries(query: bytes) -> None:
    """What is no session id, or two of them, is refused where Chainlit takes one."""
    with pytest.raises(OddId):
        query_session(query)


def hints(lines: str, client: str = "192.0.2.1") -> Hints:
    """The hints of these fields."""
    return read_hints(Fields(lines.replace("\n", "\r\n").encode("latin-1")), client, b"chainlit_pin")


# fields, session of a handshake, session of Chainlit's cookie, pin, session of an MCP request
HINTS = [
    ("Host: a\n", None, None, None, None),
    ("X-Session-Id: session-s\n", None, None, None, "session-s"),
    ("x-chainlit-session-id: session-s\n", "session-s", None, None, None),
    ("X-Session-Id:\n", None, None, None, None),
    ("X-Session-Id: \xe9\n", None, None, None, None),
    (f"X-Session-Id: {'s' * 65}\n", None, None, None, None),
    ("Cookie: X-Chainlit-Session-id=session-s\n", None, "session-s", None, None),
    ("X-Session-Id: session-s\nX-Session-Id: session-t\n", None, None, None, None),
    ("X-Session-Id: ../../tmp\nX-Chainlit-Session-Id: ../../tmp\n", None, None, None, None),
    ("Cookie: X-Chainlit-Session-id=../../tmp\n", None, None, None, None),
    ("Cookie: x-chainlit-session-id=s\n", None, None, None, None),
    ("Cookie: chainlit_pin=AbC\n", None, None, b"AbC", None),
    (
        "Cookie: a=1; chainlit_pin=AbC; X-Chainlit-Session-id=session-s; b=2\n",
        None,
        "session-s",
        b"AbC",
        None,
    ),
    ("Cookie: chainlit_pin=AbC\nCookie: X-Chainlit-Session-id=session-s\n", None, "session-s", b"AbC", None),
    ("X-Session-Id: session-t\nX-Chainlit-Session-Id: session-s\n", "session-s", None, None, "session-t"),
]


@pytest.mark.parametrize(("lines", "session", "cookie", "pin", "mcp"), HINTS)
def test_what_fields_tell(
    lines: str, session: str | None, cookie: str | None, pin: bytes | None, mcp: str | None
) -> None:
    """Evidence 2, 3 and 4: headers, Chainlit's cookie and ours; what no session id can be is none."""
    told = hints(lines)
    assert (told.session, told.cookie_session, told.pin, told.mcp_session) == (session, cookie, pin, mcp)


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
    assert PATHS.root(path) in (b"", None)
    with suppress(OddId):
        assert query_session(query) is None or b"session_id" in query or b"%" in query
