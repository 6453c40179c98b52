import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.turns import MARK_SIZE, TASK, plain, turn_after

START, END = b'42["task_start",{}]', b'42["task_end",{}]'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (START, True),
        (END, False),
        (b"\x81\x13" + START + b"\x81\x11" + END, False),
        (END + b"\x1e" + START, True),
        (START + b"\x1e" + b'42["new_message",{"output":"done"}]', True),
        (b'42["stream_token",{"token":"task_end"}]', None),
        (b'42["task_list",{}]', None),
        (b"2", None),
        (b"", None),
    ],
)
def test_the_last_event_tells(data: bytes, told: bool | None) -> None:
    """The later of the two events says whether the app is answering; anything else says nothing."""
    assert turn_after(data) is told


@given(st.recursive(st.text() | st.sampled_from(['42["task_start"', '42["task_end",{}]']), st.lists))
def test_no_text_is_taken_for_an_event(content: object) -> None:
    """Whatever an app says, as JSON it holds none of the marks."""
    said = b'42["new_message",' + json.dumps({"output": content}).encode() + b"]"
    assert TASK not in said
    assert turn_after(said) is None


def test_a_mark_is_no_longer_than_promised() -> None:
    """Who keeps that many bytes of a piece that ends in the middle finds every event."""
    for event in (START, END):
        for cut in range(1, len(event)):
            kept = event[:cut][-MARK_SIZE:]
            assert turn_after(kept + event[cut:]) is turn_after(event) or cut > MARK_SIZE


def test_compressed_polls_are_read() -> None:
    """A piece with a gzip stream, chunk sizes around it, is unpacked; any other stays as it is."""
    packed = gzip.compress(START + b"\x1e" + END)
    for piece in (packed, b"2a\r\n" + packed + b"\r\n0\r\n\r\n"):
        assert turn_after(plain(piece)) is False
    assert plain(packed[:-9]).startswith(START[:4])
    assert plain(START) == START
    broken = b"\x1f\x8b\x08" + b"\xff" * 20
    assert plain(broken) == broken
