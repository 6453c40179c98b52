"""WebSocket frames for the tests: what a client and a server say (RFC 6455 section 5.2)."""

from proxy.wire.websocket import PING, PONG, FrameReader
from tests.dataplane.peers import Peer, get

MASK = b"\x01\x02\x03\x04"
ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n"
)


def upgrade(path: bytes, *lines: bytes) -> bytes:
    """A client's request for a websocket."""
    return get(
        path,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        *lines,
    )


def frame(payload: bytes, *, opcode: int = 1, masked: bool = False, final: bool = True) -> bytes:
    """One frame; a client's is masked."""
    first = bytes([(0x80 if final else 0) | opcode])
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 1 << 16:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    if not masked:
        return first + length + payload
    hidden = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return first + length + MASK + hidden


class Socket:
    """A websocket over a peer, after its 101."""

    def __init__(self, peer: Peer, *, client: bool) -> None:
        self.peer = peer
        self._client = client
        self._frames = FrameReader()

    def say(self, *packets: bytes, opcode: int = 1) -> None:
        """Send packets, a frame each."""
        self.peer.say(b"".join(frame(packet, opcode=opcode, masked=self._client) for packet in packets))

    async def hear(self) -> bytes:
        """The payload of the next frame; a server answers pings by itself."""
        while True:
            while (found := self._frames.next()) is None:
                self._frames.push(await self.peer.some())
            if found.opcode != PING or self._client:
                return found.payload
            self.say(found.payload, opcode=PONG)
