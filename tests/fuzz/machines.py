"""The machines of a websocket: its opening, its packets, what lingers of it, and how it is handed over.

What has to hold for any events in any order.

The bytes of an input are events: one that says which, one for a length, and so many bytes of what is said.
Most are said as a whole message, since random bytes are hardly ever one.
"""

from collections.abc import Iterator

from proxy.affinity.actions import (
    Action,
    Ask,
    Close,
    Connected,
    Hold,
    Open,
    Refuse,
    Refused,
    Settle,
    ToBackend,
    ToClient,
)
from proxy.affinity.handing_over import GiveUp, GoneOn, HandingOver, HandOverAction, Part
from proxy.affinity.handing_over import State as Step
from proxy.affinity.lingering import Backlog, Lingering, packet_frame
from proxy.affinity.lingering import State as Kept
from proxy.affinity.opening import Opening, State
from proxy.affinity.rehome import Said
from proxy.errors import OddId
from proxy.wire.engineio import MOST_PACKETS, SEPARATOR
from proxy.wire.guard import ClientPackets, is_plain
from proxy.wire.head import parse_response
from proxy.wire.messages import MessageReader
from proxy.wire.packets import BackendPackets, PacketReader, are_events
from proxy.wire.websocket import BINARY, PING, PONG, TEXT, FrameError, client_frame, server_frame

MOST_FRAMES, MOST_BYTES = 8, 1 << 10  # few, so that inputs get beyond them
OPCODES = (TEXT, TEXT, TEXT, BINARY, PING, PONG)
CONNECT = b'40{"sessionId":"session-1"}'
ASKED = b'421["client_message",{}]'
HEAD = parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What happens, and with which bytes."""
    at = 0
    while at + 1 < len(data):
        event, size = data[at], data[at + 1]
        yield event, data[at + 2 : at + 2 + size]
        at += 2 + size


def opening(data: bytes) -> None:
    """It ends once, by one last action; as long as it moves nowhere every byte goes on, none twice.

    A client that is not read says nothing: what it would have said waits.
    """
    if not data:
        return
    upgrade, connected = bool(data[0] & 1), bool(data[0] & 2)
    said = Said(MOST_FRAMES, MOST_BYTES, opened=upgrade)
    drive = _Drive(Opening(said, upgrade=upgrade, connected=connected))
    for event, payload in _events(data[1:]):
        if drive.ended is not None:
            break
        drive.event(event, payload)


class _Drive:
    """What the adapter of an opening does: it gives events that can happen, and does what comes back."""

    def __init__(self, machine: Opening) -> None:
        self.machine = machine
        self.ended: Action | None = None
        self.held = False
        self.waiting = b""  # what the client says while it is held
        self.asked = False  # whether it was asked where a session lives, and its CONNECT is not answered
        self.was_opened = False
        self.counts = {ToBackend: 0, ToClient: 0}  # bytes that went on
        self.said = {ToBackend: 0, ToClient: 0}  # bytes that came

    def event(self, event: int, payload: bytes) -> None:
        """One of them, as far as it can happen now."""
        machine, kind = self.machine, event % 10
        opcode = OPCODES[event // 10 % len(OPCODES)]
        if kind <= 3:
            self.client(payload if kind == 3 else client_frame(opcode, payload[:125]))
        elif kind <= 5:
            raw = payload if event >= 200 else server_frame(opcode, payload)
            self.said[ToClient] += len(raw)
            self.does(machine.backend(raw))
        elif kind == 6 and self.asked:
            self.does(machine.stays() if event < 128 else machine.moves())
        elif kind == 7 and machine.state is State.MOVING:
            self.said[ToClient] += len(payload)
            self.was_opened = True
            self.does(machine.opened(payload))
        elif kind == 8:
            self.does(machine.settled(resumes=event >= 128))
        elif kind == 9:
            self.does(machine.late() if event < 200 else machine.moved())

    def client(self, data: bytes) -> None:
        """The client says something, once it is read."""
        self.waiting += data
        if not self.held and self.ended is None:
            data, self.waiting = self.waiting, b""
            self.said[ToBackend] += len(data)
            self.does(self.machine.client(data))
            assert self.held or self.machine.unsaid <= MOST_BYTES + (1 << 16)

    def does(self, actions: list[Action]) -> None:
        """Do what is wanted, and see that it makes sense."""
        for action in actions:
            assert self.ended is None, actions
            match action:
                case ToBackend(data) | ToClient(data):
                    assert data
                    self.counts[type(action)] += len(data)
                case Hold(on):
                    assert on is not self.held
                    self.held = on
                case Ask():
                    assert not self.asked
                    self.asked = True
                case Connected() | Refused():
                    self.asked = False
                case Open():
                    assert self.machine.state is State.MOVING
                case Settle() | Refuse() | Close():
                    self.ended = action
        assert (self.ended is not None) is (self.machine.state is State.DONE)
        repr(self.machine)
        if self.ended is not None:
            assert not self.held, "a client that is never read again"
            self.add_up()
        elif not self.held and self.waiting:
            self.client(b"")

    def add_up(self) -> None:
        """As long as it has moved nowhere, all that was said has gone on or goes on now."""
        if isinstance(self.ended, Settle) and not self.was_opened:
            up, down = self.counts[ToBackend], self.counts[ToClient]
            assert up + len(self.ended.to_backend) == self.said[ToBackend]
            assert down + len(self.ended.to_client) == self.said[ToClient]


def lingering(data: bytes) -> None:
    """What is collected is the same however it is cut, has its bound, and is said whole on any transport."""
    whole, pieces = Lingering(MOST_BYTES), Lingering(MOST_BYTES)
    for event, payload in _events(data):
        if whole.state is Kept.OVER:
            break
        if event % 8 == 7 and whole.state is Kept.COLLECTING:
            assert whole.resume() == pieces.resume()
            continue
        raw = payload if event >= 200 else server_frame(OPCODES[event % len(OPCODES)], payload)
        answer = whole.hear(raw)
        assert answer == b"".join(pieces.hear(raw[at : at + 1]) for at in range(len(raw)))
        assert (whole.state, whole.packets) == (pieces.state, pieces.packets)
    assert sum(len(payload) for _, payload in whole.packets[:-1]) <= MOST_BYTES
    assert _messages(whole.frames()) == whole.packets
    backlog = Backlog(HEAD, whole.payload())
    expected, taken = whole.payload(), []
    while len(backlog):
        packets = backlog.take()
        assert 0 < len(packets) <= MOST_PACKETS
        taken += packets
    assert taken == expected
    if not any(SEPARATOR in packet for packet in expected):
        assert [packet for packet in taken if packet] == [
            p for p in SEPARATOR.join(taken).split(SEPARATOR) if p
        ]
    assert [_messages(packet_frame(packet)) for packet in taken] == [
        [(TEXT if opcode == TEXT else BINARY, payload)] for opcode, payload in whole.packets
    ]


def packets(data: bytes) -> None:
    """What goes on is what came, as much of it however it is cut; the short ways lead to the same."""
    for make in (ClientPackets, BackendPackets):
        whole, pieces = make(), make()
        out = _fed(whole, [data])
        by_bytes = _fed(pieces, [data[at : at + 1] for at in range(len(data))])
        if out is None or by_bytes is None:
            assert out is by_bytes is None
            continue
        assert out == by_bytes
        assert out + whole.rest == data
        assert whole.is_empty is (not whole.rest)
        assert (repr(whole), whole.is_between) == (repr(pieces), True)
        if (is_plain if make is ClientPackets else are_events)(data):
            assert (out, whole.is_empty) == (data, True)


def _fed(reader: PacketReader, pieces: list[bytes]) -> bytes | None:
    """What passes of them, None if they are refused."""
    try:
        return b"".join(map(reader.feed, pieces))
    except (FrameError, OddId):
        return None


def handing_over(data: bytes) -> None:
    """It ends once; CONNECT is said once, and of a planned move behind the goodbye to the instance before."""
    planned, again = bool(data[:1] > b"\x7f"), [ASKED] * (data[0] % 3 if data else 0)
    machine = HandingOver(CONNECT, again, "", planned=planned)
    seen: list[HandOverAction] = []
    for event, payload in _events(data[1:]):
        if seen and isinstance(seen[-1], (GoneOn, GiveUp)):
            break
        raw = server_frame(TEXT, payload)
        seen += machine.parted() if event % 8 == 7 else machine.hear(payload, raw, binary=event % 8 == 6)
        assert (machine.state is Step.DONE) is any(isinstance(action, (GoneOn, GiveUp)) for action in seen)
    kinds = [type(action) for action in seen]
    assert kinds.count(GoneOn) + kinds.count(GiveUp) <= 1
    assert seen.count(ToBackend(CONNECT)) <= 1
    assert kinds.count(Part) <= planned
    if planned and ToBackend(CONNECT) in seen:
        assert kinds.index(Part) < seen.index(ToBackend(CONNECT))
    if GoneOn in kinds:
        assert Connected in kinds
    repr(machine)


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """The messages in bytes that are nothing else."""
    reader = MessageReader(1 << 20)
    reader.push(data)
    found = []
    try:
        while (message := reader.next()) is not None:
            found.append((message.opcode, message.payload))
    except FrameError as error:
        raise AssertionError from error
    assert not reader.rest
    return found


def event(kind: int, payload: bytes = b"") -> bytes:
    """An event of an input."""
    return bytes([kind, len(payload)]) + payload


CLIENT, BACKEND, STAYS, MOVES, OPENED, SETTLED, LATE, MOVED, RESUMES = 0, 4, 6, 136, 7, 8, 9, 209, 7
OPENING_SEEDS = [
    b"\0" + event(CLIENT, CONNECT) + event(CLIENT, b"4" * 120) * 10 + event(STAYS) + event(LATE),
    b"\0" + event(CLIENT, CONNECT) + event(CLIENT, b"4" * 120) * 10 + event(MOVED),
    b"\0"
    + event(BACKEND, b'0{"sid":"a"}')
    + event(CLIENT, CONNECT)
    + event(STAYS)
    + event(BACKEND, b'40{"sid":"b"}'),
    b"\0"
    + event(CLIENT, CONNECT)
    + event(MOVES)
    + event(OPENED)
    + event(BACKEND, b'40{"sid":"b"}')
    + event(CLIENT, b"42[]"),
    b"\1" + event(CLIENT, b"2probe") + event(BACKEND, b"3probe") + event(CLIENT, b"5") + event(LATE),
    b"\1"
    + event(CLIENT, b"40/a,{}")
    + event(BACKEND, b"40/a,{}")
    + event(MOVED)
    + event(OPENED)
    + event(SETTLED),
    b"\2" + event(BACKEND, b'42["x"]') + event(CLIENT, b"5"),
    b"\0"
    + event(CLIENT, CONNECT)
    + event(STAYS)
    + event(BACKEND, b'44{"message":"no"}')
    + event(CLIENT, CONNECT),
]
PACKETS_SEEDS = [
    client_frame(TEXT, b"3") + client_frame(TEXT, ASKED) + client_frame(BINARY, b"x"),
    client_frame(TEXT, b'451-["x"]') + client_frame(PING, b"") + client_frame(BINARY, b"x" * 130),
    server_frame(TEXT, b'42["x"]') + server_frame(TEXT, b'42["' + b"x" * 130 + b'"]'),
    b"\x01\x0242" + server_frame(PING, b"") + b"\x80\x02[]" + server_frame(TEXT, b"2"),
]
_STEPS = [b'0{"sid":"b"}', b"40/chainlit-proxy,{}", b'40{"sid":"b"}', b"43/chainlit-proxy,0[true]"]
HANDING_OVER_SEEDS = [
    b"\1" + b"".join(event(0, said) for said in (*_STEPS, b"43/chainlit-proxy,1[]")),
    b"\x80" + event(0, _STEPS[0]) + event(0, _STEPS[1]) + event(7) + event(0, _STEPS[2]) + event(6, b"x"),
    b"\0" + event(0, _STEPS[0]) + event(0, b"44/chainlit-proxy,{}"),
]
LINGERING_SEEDS = [
    event(0, b'42["stream_token",{}]')
    + event(3, b"\0\1")
    + event(4)
    + event(0, b"2")
    + event(RESUMES)
    + event(5, b"linger"),
    b"".join(event(0, b"4%d" % number) for number in range(40)),
]
