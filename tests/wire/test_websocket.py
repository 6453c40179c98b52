"""WebSocket frames as the opening reads them (RFC 6455 section 5), checked against the websockets library."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode

from proxy.wire.websocket import (
    BINARY,
    CLOSE,
    LONGEST_READ,
    PING,
    TEXT,
    Frame,
    FrameError,
    FrameReader,
    apply_mask,
    close_code,
    close_frame,
)


def read(data: bytes, size: int = 1) -> list[Frame]:
    """All frames of a stream that comes in pieces of `size`."""
    reader = FrameReader()
    frames = []
    for at in range(0, len(data), size):
        reader.push(data[at : at + size])
        while (frame := reader.next()) is not None:
            frames.append(frame)
    assert not reader.rest
    return frames


MASK = bytes((0x37, 0xFA, 0x21, 0x3D))

# bytes, opcode, whether it is final, payload
FRAMES = [
    # RFC 6455 section 5.7, the examples
    (b"\x81\x05Hello", TEXT, True, b"Hello"),
    (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", TEXT, True, b"Hello"),
    (b"\x01\x03Hel", TEXT, False, b"Hel"),
    (b"\x80\x02lo", 0, True, b"lo"),
    (b"\x89\x05Hello", PING, True, b"Hello"),
    (b"\x82\x7e\x01\x00" + bytes(256), BINARY, True, bytes(256)),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), BINARY, True, bytes(65536)),
    # section 5.2, the edges of the length
    (b"\x81\x00", TEXT, True, b""),
    (b"\x81\x80" + MASK, TEXT, True, b""),
    (b"\x81\x7d" + b"a" * 125, TEXT, True, b"a" * 125),
    (b"\x81\x7e\x00\x7e" + b"a" * 126, TEXT, True, b"a" * 126),
    (b"\x88\x02\x03\xe8", CLOSE, True, b"\x03\xe8"),
]


@pytest.mark.parametrize(("data", "opcode", "final", "payload"), FRAMES)
def test_frames(data: bytes, opcode: int, final: bool, payload: bytes) -> None:
    """RFC 6455 section 5.2: a frame is read as soon as it is whole, in any pieces, and keeps its bytes."""
    for size in (1 if len(data) < 1000 else 997, len(data)):
        assert read(data, size) == [Frame(opcode, final, payload, data)]


@pytest.mark.parametrize("data", [row[0] for row in FRAMES if len(row[0]) < 1000])
def test_frames_are_not_read_early(data: bytes) -> None:
    """Until its last byte has come there is no frame, and what has come is kept."""
    for length in range(len(data)):
        reader = FrameReader()
        reader.push(data[:length])
        assert reader.next() is None
        assert reader.rest == data[:length]


UNREADABLE = [
    (b"\xc1\x05Hello", "reserved"),  # RSV1: compressed, RFC 7692
    (b"\xa1\x05Hello", "reserved"),
    (b"\x91\x05Hello", "reserved"),
    (b"\x81\x7f" + (LONGEST_READ + 1).to_bytes(8, "big"), "too long"),
    (b"\x81\x7f\xff" + bytes(7), "too long"),
]


@pytest.mark.parametrize(("data", "reason"), UNREADABLE)
def test_unreadable_frames_keep_their_bytes(data: bytes, reason: str) -> None:
    """What we cannot read (compressed, or longer than any CONNECT) may still be passed on whole."""
    reader = FrameReader()
    reader.push(data)
    for _ in range(2):
        with pytest.raises(FrameError, match=reason):
            reader.next()
    assert reader.rest == data


@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY, PING]), st.binary(max_size=125), st.booleans())),
       st.integers(1, 50))  # fmt: skip
def test_frames_as_a_library_writes_them(frames: list[tuple[int, bytes, bool]], size: int) -> None:
    """Masked or not, cut anywhere: frames are told apart, and together are the stream again."""
    written = [TheirFrame(Opcode(op), data).serialize(mask=masked) for op, data, masked in frames]
    seen = read(b"".join(written), size)
    assert [(frame.opcode, frame.payload) for frame in seen] == [(op, data) for op, data, _ in frames]
    assert [frame.raw for frame in seen] == written


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(payload: bytes, mask: bytes) -> None:
    """RFC 6455 section 5.3: the same XOR masks and unmasks, four bytes at a time."""
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


@given(st.binary(max_size=40), st.integers(1, 9))
def test_any_bytes_are_read_or_refused(data: bytes, size: int) -> None:
    """Streams come from anybody: nothing but FrameError is raised, and no byte is lost."""
    reader = FrameReader()
    taken = b""
    try:
        for at in range(0, len(data), size):
            reader.push(data[at : at + size])
            while (frame := reader.next()) is not None:
                taken += frame.raw
    except FrameError:
        at = min(at, len(data))
        assert taken + reader.rest == data[: at + size]
    else:
        assert taken + reader.rest == data


@pytest.mark.parametrize("code", [1000, 1012, 4999])
def test_close_frames(code: int) -> None:
    """RFC 6455 section 5.5.1: a server's close is unmasked, names a code, and fits a control frame."""
    frame = read(close_frame(code, b"r" * 200))[0]
    assert (frame.opcode, frame.final) == (CLOSE, True)
    assert frame.payload == code.to_bytes(2, "big") + b"r" * 123
    assert close_frame(code) == TheirFrame(Opcode.CLOSE, code.to_bytes(2, "big")).serialize(mask=False)


@given(st.binary(max_size=300), st.integers(1000, 4999), st.binary(max_size=100), st.booleans())
def test_the_code_of_the_last_frame(before: bytes, code: int, reason: bytes, masked: bool) -> None:
    """It is found behind whatever was said before; a text that stands there is no close frame."""
    frame = TheirFrame(Opcode.CLOSE, code.to_bytes(2, "big") + reason).serialize(mask=masked)
    texts = TheirFrame(Opcode.TEXT, b"42" + before.hex().encode()).serialize(mask=False)
    assert close_code(texts + frame) == code
    assert close_code(texts) == 0


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (b"", 0),
        (b"\x88", 0),
        (b"\x88\x00", 1005),
        (b"\x88\x80mask", 1005),
        (b"\x88\x02\x03\xe9", 1001),
        (b"\x88\x02\x03\xe9x", 0),  # not the end
        (b"\x88\x03\x03\xe9", 0),  # not whole
        (b"\x88\x02\x03\xe7", 0),  # 999 is no code
        (b"\x88\x01\x03", 0),
    ],
)
def test_close_codes(last: bytes, code: int) -> None:
    """A frame without a code has 1005; what is not whole, or no code, is none."""
    assert close_code(last) == code
