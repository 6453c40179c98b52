"""What an app says while its client is lost, and how that reaches the client when it is back.

The backend's side of a lost client's websocket goes on: its pings are answered, its messages are collected up
to a bound. When the session connects again they are said behind the answer to its CONNECT, and before
anything new. What the backend said first on the old side may still be on its way when that answer comes on
the new one: so a websocket ping goes out on the old side, and its pong tells that all has come.

A poll takes no more packets than python-engineio lets one have; the rest is the backlog of its transport,
said with the next polls, or on its websocket.

Pure: it knows no transport and no clock.
"""

from base64 import b64encode
from binascii import a2b_base64
from collections import deque
from collections.abc import Iterable
from enum import Enum

from proxy.wire.engineio import CONNECT, MAIN, MOST_PACKETS, NOOP, packet_head
from proxy.wire.head import ResponseHead
from proxy.wire.messages import Message, MessageReader
from proxy.wire.packets import attachments
from proxy.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, FrameError, client_frame, server_frame

_BARRIER = b"linger"

Packet = tuple[int, bytes]  # the opcode of a message and what it says


class State(Enum):
    """What it is at."""

    COLLECTING = "collecting"
    COMING = "coming"  # the session is back, and the pong is awaited
    WHOLE = "whole"  # all has come that the backend said on this side before
    OVER = "over"  # the backend has ended it, or has said too much


class Lingering:
    """The backend's side of one websocket without a client."""

    __slots__ = ("_most", "_reader", "_size", "packets", "state")

    def __init__(self, most: int, packets: Iterable[Packet] = ()) -> None:
        """`packets` were collected before, for a client that was lost again before it had them."""
        self.state = State.COLLECTING
        self.packets: list[Packet] = list(packets)
        self._most = most  # bytes that are collected
        self._size = sum(len(payload) for _, payload in self.packets)
        self._reader = MessageReader(most)

    def hear(self, data: bytes) -> bytes:
        """Take what the backend says; return what it is answered."""
        answers = []
        self._reader.push(data)
        try:
            while self.state is not State.OVER and (message := self._reader.next()) is not None:
                answers.append(self._take(message))
        except FrameError:
            self.state = State.OVER  # too long, or the drop came in the middle of a frame
        return b"".join(answers)

    def _take(self, message: Message) -> bytes:
        opcode, payload = message.opcode, message.payload
        if opcode == PING:
            return client_frame(PONG, payload)
        if opcode == PONG:
            if payload == _BARRIER and self.state is State.COMING:
                self.state = State.WHOLE
        elif opcode == CLOSE:
            self.state = State.OVER
        elif opcode == TEXT and payload[:1] == b"2":
            return client_frame(TEXT, b"3" + payload[1:])
        elif opcode != TEXT or (payload[:1] == b"4" and not is_connected(payload)):
            self.packets.append((opcode, payload))
            self._size += len(payload)
            if self._size > self._most:
                self.state = State.OVER
        return b""

    def resume(self) -> bytes:
        """The session has connected again; return what the backend has to answer before all has come."""
        self.state = State.COMING
        return client_frame(PING, _BARRIER)

    def payload(self) -> list[bytes]:
        """What was collected as packets of a poll (Engine.IO protocol 4: binary ones are base64)."""
        return [data if opcode == TEXT else b"b" + b64encode(data) for opcode, data in self.packets]

    def frames(self) -> bytes:
        """What was collected as messages of a websocket."""
        return b"".join(server_frame(opcode, payload) for opcode, payload in self.packets)

    def __repr__(self) -> str:
        return f"<Lingering {self.state.value} {len(self.packets)} packets>"


def messages_in(frames: bytes, most: int, had: int = 0) -> list[Packet]:
    """What these whole frames, said before, say of the session that its client has not had.

    That has had so many bytes of them. Of a packet it has had all or nothing, so its attachments count with
    it. Nothing if the frames say more than `most` bytes.
    """
    reader = Lingering(most)
    reader.hear(frames[:had])
    heard = len(reader.packets)
    reader.hear(frames[had:])
    if reader.state is State.OVER:
        return []
    packets, at = reader.packets, 0
    while at < heard:
        opcode, payload = packets[at]
        size = 1 + (attachments(payload) if opcode == TEXT else 0)
        if at + size > heard:
            break
        at += size
    return packets[at:]


class Backlog:
    """What a transport's next polls get; owned by its Engine.IO session."""

    __slots__ = ("_packets", "head")

    def __init__(self, head: ResponseHead, packets: Iterable[bytes]) -> None:
        """`head` is that of the answer which had more of them than a client takes."""
        self.head = head
        self._packets = deque(packets)

    def add(self, packets: Iterable[bytes]) -> None:
        """There are more, behind the others."""
        self._packets.extend(packets)

    def take(self) -> list[bytes]:
        """The packets of the next poll."""
        return [self._packets.popleft() for _ in range(min(len(self._packets), MOST_PACKETS))]

    def frames(self) -> bytes:
        """All of them, as messages of the websocket that takes over from polls."""
        frames = []
        while self._packets:
            packet = self._packets.popleft()
            if packet[:1] != NOOP:
                frames.append(packet_frame(packet))
        return b"".join(frames)

    def __len__(self) -> int:
        return len(self._packets)

    def __repr__(self) -> str:
        return f"<Backlog {len(self)} packets>"


def packet_frame(packet: bytes) -> bytes:
    """The websocket message that says a packet of a poll."""
    if packet[:1] == b"b":
        return server_frame(BINARY, a2b_base64(packet[1:]))
    return server_frame(TEXT, packet)


def is_connected(packet: bytes) -> bool:
    """Whether a packet is the backend's answer that it has taken a CONNECT to Chainlit's namespace."""
    head = packet_head(packet)
    return head is not None and head.kind == CONNECT and head.namespace == MAIN


def behind_connect(packets: list[bytes], collected: list[bytes]) -> list[bytes]:
    """A poll's packets with what was collected behind the answer to CONNECT."""
    at = next(at for at, packet in enumerate(packets) if is_connected(packet)) + 1
    return packets[:at] + collected + packets[at:]
