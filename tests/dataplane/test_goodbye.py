"""After both close frames the server closes the connection first (RFC 6455 section 7.1.1)."""

import asyncio

from proxy.wire.websocket import CLOSE, SERVICE_RESTART
from tests.dataplane.frames import frame
from tests.dataplane.test_half_closed import NO_LINGER, raw_session, send_away
from tests.dataplane.world import World, run

AT_ONCE = 1.0  # seconds


def test_who_has_answered_the_close_is_let_go_at_once() -> None:
    """A browser tells its page of the end only then, so that it connects anew."""

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
