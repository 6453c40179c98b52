"""What a client says on a Socket.IO websocket: what may be a CONNECT is read, all else passes whole."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Odd, OddId
from proxy.wire.engineio import connect_in_payload
from proxy.wire.guard import ClientPackets, asks, is_plain
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
    text(b"42" + b"x" * 70_000) + text(ODD),
]
BROKEN = [frame(b"42[]"), b"\xc1" + text(b"42")[1:], text(b"x", opcode=0), text(b"x", opcode=3),
          text(b"42", final=False) + text(ODD), text(b"4", final=False) + text(ODD)]  # fmt: skip


def said(data: bytes, size: int) -> bytes:
    """What passes of it when it comes in pieces."""
    packets = ClientPackets()
    return b"".join(packets.feed(data[at : at + size]) for at in range(0, len(data), size))


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
    packets, passed, refused = ClientPackets(), b"", False
    for at in range(0, len(data), size):
        try:
            passed += packets.feed(data[at : at + size])
        except OddId:
            refused = True
            break
    assert refused
    reader = FrameReader()
    reader.push(passed)
    while (frame := reader.next()) is not None:
        assert b"../../x" not in frame.payload


@pytest.mark.parametrize("size", [1000, 65536])
@pytest.mark.parametrize("long", [b"40" + b" " * 600_000, b"401" + b"1" * 600_000])
def test_a_connect_that_is_too_long_goes_no_further(long: bytes, size: int) -> None:
    """Nobody reads all of it, so nobody knows what it names."""
    packets, data = ClientPackets(), text(long)
    with pytest.raises(OddId):
        assert all(packets.feed(data[at : at + size]) == b"" for at in range(0, len(data), size))


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_no_frame_of_a_client(data: bytes) -> None:
    """RFC 6455 section 5: what a backend would end the websocket for cannot hide a CONNECT."""
    with pytest.raises(FrameError):
        said(data, len(data))


def mostly(payload: bytes) -> bool:
    """Whether it is a pong, or an event whose name does not begin as those of a user's messages do."""
    return payload == b"3" or (
        payload[:3] == b"42[" and len(payload) > 4 and payload[4:5] not in (b"c", b"e")
    )


SAID = st.one_of(
    st.binary(max_size=130),
    st.builds(
        lambda start, name, size: start + name + b"x" * size,
        st.sampled_from([b"", b"3", b"4", b"42", b"42[", b'42["', b'42["c', b"420[", b'40{"', b"451-["]),
        st.sampled_from([b"", b"client_message", b"edit_message", b"stop", b"audio_end"]),
        st.sampled_from([0, 1, 5, 110, 121, 122, 200, 65500]),
    ),
)


@given(SAID, st.booleans(), st.sampled_from([1, 1, 1, 0, 2, 9]), st.booleans())
def test_what_passes_unread_says_no_connect(payload: bytes, final: bool, opcode: int, masked: bool) -> None:
    """The short way is only for one whole frame with a pong, or an event that begins no turn."""
    data = frame(payload, masked=masked, final=final, opcode=opcode)
    assert is_plain(data) is (final and opcode == 1 and masked and len(payload) < 65536 and mostly(payload))
    assert not is_plain(data[:-1])
    assert not is_plain(data + b"x")


@given(st.binary(max_size=16), st.booleans())
def test_odd_frames_take_the_long_way(said: bytes, long: bool) -> None:
    """Any bytes, and lengths that are written longer than they need be."""
    assert not is_plain(said) or said[:2] == b"\x81\x81" or said[0] == 0x81
    payload = (b"42[" + said) if long else b"42["[: len(said)]
    plain = frame(payload, masked=True)
    data = b"\x81\xfe" + len(payload).to_bytes(2, "big") + plain[2:]
    if is_plain(data):
        assert mostly(payload)


ASKED = b'42["client_message",{"message":{"id":"m","output":"hi"}}]'


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    "packet",
    [
        ASKED,
        b'427["client_message",{}]',
        b'42123456789012["edit_message",{}]',
        b'42["edit_message",{}]',
        b'42["client_message",{"output":"' + b"x" * 70_000 + b'"}]',
    ],
    ids=["short", "with a number", "with a long number", "an edit", "long"],
)
def test_messages_of_the_user_are_told_of(packet: bytes, size: int) -> None:
    """Once and whole: in one frame or in fragments, with a ping between them; and they pass as they came."""
    for cut in (len(packet), 1, 5, min(30, len(packet) - 1)):
        heard: list[bytes] = []
        packets = ClientPackets(heard.append)
        data = text(packet[:cut], final=cut == len(packet))
        if cut < len(packet):
            data += text(b"", opcode=9) + text(packet[cut:], opcode=0)
        data += text(b'42["stop"]')
        if size > 3 or len(data) < 1000:
            assert b"".join(packets.feed(data[at : at + size]) for at in range(0, len(data), size)) == data
            assert heard == [packet]
    assert asks(packet)


@pytest.mark.parametrize(
    "packet",
    [
        b'42["stop"]',
        b'42["client_messages"]',
        b'42/admin,["client_message",{}]',
        b'43["client_message",{}]',
        b'421234567890123["client_message"]',
        b'4["client_message"]',
    ],
)
def test_other_packets_are_no_messages_of_the_user(packet: bytes) -> None:
    """Another event, namespace or type; and a number longer than anybody counts to."""
    heard: list[bytes] = []
    assert ClientPackets(heard.append).feed(text(packet)) == text(packet)
    assert heard == []


def test_messages_in_bytes_or_too_long_are_not_told_of() -> None:
    """Binary ones are no packets; one of more than a megabyte passes as it comes, and is said only once."""
    heard: list[bytes] = []
    packets = ClientPackets(heard.append)
    packets.feed(text(ASKED, opcode=2))
    long = text(ASKED[:-3] + b"x" * 300_000 + b'"}]')
    assert packets.feed(long[:-1]) + packets.feed(long[-1:]) == long
    assert heard == []
    packets.feed(text(ASKED))
    assert heard == [ASKED]


RESERVED = [
    b"40/chainlit-proxy,",
    b"40/chainlit-proxy",
    b'40/chainlit-proxy,{"sessionId":"session-1"}',
    b"40/chainlit-proxy?x=1,",
    b"401-/chainlit-proxy,",
    b'4"0/chainlit-proxy,"',
    "\uff14\uff10/chainlit-proxy,".encode(),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("packet", RESERVED)
def test_the_namespace_of_hand_overs_is_not_for_clients(packet: bytes, size: int) -> None:
    """A CONNECT to it is refused on a websocket, whole or in fragments, and in a payload."""
    for data in (
        text(packet),
        text(GOOD) + text(packet),
        text(packet[:1], final=False) + text(packet[1:], opcode=0),
    ):
        with pytest.raises(OddId) as error:
            said(data, size)
        assert error.value.odd is Odd.NAMESPACE
    for payload in (packet, b"3\x1e" + packet, packet + b"\x1e40"):
        with pytest.raises(OddId):
            connect_in_payload(payload, 16)


@pytest.mark.parametrize(
    "packet", [b"40/chainlit-proxy2,", b"40/chainlit", b"42/chainlit-proxy,[]", b"40/admin,"]
)
def test_other_namespaces_are(packet: bytes) -> None:
    """It is told whether a client has to do with any: nobody else can go on with those."""
    packets = ClientPackets()
    assert packets.feed(text(packet)) == text(packet)
    assert packets.is_elsewhere is packet.startswith(b"40")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_pongs_that_answer_what_the_backend_has_not_said(size: int) -> None:
    """They go nowhere, as many as are owed; nothing else is swallowed, nor any part of a message."""
    packets = ClientPackets()
    packets.owed_pongs = 2
    fragments = text(b"", final=False) + text(b"3", opcode=0)
    says = [(text(b"3"), b""), (text(b"\x33", opcode=2), None), (text(b"3probe"), None), (text(b"33"), None),
            (fragments, None), (text(b"3"), None), (text(b"42[]"), None)]  # fmt: skip
    data = b"".join(said for said, _ in says)
    passed = b"".join(packets.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert passed == b"".join(said if goes_on is None else goes_on for said, goes_on in says)
    assert packets.owed_pongs == 0
    assert packets.is_empty


def test_the_last_word_on_polling() -> None:
    """Until it has said Engine.IO's UPGRADE, a client of polls may still ask for what was said by them."""
    packets = ClientPackets()
    packets.feed(text(b"2probe") + text(b"5", opcode=2) + text(b"55"))
    assert not packets.upgraded
    packets.feed(text(b"5"))
    assert packets.upgraded


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
    packets = ClientPackets()
    for at in range(0, len(said), size):
        packets.feed(said[at : at + size])
    assert packets.has_parted is parted


@pytest.mark.parametrize("size", [3000, 100_000])
@pytest.mark.parametrize("fragments", [1, 2, 3])
def test_a_message_of_the_user_that_is_too_long_to_read(fragments: int, size: int) -> None:
    """Its beginning alone is no message: who keeps what the user says is told that there was one, once."""
    heard: list[bytes] = []
    asked = b'42["client_message",{"message":"' + b"x" * 300_000 + b'"}]'
    ends = [0, *(len(asked) * (at + 1) // fragments for at in range(fragments))]
    data = b"".join(
        text(asked[begin:end], opcode=0 if begin else 1, final=end == len(asked))
        for begin, end in pairwise(ends)
    )
    packets = ClientPackets(heard.append, lambda: heard.append(b"too long"))
    for at in range(0, len(data), size):
        packets.feed(data[at : at + size])
    packets.feed(text(b'42["client_message",1]'))
    assert heard == [b"too long", b'42["client_message",1]']


ALONE = [
    *(
        text(payload)
        for payload in (b"", b"3", b"2probe", b"5", b"41", b"1", b"40", GOOD, b"x" * 32, b"x" * 33)
    ),
    *(text(b'42["client_message",' + b"x" * more) for more in (0, 20, 40, 102, 105, 106, 107)),
    *(text(packet) for packet in (b'451-["x"]', b'460-["x"]', b"45", "\uff14\uff10".encode())),
    *(text(b"\x03\xe9", opcode=opcode) for opcode in (2, 8, 9, 10)),
    text(b"42", final=False) + text(b"x", opcode=0),
]


@pytest.mark.parametrize("data", ALONE)
def test_a_frame_that_comes_alone(data: bytes) -> None:
    """It is heard and passes as one that comes in pieces does, and so does what follows it."""

    def ends(pieces: list[bytes]) -> tuple[object, ...]:
        heard: list[bytes] = []
        packets = ClientPackets(heard.append)
        packets.owed_pongs = 1
        passed = b"".join(map(packets.feed, [*pieces, text(b"\x00", opcode=2), text(b"3"), text(b"42[]")]))
        flags = (packets.has_parted, packets.is_elsewhere, packets.upgraded, packets.owed_pongs)
        return passed, heard, flags, packets.is_empty, packets.is_between, packets.rest

    assert ends([data]) == ends([data[:1], data[1:]]) == ends([data[:-1], data[-1:]])
