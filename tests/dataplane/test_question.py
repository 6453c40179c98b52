"""What an instance says to the question whether it holds a session."""

import pytest

from proxy.dataplane.question import holds

# status and body, whether it tells that the instance holds the session (chainlit/server.py, get_file)
ANSWERS = [
    (404, b'{"detail":"File not found"}', True),
    (404, b'{ "detail": "File not found" }', True),
    (401, b'{"detail":"You are not authorized to download files from this session"}', True),
    (401, b'{"detail":"Unauthorized"}', False),
    (401, b'{"detail":"Invalid authentication token"}', None),  # nobody has looked for the session
    (404, b'{"detail":"Not Found"}', None),  # FastAPI, for a path that it has not
    (404, b'{"detail":"Not found"}', None),  # Chainlit, for what is outside of its mount
    (404, b"", None),
    (404, b"File not found", None),
    (404, b'["File not found"]', None),
    (404, b'{"detail":["File not found"]}', None),
    (404, b"[" * 100_000, None),
    (404, b'{"detail":"Unauthorized"}', None),
    (401, b'{"detail":"File not found"}', None),
    (200, b'{"detail":"File not found"}', None),
    (403, b"\xff", None),
]


@pytest.mark.parametrize(("status", "body", "told"), ANSWERS)
def test_only_the_answers_of_chainlit_count(status: int, body: bytes, told: bool | None) -> None:
    """Any app answers 404 or 401 for something."""
    assert holds(status, body) is told
