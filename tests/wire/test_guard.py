"""The client's frames on a Socket.IO websocket: what may be a CONNECT is held, all else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import OddId
from proxy.wire.guard import Guard, is_plain
from proxy.wire.websocket import FrameError, FrameReader
from tests.dataplane.frames import frame

GOOD = b'40{"sessionId":"session-1"}'
ODD = b'40{"sessionId":"../../x"}'


def text(payload: bytes, *, final: bool = True, opcode: int = 1) -> bytes:
    """A client's frame."""
    return frame(payload, opcode=opcode, masked=True, final=final)


HARMLESS = [
    text(b"3"),
    text(b'42["hi"]'),
    text(GOOD),
    text(b"42" + b"x" * 200),
    text(b"42" + b"x" * 70_000),
    text(b"4") + text(b""),
    text(b"\x04\x05", opcode=2),
    text(ODD, opcode=2),  # python-socketio reads no packet's head from bytes
    text(b'42["', final=False) + text(b"", opcode=9) + text(b'40{"sessionId":""}"]', opcode=0),
    text(b"4", final=False) + text(b"", opcode=0, final=False) + text(GOOD[1:], opcode=0),
    text(b"", opcode=10) + text(b"\x03\xe8", opcode=8),
]
ODD_SAID = [
    text(ODD),
    text(b"3") + text(ODD),
    text(GOOD) + text(b"41") + text(ODD),
    text(b"42[", final=False) + text(b"]", opcode=0) + text(ODD),
    text(b"4", final=False) + text(ODD[1:], opcode=0),
    text(b"", final=False) + text(b"", opcode=9) + text(ODD, opcode=0),
    text("\uff14\uff10".encode() + ODD[2:]),
    text(b"40" + b" " * 300_000),
    text(b"42" + b"x" * 70_000) + text(ODD),
]
BROKEN = [frame(b"42[]"), b"\xc1" + text(b"42")[1:], text(b"x", opcode=0), text(b"x", opcode=3),
          text(b"42", final=False) + text(ODD), text(b"4", final=False) + text(ODD)]  # fmt: skip


def said(data: bytes, size: int) -> bytes:
    """What passes of it when it comes in pieces."""
    guard = Guard()
    return b"".join(guard.feed(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
def test_all_else_passes_as_it_came(size: int) -> None:
    """Nothing is changed, and between two messages nothing is kept back; in single bytes too."""
    for data in HARMLESS:
        if size > 3 or len(data) < 1000:
            assert said(data, size) == data
    if size > 3:
        assert said(b"".join(HARMLESS), size) == b"".join(HARMLESS)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("data", ODD_SAID)
def test_odd_sessions_go_no_further(data: bytes, size: int) -> None:
    """However it is cut, no byte of a CONNECT that names an odd session passes."""
    guard, passed, refused = Guard(), b"", False
    for at in range(0, len(data), size):
        try:
            passed += guard.feed(data[at : at + size])
        except OddId:
            refused = True
            break
    assert refused
    reader = FrameReader()
    reader.push(passed)
    while (frame := reader.next()) is not None:
        assert b"../../x" not in frame.payload


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_no_frame_of_a_client(data: bytes) -> None:
    """RFC 6455 section 5: what a backend would end the websocket for cannot hide a CONNECT."""
    with pytest.raises(FrameError):
        said(data, len(data))


@given(st.binary(max_size=130), st.booleans())
def test_what_passes_unread_says_no_connect(payload: bytes, final: bool) -> None:
    """The short way out is only for one whole frame with a pong or an event."""
    data = frame(payload, masked=True, final=final)
    assert is_plain(data) is (final and len(payload) < 126 and (payload == b"3" or payload[:2] == b"42"))
    assert not is_plain(data[:-1])
    assert not is_plain(data + b"x")


def test_it_is_between_messages_only_when_nothing_is_held() -> None:
    """What comes next begins a message only if the one before is whole."""
    guard = Guard()
    for data, between in ((text(b"42"), True), (text(b"4")[:3], False), (text(b"4")[3:], True),
                          (text(b"42", final=False), False), (text(b"", opcode=0), True)):  # fmt: skip
        guard.feed(data)
        assert guard.between is between


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("said", "parted"),
    [
        (text(b"", opcode=8), True),
        (text(b"41") + text(b"", opcode=8), True),
        (text(b"41"), True),
        (text(b"1"), True),
        (text(b"41") + text(b"", opcode=10), True),
        (text(b'42["x"]') + text(b"", opcode=8), True),
        (text(b'42["x"]'), False),
        (text(b"41") + text(b'42["x"]'), False),
        (text(b"41") + text(GOOD), False),
        (text(b"41/admin,"), False),
        (text(b"41", final=False) + text(b"1", opcode=0), False),
        (text(b"41", opcode=2), False),
        (text(b"3"), False),
        (b"", False),
    ],
)
def test_farewells(said: bytes, parted: bool, size: int) -> None:
    """A close frame, or a packet that ends the connection, unless more is said; however it is cut."""
    guard = Guard()
    for at in range(0, len(said), size):
        guard.feed(said[at : at + size])
    assert guard.has_parted is parted
