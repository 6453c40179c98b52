"""A Socket.IO websocket from its 101 until its session has connected: events in, actions out.

Some clients name their session on the websocket (websocket only; python-socketio upgrades first and connects
then), some have named it by a poll before. So every message is read until Chainlit's namespace `/` connects,
which is when the backend says so. A CONNECT to `/` that names a session is held while it is asked where that
lives. If it lives elsewhere a new websocket is opened there, what was said to other namespaces is said again,
the CONNECT behind it, and answers that the client has had are swallowed (`rehome.Said`). A refused CONNECT
leaves all as it was: the client may try again.

What a client may say before that is bounded in number, size and time. Who is over a bound is refused, unless
it has connected a namespace of the app's own, or may have connected at another proxy by polls: then it is
watched no longer, and a later CONNECT stays where it is. While its backend has not opened or a CONNECT is
decided or on its way the client is not late, and more than the bound waits unread.

Pure: it knows no transport and no clock. Who drives it gives each event, and does what comes back in order.
"""

from enum import Enum

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
from proxy.affinity.rehome import OPEN, PROBED, Said
from proxy.errors import Limit, OddId
from proxy.wire.engineio import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    CONNECT_ERROR,
    EVENT,
    MAIN,
    OVERDUE,
    connect_session,
    is_quiet,
    open_sid,
    packet_head,
    ping_overdue,
)
from proxy.wire.messages import Message, MessageReader
from proxy.wire.websocket import BINARY, TEXT, FrameError, client_frame

_LONGEST_ANSWER = 1 << 20  # bytes of a backend's message: what an app's own namespaces are told may be long
_EVENTS = (EVENT, ACK, BINARY_EVENT, BINARY_ACK)
_PROBE, _UPGRADE = b"2probe", b"5"  # Engine.IO protocol 4: how a websocket takes over from polls


class State(Enum):
    """What it is at."""

    WATCHING = "watching"  # messages pass, the CONNECT to `/` is awaited
    ASKING = "asking"  # where its session lives is not known yet; what the client says waits
    MOVING = "moving"  # a websocket is opened elsewhere; the same
    CONNECTING = "connecting"  # the CONNECT is on its way; messages pass, its answer is awaited
    CONNECTED = "connected"  # messages pass until nothing is left to swallow, and the upgrade is over
    DONE = "done"


class Opening:
    """One websocket; made at its 101 by who drives it."""

    __slots__ = (
        "_answered",
        "_backend",
        "_client",
        "_connect",
        "_elsewhere",
        "_held",
        "_is_upgrade",
        "_late",
        "_talk",
        "_until_upgrade",
        "connect",
        "ping_overdue",
        "said",
        "sid",
        "state",
        "told",
        "upgraded",
    )

    def __init__(self, said: Said, *, upgrade: bool, connected: bool = False, told: bool = True) -> None:
        """`upgrade`: it takes over from polls; `connected`: a poll has named the session, and it is here.

        `said` is what its client has said by polls, and bounds what it says here. Unless `told`, another
        proxy may still say what the session is: until `word_has_come` it is watched.
        """
        self.state = State.CONNECTED if connected else State.WATCHING
        self.said = said
        self._client = MessageReader(said.most_bytes)
        self._backend = MessageReader(_LONGEST_ANSWER)
        self._connect = b""  # the frames of the CONNECT to `/`
        self.connect = b""  # what they say
        self._talk: list[bytes] = []  # of the upgrade, as it was said
        self._is_upgrade = upgrade
        self.upgraded = False  # whether the client's last word on the upgrade has passed
        self._until_upgrade = connected  # whether it is not settled before that
        self._elsewhere = False  # whether the client acts as one whose session has connected
        self.told = told
        self._late: list[bytes] = []  # frames to Chainlit, until another proxy has told where it is
        self._answered = False  # whether the answer to CONNECT came here
        self._held = False  # whether the client is not read
        self.sid = b""  # of the Engine.IO session that the backend opened for it, once it has told that
        self.ping_overdue = OVERDUE  # seconds after a ping; set when it has

    def client(self, data: bytes) -> list[Action]:
        """The client says bytes."""
        self._client.push(data)
        out: list[Action] = []
        self._read_client(out)
        return out

    def backend(self, data: bytes) -> list[Action]:
        """The backend says bytes; the one where it is, until another is `opened`."""
        self._backend.push(data)
        out: list[Action] = []
        awaited = self.state is State.CONNECTING
        self._read_backend(out)
        if awaited and self.state is State.WATCHING:  # it was refused: what waited is heard now
            self._read_client(out)
        return out

    def stays(self) -> list[Action]:
        """The session of the CONNECT lives here, or may."""
        if self.state is not State.ASKING and self.state is not State.MOVING:
            return []
        out: list[Action] = []
        self._say_connect(out)
        self._read_client(out)
        return out

    def moves(self) -> list[Action]:
        """The session lives elsewhere; also after a try to get there that failed."""
        if self.state is not State.ASKING and self.state is not State.MOVING:
            return []
        self.state = State.MOVING
        return [Open(fresh=True)]

    def moved(self) -> list[Action]:
        """A poll has moved the transport to another backend."""
        out: list[Action] = []
        if self.state is State.WATCHING:
            self.state = State.MOVING
            out.append(Open(fresh=False))
        elif self.state is not State.DONE:
            self._end(out, Close())
        return out

    def settled(self, *, resumes: bool) -> list[Action]:
        """Polls have told that the session is connected at this backend, or connects nowhere.

        `resumes`: there is something to say to the client behind its upgrade, before anything new.
        """
        out: list[Action] = []
        if self.state in {State.WATCHING, State.MOVING}:
            self._until_upgrade = resumes and not self.upgraded
            if self.state is State.WATCHING:
                self._is_connected(out)
            else:
                self._elsewhere = True
        return out

    def word_has_come(self) -> list[Action]:
        """Another proxy has told what the session is, or will not."""
        self.told = True
        out: list[Action] = []
        self._finish(out)
        return out

    def opened(self, rest: bytes) -> list[Action]:
        """The new websocket is open; `rest` came behind its 101. What the old one says is over."""
        out: list[Action] = []
        fresh = bool(self._connect)
        self._backend.clear()
        if fresh:
            again = self.said.again()
            self.said.repeats(OPEN)
            frames = [client_frame(BINARY if binary else TEXT, packet) for packet, binary in again]
            if frames:
                out.append(ToBackend(b"".join(frames)))
            self._say_connect(out)
        else:  # polls have said again there what was said to namespaces
            self.said.repeats(PROBED)
            if self._talk:
                out.append(ToBackend(b"".join(self._talk)))
            self.state = State.WATCHING
            if self._elsewhere:
                self._is_connected(out)
        self._backend.push(rest)
        self._read_backend(out)
        self._read_client(out)
        return out

    def late(self) -> list[Action]:
        """As much time has passed as a client may take to connect."""
        out: list[Action] = []
        if self.state is State.CONNECTED:
            self._settle(out)
        elif self.state is State.WATCHING and not self._waits_for_backend:
            if self.said.asked or self.upgraded:
                self._settle(out)
            else:
                self._give_up(out, Limit.OPENING_TIME)
        return out

    @property
    def _waits_for_backend(self) -> bool:
        """Whether the client cannot go on: it waits for the OPEN packet, or for the answer to its probe."""
        if self._is_upgrade:
            return bool(self._talk) and not self.upgraded and not self.said.has_heard(PROBED)
        return not self.sid

    @property
    def unsaid(self) -> int:
        """How many bytes of the client have not gone on."""
        return self._client.waiting

    @property
    def unread(self) -> bytes:
        """What has come of the backend's next message."""
        return self._backend.rest

    def _read_client(self, out: list[Action]) -> None:
        stuck = False
        try:
            while self._reads_client:
                message = self._client.next()
                if message is None:
                    break
                self._say(message, out)
        except FrameError:
            if self._client.is_broken:
                self._end(out, Close())
            elif self.state is State.CONNECTING:
                stuck = True
            else:
                self._is_over(out, Limit.OPENING_BYTES)
        except OddId as error:
            self._end(out, Refuse(error))
        held = stuck or (not self._reads_client and self._client.waiting > self.said.most_bytes)
        if held is not self._held and self.state is not State.DONE:
            self._held = held
            out.append(Hold(held))

    @property
    def _reads_client(self) -> bool:
        """Whether the client is listened to; one that is over a bound waits for the answer to its CONNECT."""
        if self.state is State.CONNECTING:
            return not self.said.is_over
        return self.state is State.WATCHING or self.state is State.CONNECTED

    def _say(self, message: Message, out: list[Action]) -> None:
        packet, main = message.payload, False
        if message.opcode == TEXT:
            named = connect_session(packet)
            head = packet_head(packet)
            if named is not None and (head is None or head.namespace == MAIN):
                self._name(message, named, out)
                return
            main = head is not None and head.namespace == MAIN
            self._keep(packet, message.raw, main=main)
        elif message.opcode == BINARY and self.state is State.WATCHING:
            self.said.say(packet, binary=True)
        self.said.counts(len(message.raw), message.frames)
        if not self.told and (self._late or main):  # the backend of its handshake may be another one
            self._late.append(message.raw)
        else:
            out.append(ToBackend(message.raw))
        if message.opcode == TEXT and packet == _UPGRADE and self._is_upgrade:
            self.upgraded = True
            self._finish(out)
        if self.said.is_over and self.state is not State.DONE and self.state is not State.CONNECTING:
            over_count = self.said.count > self.said.most_packets
            self._is_over(out, Limit.OPENING_FRAMES if over_count else Limit.OPENING_BYTES)

    def _say_late(self, out: list[Action]) -> None:
        if self._late:
            out.append(ToBackend(b"".join(self._late)))
            self._late.clear()

    def _keep(self, packet: bytes, raw: bytes, *, main: bool) -> None:
        """Keep what may have to be said again elsewhere."""
        if is_quiet(packet):
            if packet in {_PROBE, _UPGRADE}:
                self._talk.append(raw)
            return
        if main:
            self._elsewhere = self._elsewhere or self._is_upgrade
        if self.state is State.WATCHING:
            self.said.say(packet)

    def _name(self, connect: Message, named: str, out: list[Action]) -> None:
        """A CONNECT to `/`."""
        if self.state is State.WATCHING:
            self._connect, self.connect = connect.raw, connect.payload
            self.said.counts(len(connect.raw), connect.frames)
            if named:
                self.state = State.ASKING
                out.append(Ask(named))
            else:
                self._say_connect(out)
        else:
            out.append(ToBackend(connect.raw))  # once more, before it was answered

    def _say_connect(self, out: list[Action]) -> None:
        self.state = State.CONNECTING
        out.append(ToBackend(self._connect))

    def _read_backend(self, out: list[Action]) -> None:
        try:
            while self.state is not State.DONE and (message := self._backend.next()) is not None:
                self._hear(message, out)
        except FrameError:
            if self._backend.is_broken or self.said.owes:
                self._end(out, Close())  # it was offered no compression, so no bit is reserved for it
            else:
                self._settle(out)

    def _hear(self, message: Message, out: list[Action]) -> None:
        packet = message.payload
        is_text = message.opcode == TEXT
        if not is_text and message.opcode != BINARY:
            out.append(ToClient(message.raw))
            return
        head = packet_head(packet) if is_text else None
        if self.said.hear(packet, binary=not is_text, head=head):
            out.append(ToClient(message.raw))
        if is_text and not self.sid:
            self.sid = open_sid(packet) or b""
            self.ping_overdue = ping_overdue(packet)
        if head is not None and head.namespace == MAIN:
            self._hear_main(head.kind, out)
        self._finish(out)

    def _hear_main(self, kind: int, out: list[Action]) -> None:
        """Chainlit's own namespace answers the CONNECT, perhaps that of a poll, or is connected already."""
        awaited = self.state is State.CONNECTING or (self.state is State.WATCHING and self._is_upgrade)
        if awaited and kind in {CONNECT, CONNECT_ERROR}:
            if kind == CONNECT:
                self._answered = True
                self.state = State.CONNECTED
                out.append(Connected())
            else:
                self.state = State.WATCHING
                self._connect = self.connect = b""
                out.append(Refused())
        elif self.state is State.WATCHING and kind in _EVENTS:
            if self._is_upgrade:
                out.append(Connected())
            self._is_connected(out)

    def _is_connected(self, out: list[Action]) -> None:
        self.state = State.CONNECTED
        self._finish(out)

    def _finish(self, out: list[Action]) -> None:
        """Say what waited for a word, and settle if nothing is left to do here."""
        if self.told and self.state is not State.MOVING:
            self._say_late(out)
        waits = not self.told or self.said.owes or (self._until_upgrade and not self.upgraded)
        if self.state is State.CONNECTED and not waits:
            self._settle(out)

    def _is_over(self, out: list[Action], limit: Limit) -> None:
        """The client says more than is watched."""
        if self.state is State.CONNECTED:
            self._settle(out)
        else:
            self._give_up(out, limit)

    def _give_up(self, out: list[Action], limit: Limit) -> None:
        """Watch no longer: it goes on where it is, if anything has connected, or it is refused."""
        if self.said.connected or self._elsewhere:
            self._settle(out)
        else:
            self._end(out, Refuse(limit))

    def _settle(self, out: list[Action]) -> None:
        self._say_late(out)
        self._end(out, Settle(self._client.rest, self._backend.rest, self._answered))

    def _end(self, out: list[Action], action: Action) -> None:
        self.state = State.DONE
        if self._held:
            self._held = False
            out.append(Hold(on=False))
        out.append(action)

    def __repr__(self) -> str:
        return f"<Opening {self.state.value} {self.said!r}>"
