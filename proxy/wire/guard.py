"""What a client says on a Socket.IO websocket: whole packets, looked at as they pass.

A client may say CONNECT again: behind a DISCONNECT, behind a refusal, behind any other packet. So it is
followed for the websocket's whole life, at the cost of its frames' heads: of a message only the start is
read, unless it may be a CONNECT, which may name an odd session and then goes no further, or a message of the
user, which may have to be said again to another instance.
"""

from collections.abc import Callable

from proxy.errors import Odd, OddId
from proxy.wire.engineio import PONG, UPGRADE, connect_session
from proxy.wire.packets import GOODBYES, START, PacketReader
from proxy.wire.websocket import CLOSE, TEXT

_HEAD = 0x80 | TEXT
_PONG, _MESSAGE, _EVENT, _OPENS = b"342["
_ASKS = b"ce"  # how the names of ASKING begin
_NO_CONNECT = b"123456789"  # Socket.IO types other than CONNECT
ASKING = (b'["client_message"', b'["edit_message"')  # events that begin a turn (chainlit/socket.py)
_LONGEST_NUMBER = 12  # digits of an acknowledgement's number that is looked for


def is_plain(data: bytes) -> bool:
    """Whether `data` is one whole frame with a pong, or an event that begins no turn: what most reads are."""
    size = len(data)
    if size < 11 or data[0] != _HEAD:
        return size == 7 and data[:2] == b"\x81\x81" and data[2] ^ data[6] == _PONG
    if data[1] < 0xFE:
        at = 2
        if 0x80 + size - 6 != data[1]:
            return False
    else:
        at = 4
        if size < 13 or data[1] != 0xFE or (data[2] << 8 | data[3]) + 8 != size:
            return False
    return (
        data[at] ^ data[at + 4] == _MESSAGE
        and data[at + 1] ^ data[at + 5] == _EVENT
        and data[at + 2] ^ data[at + 6] == _OPENS
        and data[at] ^ data[at + 8] not in _ASKS
    )


def asks(packet: bytes) -> bool:
    """Whether a packet is a message of the user, which an app answers by a turn."""
    if not packet.startswith(b"42"):
        return False
    return packet[2 : 2 + _LONGEST_NUMBER + len(ASKING[0])].lstrip(b"0123456789").startswith(ASKING)


class ClientPackets(PacketReader):
    """Owned by the client's side of one websocket."""

    __slots__ = ("_asked", "_asked_too_long", "has_parted", "is_elsewhere", "owed_pongs", "upgraded")

    _masked = True

    def __init__(
        self, asked: Callable[[bytes], None] = lambda _: None, too_long: Callable[[], None] = lambda: None
    ) -> None:
        """`asked(packet)` is told of each message of the user, `too_long()` of one that cannot be read."""
        super().__init__()
        self._asked = asked
        self._asked_too_long = too_long
        self.has_parted = False  # whether the last message here was a farewell: a page is closed or left
        self.is_elsewhere = False  # whether it has connected once more, or to namespaces of the app's own
        self.upgraded = False  # whether it has said that it polls no more
        self.owed_pongs = 0  # that answer pings which the backend has not said

    def _wants(self, start: bytes, *, final: bool) -> bool:
        undecided = not final and len(start) < START
        return undecided or may_connect(start, final=final) or asks(start)

    def _hear(self, payload: bytes) -> bool:
        self.has_parted = payload in GOODBYES
        if payload == PONG and self.owed_pongs:
            self.owed_pongs -= 1
            return False
        if may_connect(payload, final=True):
            self._connects(payload)
        elif asks(payload) and not self._is_cut:
            self._asked(payload)
        self.upgraded = self.upgraded or payload == UPGRADE
        return True

    def _connects(self, packet: bytes) -> None:
        """Raises OddId."""
        if connect_session(packet) is not None:
            self.is_elsewhere = True

    def _control(self, opcode: int, frame: bytes) -> None:
        self.has_parted = opcode == CLOSE or self.has_parted

    def _too_long(self, start: bytes) -> None:
        if may_connect(start, final=False):
            raise OddId(Odd.SESSION, "CONNECT packet too long to find its session id")
        if asks(start):
            self._asked_too_long()


def may_connect(start: bytes, *, final: bool) -> bool:
    """Whether a text message that begins so may be a CONNECT; digits need not be those of ASCII."""
    if len(start) < 2 and final:
        return False
    if not start or start[0] >= 0x80:
        return True
    return start[0] == _MESSAGE and (len(start) < 2 or start[1] not in _NO_CONNECT)
