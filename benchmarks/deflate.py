"""`python -m benchmarks.deflate`: what `websocket.compress` costs the proxy, and what it saves on the wire.

An answer is streamed through the tunnel's own objects, in this process and without sockets, by a websocket
as it is and by a compressed one. Printed are the bytes on the wire and the microseconds of CPU per token,
best of several rounds, and the memory of a websocket and of a context. What a compressed one costs more does
not depend on who else is on the machine.
"""

import asyncio
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any, cast

from proxy.affinity.session import Session
from proxy.affinity.untaken import Untaken
from proxy.dataplane.compressed import Compressed
from proxy.dataplane.ends import AppEnd
from proxy.dataplane.leg import Leg
from proxy.dataplane.stats import Stats
from proxy.wire.deflate import Contexts, Deflater, Inflater, agree
from proxy.wire.websocket import TEXT, server_frame

ROUNDS = 7
TOKENS = 5000
STATS = Stats()
MANY = 500  # websockets whose memory is measured
TEXT_OF = Path(__file__).parents[1] / "docs" / "operations.md"


class Wire:
    """A transport that counts what it is given."""

    def __init__(self) -> None:
        self.bytes = 0
        self.protocol = asyncio.Protocol()

    def write(self, data: bytes) -> None:
        """As Transport."""
        self.bytes += len(data)

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        """As Transport."""
        self.protocol = protocol


class Stream:
    """As that of an end."""

    active = talks = False
    pinged_at = 0.0


def tokens() -> list[bytes]:
    """Frames of Chainlit's `stream_token`, one for each word of a page."""
    words = TEXT_OF.read_text(encoding="utf-8").split()
    step = "b7a3a1c2-4a5f-4bb1-9d52-1d2a5a0d2f11"
    frames = []
    for number in range(TOKENS):
        token = {"id": step, "token": words[number % len(words)] + " ", "isSequence": False, "isInput": False}
        packet = "42" + json.dumps(["stream_token", token], separators=(",", ":"))
        frames.append(server_frame(TEXT, packet.encode()))
    return frames


def end(wire: Wire, contexts: Contexts | None) -> AppEnd:
    """The instance's side of a websocket whose client is on this wire; with `contexts` a compressed one."""
    transport: Any = wire
    if contexts is not None:
        agreed = agree([b"permessage-deflate; client_max_window_bits"])
        assert agreed is not None
        transport = Compressed(transport, Deflater(agreed, contexts), Inflater(1 << 20), STATS)
    stream: Any = Stream()
    return AppEnd(stream, Leg(cast("Any", Wire())), Leg(transport), Session("session-s", 0.0), Untaken())


def streamed(frames: list[bytes], *, compress: bool) -> tuple[float, float]:
    """Microseconds of CPU and bytes on the wire, per token."""
    best = float("inf")
    for _ in range(ROUNDS):
        wire = Wire()
        hear = end(wire, Contexts() if compress else None).data_received
        began = time.process_time()
        for frame in frames:
            hear(frame)
        best = min(best, time.process_time() - began)
    return best / len(frames) * 1e6, wire.bytes / len(frames)


def memory(frames: list[bytes]) -> tuple[float, float]:
    """KiB of a compressed websocket at rest, beside those of a plain one, and of its context."""
    contexts = Contexts()
    tracemalloc.start()
    began = tracemalloc.get_traced_memory()[0]
    plain = [end(Wire(), None) for _ in range(MANY)]
    before = tracemalloc.get_traced_memory()[0]
    packed = [end(Wire(), contexts) for _ in range(MANY)]
    at_rest = tracemalloc.get_traced_memory()[0]
    for one in packed:
        for frame in frames[:20]:
            one.data_received(frame)
    streaming = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(plain) == len(packed) == len(contexts)
    return (at_rest - 2 * before + began) / MANY / 1024, (streaming - at_rest) / MANY / 1024


def main() -> None:
    """Print the table."""
    frames = tokens()
    plain_us, plain_bytes = streamed(frames, compress=False)
    packed_us, packed_bytes = streamed(frames, compress=True)
    at_rest, context = memory(frames)
    print("| | plain | compressed |\n|---|---:|---:|")
    print(f"| bytes to the client per token | {plain_bytes:.0f} | {packed_bytes:.1f} |")
    print(f"| CPU per token, us, without system calls | {plain_us:.2f} | {packed_us:.2f} |")
    print(f"\nA compressed websocket takes {at_rest:.1f} KiB more, and its context {context:.1f} KiB.")


if __name__ == "__main__":
    main()
