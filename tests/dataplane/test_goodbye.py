"""Clients hear all before they are let go, and are then let go at once."""

import asyncio

import pytest

from proxy.dataplane import evictions
from proxy.wire.websocket import CLOSE, SERVICE_RESTART
from tests.dataplane.frames import frame
from tests.dataplane.peers import WAIT, Message, Peer, get, ok
from tests.dataplane.test_half_closed import NO_LINGER, raw_session, send_away
from tests.dataplane.test_leaving import leave
from tests.dataplane.world import World, run

AT_ONCE = 1.0  # seconds


def test_who_has_answered_the_close_is_let_go_at_once() -> None:
    """RFC 6455 section 7.1.1: the server closes first, and a browser tells its page of the end only then."""

    async def test(world: World) -> None:
        client, backend = await raw_session(world, b"session-s")
        await send_away(world)
        told = await client.hear()
        assert int.from_bytes(told[:2], "big") == SERVICE_RESTART
        client.peer.say(frame(told, opcode=CLOSE, masked=True))
        try:
            async with asyncio.timeout(AT_ONCE):
                await client.peer.gone()
        finally:
            backend.peer.close()

    run(test, affinity=NO_LINGER)


@pytest.mark.parametrize("reads", [True, False])
def test_who_reads_slowly_has_the_whole_answer(reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend has said all: the process ends when its client has it, too, or takes nothing any more."""
    monkeypatch.setattr(evictions, "_STALLED", WAIT if reads else 0.5)

    async def test(world: World) -> None:
        body = b"x" * 100_000

        async def answer(peer: Peer, _: Message) -> None:
            peer.say(ok(body))

        world.backend.serve(answer)
        client = (await world.client(slow=True)).say(get())
        connection = world.connection()
        await world.until(lambda: connection.leg.has_unsent and connection.exchange is None)
        leaving = await leave(world)
        await asyncio.sleep(0.3)
        assert not leaving.done()
        if reads:
            assert (await client.response()).body == body
        await leaving
        assert connection.leg.has_unsent is not reads

    run(test, narrow=True)
