"""permessage-deflate as a client does it (RFC 7692), apart from the proxy's own."""

import itertools
import zlib

from tests.dataplane.frames import Socket as Plain
from tests.dataplane.frames import frame
from tests.dataplane.peers import Peer

TAIL = b"\x00\x00\xff\xff"
RSV1 = 0x40


def packed(payload: bytes, *, level: int = 6) -> bytes:
    """A message on its own, compressed."""
    packer = zlib.compressobj(level, wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def said(payload: bytes, *cuts: int, opcode: int = 1, between: bytes = b"") -> bytes:
    """A client's compressed message, cut into fragments there, with `between` them."""
    return in_frames(packed(payload), *cuts, opcode=opcode, between=between)


def in_frames(data: bytes, *cuts: int, opcode: int = 1, between: bytes = b"") -> bytes:
    """A client's message that consists of these compressed bytes; as `said`."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    out = b""
    for at, part in enumerate(parts):
        kind = 0 if at else opcode | RSV1
        out += frame(part, opcode=kind, masked=True, final=at + 1 == len(parts))
        out += between if at + 1 < len(parts) else b""
    return out


class Listener:
    """What a client hears: messages, and which of them came compressed."""

    def __init__(self, bits: int = 15) -> None:
        """`bits` of its window."""
        self._buffer = b""
        self._unpacker = zlib.decompressobj(wbits=-bits)
        self.sizes: list[int] = []  # of the frames, without their heads

    def hear(self, data: bytes) -> list[tuple[int, bytes]]:
        """The first byte, without RSV1, and the payload of each frame that has come whole."""
        self._buffer += data
        found = []
        while (parsed := self._frame()) is not None:
            first, payload = parsed
            self.sizes.append(len(payload))
            if first & RSV1:
                payload = self._unpacker.decompress(payload + TAIL)
            found.append((first & ~RSV1, payload))
        return found

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:at], "big")
        if len(buffer) < at + size:
            return None
        self._buffer = buffer[at + size :]
        return buffer[0], buffer[at : at + size]


class Socket(Plain):
    """A client's compressed websocket over a peer, after its 101."""

    def __init__(self, peer: Peer, bits: int = 15) -> None:
        super().__init__(peer, client=True)
        self._listener = Listener(bits)
        self._heard: list[tuple[int, bytes]] = []

    @property
    def sizes(self) -> list[int]:
        """Bytes of the frames that came."""
        return self._listener.sizes

    def say(self, *packets: bytes, opcode: int = 1) -> None:
        """Send packets, a frame each; compressed unless they are control frames."""
        for packet in packets:
            is_control = opcode > 7
            self.peer.say(
                frame(packet, opcode=opcode, masked=True) if is_control else said(packet, opcode=opcode)
            )

    async def hear(self) -> bytes:
        """The payload of the next frame."""
        while not self._heard:
            self._heard += self._listener.hear(await self.peer.some())
        return self._heard.pop(0)[1]
