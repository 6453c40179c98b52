"""What is said to an instance so that it goes on with a session, while its client need not know.

The client's CONNECT is said again at an instance that shares sessions. In a namespace of its own the proxy
first asks whether it is one: any other Chainlit refuses that, and never sees such a CONNECT. It refuses the
CONNECT itself unless it holds the session. Its answer to that goes on to the client, which takes it as one
more `connect` (socket.io-client, `onconnect`; python-socketio ignores it). Right behind the CONNECT it is
asked to resume: to greet the client as after a reconnect, which answers what became of a turn that was cut
off. Behind that the client's messages are said again which the instance before may not have taken
(`affinity.untaken`). It does each when the one before is done.

Of a planned move the instance before is told first, once it is known that there is another, and has written
what it has of the session when it is `parted`.

A client that polls may do so through several proxies. Then it is handed over *quietly*: the instance holds
back what is for the client until all is done, so that the client's own polls bring it, wherever they come.
What was said is said again behind that (`said_again`), by each proxy that has heard it.

One try at one instance, over a websocket or by polls. Pure: events in, actions out, packets both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from proxy.affinity.actions import Action, Connected, ToBackend, ToClient
from proxy.wire.engineio import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    HAND_OVER,
    MAIN,
    NOOP,
    OPEN,
    PING,
    PacketHead,
    open_sid,
    packet_head,
)
from proxy.wire.turns import turns_in

_HELLO = b"40%b," % HAND_OVER
_QUIETLY = b'{"quiet":true}'
_BYE = b"41%b," % HAND_OVER
_EVENT = b"42%b,%d%b"  # namespace, number, the event with what it is told
_RESUME = 0  # the number of that event; messages are counted from 1
_ACKNOWLEDGED = b"43%d[]"  # what Chainlit answers to a message that asks for it
_GOODBYE = b"1"  # Engine.IO's
_AGAIN = b'["chainlit_proxy_said_again",'  # what such an event begins with; see `sessions.hand_over`


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Say a packet to the client that the instance has not said."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """Have the instance before put down what it has; then `parted`."""


@dataclass(frozen=True, slots=True)
class GoneOn:
    """The session goes on here: from now on its client and the instance speak with each other."""


class Failure(StrEnum):
    """Why an instance does not go on with a session."""

    NO_HOOKS = "no_hooks"  # it shares no sessions
    REFUSED = "refused"  # it holds nothing of this one, or is not allowed to
    BROKEN = "broken"  # it went away


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It does not go on here."""

    why: Failure


HandOverAction = Action | Acknowledge | Part | GoneOn | GiveUp


class State(Enum):
    """What it is at; in this order."""

    OPENING = "opening"  # Engine.IO's OPEN is awaited
    ASKING = "asking"  # whether it shares sessions
    PARTING = "parting"  # the instance before is told
    CONNECTING = "connecting"  # the answer to CONNECT is awaited
    RESUMING = "resuming"  # it greets the client
    SAYING_AGAIN = "saying_again"  # messages are acknowledged
    DONE = "done"


class HandingOver:
    """One try; made by who drives it."""

    __slots__ = (
        "_again",
        "_connect",
        "_owed",
        "_planned",
        "_quiet",
        "_streamed",
        "being_answered",
        "has_named",
        "state",
    )

    def __init__(
        self, connect: bytes, again: Sequence[bytes], streamed: str, *, planned: bool, quiet: bool = False
    ) -> None:
        """`connect` is the client's packet, `again` are messages of it, `streamed` the id of a cut answer."""
        self.state = State.OPENING
        self.has_named = False  # whether the instance has heard which session it is
        self._connect = connect
        self._again = again
        self._streamed = streamed
        self._planned = planned
        self._quiet = quiet
        self._owed: set[int] = set()  # numbers of messages that are not acknowledged
        self.being_answered: list[bytes] = []  # those of them whose answer is still to come, oldest first

    @property
    def is_connected(self) -> bool:
        """Whether the instance has taken the session, and the client has been told."""
        return self.state in {State.RESUMING, State.SAYING_AGAIN, State.DONE}

    def opened(self) -> list[HandOverAction]:
        """The OPEN packet has come."""
        self.state = State.ASKING
        return [ToBackend(_HELLO + _QUIETLY if self._quiet else _HELLO)]

    def hear(self, packet: bytes, raw: bytes, *, binary: bool = False) -> list[HandOverAction]:
        """The instance says a packet; `raw` is how the client gets it."""
        if binary and not self._quiet:
            return [ToClient(raw)] if self.is_connected else []
        if self.state is State.OPENING:
            return self.opened() if open_sid(packet) is not None else []
        head = packet_head(packet)
        if head is not None and head.namespace == HAND_OVER:
            return self._hear_own(head, packet)
        if packet == _GOODBYE:
            return self._give_up(Failure.BROKEN)
        if self._quiet and packet[:1] != NOOP:
            return self._give_up(Failure.NO_HOOKS)  # it does not hold back what is for the client
        if head is None or head.namespace != MAIN:
            passes = packet == PING or (self.is_connected and packet[:1] not in (OPEN, NOOP))
            return [ToClient(raw)] if passes else []
        return self._hear_main(head, raw)

    def parted(self) -> list[HandOverAction]:
        """The instance before has put down what it had, or will not."""
        return self._say_connect() if self.state is State.PARTING else []

    def _say_connect(self) -> list[HandOverAction]:
        """All at once: each is done when the one before it is, and not if that was refused."""
        self.has_named = True
        self.state = State.RESUMING if self._quiet else State.CONNECTING
        resume = json.dumps(["resume", {"streaming": self._streamed or None}]).encode()
        packets = [resume, *(packet[packet.index(b"[") :] for packet in self._again)]
        self._owed = set(range(1, len(packets)))
        asked = [ToBackend(_EVENT % (HAND_OVER, *each)) for each in enumerate(packets, _RESUME)]
        return [ToBackend(self._connect), *asked]

    def _hear_own(self, head: PacketHead, packet: bytes) -> list[HandOverAction]:
        if head.kind in {CONNECT_ERROR, DISCONNECT}:
            return self._give_up(Failure.NO_HOOKS)
        if head.kind == CONNECT and self.state is State.ASKING:
            if self._planned:
                self.state = State.PARTING
                return [Part()]
            return self._say_connect()
        if head.kind == ACK:
            return self._acknowledged(head.number, packet)
        return []

    def _hear_main(self, head: PacketHead, raw: bytes) -> list[HandOverAction]:
        if head.kind == DISCONNECT:
            return self._give_up(Failure.BROKEN)
        if self.state is State.CONNECTING and head.kind == CONNECT_ERROR:
            return self._give_up(Failure.REFUSED)
        if self.state is State.CONNECTING and head.kind == CONNECT:
            self.state = State.RESUMING
            return [Connected(), ToClient(raw)]
        if self.state is State.SAYING_AGAIN and head.kind == EVENT and turns_in(raw) == [False]:
            del self.being_answered[:1]
        return [ToClient(raw)] if self.is_connected else []

    def _acknowledged(self, number: int, packet: bytes) -> list[HandOverAction]:
        if self.state is State.RESUMING and number == _RESUME:
            if not packet.endswith(b"[true]"):
                return self._give_up(Failure.REFUSED)
            self.state = State.SAYING_AGAIN
            accepted: list[HandOverAction] = [Connected()] if self._quiet else []
            return accepted + ([] if self._owed else self._go_on())
        if self.state is not State.SAYING_AGAIN or number not in self._owed:
            return []
        if packet.endswith(b"[false]"):  # it cannot be taken here, so its user has to hear of it
            return self._give_up(Failure.REFUSED)
        self._owed.discard(number)
        if packet.endswith(b"[true]"):
            self.being_answered.append(self._again[number - 1])
        asked = _asked_number(self._again[number - 1])
        told: list[HandOverAction] = [Acknowledge(_ACKNOWLEDGED % asked)] if asked >= 0 else []
        return told + ([] if self._owed else self._go_on())

    def _go_on(self) -> list[HandOverAction]:
        self.state = State.DONE
        return [ToBackend(_BYE), GoneOn()]

    def _give_up(self, why: Failure) -> list[HandOverAction]:
        self.state = State.DONE
        return [GiveUp(why)]

    def __repr__(self) -> str:
        return f"<HandingOver {self.state.value} again={len(self._again)}>"


def said_again(packet: bytes) -> bytes:
    """A client's message as one that it may have said before, to an instance that has resumed its session."""
    at = packet.index(b"[")
    return packet[:at] + _AGAIN + packet[at + 1 :]


def _asked_number(packet: bytes) -> int:
    """The number with which a client asked for an acknowledgement, -1 if it did not."""
    head = packet_head(packet)
    return head.number if head is not None else -1
