"""permessage-deflate with a client: what is agreed, and both directions however they are cut."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.deflate import CHUNK, Agreed, Contexts, Deflater, Inflater, agree
from proxy.wire.websocket import FrameError, FrameReader
from tests.dataplane.deflated import TAIL, Listener, in_frames, packed, said
from tests.dataplane.frames import frame

AGREED = Agreed(12, True, b"")
TOKEN = b'42["stream_token",{"id":"b7a3a1c2-4a5f-4bb1-9d52-1d2a5a0d2f11","token":" %d","isSequence":false}]'
TOKENS = [TOKEN % number for number in range(50)]
LONGEST = 1 << 20
ANSWER = "permessage-deflate; client_no_context_takeover"
FORGETS = "server_no_context_takeover"


@pytest.mark.parametrize(
    ("offers", "answer", "bits", "refers"),
    [
        (["permessage-deflate"], ANSWER, 12, True),
        (["permessage-deflate; client_max_window_bits"], ANSWER, 12, True),
        (["permessage-deflate; client_max_window_bits=15"], ANSWER, 12, True),
        (['permessage-deflate; client_max_window_bits="8"'], ANSWER, 12, True),
        (["Permessage-Deflate;client_no_context_takeover"], ANSWER, 12, True),
        (["permessage-deflate; server_no_context_takeover"], f"{ANSWER}; {FORGETS}", 12, False),
        (["permessage-deflate; server_max_window_bits=15"], f"{ANSWER}; server_max_window_bits=12", 12, True),
        (["permessage-deflate; server_max_window_bits = 9"], f"{ANSWER}; server_max_window_bits=9", 9, True),
        (
            ["permessage-deflate; server_max_window_bits=10; server_no_context_takeover"],
            f"{ANSWER}; server_max_window_bits=10; {FORGETS}",
            10,
            False,
        ),
        # The first that can be taken, of one field or several.
        (["x-webkit-deflate-frame, permessage-deflate"], ANSWER, 12, True),
        (["permessage-bzip2", "permessage-deflate"], ANSWER, 12, True),
        (
            ["permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=11"],
            f"{ANSWER}; server_max_window_bits=11",
            11,
            True,
        ),
        (["permessage-deflate; unknown, permessage-deflate"], ANSWER, 12, True),
    ],
)  # fmt: skip
def test_an_offer_that_is_taken(offers: list[str], answer: str, bits: int, refers: bool) -> None:
    """What a client asks of what it is told is kept; its own messages always begin anew."""
    agreed = agree([offer.encode() for offer in offers])
    assert agreed == (bits, refers, f"Sec-WebSocket-Extensions: {answer}\r\n".encode())


@pytest.mark.parametrize(
    "parameters",
    [
        "unknown",
        "unknown=1",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=8",  # valid, and zlib has none
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=x",
        'server_max_window_bits="10',
        "client_max_window_bits=16",
        "client_max_window_bits=010",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_no_context_takeover; client_no_context_takeover",
        "=",
        "",
    ],
)
def test_an_offer_that_is_declined(parameters: str) -> None:
    """RFC 7692 section 5.1: it is as if it had not been made; the websocket is a plain one."""
    assert agree([f"permessage-deflate; {parameters}".encode()]) is None


@pytest.mark.parametrize(
    "offers", [[], [b""], [b","], [b"x-permessage-deflate"], [b"deflate; permessage-deflate"]]
)
def test_no_offer(offers: list[bytes]) -> None:
    """Nothing is agreed that was not offered."""
    assert agree(offers) is None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """In pieces."""
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


PAYLOADS = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(TOKENS),
    st.integers(0, 300_000).map(lambda size: b"many " * (size // 5)),
)


FIRST = st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x88])  # bytes of frames


@given(
    messages=st.lists(st.tuples(PAYLOADS, FIRST), max_size=8),
    places=st.lists(st.integers(0, 1 << 20), max_size=12),
    bits=st.integers(9, 12),
    refers=st.booleans(),
)  # fmt: skip
def test_the_client_hears_what_was_said(
    messages: list[tuple[bytes, int]], places: list[int], bits: int, refers: bool
) -> None:
    """Every frame arrives as it was said, in order, however its bytes were cut on the way here."""
    frames = [
        frame(payload[:125] if first & 8 else payload, opcode=first & 15, final=first > 127)
        for payload, first in messages
    ]
    deflater, listener = Deflater(Agreed(bits, refers, b""), Contexts()), Listener(bits)
    heard = [part for piece in cut(b"".join(frames), places) for part in listener.hear(deflater.pack(piece))]
    assert heard == [(first, payload[:125] if first & 8 else payload) for payload, first in messages]


def test_a_token_is_short_behind_another() -> None:
    """What is like what was said before is a few bytes; a ping stays as it is."""
    deflater, listener = Deflater(AGREED, contexts := Contexts()), Listener(12)
    for token in TOKENS:
        assert listener.hear(deflater.pack(frame(token))) == [(0x81, token)]
    assert sum(listener.sizes[1:]) / len(TOKENS) < 16
    assert deflater.pack(frame(b"2")) == frame(b"2")
    assert contexts.plain == sum(len(frame(token)) for token in TOKENS)
    assert contexts.packed == sum(size + 2 for size in listener.sizes)


def test_a_client_that_forgets() -> None:
    """server_no_context_takeover: each message can be read on its own, and nothing is kept of it."""
    deflater = Deflater(Agreed(12, False, b""), contexts := Contexts())
    for token in TOKENS:
        assert Listener(12).hear(deflater.pack(frame(token))) == [(0x81, token)]
    assert len(contexts) == 0


def test_contexts_are_bounded() -> None:
    """Those who were told something last have one; the others go on without, and everybody hears all."""
    contexts = Contexts(most=2)
    clients = [(Deflater(AGREED, contexts), Listener(12)) for _ in range(5)]
    for token in TOKENS:
        for deflater, listener in clients:
            assert listener.hear(deflater.pack(frame(token))) == [(0x81, token)]
            assert len(contexts) <= 2
    for deflater, _ in clients:
        deflater.leave()
        assert deflater.pack(frame(TOKENS[0])) == b""  # whoever hears a moment later that it is gone
    assert len(contexts) == 0


def test_a_backend_that_compresses_unasked() -> None:
    """Its frame would be taken for one of ours: nothing goes out from there on."""
    deflater = Deflater(AGREED, Contexts())
    assert deflater.pack(frame(b"ok") + frame(packed(b"x"), opcode=1 | 0x40) + frame(b"more")) == frame(b"ok")
    assert deflater.pack(frame(b"more")) == b""


def plain(inflater: Inflater, data: bytes) -> bytes:
    """All that goes on of it."""
    inflater.push(data)
    out = b""
    while part := inflater.next():
        out += part
    return out


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of the messages in plain frames; control frames as they come."""
    reader = FrameReader(1 << 22)
    found: list[tuple[int, bytes]] = []
    begun: list[tuple[int, bytes]] = []
    reader.push(data)
    while (one := reader.next()) is not None:
        if one.opcode >= 8:
            found.append((one.opcode, one.payload))
            continue
        assert bool(one.opcode) is not bool(begun)
        begun.append((one.opcode, one.payload))
        if one.final:
            found.append((begun[0][0], b"".join(payload for _, payload in begun)))
            begun.clear()
    assert not begun
    assert not reader.rest
    return found


CUTS = st.lists(st.integers(0, 400), max_size=4)


@given(
    parts=st.lists(st.tuples(PAYLOADS, st.booleans(), st.sampled_from([1, 2]), CUTS), max_size=6),
    places=st.lists(st.integers(0, 1 << 20), max_size=12),
)  # fmt: skip
def test_the_backend_hears_what_was_said(
    parts: list[tuple[bytes, bool, int, list[int]]], places: list[int]
) -> None:
    """Plain and compressed messages, in fragments with pings between them, arrive whole and in order."""
    stream, expected = b"", []
    ping = frame(b"p", opcode=9, masked=True)
    for payload, compressed, opcode, cuts in parts:
        if compressed:
            stream += said(payload, *cuts, opcode=opcode, between=ping)
            expected += [(9, b"p")] * len(cuts) + [(opcode, payload)]
        else:
            stream += frame(payload, opcode=opcode, masked=True)
            expected.append((opcode, payload))
    inflater = Inflater(LONGEST)
    out = b"".join(plain(inflater, piece) for piece in cut(stream, places))
    assert messages(out) == expected
    assert not inflater.has_more


def test_one_byte_at_a_time() -> None:
    """Nothing rests on how much comes at once."""
    inflater, data = Inflater(LONGEST), said(b"hello " * 50, 3, 9) + frame(b"3", masked=True) + said(b"bye")
    out = b"".join(plain(inflater, data[at : at + 1]) for at in range(len(data)))
    assert messages(out) == [(1, b"hello " * 50), (1, b"3"), (1, b"bye")]


def test_plain_bytes_pass_as_they_came() -> None:
    """A message that is not compressed keeps its mask, and is not looked into."""
    data = (
        frame(b"2", masked=True)
        + frame(b"x" * 70_000, opcode=2, masked=True)
        + frame(b"", opcode=8, masked=True)
    )
    assert plain(Inflater(LONGEST), data) == data


FINAL = zlib.compressobj(wbits=-15)
LAST = FINAL.compress(b"last block") + FINAL.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("behind", [b"", b"\x00"])
def test_a_message_with_a_last_block(behind: bytes) -> None:
    """RFC 7692 section 7.2.3.4: a block may be marked as the last, with a byte behind it."""
    for data in (in_frames(LAST + behind), in_frames(LAST + behind, 3, len(LAST))):
        for size in (len(data), 1):
            inflater = Inflater(LONGEST)
            out = b"".join(plain(inflater, data[at : at + size]) for at in range(0, len(data), size))
            assert messages(out) == [(1, b"last block")]


MASKED = b"\x80\x00\x00\x00\x00"
BROKEN = {
    "what is no deflate": (in_frames(b"\xff" * 20), 1007),
    "a message that is cut off": (in_frames(packed(b"hello " * 20)[:-3]), 1007),
    "more behind the last block": (in_frames(LAST + packed(b"more")), 1007),
    "a fragment behind the last block": (in_frames(LAST + bytes(40), len(LAST)), 1007),
    "a message that ends behind its flush": (in_frames(packed(b"hello") + TAIL[:2]), 1007),
    "RSV1 on a continuation": (said(b"hello", 3)[:9] + b"\xc0" + MASKED, 1002),
    "RSV1 on a continuation of a plain message": (b"\x01" + MASKED + b"\xc0" + MASKED, 1002),
    "RSV1 on a ping": (b"\xc9" + MASKED, 1002),
    "RSV1 on a close": (b"\xc8" + MASKED, 1002),
    "RSV1 on an unknown opcode": (b"\xc3" + MASKED, 1002),
    "RSV1 and RSV2": (b"\xe1" + MASKED, 1002),
    "RSV3 on a continuation": (said(b"hello", 3)[:9] + b"\x90" + MASKED, 1002),
    "no mask": (b"\xc1\x00", 1002),
    "a message in a compressed one": (said(b"hello", 3)[:9] + frame(b"x", masked=True), 1002),
    "a compressed message in another": (said(b"hello", 3)[:9] + said(b"x"), 1002),
    "a bomb": (said(b"0" * (LONGEST + 1)), 1009),
    "a bomb in fragments": (said(b"0" * (LONGEST + 1), 100, 200, 300), 1009),
    "many bombs": (said(b"0" * LONGEST) * 2, 1009),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read(case: str) -> None:
    """The client is told by which code; nothing of the frame goes on, and what is inflated is bounded."""
    data, code = BROKEN[case]
    inflater = Inflater(LONGEST)
    out = b""
    with pytest.raises(FrameError):  # noqa: PT012 - whatever comes first goes on
        inflater.push(frame(b"first", masked=True) + data)
        while part := inflater.next():
            assert len(part) <= CHUNK + 14
            out += part
    assert inflater.code == code
    assert out.startswith(frame(b"first", masked=True))
    assert len(out) <= 2 * LONGEST


def test_long_messages_are_allowed() -> None:
    """One of the longest at once, and any number as far as enough is received for them."""
    inflater = Inflater(LONGEST)
    assert messages(plain(inflater, said(b"0" * LONGEST))) == [(1, b"0" * LONGEST)]
    lines = b"".join(b"%d a line of a log, as people paste it\n" % number for number in range(20_000))
    for _ in range(5):
        assert messages(plain(inflater, said(lines[: LONGEST - 1]))) == [(1, lines[: LONGEST - 1])]
