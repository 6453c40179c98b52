"""What is collected for a lost client, how it ends, and how many packets a poll gets of it."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.lingering import Backlog, Lingering, State, behind_connect, is_connected, messages_in
from proxy.wire.engineio import MOST_PACKETS, SEPARATOR
from proxy.wire.fields import Fields
from proxy.wire.head import ResponseHead
from proxy.wire.websocket import BINARY, PONG, TEXT, client_frame, server_frame
from tests.affinity.playbook import in_bytes, message, texts, whole

HEAD = ResponseHead(200, b"OK", 1, Fields(b""), 0)

SAID = '42["1"] | 2 | (ping) x | 6 | (binary) bytes | +42["+2"] | (pong) unasked | 42["3"]'
COLLECTED = ['42["1"]', "(binary) bytes", '42["2"]', '42["3"]']


def said(lingering: Lingering, text: str) -> list[str]:
    """What the backend is answered."""
    return list(texts(lingering.hear(message(text, client=False))))


@pytest.mark.parametrize("cut", [whole, in_bytes])
def test_messages_are_collected_and_heartbeats_answered(cut: object) -> None:
    """Engine.IO's and the websocket's pings have their answers; what is not a message is not kept."""
    lingering = Lingering(1000)
    data = message(SAID, client=False)
    pieces = in_bytes(data) if cut is in_bytes else [data]
    answers = b"".join(lingering.hear(piece) for piece in pieces)
    assert list(texts(answers)) == ["3", "(pong) x"]
    assert list(texts(lingering.frames())) == COLLECTED
    assert lingering.payload() == [b'42["1"]', b"b" + b64encode(b"bytes"), b'42["2"]', b'42["3"]']
    assert lingering.state is State.COLLECTING


@given(st.sets(st.integers(1, len(message(SAID, client=False)) - 1)))
def test_in_any_pieces(cuts: set[int]) -> None:
    """However it is cut, the same is collected."""
    data, lingering = message(SAID, client=False), Lingering(1000)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        lingering.hear(data[start:end])
    assert list(texts(lingering.frames())) == COLLECTED


def test_all_has_come_when_the_barrier_is_answered() -> None:
    """What comes before the pong is collected as well; another pong tells nothing."""
    lingering = Lingering(1000)
    barrier = lingering.resume()
    assert list(texts(barrier)) == ["(ping) linger"]
    states = []
    for text in ('42["late"] | (pong) other', "(pong) linger"):
        said(lingering, text)
        states.append(lingering.state)
    assert states == [State.COMING, State.WHOLE]
    assert list(texts(lingering.frames())) == ['42["late"]']


@pytest.mark.parametrize(
    "data",
    [
        b"\x88\x00",
        message('42["' + "x" * 600 + '"] | 42["' + "x" * 600 + '"]', client=False),
        message("4" * 2000, client=False),
        b"\xc1\x00",
    ],
    ids=["close", "too much", "too long", "no frame"],
)
def test_it_is_over(data: bytes) -> None:
    """The backend has ended it, or it is more than is kept; nothing is taken from then on."""
    lingering = Lingering(1000)
    lingering.hear(data)
    assert lingering.state is State.OVER
    before = len(lingering.packets)
    assert lingering.hear(message("42 | 2", client=False)) == b""
    assert len(lingering.packets) == before


def test_what_was_collected_before_comes_first_and_counts() -> None:
    """A client that is lost again has lost nothing, and the bound is one."""
    lingering = Lingering(29, [(TEXT, b'42["0123456789"]')])
    said(lingering, '42["1"]')
    assert list(texts(lingering.frames())) == ['42["0123456789"]', '42["1"]']
    said(lingering, '42["2"]')
    assert lingering.state is State.OVER


def test_the_answer_to_a_lost_connect_is_not_collected() -> None:
    """A client that is lost right behind its CONNECT will have another answer to the next one."""
    lingering = Lingering(1000)
    said(lingering, '40{"sid":"x"} | 40/admin,{} | 42["1"]')
    assert list(texts(lingering.frames())) == ["40/admin,{}", '42["1"]']


def test_long_messages_are_said_as_they_came() -> None:
    """Whatever their length has to be written as."""
    for size in (10, 200, 70_000):
        lingering = Lingering(1 << 20)
        lingering.hear(server_frame(TEXT, b"4" * size))
        assert lingering.frames() == server_frame(TEXT, b"4" * size)
    assert list(texts(client_frame(PONG, b"x" * 200))) == ["(pong) " + "x" * 200]


@pytest.mark.parametrize(
    ("packet", "connected"),
    [(b"40", True), (b'40{"sid":"x"}', True), (b"40/admin,{}", False), (b"42", False), (b"44{}", False)],
)
def test_the_answer_to_connect(packet: bytes, connected: bool) -> None:
    """Of Chainlit's own namespace."""
    assert is_connected(packet) is connected


def test_collected_packets_stand_behind_the_answer() -> None:
    """And before what the backend says anew."""
    assert behind_connect([b"2", b"40", b"42"], [b"x", b"y"]) == [b"2", b"40", b"x", b"y", b"42"]


@given(st.integers(1, 100))
def test_a_poll_gets_no_more_than_python_engineio_takes(count: int) -> None:
    """All of them, in order, in as few polls as that takes."""
    packets = [b"4%d" % number for number in range(count)]
    backlog = Backlog(HEAD, packets[:1])
    backlog.add(packets[1:])
    polls = []
    while backlog:
        polls.append(backlog.take())
        decode = pytest.importorskip("engineio.payload").Payload
        decode(encoded_payload=SEPARATOR.join(polls[-1]).decode())  # raises for more than it takes
    assert [packet for poll in polls for packet in poll] == packets
    assert len(polls) == -(-count // MOST_PACKETS)


def test_a_websocket_that_takes_over_gets_the_backlog() -> None:
    """Each packet as a message of its own, binary ones too; a packet that says nothing is left out."""
    backlog = Backlog(HEAD, [b"42", b"6", b"b" + b64encode(b"bytes")])
    assert list(texts(backlog.frames())) == ["42", "(binary) bytes"]
    assert len(backlog) == 0


def test_what_is_shown() -> None:
    """Logs and tests read how much there is, and none of it."""
    assert repr(Lingering(10, [(BINARY, b"x")])) == "<Lingering collecting 1 packets>"
    assert repr(Backlog(HEAD, [b"x"])) == "<Backlog 1 packets>"


def test_what_a_client_has_had_of_some_frames_is_not_said_again() -> None:
    """Wherever that ends: a message it has in part is said again, and a packet with all its attachments."""
    frames = message(
        '42["1"] | 2 | 452-["2"] | (binary) a | (ping) x | (binary) b | 42["3"] | +42["+4"]', client=False
    )
    wanted = [(TEXT, b'42["1"]'), (TEXT, b'452-["2"]'), (BINARY, b"a"), (BINARY, b"b")]
    wanted += [(TEXT, b'42["3"]'), (TEXT, b'42["4"]')]
    ends = {len(message('42["1"]', client=False)): 1}
    ends[len(message('42["1"] | 2 | 452-["2"] | (binary) a | (ping) x | (binary) b', client=False))] = 4
    ends[len(frames) - len(message('+42["+4"]', client=False))] = 5
    ends[len(frames)] = 6
    had = 0
    for size in range(len(frames) + 1):
        had = ends.get(size, had)
        assert messages_in(frames, 1000, size) == wanted[had:]
    assert messages_in(frames, 10) == []
