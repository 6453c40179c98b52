"""WebSocket messages: fragments are put together, and what is broken is told from what is long."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.messages import MessageReader
from proxy.wire.websocket import BINARY, PING, TEXT, FrameError, client_frame, server_frame


def fragment(opcode: int, payload: bytes) -> bytes:
    """A frame with more to come."""
    frame = bytearray(server_frame(opcode, payload))
    frame[0] &= 0x7F
    return bytes(frame)


WHOLE = server_frame(TEXT, b"one")
CUT = fragment(BINARY, b"two") + fragment(0, b"") + server_frame(0, b"three")
INSIDE = fragment(TEXT, b"a") + server_frame(PING, b"ping") + server_frame(0, b"b")


def read(data: bytes, cuts: set[int], longest: int = 1000) -> list[tuple[int, bytes, bytes, int]]:
    """The messages in `data`, which comes cut at these places."""
    reader, found = MessageReader(longest), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        reader.push(data[start:end])
        while (message := reader.next()) is not None:
            found.append((message.opcode, message.payload, message.raw, message.frames))
    assert reader.rest == b""
    return found


@given(st.sets(st.integers(1, len(WHOLE + CUT + INSIDE) - 1)))
def test_messages(cuts: set[int]) -> None:
    """With all their bytes; a control frame between fragments comes at once."""
    a, b = fragment(TEXT, b"a"), server_frame(0, b"b")
    assert read(WHOLE + CUT + INSIDE, cuts) == [
        (TEXT, b"one", WHOLE, 1),
        (BINARY, b"twothree", CUT, 3),
        (PING, b"ping", server_frame(PING, b"ping"), 1),
        (TEXT, b"ab", a + b, 2),
    ]


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"\xc1\x00", True),
        (server_frame(0, b"of nothing"), True),
        (fragment(TEXT, b"a") + server_frame(TEXT, b"b"), True),
        (server_frame(TEXT, b"x" * 101), False),
        (fragment(TEXT, b"x" * 60) + fragment(0, b"x" * 60), False),
        (fragment(TEXT, b"") + fragment(0, b"") * 60, False),
    ],
)
def test_what_is_not_read(data: bytes, broken: bool) -> None:
    """Reserved bits and fragments out of order break the protocol; too long is only too long."""
    reader = MessageReader(100)
    reader.push(data)
    with pytest.raises(FrameError):
        reader.next()
    assert reader.is_broken is broken
    assert reader.rest or broken  # what is only long goes on unread


def test_what_has_come_of_the_next() -> None:
    """Fragments and bytes, which may go on unread, or nowhere."""
    reader = MessageReader(100)
    data = fragment(TEXT, b"a") + b"\x80\x05b"
    reader.push(data)
    assert reader.next() is None
    assert (reader.rest, reader.waiting) == (data, len(data))
    reader.clear()
    assert (reader.rest, reader.waiting) == (b"", 0)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_any_length(size: int) -> None:
    """What is written is read, by both sides."""
    for frame in (client_frame, server_frame):
        ((opcode, payload, _, _),) = read(frame(BINARY, b"x" * size), set(), longest=1 << 20)
        assert (opcode, payload) == (BINARY, b"x" * size)


def test_fragments_take_no_more_room_than_their_bytes() -> None:
    """A message of forty thousand empty ones is bounded in bytes of memory too, and comes out as it came."""
    empty = client_frame(0, b"")[:1].replace(b"\x80", b"\x00") + client_frame(0, b"")[1:]
    data = fragment(TEXT, b"4") + empty * 40_000
    reader = MessageReader(1 << 18)
    tracemalloc.start()
    for at in range(0, len(data), 6):
        reader.push(data[at : at + 6])
        assert reader.next() is None
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 2 * len(data)
    assert (reader.waiting, reader.rest) == (len(data), data)
    reader.push(client_frame(0, b"2"))
    message = reader.next()
    assert message is not None
    assert (message.payload, message.frames) == (b"42", 40_002)
    assert reader.waiting == 0
