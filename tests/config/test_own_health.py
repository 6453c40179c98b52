"""`health.listen_path`: the proxy's own health, which must not stand where the app is looked for."""

import pytest

from proxy.config import loads
from tests.config.test_mistakes import mistakes

WORDS = (
    "must be a path that the app does not have, such as /.chainlit-proxy/healthz: "
    "nobody could reach the app there"
)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/", ""),
        ("//", ""),
        ("/chat", "affinity: {roots: [/chat]}"),
        ("/chat/", "affinity: {roots: [/chat/, /other]}"),
        ("/ws/socket.io", ""),
        ("/chat/ws/socket.io/", ""),
        ("/live", "socketio_path: [/ws/socket.io, /live]"),
    ],
)
def test_it_hides_neither_the_page_nor_socket_io(path: str, more: str) -> None:
    """Both would answer `alive`, and nobody could chat."""
    (problem,) = mistakes(f"{more}\nhealth: {{listen_path: {path}}}")
    assert (problem.line, problem.key, problem.message) == (
        2,
        "health.listen_path",
        f'{WORDS} (got "{path}")',
    )


@pytest.mark.parametrize("path", ["/.chainlit-proxy/healthz", "/healthz", "/health", "/chat/healthz", "/ws"])
def test_any_other_path_may_be_named(path: str) -> None:
    """Also the one of the app's own health, whose balancer may know no other."""
    assert loads(f"affinity: {{roots: [/chat]}}\nhealth: {{listen_path: {path}}}").health.listen_path == path
