"""Both directions of a Socket.IO websocket: whole packets go on, unchanged, however they are cut.

A stream is made of packets, a packet of messages, a message of fragments, with control frames between any two
of them. What a reader may have passed on by a moment is told by a list of the places where a packet ends.
"""

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.guard import ClientPackets
from proxy.wire.packets import EVENT_HEADS, BackendPackets, PacketReader, are_events
from proxy.wire.websocket import LONGEST_READ, FrameError, FrameReader
from tests.dataplane.frames import frame

SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]
DIRECTIONS = [(ClientPackets, True), (BackendPackets, False)]
both = pytest.mark.parametrize(("make", "masked"), DIRECTIONS, ids=["client", "backend"])
Make = Callable[[], PacketReader]
Message = tuple[int, list[bytes]]  # opcode, fragments
PING, PONG = frame(b"x", opcode=9), frame(b"x", opcode=10)


class Stream:
    """Bytes of one direction, and where packets end in them."""

    def __init__(self, *, masked: bool) -> None:
        self.data = b""
        self.ends = {0}
        self._masked = masked

    def packet(self, *messages: Message, between: bytes = b"") -> "Stream":
        """Add a packet, with control frames of one byte between its frames, each 9 or 10."""
        todo = list(between)
        for opcode, fragments in messages:
            for at, fragment in enumerate(fragments):
                final = at + 1 == len(fragments)
                self._add(fragment, opcode=0 if at else opcode, final=final)
                if todo and not (final and (opcode, fragments) == messages[-1]):
                    self._add(b"x", opcode=todo.pop())
        self.ends.add(len(self.data))
        return self

    def control(self, opcode: int) -> "Stream":
        """Add a control frame between two packets."""
        self._add(b"x", opcode=opcode)
        self.ends.add(len(self.data))
        return self

    def _add(self, payload: bytes, *, opcode: int, final: bool = True) -> None:
        self.data += frame(payload, opcode=opcode, masked=self._masked, final=final)


def text(payload: bytes) -> Message:
    """A message of one fragment."""
    return 1, [payload]


def binary(payload: bytes) -> Message:
    """A binary one."""
    return 2, [payload]


def check(make: Make, stream: Stream, pieces: Iterable[bytes]) -> PacketReader:
    """What goes on is a prefix of what came, as much as is whole, and the reader knows where it is."""
    reader = make()
    came = gone = 0
    for piece in pieces:
        passed = reader.feed(piece)
        assert stream.data[gone : gone + len(passed)] == passed
        came, gone = came + len(piece), gone + len(passed)
        assert gone == max(end for end in stream.ends if end <= came)
        assert reader.is_between
        assert reader.is_empty is (came == gone)
        assert reader.rest == stream.data[gone:came]
    return reader


def cut(data: bytes, size: int) -> list[bytes]:
    """In pieces of one size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


@st.composite
def messages(draw: st.DrawFn, payload: st.SearchStrategy[bytes], opcode: int) -> Message:
    """One message in any fragments, some of them empty."""
    said = draw(payload)
    cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=3)))
    return opcode, [said[at:end] for at, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]


@st.composite
def streams(draw: st.DrawFn, *, masked: bool) -> Stream:
    """Packets with and without attachments, and control frames everywhere."""
    stream = Stream(masked=masked)
    for _ in range(draw(st.integers(0, 5))):
        between = bytes(draw(st.lists(st.sampled_from([9, 10]), max_size=3)))
        attachments = draw(st.integers(0, 3))
        if draw(st.booleans()):
            stream.control(draw(st.sampled_from([9, 10])))
        if attachments:
            head = b"4%b%d-" % (draw(st.sampled_from([b"5", b"6"])), attachments)
            event = st.builds(b"%b%b".__mod__, st.tuples(st.just(head), st.binary(max_size=30)))
            parts = [draw(messages(st.binary(max_size=200), 2)) for _ in range(attachments)]
            stream.packet(draw(messages(event, 1)), *parts, between=between)
        else:
            plain = st.one_of(
                st.sampled_from([b"2", b"3", b"", b"41", b"4", b"40", b'42["client_message",{}]', b"4512"]),
                st.binary(max_size=300).map(lambda said: b"42" + said),
            )
            opcode = draw(st.sampled_from([1, 1, 2]))
            stream.packet(draw(messages(plain, opcode)), between=between)
    return stream


@both
@given(data=st.data())
def test_any_packets_in_any_pieces(make: Make, masked: bool, data: st.DataObject) -> None:
    """Byte by byte, and in any other pieces: a packet goes on with its last byte, and not before."""
    stream = data.draw(streams(masked=masked))
    check(make, stream, cut(stream.data, 1))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream.data)), max_size=8)))
    pieces = [
        stream.data[at:end] for at, end in zip([0, *cuts], [*cuts, len(stream.data)], strict=True) if end > at
    ]
    assert check(make, stream, pieces).is_empty


@both
@pytest.mark.parametrize("opcode", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_frames_of_every_length(make: Make, masked: bool, size: int, opcode: int) -> None:
    """Seven bits, sixteen and sixty-four; what is longer than the bound passes as it comes."""
    said = (b"42[" + b"x" * size)[:size]
    last = frame(b"42[]", masked=masked)
    data = frame(said, opcode=opcode, masked=masked) + last
    for piece in (1000, 65536, len(data)):
        reader = make()
        out = b""
        for part in cut(data, piece):
            out += reader.feed(part)
            assert data.startswith(out)
            ends = (0, len(data) - len(last), len(data))
            assert reader.is_between is (len(out) in ends)
        assert out == data
        assert reader.is_between
        assert reader.is_empty


@both
def test_a_long_packet_is_between_nothing_until_its_end(make: Make, masked: bool) -> None:
    """Some of it has gone on: until the last byte of its last attachment nobody is between two packets."""
    parts = [frame(b"452-[]", masked=masked), frame(b"x" * 300_000, opcode=2, masked=masked),
             frame(b"x" * 3000, opcode=2, masked=masked)]  # fmt: skip
    stream = b"".join(parts)
    reader = make()
    out = b""
    for part in cut(stream, 1000):
        out += reader.feed(part)
        assert stream.startswith(out)
        assert reader.is_between is (not out or out == stream)
        assert len(reader.rest) <= LONGEST_READ
    assert out == stream
    assert reader.feed(frame(b"3", masked=masked)) == frame(b"3", masked=masked)


@both
@pytest.mark.parametrize("control", [9, 10])
def test_a_control_frame_is_in_the_way_of_what_is_too_long(make: Make, masked: bool, control: int) -> None:
    """A long message in fragments may overflow in the middle of a ping: it goes on nevertheless."""
    fragment = frame(b"42" + b"x" * 1000, masked=masked, final=False)
    more = frame(b"x" * 1000, opcode=0, masked=masked, final=False)
    ping = frame(b"x" * 100, opcode=control, masked=masked)
    first = fragment + more * (LONGEST_READ // len(more) - 1)
    first += frame(b"x" * (LONGEST_READ - len(first) - 50), opcode=0, masked=masked, final=False)
    last = frame(b"", opcode=0, masked=masked)
    reader = make()
    out = reader.feed(first)
    assert out == b""
    out += reader.feed(ping[:80])
    out += reader.feed(ping[80:])
    assert out == first + ping
    assert not reader.is_between
    assert reader.feed(last) == last
    assert reader.is_empty


@both
def test_heartbeats_between_a_packet_and_its_attachments(make: Make, masked: bool) -> None:
    """They are Engine.IO's, and no messages of Socket.IO's: the packet is not whole for them."""
    for heartbeat in (b"2", b"3"):
        stream = Stream(masked=masked).packet(text(b'452-["x"]'), text(heartbeat), binary(b"1"), binary(b"2"))
        check(make, stream, cut(stream.data, 1))


@both
def test_text_in_place_of_an_attachment(make: Make, masked: bool) -> None:
    """python-socketio takes any message for it (socketio/base_server.py, _handle_eio_message)."""
    stream = Stream(masked=masked).packet(text(b'452-["x"]'), text(b"4x"), binary(b"2")).packet(text(b"42[]"))
    check(make, stream, cut(stream.data, 1))


@both
@pytest.mark.parametrize(
    "packet", [b"45[]", b"4510", b"451", b"45-[]", b"45x-[]", b"450-[]", b"451234567890-", b"46", b"421-[]"]
)
def test_packets_without_attachments(make: Make, masked: bool, packet: bytes) -> None:
    """Only a number and a dash tell of some."""
    stream = Stream(masked=masked).packet(text(packet)).packet(text(b"42[]"))
    check(make, stream, cut(stream.data, 1))


@both
def test_many_fragments_cost_what_they_weigh(make: Make, masked: bool) -> None:
    """256 KiB in fragments of one byte, one by one: twice as many take about twice as long."""

    def seconds(count: int) -> float:
        """CPU time for so many."""
        first, more = (
            frame(b"4", masked=masked, final=False),
            frame(b"x", opcode=0, masked=masked, final=False),
        )
        reader = make()
        began = time.process_time()
        reader.feed(first + frame(b"2", opcode=0, masked=masked, final=False))
        for _ in range(count):
            reader.feed(more)
        return time.process_time() - began

    few, many = min(seconds(1 << 15) for _ in range(3)), min(seconds(1 << 18) for _ in range(2))
    assert many < 8 * few * 4


BROKEN = [b"\xc1\x00", b"\x91\x00", b"\xa2\x00", b"\x83\x00", b"\x8b\x00", b"\x80\x00", b"\x09\x00",
          b"\x89\x7e", frame(b"4", final=False) + frame(b"4")]  # fmt: skip


@pytest.mark.parametrize("data", [*BROKEN, frame(b"42", masked=True)])
def test_what_is_no_frame_of_a_backend(data: bytes) -> None:
    """It is told, with all that has not gone on in `rest`, nothing of it lost and nothing twice."""
    before = frame(b"42[]")
    for packets in (BackendPackets(), BackendPackets()):
        with pytest.raises(FrameError):
            packets.feed(before + data)
        assert packets.rest == before + data
    packets = BackendPackets()
    long = frame(b"x" * 300_000)
    passed = packets.feed(long[:-10])
    with pytest.raises(FrameError):
        packets.feed(long[-10:] + data)
    assert passed + packets.rest == long + data


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_heard_of_a_backend(size: int) -> None:
    """Its pings, until somebody has looked; its goodbyes in either protocol's words; its close frame."""
    packets = BackendPackets()

    def hear(data: bytes) -> None:
        for piece in cut(data, size):
            packets.feed(piece)

    hear(frame(b"42[]") + PING + frame(b"22") + frame(b"2", opcode=2))
    assert (packets.has_pinged, packets.is_over, packets.goodbye) == (False, False, b"")
    hear(frame(b"2") + frame(b"42[]"))
    assert packets.has_pinged
    packets.has_pinged = False
    for word in (b"41/admin,", b"411", b"1x"):
        hear(frame(word))
    assert (packets.is_over, packets.has_pinged) == (False, False)
    for word in (b"41", b"1"):
        packets = BackendPackets()
        hear(frame(word))
        assert packets.is_over
    end = frame((1012).to_bytes(2, "big") + b"bye", opcode=8)
    hear(end)
    assert packets.goodbye == end


def test_nothing_of_what_is_said_is_shown() -> None:
    """A reader is shown in logs: what it holds may be anybody's secret."""
    packets = ClientPackets()
    packets.feed(frame(b'40{"sessionId":"session-1","userEnv":"secret"}', masked=True)[:-1])
    assert repr(packets) == "<ClientPackets waiting=51 owed=0 torn=False>"


def is_event(data: bytes) -> bool:
    """Whether the shortest way is taken."""
    return len(data) < len(EVENT_HEADS) and data.startswith(EVENT_HEADS[len(data)])


def events_in(data: bytes) -> bool:
    """Whether it is whole frames with an event each, read slowly."""
    reader = FrameReader(1 << 17)
    reader.push(data)
    count = 0
    try:
        while (found := reader.next()) is not None:
            if found.opcode != 1 or not found.final or found.raw[1] & 0x80 or found.payload[:2] != b"42":
                return False
            count += 1
    except FrameError:
        return False
    return not reader.rest and count > 0


FRAMES = st.one_of(
    st.binary(max_size=140).map(lambda said: frame(b"42" + said)),
    st.sampled_from([300, 65535, 65536]).map(lambda size: frame(b"42" + b"x" * (size - 2))),
    st.builds(
        frame,
        st.sampled_from(
            [b"", b"4", b"2", b"42", b"40", b"41", b"451-", b"xx2", b"4" + b"2" * 49, b"2" * 300]
        ),
        opcode=st.sampled_from([0, 1, 1, 1, 2, 8, 9, 10]),
        masked=st.booleans(),
        final=st.booleans(),
    ),
    st.binary(max_size=12),
    st.builds(lambda said: b"\x81\x7e\x00" + bytes([len(said)]) + said, st.binary(max_size=5)),
)


@given(st.lists(FRAMES, max_size=4).map(b"".join), st.integers(0, 3), st.binary(max_size=2))
@example(b"\x81\x00\x81\x32" + b"42" + b"x" * 48, 0, b"")
@example(b"\x81\x0412[]", 0, b"")
@example(b"", 0, b"\xff")
@example(b"", 0, b"\x00")
def test_the_short_way_is_for_whole_events_only(data: bytes, short: int, more: bytes) -> None:
    """Nothing but events, and all of each: whatever else comes, or is missing, takes the long way."""
    data = data[: len(data) - short] + more
    if is_event(data):
        assert are_events(data)
    if are_events(data) and data:
        assert events_in(data)


@pytest.mark.parametrize("size", [4, 100, 125, 126, 300, 65535])
def test_nearly_all_events_take_the_short_way(size: int) -> None:
    """Alone or several in one read; longer ones are rare."""
    event = frame(b"42" + b"x" * (size - 2))
    assert is_event(event) is (size < 1000)
    assert are_events(event)
    assert not is_event(event * 2)
    assert are_events(event * 3)
    assert not are_events(event * 3 + b"\x81")
