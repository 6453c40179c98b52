import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.turns import MARK_SIZE, TASK, plain, turns_in

START, END = b'42["task_start",{}]', b'42["task_end",{}]'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (START, [True]),
        (END, [False]),
        (b"\x81\x13" + START + b"\x81\x11" + END, [True, False]),
        (END + b"\x1e" + START, [False, True]),
        (START + b"\x1e" + b'42["new_message",{"output":"done"}]', [True]),
        (b'42["stream_token",{"token":"task_end"}]', []),
        (b'42["task_list",{}]', []),
        (b"2", []),
        (b"", []),
    ],
)
def test_events_are_told_in_their_order(data: bytes, told: list[bool]) -> None:
    """Each of the two events is found, and nothing else is taken for one."""
    assert turns_in(data) == told


@given(st.recursive(st.text() | st.sampled_from(['42["task_start"', '42["task_end",{}]']), st.lists))
def test_no_text_is_taken_for_an_event(content: object) -> None:
    """Whatever an app says, as JSON it holds none of the marks."""
    said = b'42["new_message",' + json.dumps({"output": content}).encode() + b"]"
    assert TASK not in said
    assert turns_in(said) == []


def test_a_mark_is_no_longer_than_promised() -> None:
    """Who keeps that many bytes of a piece that ends in the middle finds every event."""
    for event in (START, END):
        for cut in range(1, len(event)):
            kept = event[:cut][-MARK_SIZE:]
            again = turns_in(event[:cut]) + turns_in(kept + event[cut:], len(kept))
            assert again == turns_in(event)


def test_compressed_polls_are_read() -> None:
    """A piece with a gzip stream, chunk sizes around it, is unpacked; any other stays as it is."""
    packed = gzip.compress(START + b"\x1e" + END)
    for piece in (packed, b"2a\r\n" + packed + b"\r\n0\r\n\r\n"):
        assert turns_in(plain(piece)) == [True, False]
    assert plain(packed[:-9]).startswith(START[:4])
    assert plain(START) == START
    broken = b"\x1f\x8b\x08" + b"\xff" * 20
    assert plain(broken) == broken
