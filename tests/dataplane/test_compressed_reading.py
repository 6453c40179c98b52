"""What a client says on a compressed websocket: when it is heard, and how much of it waits."""

import asyncio
from typing import Any, cast

import pytest

from proxy.dataplane.compressed import Compressed
from proxy.dataplane.stats import Stats
from proxy.wire.deflate import Contexts, Deflater, Inflater, agree
from tests.dataplane.deflated import said

LONGEST, SIZE = 1_000_000, 90_000
HUGE = said(b'42["say","%b"]' % (b"abcdefgh" * (SIZE // 8)))


class Secure:
    """A transport with TLS: it closes when its client has said all, whoever would have it stay open."""

    paused = False

    def set_protocol(self, _protocol: asyncio.BaseProtocol) -> None:
        """As Transport."""

    def is_closing(self) -> bool:
        """As Transport."""
        return False

    def pause_reading(self) -> None:
        """As Transport."""
        self.paused = True

    def resume_reading(self) -> None:
        """As Transport."""
        self.paused = False

    def get_extra_info(self, name: str, _default: Any = None) -> object:
        """As Transport."""
        return self if name == "ssl_object" else None


class Busy(asyncio.Protocol):
    """Who has enough with the first piece that comes."""

    def __init__(self, between: Compressed) -> None:
        self.between = between
        self.heard = 0
        self.has_ended = False

    def data_received(self, data: bytes) -> None:
        """As Protocol."""
        self.between.pause_reading()
        self.heard += len(data)

    def eof_received(self) -> bool:
        """As Protocol."""
        self.has_ended = True
        return False


def listening() -> tuple[Secure, Compressed, Busy]:
    """A client's transport, and who hears of it what became plain."""
    agreed = agree([b"permessage-deflate"])
    assert agreed is not None
    below, deflater = Secure(), Deflater(agreed, Contexts())
    between = Compressed(cast("asyncio.Transport", below), deflater, Inflater(LONGEST), Stats())
    busy = Busy(between)
    between.set_protocol(busy)
    return below, between, busy


@pytest.mark.parametrize(("count", "all_of_it"), [(10, True), (100, False)])
def test_a_client_with_tls_that_has_said_all(count: int, all_of_it: bool) -> None:
    """What it said before it closed is heard, however slow its instance is; only so much of what is huge."""
    _, between, busy = listening()
    between.data_received(HUGE * count)
    assert busy.heard < SIZE
    assert not between.eof_received()
    assert busy.has_ended
    assert (busy.heard >= SIZE * count) is all_of_it
    assert busy.heard < LONGEST + 2 * SIZE


def test_no_more_is_read_than_is_heard() -> None:
    """While some of what came waits here its transport is paused: else all that TLS has would wait, too."""

    async def test() -> None:
        below, between, busy = listening()
        between.data_received(HUGE * 5)
        while busy.heard < SIZE * 5:
            assert below.paused
            between.resume_reading()
            assert below.paused
            await asyncio.sleep(0)
        between.resume_reading()
        assert not below.paused

    asyncio.run(test())
