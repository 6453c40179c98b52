"""Answers that no instance should give: each is asked for by the path `/odd/NAME` and ends by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.dataplane.peers import Peer, ok

SOON = 0.05  # seconds that the proxy has to read what is said last, before the connection ends
STALL = 15.0  # seconds
LATE = 6.0  # seconds: longer than `timeouts.body` of the site
MUCH = 1000
LAST = b"Connection: close"  # what closes without it may have been given the next request
CUT = 0  # for a status
START = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


async def cut_chunk(peer: Peer) -> None:
    """Dies in the middle of a chunk."""
    await peer.say_slowly(START + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhalf")


async def cut_body(peer: Peer) -> None:
    """Ends in order before the body that it has announced is whole."""
    await peer.say_slowly(START + b"Content-Length: 1000\r\n\r\nhalf")
    peer.half_close()


async def bad_chunk(peer: Peer) -> None:
    """Has a chunk whose size is no number."""
    await peer.say_slowly(START + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n")


async def garbage(peer: Peer) -> None:
    """Speaks another protocol."""
    await peer.say_slowly(bytes(range(256)) * 4 + b"\r\n\r\n")


async def nothing(peer: Peer) -> None:
    """Ends without a word."""


async def cut_head(peer: Peer) -> None:
    """Ends in the middle of its head."""
    await peer.say_slowly(START)


async def huge_head(peer: Peer) -> None:
    """Has a head that does not end."""
    await peer.say_slowly(START)
    for number in range(MUCH):
        await peer.say_slowly(b"X-%d: %b\r\n" % (number, b"x" * 1000))


async def many_interim(peer: Peer) -> None:
    """Says 103 again and again, then answers."""
    await peer.say_slowly(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * MUCH + ok(b"ok", LAST))


async def unasked_switch(peer: Peer) -> None:
    """Switches to a protocol that nobody offered."""
    await peer.say_slowly(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")


async def two_lengths(peer: Peer) -> None:
    """Announces two lengths."""
    await peer.say_slowly(START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc")


async def too_much(peer: Peer) -> None:
    """Answers, and says what looks like the answer of the next request."""
    await peer.say_slowly(ok(b"mine") + ok(b"not yours"))


async def byte_by_byte(peer: Peer) -> None:
    """Answers one byte at a time."""
    for byte in ok(b"slow", LAST):
        await peer.say_slowly(bytes([byte]))
        await asyncio.sleep(0)


async def error_and_close(peer: Peer) -> None:
    """Answers 500 and closes, without having said that it will."""
    await peer.say_slowly(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno")
    peer.half_close()


async def stall(peer: Peer) -> None:
    """Reads nothing more, and says nothing, for longer than it takes to see that."""
    await asyncio.sleep(STALL)


async def late(peer: Peer) -> None:
    """Reads nothing for longer than a client may pause, then all that has come, and answers."""
    await asyncio.sleep(LATE)
    reading = asyncio.create_task(peer.rest())
    await asyncio.sleep(LATE)
    reading.cancel()
    await asyncio.wait([reading])
    await peer.say_slowly(ok(b"ok", LAST))


async def late_continue(peer: Peer) -> None:
    """Asks for the body as late, and answers."""
    await asyncio.sleep(LATE)
    await peer.say_slowly(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.read(4)
    await peer.say_slowly(ok(b"ok", LAST))


async def whole(peer: Peer) -> None:
    """Answers when all has come."""
    await peer.rest()


@dataclass(frozen=True, slots=True)
class OddAnswer:
    """One of them, and what a client is told: a status, 0 where it gets a part and is cut off."""

    answer: Callable[[Peer], Awaitable[None]]
    status: int
    body: bytes = b""  # that it gets; empty where it does not matter

    @property
    def name(self) -> str:
        """As in the path."""
        return self.answer.__name__


ODD_ANSWERS = [
    OddAnswer(cut_chunk, CUT),
    OddAnswer(cut_body, CUT),
    OddAnswer(bad_chunk, CUT),
    OddAnswer(garbage, 502),
    OddAnswer(nothing, 502),
    OddAnswer(cut_head, 502),
    OddAnswer(huge_head, 502),
    OddAnswer(many_interim, 200, b"ok"),
    OddAnswer(unasked_switch, 502),
    OddAnswer(two_lengths, 502),
    OddAnswer(too_much, 200, b"mine"),
    OddAnswer(byte_by_byte, 200, b"slow"),
    OddAnswer(error_and_close, 500),
]
OTHERS = (stall, late, late_continue, whole)
ANSWERS = {odd.name: odd.answer for odd in ODD_ANSWERS} | {other.__name__: other for other in OTHERS}


async def answer(name: str, peer: Peer) -> None:
    """Answer in that way."""
    await ANSWERS[name](peer)
    await asyncio.sleep(SOON)
