"""A leg knows for its transport's whole life who wants no more to be read, and what may still be written."""

import asyncio
import random
import socket
from typing import cast

import pytest

from proxy import net
from proxy.dataplane.leg import AHEAD, BEHIND, OPENING, Leg
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT
from tests.dataplane.scripted import Backend


class Transport(asyncio.Transport):
    """Notes what it is told; as strict as uvloop's."""

    def __init__(self, *, half: bool = True) -> None:
        super().__init__()
        self.reading = True
        self.closing = False
        self.half = half
        self.finished = 0
        self.unsent = 0

    def is_closing(self) -> bool:
        """As Transport."""
        return self.closing

    def pause_reading(self) -> None:
        """As Transport."""
        assert self.reading
        assert not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        """As Transport."""
        assert not self.reading
        assert not self.closing
        self.reading = True

    def can_write_eof(self) -> bool:
        """As Transport."""
        return self.half

    def write_eof(self) -> None:
        """As Transport."""
        self.finished += 1

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return self.unsent


def leg_of(*, half: bool = True) -> tuple[Leg, Transport]:
    """A leg and its transport."""
    transport = Transport(half=half)
    return Leg(transport), transport


def test_it_is_read_again_when_all_want_it() -> None:
    """Each only takes back its own wish, however often it was said."""
    leg, transport = leg_of()
    leg.pause(AHEAD)
    leg.pause()
    leg.pause(OPENING)
    leg.pause(OPENING)
    for who in (OPENING, BEHIND):
        leg.resume(who)
        assert (leg.paused, transport.reading) == (True, False)
    leg.resume(AHEAD)
    assert (leg.paused, transport.reading) == (False, True)
    leg.resume(AHEAD)
    assert transport.reading


def test_what_is_read_for_a_slow_peer_waits() -> None:
    """While a leg is behind, what is written to it is not read; then it is read on."""
    (slow, _), (source, read) = leg_of(), leg_of()
    slow.draw_from(source)
    assert read.reading
    slow.fell_behind()
    assert (slow.writable, read.reading) == (False, False)
    slow.caught_up()
    assert (slow.writable, read.reading) == (True, True)


def test_a_leg_that_is_let_go_reads() -> None:
    """A connection that goes back to its pool is read, however slow the client was that it served."""
    (slow, _), (source, read) = leg_of(), leg_of()
    slow.draw_from(source)
    slow.fell_behind()
    slow.draw_from(None)
    assert (source.paused, read.reading) == (False, True)
    slow.caught_up()
    assert read.reading


def test_a_source_of_a_leg_that_is_behind_waits_at_once() -> None:
    """Another source takes the place of one; what has stopped the first stops the second."""
    (slow, _), (first, one), (second, other) = leg_of(), leg_of(), leg_of()
    slow.draw_from(first)
    slow.fell_behind()
    slow.draw_from(second)
    assert (one.reading, other.reading) == (True, False)
    slow.draw_from(second)
    assert not other.reading


def test_a_closed_transport_is_left_alone() -> None:
    """Uvloop raises at one: whoever wants it paused or read on need not look."""
    leg, transport = leg_of()
    transport.closing = True
    leg.pause()
    leg.resume()
    assert (leg.may_write, leg.finish(), transport.finished) == (False, False, 0)


@pytest.mark.parametrize("half", [True, False])
def test_its_half_is_closed_once(half: bool) -> None:
    """What is said after the end reaches nobody; TLS has no half to close."""
    leg, transport = leg_of(half=half)
    assert leg.may_write
    assert leg.finish() is half
    assert not leg.finish()
    assert (leg.may_write, leg.can_finish, transport.finished) == (not half, half, int(half))


def test_a_peer_that_takes_nothing_is_stuck() -> None:
    """Whatever it takes begins its time anew, and a standstill of ours does not count."""
    leg, transport = leg_of()
    transport.unsent = 100
    assert not leg.is_stuck(0.0, 5.0)
    leg.fell_behind()
    assert [leg.is_stuck(now, 5.0) for now in (10.0, 14.0)] == [False, False]
    transport.unsent = 99
    assert [leg.is_stuck(now, 5.0) for now in (15.0, 19.5)] == [False, False]
    leg.move_on(60.0)
    assert [leg.is_stuck(now, 5.0) for now in (79.5, 80.0)] == [False, True]
    leg.caught_up()
    assert not leg.is_stuck(1000.0, 5.0)
    leg.fell_behind()
    assert not leg.is_stuck(1000.0, 5.0)


def test_what_the_kernel_holds_is_not_taken() -> None:
    """It has room for megabytes: its queue tells what a peer takes long before the transport can go on."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        leg = Leg(transport)
        transport.write(b"x" * 16_000_000)
        leg.fell_behind()
        assert not leg.is_stuck(1.0, 5.0)
        before = transport.get_write_buffer_size()
        came = 0
        while came < 500_000:
            came += len(theirs.recv(100_000))
        assert transport.get_write_buffer_size() == before
        assert not leg.is_stuck(6.0, 5.0)
        assert leg.is_stuck(11.0, 5.0)
        transport.abort()
        theirs.close()
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_wishes(seed: int) -> None:
    """It is read exactly while nobody wants it paused and no leg that it feeds is behind."""
    chance = random.Random(seed)
    (leg, transport), (slow, _) = leg_of(), leg_of()
    wishes: set[int] = set()
    feeds = False
    for _ in range(200):
        who = chance.choice((AHEAD, OPENING))
        match chance.randrange(6):
            case 0:
                leg.pause(who)
                wishes.add(who)
            case 1:
                leg.resume(who)
                wishes.discard(who)
            case 2:
                slow.fell_behind()
            case 3:
                slow.caught_up()
            case 4:
                slow.draw_from(leg)
                feeds = True
            case _:
                slow.draw_from(None)
                feeds = False
        assert transport.reading == (not wishes and not (feeds and not slow.writable))


def test_reset_is_seen_as_one() -> None:
    """A reset is no clean end for the other side, and a second one does nothing."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        lost = asyncio.Event()
        legs: list[Leg] = []

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                legs.append(Leg(cast("asyncio.Transport", transport)))

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        await net.connect(Client, "127.0.0.1", backend.port, WAIT)
        peer = await backend.accept()
        legs[0].reset()
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()
        await lost.wait()
        legs[0].reset()
        await backend.end()

    run_loop(test())
