"""A request's body while it is held: its content, and that it takes no more than it has."""

import pytest

from proxy.dataplane.request_body import RequestBody
from proxy.wire.fields import Fields
from tests.dataplane.peers import chunked


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 5000])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_in_pieces(size: int, before: int, is_chunked: bool) -> None:
    """Whatever the pieces, it is said as it came, its content is whole, and it is held in few parts."""
    content = bytes(range(256)) * 40
    said = chunked(*(content[at : at + 100] for at in range(0, len(content), 100))) if is_chunked else content
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(content)
    body = RequestBody(Fields(framing + b"\r\n"))
    for at in range(0, len(said), size):
        if at // size == before:
            body.inspect()
        part, rest = body.feed(said[at : at + size])
        assert rest == b""
        body.hold(part)
    assert body.done
    assert body.held_size == len(said)
    assert len(body._held) <= 2 + len(said) // max(size, 500)
    if body.is_inspected:
        assert body.content() == content
    assert body.say(b"head ") == b"head " + said
