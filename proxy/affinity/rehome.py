"""What a client says before its Chainlit session is known, so that it can be said again elsewhere.

An app may have Socket.IO namespaces of its own beside Chainlit's `/`, and a client may connect to those
first. Until it connects to `/` nobody knows where it belongs. So what it tells the others is kept, up to a
bound, and so is which of their answers it has had. When its connection is moved, what was said is said again
at the new backend, and answers that the client knows already are swallowed there: Socket.IO answers each
CONNECT with its namespace, and each acknowledgement bears the number that was asked with. Other events of an
app come again.

The same record serves a transport's polls and its websocket: a client may begin with one and go on with the
other. Pure; `opening` and `dataplane.rehome` act by it.
"""

from binascii import b2a_base64
from collections.abc import Iterable
from enum import Enum

from proxy.wire.engineio import (
    ACK,
    BINARY_ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    MAIN,
    MOST_PACKETS,
    SEPARATOR,
    PacketHead,
    connect_session,
    is_quiet,
    packet_head,
    packets_of,
)

_ENTRY = 200  # bytes of memory that a packet takes beside its own
Answer = tuple[int, bytes, int]  # kind, namespace and number of a packet
OPEN: Answer = (-1, b"", -1)  # Engine.IO's first packet
PROBED: Answer = (-2, b"", -1)  # its answer to a probe


class Said:
    """What one transport has said and heard; owned by its opening, or by its Engine.IO session."""

    __slots__ = (
        "_heard",
        "_kept",
        "_last",
        "_owed",
        "_skip",
        "asked",
        "connected",
        "count",
        "most_bytes",
        "most_packets",
        "size",
        "weight",
    )

    def __init__(self, most_packets: int, most_bytes: int, *, opened: bool) -> None:
        """`opened`: its client has had the OPEN packet of a handshake."""
        self.most_packets = most_packets
        self.most_bytes = most_bytes
        self.count = 0  # packets that its client has said, kept or not
        self.size = 0  # bytes of them
        self.weight = 0  # bytes of memory that those take which are kept
        self.asked: set[bytes] = set()  # namespaces whose CONNECT is on its way
        self.connected: set[bytes] = set()  # namespaces that have answered it
        self._kept: list[tuple[bytes, bytes, bool]] = []  # namespace, packet, whether that is binary
        self._heard: set[Answer] = {OPEN} if opened else set()  # answers that the client has
        self._owed: set[Answer] = set()  # answers that it must not get again
        self._last = b""  # the namespace of the last packet, if that is kept
        self._skip = 0  # binary messages that belong to a packet which it must not get

    @property
    def is_over(self) -> bool:
        """Whether it said more than anybody has to say before `/` connects."""
        return self.count > self.most_packets or self.size > self.most_bytes

    @property
    def names_others(self) -> bool:
        """Whether it has to do with other namespaces than `/`."""
        return bool(self._kept or self.asked or self.connected or self._owed)

    @property
    def owes(self) -> bool:
        """Whether an answer is still to come that must be swallowed.

        An acknowledgement may never come again, and does no harm if it comes late: clients ignore one that
        they have had.
        """
        return bool(self._owed) and any(kind <= CONNECT for kind, _, _ in self._owed)

    def has_heard(self, answer: Answer) -> bool:
        """Whether its client has had an answer."""
        return answer in self._heard

    def counts(self, size: int, frames: int = 1) -> None:
        """The client has said a packet of so many bytes, in so many frames."""
        self.count += frames
        self.size += size

    def say(self, packet: bytes, *, binary: bool = False) -> None:
        """Keep a packet if it goes to another namespace than `/`."""
        if binary:  # it belongs to the packet before it
            if self._last:
                self._keep(self._last, packet, binary=True)
            return
        head = packet_head(packet)
        self._last = b""
        if head is None or head.namespace == MAIN:
            return
        self._last = head.namespace
        if head.kind == CONNECT:
            self.asked.add(head.namespace)
        self._keep(head.namespace, packet, binary=False)

    def _keep(self, namespace: bytes, packet: bytes, *, binary: bool) -> None:
        self._kept.append((namespace, packet, binary))
        self.weight += len(packet) + _ENTRY

    def hear(self, packet: bytes, *, binary: bool = False, head: PacketHead | None = None) -> bool:
        """Take a packet of the backend, and its `head` if that is read; return whether the client gets it."""
        if binary:
            skipped, self._skip = self._skip > 0, max(0, self._skip - 1)
            return not skipped
        self._skip = 0
        answer, attachments = _answer(packet, head)
        if answer is None:
            return True
        if answer in self._owed:
            self._owed.discard(answer)
            self._skip = attachments
            return False
        kind, namespace, _ = answer
        if kind in {CONNECT_ERROR, DISCONNECT}:
            self._forget(namespace)
            return True
        if kind == CONNECT:
            self.asked.discard(namespace)
            self.connected.add(namespace)
        if len(self._heard) < self.most_packets:
            self._heard.add(answer)
        return True

    def _forget(self, namespace: bytes) -> None:
        """A namespace is not connected: there is nothing to say to it elsewhere, nor anything to swallow."""
        self.asked.discard(namespace)
        self.connected.discard(namespace)
        self._kept = [kept for kept in self._kept if kept[0] != namespace]
        self.weight = sum(len(packet) + _ENTRY for _, packet, _ in self._kept)
        for answers in (self._heard, self._owed):
            answers.difference_update([answer for answer in answers if answer[1] == namespace])

    def again(self) -> list[tuple[bytes, bool]]:
        """It has moved: what is to be said there, each with whether it is binary. Answers are swallowed."""
        self._owed = {answer for answer in self._heard if answer[0] >= CONNECT}
        self._skip = 0
        return [(packet, binary) for _, packet, binary in self._kept]

    def repeats(self, answer: Answer) -> None:
        """The new backend will say OPEN or PROBED, which the client may have had."""
        if answer in self._heard:
            self._owed.add(answer)

    def __repr__(self) -> str:
        return f"<Said {self.count} packets, kept={len(self._kept)} owed={len(self._owed)}>"


def _answer(packet: bytes, head: PacketHead | None) -> tuple[Answer | None, int]:
    """What a packet of a backend answers, if it is an answer, and how many attachments it has."""
    if packet.startswith(b"0{"):
        return OPEN, 0
    if packet == b"3probe":
        return PROBED, 0
    head = head or packet_head(packet)
    if head is None or head.namespace == MAIN:
        return None, 0
    if head.kind in {ACK, BINARY_ACK}:
        return (ACK, head.namespace, head.number), head.attachments
    if head.kind in {CONNECT, CONNECT_ERROR, DISCONNECT}:
        return (head.kind, head.namespace, -1), 0
    return None, 0


class Names(Enum):
    """What a POST tells of a transport whose session is not known."""

    NOTHING = "nothing"  # only heartbeats
    OTHERS = "others"  # it is said to namespaces of the app's own
    NO_SESSION = "no_session"  # a CONNECT to `/` that names none
    ELSEWHERE = "elsewhere"  # it goes on with what began at another proxy, or before this one started


def read_post(payload: bytes, said: Said | None) -> tuple[Names | str, list[bytes]]:
    """What a payload tells: the session of its CONNECT to `/`, or else; and its packets. Raises OddId."""
    packets = packets_of(payload)
    names = Names.NOTHING
    for packet in packets:
        session = connect_session(packet)
        head = packet_head(packet)
        main = head is None or head.namespace == MAIN
        if session is not None and main:
            return session or Names.NO_SESSION, packets
        if session is not None or (said is not None and not main):
            names = Names.OTHERS
        elif packet and not is_quiet(packet) and names is Names.NOTHING:
            names = Names.ELSEWHERE
    return names, packets


def connect_of(packets: Iterable[bytes]) -> bytes:
    """The CONNECT to `/` among the packets of a POST, b"" if it has none. Raises OddId."""
    for packet in packets:
        head = packet_head(packet)
        if connect_session(packet) is not None and (head is None or head.namespace == MAIN):
            return packet
    return b""


def connects_more(packets: Iterable[bytes]) -> bool:
    """Whether more than one of the packets of a POST is a CONNECT to `/`."""
    heads = [head for packet in packets if (head := packet_head(packet)) is not None]
    return sum(head.kind == CONNECT and head.namespace == MAIN for head in heads) > 1


def payloads(packets: Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """The bodies of the POSTs that say packets; each with no more of them than a backend takes."""
    plain = [b"b" + b2a_base64(packet, newline=False) if binary else packet for packet, binary in packets]
    return [SEPARATOR.join(plain[at : at + MOST_PACKETS]) for at in range(0, len(plain), MOST_PACKETS)]
