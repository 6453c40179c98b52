import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import turns
from proxy.wire.turns import MARK_SIZE, TASK, Ear, mark_of, tells, turns_in

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


def test_an_answer_is_heard_however_it_is_cut() -> None:
    """Compressed or not, chunk sizes around it or not, each event is told once, as soon as it is whole."""
    said = START + b"\x1e" + b"x" * 3000 + b"\x1e" + END
    packed = gzip.compress(said)
    for answer in (said, packed, b"2a\r\n" + packed + b"\r\n0\r\n\r\n"):
        for size in (1, 2, 13, 100, len(answer)):
            ear = Ear()
            pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
            assert [event for piece in pieces for event in ear.hear(piece)] == [True, False]


def test_what_cannot_be_unpacked_tells_nothing() -> None:
    """A stream that breaks off or is none, and the rest of one that unpacks to more than anybody takes."""
    ear = Ear()
    assert ear.hear(b"\x1f\x8b\x08" + b"\xff" * 20) == []
    assert ear.hear(START) == []
    ear = Ear()
    assert ear.hear(gzip.compress(START + bytes(turns._MOST_PLAIN) + END)) == [True]


_IDS = st.sampled_from(["", "a", "b", "0b9f6f0e-6d5c-4f6e"])
_PACKETS = st.one_of(
    st.sampled_from([START, END, b"2", b'42["new_message",{"id":"a"}]', gzip.compress(b"2")]),
    st.builds(
        lambda kind, name, text: (
            b'42["stream_%s",{"id":"%s","token":%s,"isSequence":false}]'
            % (kind, name.encode(), json.dumps(text).encode())
        ),
        st.sampled_from([b"token", b"start"]),
        _IDS,
        st.sampled_from(["word", '"id":"a"', '42["stream_token",{"id":"b"']),
    ),
)


@given(st.lists(_PACKETS, max_size=4), _IDS)
def test_an_answer_that_tells_nothing_need_not_be_heard(packets: list[bytes], known: str) -> None:
    """What is passed over has no event of a turn, and its last token is one of the message that is known."""
    answer = b"\x1e".join(packets)
    ear = Ear()
    if not tells(answer, mark_of(known)):
        assert ear.hear(answer) == []
        assert ear.streamed in ("", known)


def test_further_tokens_of_a_message_tell_nothing() -> None:
    """Most answers to polls while a text is streamed are such ones; the first token of another one tells."""
    token = b'42["stream_token",{"id":"a","token":" and","isSequence":false}]'
    assert not tells(token + b"\x1e" + token, mark_of("a"))
    assert tells(token, mark_of("b"))
    assert tells(token, mark_of(""))
    assert tells(token + b"\x1e" + END, mark_of("a"))


def test_the_first_token_of_another_message_tells() -> None:
    """Even if a packet behind it, such as the end of a streamed step, names the known one."""
    token = b'42["stream_token",{"id":"b","token":" and","isSequence":false}]'
    assert tells(token + b"\x1e" + b'42["update_message",{"id":"a","output":"done"}]', mark_of("a"))
